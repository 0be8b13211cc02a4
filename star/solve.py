"""What the located neurons should have added, from the semantics of the output vocabulary.

Vocabulary-defined semantics (arXiv 2401.16184): the basis of token ``v`` is row ``v`` of
``pinv(Hᵀ)``, H the unembedding with the final norm's gain folded in. A steer points from what the
model predicts to what is expected; the delta of least norm that gives every failing position its
steer is the patch's prior (STAR, arXiv 2503.12899).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from star.everyday import texts
from star.fisher import Fisher, fisher, known_by
from star.model import CodeModel
from star.parts import NOISE
from star.patch import installed

__all__ = [
    "Basis", "Guard", "damped", "minimum_norm", "natural", "normalized", "ordinary_code", "places", "shares",
    "sparing",
]  # fmt: skip

#: What multiplies columns from the left, ``(f, n)`` to ``(f, n)``: a symmetric matrix that need not be made.
Guard = Callable[[Tensor], Tensor]

_RIDGE = 1e-6
_CHUNK_ROWS = 8192
#: Singular values of the activations below this share of the largest count as zero.
_RANK_TOLERANCE = 1e-6
#: The least that a neuron counts in a weighed norm, as a share of what one counts on average.
_FLOOR = 0.1
#: The least that a direction of the outputs counts with ordinary predictions, as a share of the average.
_HEEDED = 0.1


class Basis:
    """What directions mean to a base: to its vocabulary, and to what it predicts of ordinary code.

    The semantic basis is ``H (HᵀH)⁻¹``, a row for each token, made where asked for.
    """

    def __init__(
        self,
        model: CodeModel,
        factor: Float[Tensor, "d d"] | None = None,
        ordinary: Mapping[int, Fisher] | None = None,
    ) -> None:
        """Take the Cholesky ``factor`` of ``HᵀH``, and what is ``ordinary``, or compute them (seconds)."""
        self._model = model
        self._head = model.head
        self._gain = model.final_gain
        self.factor = _gram_factor(self._head, self._gain) if factor is None else factor
        #: By layer, how ordinary code uses its output projection, where that was asked for.
        self.ordinary = dict(ordinary or {})
        self._damped: dict[int, Float[Tensor, "d d"]] = {}
        self._grams: dict[int, Float[Tensor, "r r"]] = {}

    def learn(self, layers: Sequence[int], cancelled: Callable[[], bool] = lambda: False) -> None:
        """Have how ordinary code uses some layers ready, by the base without patches (seconds, once).

        Raises:
            Cancelled: ``cancelled`` said so, between two passes.
        """
        missing = [layer for layer in layers if layer not in self.ordinary]
        if missing:
            with installed(self._model, []):
                self.ordinary |= fisher(self._model, texts(), missing, cancelled)

    def damped(self, layer: int) -> Float[Tensor, "d d"]:
        """The factor with which ``natural`` solves at a layer that was learnt; made once."""
        if layer not in self._damped:
            self._damped[layer] = damped(self.ordinary[layer].outputs)
        return self._damped[layer]

    def gram(self, layer: int) -> Float[Tensor, "r r"]:
        """How the inputs of ordinary code answer one another at a layer that was learnt, fp64; made once."""
        if layer not in self._grams:
            inputs = self.ordinary[layer].inputs.double()
            self._grams[layer] = inputs @ inputs.T
        return self._grams[layer]

    def rows(self, tokens: Sequence[int]) -> Float[Tensor, "n d"]:
        """The basis vectors of some tokens, ``(n, d)``."""
        rows = self._head[list(tokens)].float() * self._gain
        solved: Tensor = torch.cholesky_solve(rows.T.double(), self.factor).T
        return solved.float()

    def steer(self, expected: Sequence[int], predicted: Sequence[int]) -> Float[Tensor, "n d"]:
        """The normalized directions from predicted to expected tokens; zero where they are equal."""
        return normalized(self.rows(expected) - self.rows(predicted))


def ordinary_code(model: CodeModel) -> str:
    """Names what ``Basis.learn`` reads: what it made of other code does not hold."""
    return known_by(model, texts())


def normalized(directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Each row over its own interquartile range: ``σ = δ / (Q75 - Q25 + 1e-8)``."""
    quartiles = torch.quantile(directions, torch.tensor([0.25, 0.75]), dim=1, keepdim=True)
    scaled: Tensor = directions / (quartiles[1] - quartiles[0] + 1e-8)
    return scaled


def minimum_norm(
    activations: Float[Tensor, "n f"],
    steers: Float[Tensor, "n d"],
    guard: Guard | None = None,
    ridge: float = 0.0,
) -> Float[Tensor, "f d"]:
    """The least-squares solution of least norm of ``Z X = S``: ``X = M Zᵀ (Z M Zᵀ + ρ I)⁺ S``.

    ``guard`` multiplies by M, and says what the norm is a norm of; without one M is the identity. ρ is
    ``ridge`` times the mean diagonal: where two rows of Z are nearly the same and ask for different
    things, half a promise kept is better than a huge delta. Through the small Gram matrix, in double
    precision: equal rows are safe.
    """
    wide = activations.double()
    sent = wide.T if guard is None else guard(wide.T).double()
    return (sent @ shares(wide @ sent, steers, ridge)).float()


def shares(
    gram: Float[Tensor, "n n"], steers: Float[Tensor, "n d"], ridge: float = 0.0
) -> Float[Tensor, "n d"]:
    """How much of each key is added, in fp64: ``(G + ρ I)⁺ S``; G[i, j] is how key j answers at place i."""
    gram = gram.double()
    gram = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    added: Tensor = torch.linalg.pinv(gram, rtol=_RANK_TOLERANCE**2) @ steers.double()
    return added


def damped(heeded: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The Cholesky factor of ``F + ε I``, ε a tenth of the mean diagonal of F, ``heeded``; fp64."""
    sure = heeded.double()
    # Where nothing is heeded at all, every direction costs the same.
    floor = _HEEDED * sure.diagonal().mean() if sure.any() else 1.0
    factor: Tensor = torch.linalg.cholesky(sure + floor * torch.eye(len(sure), dtype=sure.dtype))
    return factor


def natural(
    directions: Float[Tensor, "n d"], pulls: Float[Tensor, "n d"], factor: Float[Tensor, "d d"]
) -> Float[Tensor, "n d"]:
    """Directions that go as far along some pulls G, and cost ordinary predictions least.

    The natural gradient ``G (F + ε I)⁻¹`` (Amari, 1998), each row so long that its product with its pull is
    that of the direction given; ``factor`` is that of ``F + ε I``, as ``damped`` makes it.
    """
    pulls = pulls.double()
    least = torch.cholesky_solve(pulls.T, factor).T
    far = (directions.double() * pulls).sum(1, keepdim=True)
    reached = (least * pulls).sum(1, keepdim=True)
    # Where nothing pulls, nothing moves.
    scaled: Tensor = least * torch.where(reached > 0, far / reached, 0.0)
    return scaled.float()


def sparing(
    own: Float[Tensor, "m f"],
    ordinary: Float[Tensor, "r f"] | None = None,
    gram: Float[Tensor, "r r"] | None = None,
    earlier: Float[Tensor, "e f"] | None = None,
) -> Guard | None:
    """The guard of a norm that is how much other activations would move; None where there are none.

    ``M = (UᵀU / m + EᵀE + BᵀB + ε I)⁻¹``, U the prompt's ``own``, E those at places of ``earlier`` repairs,
    each of which counts like all of the prompt, BᵀB the second moment of ``ordinary`` ones, ε a tenth of the
    mean diagonal without E, so that what hardly ever fires may be used, and what always does is spared.
    Through the smaller of two Gram matrices (Woodbury's identity), of which ``gram`` is ``B Bᵀ`` where known.
    What is as wide as a layer is multiplied in the type given, fp32 for a repair: keys are rounded to 2⁻¹⁵ of
    their largest, or less finely, and strong directions, which fp32 tells apart worst, hardly move. The rest
    is in fp64.
    """
    kind = own.dtype if ordinary is None else torch.promote_types(own.dtype, ordinary.dtype)
    near = own.to(kind) / max(len(own), 1) ** 0.5
    far = near[:0] if ordinary is None else ordinary.to(kind)
    inner = near.shape[1]
    floor = _FLOOR * sum(float(each.square().sum(dtype=torch.float64)) for each in (near, far)) / inner
    if not floor:
        return None
    near = near if earlier is None else torch.cat([near, earlier.to(kind)])
    count, exact = len(near), near.double()
    if inner <= count + len(far):
        scaled = torch.cat([exact, far.double()])
        whole = floor * torch.eye(inner, dtype=scaled.dtype) + scaled.T @ scaled
        return lambda columns: torch.linalg.solve(whole, columns.double()).to(columns.dtype)
    gram = far.double() @ far.double().T if gram is None else gram
    between = (near @ far.T).double()
    small = torch.cat([torch.cat([exact @ exact.T, between], 1), torch.cat([between.T, gram], 1)])
    small.diagonal().add_(floor)
    factor = torch.linalg.lu_factor(small)

    def guard(columns: Tensor) -> Tensor:
        rows = columns.T.to(kind)
        seen = torch.cat([rows @ near.T, rows @ far.T], 1)
        felt = torch.linalg.lu_solve(*factor, seen.T.double()).T.to(kind)
        solved: Tensor = (rows - felt[:, :count] @ near - felt[:, count:] @ far) / floor
        return solved.T.to(columns.dtype)

    return guard


def places(
    keys: Float[Tensor, "e f"], ordinary: Float[Tensor, "r f"], gram: Float[Tensor, "r r"] | None = None
) -> Float[Tensor, "e f"]:
    """What stood where keys were made, as far as these tell, of length one: ``(C⁻¹ + I/c)⁻¹ k``.

    A key is ``M z``; of M the prompt's own part is forgotten, and the rest is ``C⁻¹``, ``C = BᵀB + ε I`` as
    in ``sparing``, ``gram`` being ``B Bᵀ`` where known. Keys are rounded, so what is said of directions that
    ordinary code uses most, of which they have least, is noise: C counts c at most, ε times how much stronger
    keys are than that noise (Wiener's filter, of z as far spread as ordinary code).
    """
    floor = float(_FLOOR * ordinary.square().sum(0).mean())
    told = floor * float(torch.linalg.vector_norm(keys, dtype=torch.float64)) ** 2 / keys.numel() / NOISE
    if not told:
        return torch.zeros_like(keys)
    gram = ordinary.double() @ ordinary.double().T if gram is None else gram
    inner = gram + (floor + told) * torch.eye(len(gram), dtype=gram.dtype)
    felt = torch.linalg.solve(inner, (keys @ ordinary.T).double().T).T.to(keys.dtype)
    stood: Tensor = torch.nn.functional.normalize(floor / told * keys + felt @ ordinary)
    return stood


def _gram_factor(head: Float[Tensor, "v d"], gain: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    width = head.shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64)
    for start in range(0, len(head), _CHUNK_ROWS):
        rows = head[start : start + _CHUNK_ROWS].float() * gain
        gram += (rows.T @ rows).double()
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    factor: Tensor = torch.linalg.cholesky(gram)
    return factor
