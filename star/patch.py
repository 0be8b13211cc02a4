"""What is added to rows of output projections of the base: the only code that writes weights."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Int16
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from star.errors import PatchError
from star.model import CodeModel
from star.parts import KEY, VALUE, coarse_keys, coarse_values, factors, layers, read
from star.product import Beside, Int8Linear
from star.room import mapped

__all__ = [
    "Draft",
    "Factors",
    "Part",
    "Patch",
    "Rows",
    "install",
    "installed",
    "load",
    "rounded",
    "strip",
]

_FORMAT = "4"
#: Format 1 has rows and no factors, format 2 names all neurons of these, format 3 packs none. All are read.
_FORMATS = ("1", "2", "3", _FORMAT)
#: The largest whole number that a key has.
_MOST = 2**15 - 1
#: Directions below this share of the strongest are left out: rounding weights to bf16 changes more (2⁻⁹).
_WEAK = 1e-3
#: Bytes of a patch's header, and of the manifest in it: what it is made of is a few kB.
_LONGEST_HEADER, _LONGEST_MANIFEST = 1 << 24, 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What is added to some neurons of one layer, in fp32."""

    layer: int
    neurons: Int[Tensor, " k"]
    delta: Float[Tensor, "k d"]

    @property
    def numbers(self) -> tuple[Tensor, ...]:
        """What the part is known by, besides its neurons."""
        return (self.delta.float(),)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is kept on disk, by the end of its name."""
        return {"neurons": self.neurons.long().contiguous(), "delta": self.delta.float().contiguous()}


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What is added to some neurons of one layer, as few directions: ``delta = keysᵀ · values``.

    Keys are whole numbers of 2⁻¹⁵, values multiples of 2⁻³⁰ in fp32: every sum of their products is exact in
    fp64, whatever the order, as long as no weight moves by more than 2⁸. So what they come to has one value,
    the same on every machine and with any number of threads.
    """

    layer: int
    neurons: Int[Tensor, " k"]
    keys: Int16[Tensor, "n k"]
    values: Float[Tensor, "n d"]

    @property
    def delta(self) -> Float[Tensor, "k d"]:
        """What is added, in fp32; made anew each time."""
        return self.exact.float()

    @property
    def exact(self) -> Float[Tensor, "k d"]:
        """The same in fp64, in which it is exact."""
        return (self.keys.double() * KEY).T @ self.values.double()

    @property
    def numbers(self) -> tuple[Tensor, ...]:
        """What the part is known by, besides its neurons."""
        return self.keys, self.values

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is kept on disk, by the end of its name."""
        kept = factors(self.neurons.numpy(), self.keys.numpy(), self.values.numpy())
        return {name: torch.from_numpy(each) for name, each in kept.items()}

    def coarse(self) -> "Factors":
        """Nearly the same, rounded until it can be packed: keys first, then the values that come nearest."""
        keys = torch.from_numpy(coarse_keys(self.keys.double().numpy()))
        nearest = torch.linalg.lstsq(keys.double().T, self.keys.double().T).solution
        values = coarse_values((nearest @ self.values.double()).numpy())
        return replace(self, keys=keys, values=torch.from_numpy(values))


#: What a patch adds to one layer.
Part = Rows | Factors


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A repair: what to add to the base named by its fingerprint, and where it comes from."""

    base: str
    rows: tuple[Part, ...]
    #: Cases, method and its settings, verdict: plain JSON, not part of the identity.
    manifest: Mapping[str, Any] = field(default_factory=dict)

    #: Kept, once known: what is damaged on disk later must not be read again.
    _digest: str = field(default="", init=False, repr=False)
    #: Whether what it adds has been let go.
    bare: bool = field(default=False, init=False)

    @property
    def digest(self) -> str:
        """SHA-256 over the base and every part: what a revision is made of."""
        if not self._digest:
            digest = hashlib.sha256(self.base.encode())
            for rows in self.rows:
                shapes = " ".join(str(tuple(each.shape)) for each in rows.numbers)
                digest.update(f"{rows.layer} {shapes}".encode())
                for each in (rows.neurons.long(), *rows.numbers):
                    digest.update(each.numpy().tobytes())
            object.__setattr__(self, "_digest", digest.hexdigest())
        return self._digest

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that it was made for, as far as its manifest names them."""
        named = self.manifest.get("cases")
        return tuple(each for each in named if isinstance(each, str)) if isinstance(named, list) else ()

    @property
    def size_bytes(self) -> int:
        """What the parts take on disk."""
        return sum(each.nbytes for rows in self.rows for each in rows.tensors.values())

    def coarse(self) -> "Patch":
        """Nearly the same, in a third of the room."""
        rows = tuple(part.coarse() if isinstance(part, Factors) else part for part in self.rows)
        return Patch(self.base, rows, self.manifest)

    def stripped(self) -> "Patch":
        """The same name and layers and nothing to install anew: what is installed still."""
        none = torch.zeros(0, dtype=torch.int64)
        rows = tuple(Rows(each.layer, none, torch.zeros(0, 0)) for each in self.rows)
        patch = Patch(self.base, rows)
        object.__setattr__(patch, "_digest", self.digest)
        object.__setattr__(patch, "bare", True)
        return patch

    def save(self, path: Path) -> None:
        """Write the patch, all of it or nothing (synced, then renamed into place)."""
        # A copy of each: layers of which all neurons move share one tensor, which safetensors does not take.
        tensors = {
            f"{rows.layer}.{name}": each.clone() for rows in self.rows for name, each in rows.tensors.items()
        }
        about = {"format": _FORMAT, "base": self.base, "manifest": json.dumps(dict(self.manifest))}
        part = path.with_name(f".{path.name}.part")
        content = save(tensors, about)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:  # a half on a full disk would only take what room there is
            part.unlink(missing_ok=True)
            raise


def load(path: Path, model: CodeModel) -> Patch:
    """The patch in a file, checked against the model it is for.

    Raises:
        PatchError: the file is damaged, is for another base, or holds what no patch may hold.
    """
    try:
        _look(path, model)
        with safe_open(path, "np") as file:  # of torch's, 40 bytes a tensor never come back (safetensors 0.8)
            about = file.metadata() or {}
            if about.get("format") not in _FORMATS:
                raise _bad(path, "is not a patch of this format")
            base = str(about.get("base"))
            if base != model.fingerprint:
                raise PatchError(
                    f"The patch {path.name} is for the base {base[:12]}, and this model is "
                    f"{model.fingerprint[:12]}; use it with the model that it was made for."
                )
            if len(about["manifest"]) > _LONGEST_MANIFEST:
                raise _bad(path, "has a manifest that is too large")
            manifest = json.loads(about["manifest"])
            if not isinstance(manifest, dict):
                raise _bad(path, "has a manifest that is no object")
            found = layers(file)
            if not all(0 <= layer < model.depth for layer in found):
                raise _bad(path, "has parts for layers that this model has not")
            rows = tuple(_checked(path, file, layer, model) for layer in found)
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise _bad(path, f"cannot be read ({error})") from error
    return Patch(base, rows, manifest)


def _look(path: Path, model: CodeModel) -> None:
    """Refuse a file that is no patch by its size or its header's, before either takes memory."""
    if not path.is_file():
        raise _bad(path, "cannot be read (there is no such file)")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    most = model.depth * model.neurons * (8 + 4 * model.width) + _LONGEST_HEADER
    if header > _LONGEST_HEADER or path.stat().st_size > most:
        raise _bad(path, "is larger than any patch for this model")


def _checked(path: Path, file: Any, layer: int, model: CodeModel) -> Part:
    """One layer's part, with nothing in it that no patch for this model has."""
    neurons, *numbers = map(torch.from_numpy, read(file, layer, model.neurons, model.width))
    known = (neurons >= 0).all() and (neurons < model.neurons).all()
    if not (known and (neurons.diff() > 0).all()):
        raise _bad(path, f"names neurons out of order, twice or that are not there, in layer {layer}")
    if not numbers[-1].isfinite().all():
        raise _bad(path, f"holds a number that is not finite in layer {layer}")
    if len(numbers) == 1:
        return Rows(layer, neurons, *numbers)
    keys, values = numbers
    if not torch.equal(values, rounded(values)):
        raise _bad(path, f"holds a number that is not as exact as all are in layer {layer}")
    return Factors(layer, neurons, keys, values)


def rounded(values: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Values as factors keep them."""
    return ((values.double() / VALUE).round() * VALUE).float()


def _bad(path: Path, what: str) -> PatchError:
    return PatchError(f"The patch {path.name} {what}; delete it, or take a good copy of it.")


def install(model: CodeModel, patches: Sequence[Patch]) -> None:
    """Make the weights base ⊕ patches: rebuilt from the base, never subtracted.

    Raises:
        PatchError: a patch is for another base, or has been stripped; the model is untouched.
    """
    for patch in patches:
        if patch.base != model.fingerprint:
            raise PatchError(
                f"A patch for the base {patch.base[:12]} cannot be used with {model.fingerprint[:12]}; "
                "use it with the model that it was made for."
            )
    _refuse_bare(patches)
    # Everything is computed before anything is set: an error leaves the old weights in force.
    _set(model, {layer: _rebuilt(model, layer, patches) for layer in _layers([*model.patches, *patches])})
    model.patches = tuple(patches)


def strip(model: CodeModel) -> None:
    """Let go what is installed, of which the weights have all they need: for who serves.

    On these patches nothing can be drafted, and to go back to them is to load them anew.
    """
    model.patches = tuple(patch if patch.bare else patch.stripped() for patch in model.patches)


def _refuse_bare(patches: Sequence[Patch]) -> None:
    if any(patch.bare for patch in patches):
        raise PatchError("What this patch adds has been let go; load it from its file.")


@contextmanager
def installed(model: CodeModel, patches: Sequence[Patch]) -> Iterator[None]:
    """Run with these patches and no others; afterwards with the very weights that were there before."""
    before = model.patches
    stood = {layer: _standing(model, layer) for layer in _layers([*before, *patches])}
    install(model, patches)
    try:
        yield
    finally:
        others = _layers(model.patches) - stood.keys()  # of what was installed meanwhile
        _set(model, {layer: _rebuilt(model, layer, before) for layer in others} | stood)
        model.patches = before


def _layers(patches: Sequence[Patch]) -> set[int]:
    return {rows.layer for patch in patches for rows in patch.rows}


def _rebuilt(model: CodeModel, layer: int, patches: Sequence[Patch]) -> Tensor | Beside | None:
    """A layer's weight; where its numbers stay as they are, what stands beside them."""
    mine = [rows for patch in patches for rows in patch.rows if rows.layer == layer]
    projection = model.projection(layer)
    if not mine:
        return projection.base if isinstance(projection, Int8Linear) else model.base_weight(layer)
    return _made(model, layer, _Sum(mine))


def _made(model: CodeModel, layer: int, added: "_Sum") -> Tensor | Beside:
    """The same, from what is added to the base."""
    projection = model.projection(layer)
    if isinstance(projection, Int8Linear):
        return _beside(model, projection, added)
    index, delta = added.total(model.width)
    weight: Tensor = model.base_weight(layer).clone()
    rows = model.base_rows(layer)[index].float() + delta  # in fp32 whatever the weights are kept in
    model.by_neuron(weight)[index] = rows.to(weight.dtype)
    return weight


def _set(model: CodeModel, made: Mapping[int, Tensor | Beside | None]) -> None:
    """Have layers compute with what ``_rebuilt`` made, or what stood there before."""
    for layer, each in made.items():
        projection = model.projection(layer)
        if isinstance(each, Tensor):
            projection.weight.data = each
        else:
            projection.beside = each


def _standing(model: CodeModel, layer: int) -> Tensor | Beside | None:
    """What a layer computes with now; it is never overwritten, only put aside."""
    projection = model.projection(layer)
    return projection.beside if isinstance(projection, Int8Linear) else projection.weight.data


def _beside(model: CodeModel, projection: Int8Linear, added: "_Sum") -> Beside:
    """The base's rows in fp32 with those that patches add, ascending: a new one, nothing is overwritten.

    Factors stay as they are until rows would take less room.
    """
    few = added.rank * (model.neurons + model.width) < model.neurons * model.width
    moved, delta = added.total(model.width, factors=not few)
    base = projection.base
    index = moved if base is None else torch.unique(torch.cat([base.neurons, moved]))
    rows = mapped(len(index), delta.shape[1])
    if base is not None:
        rows[torch.searchsorted(index, base.neurons)] = base.rows
    rows[torch.searchsorted(index, moved)] += delta
    if not (few and added.rank):
        return Beside(index, rows)
    return Beside(index, rows, added.factors(model.neurons))


class _Sum:
    """What parts of one layer come to: the exact sum of all factors, and after it rows in their order."""

    def __init__(self, parts: Sequence[Part], below: "_Sum | None" = None) -> None:
        """Add parts, the last ones; ``below`` are those before, whose factors are multiplied once."""
        self._new = [part for part in parts if isinstance(part, Factors)]
        self._below = below
        self._factors: list[Factors] = [*(below._factors if below else ()), *self._new]
        self._rows: list[Rows] = [
            *(below._rows if below else ()), *(part for part in parts if isinstance(part, Rows)),
        ]  # fmt: skip

    @property
    def rank(self) -> int:
        """How many keys all factors have."""
        return sum(len(each.keys) for each in self._factors)

    def factors(self, neurons: int) -> tuple[Float[Tensor, "r f"], Float[Tensor, "r d"]]:
        """All keys, over all neurons of the layer, and their values."""
        keys = mapped(self.rank, neurons).copy_(_keys(self._factors, torch.arange(neurons), torch.float32))
        values = _values(self._factors)
        return keys, mapped(*values.shape).copy_(values)

    def total(self, width: int, *, factors: bool = True) -> tuple[Int[Tensor, " k"], Float[Tensor, "k d"]]:
        """The neurons that move, ascending, and what is added to each, in fp32; of rows alone, or of all."""
        sums = [self._exact] if factors and self._factors else []
        index = [each for each, _ in sums] + [rows.neurons for rows in self._rows]
        neurons = torch.unique(torch.cat(index)) if index else torch.empty(0, dtype=torch.int64)
        total = mapped(len(neurons), width)
        for each, exact in sums:
            total[torch.searchsorted(neurons, each)] = exact.float()
        for rows in self._rows:
            total[torch.searchsorted(neurons, rows.neurons)] += rows.delta
        return neurons, total

    @cached_property
    def _exact(self) -> tuple[Int[Tensor, " k"], Float[Tensor, "k d"]]:
        """What all factors come to, in fp64: no order of summation makes a difference."""
        if self._below is not None and not self._new:
            return self._below._exact
        neurons = torch.unique(torch.cat([each.neurons for each in self._factors]))
        total: Tensor = _keys(self._new, neurons, torch.float64).T @ _values(self._new).double()
        if self._below is not None and self._below._factors:
            index, exact = self._below._exact
            total[torch.searchsorted(neurons, index)] += exact
        return neurons, total


def _keys(factors: Sequence[Factors], neurons: Int[Tensor, " k"], dtype: torch.dtype) -> Float[Tensor, "r k"]:
    """The keys of factors, over some ascending neurons, those that they are of among them."""
    keys = torch.zeros(sum(len(each.keys) for each in factors), len(neurons), dtype=dtype)
    start = 0
    for each in factors:
        stop = start + len(each.keys)
        keys[start:stop, torch.searchsorted(neurons, each.neurons)] = each.keys.to(dtype) * KEY
        start = stop
    return keys


def _values(factors: Sequence[Factors]) -> Float[Tensor, "r d"]:
    return torch.cat([each.values for each in factors])


class Draft:
    """A patch in the making, on top of what is installed.

    While a draft is open the model serves nobody else. ``close`` brings the installed weights back.
    """

    def __init__(
        self, model: CodeModel, neurons: Mapping[int, Int[Tensor, " k"]], *, factored: bool = False
    ) -> None:
        """Open a draft on some neurons by layer, ascending, all deltas zero.

        ``factored``: of factors, whose keys are told by ``extend``; otherwise of rows.

        Raises:
            PatchError: what is installed has been stripped.
        """
        _refuse_bare(model.patches)
        self._model = model
        self._installed = model.patches
        self._parts = {
            layer: Factors(
                layer, index, torch.zeros(0, len(index), dtype=torch.int16), torch.zeros(0, model.width)
            )
            if factored
            else Rows(layer, index, torch.zeros(len(index), model.width))
            for layer, index in sorted(neurons.items())
        }
        #: What the installed patches add to the layers that have moved.
        self._below: dict[int, _Sum] = {}
        #: What these layers computed with before.
        self._stood: dict[int, Tensor | Beside | None] = {}

    @property
    def neurons(self) -> dict[int, Int[Tensor, " k"]]:
        """The neurons that may move, by layer."""
        return {layer: part.neurons for layer, part in self._parts.items()}

    def extend(self, layer: int, keys: Float[Tensor, "n k"]) -> list[float]:
        """Have more keys in a layer of factors, of value zero; each is divided by what is given back."""
        part = self._parts[layer]
        assert isinstance(part, Factors)
        reach = keys.abs().amax(1, keepdim=True)
        reach = torch.where(reach > 0, reach, 1.0)
        new = (keys / reach / KEY).round().clamp(-_MOST, _MOST).to(torch.int16)
        values = torch.cat([part.values, torch.zeros(len(new), self._model.width)])
        self._parts[layer] = replace(part, keys=torch.cat([part.keys, new]), values=values)
        return [float(each) for each in reach]

    def keys(self, layer: int) -> Float[Tensor, "n k"]:
        """The keys of a layer of factors, in fp64."""
        part = self._parts[layer]
        assert isinstance(part, Factors)
        return part.keys.double() * KEY

    def earlier_keys(self, layer: int, cases: Set[str]) -> Float[Tensor, "e k"]:
        """The keys of installed patches for none of these cases, over the neurons that may move here."""
        factors = [
            part
            for patch in self._installed
            if cases.isdisjoint(patch.cases)
            for part in patch.rows
            if part.layer == layer and isinstance(part, Factors)
        ]
        keys = _keys(factors, torch.arange(self._model.neurons), torch.float32)
        return keys[:, self._parts[layer].neurons]

    def add(self, layer: int, step: Float[Tensor, "k d"]) -> None:
        """Add to a layer's deltas, or values, and put the result into the model."""
        self._put(layer, _moving(self._parts[layer]) + step)

    def deltas(self) -> dict[int, Float[Tensor, "k d"]]:
        """A copy of the deltas, or values, by layer, for ``restore``."""
        return {layer: _moving(part).clone() for layer, part in self._parts.items()}

    def restore(self, deltas: Mapping[int, Float[Tensor, "k d"]]) -> None:
        """Go back to deltas or values taken earlier; what came after has values of zero."""
        for layer, delta in deltas.items():
            count = len(_moving(self._parts[layer])) - len(delta)
            self._put(
                layer, torch.cat([delta, torch.zeros(count, delta.shape[1])]) if count else delta.clone()
            )

    def condense(self) -> None:
        """Have no more directions in layers of factors than they move in, and put that into the model.

        Places that shall stay still have keys of their own, but what is added has one direction for each
        place that was steered.
        """
        for layer, part in self._parts.items():
            if isinstance(part, Factors) and part.values.any():
                strength, keys, values = _directions(part)
                self._parts[layer] = replace(part, keys=part.keys[:0], values=part.values[:0])
                reach = torch.tensor(self.extend(layer, keys))
                self._put(layer, (strength * reach)[:, None] * values)

    def become(self, patch: Patch) -> None:
        """Be what a patch for the same neurons adds, and put that into the model."""
        for part in patch.rows:
            self._parts[part.layer] = part
            self._put(part.layer, _moving(part))

    def patch(self, manifest: Mapping[str, Any]) -> Patch:
        """The draft as a patch; layers that did not move are left out."""
        rows = tuple(part for part in self._parts.values() if bool(_moving(part).any()))
        return Patch(self._model.fingerprint, rows, manifest)

    def close(self) -> None:
        """Bring the installed weights back."""
        _set(self._model, self._stood)
        self._stood.clear()
        self._below.clear()

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _put(self, layer: int, moved: Float[Tensor, "k d"]) -> None:
        """Have the draft's part be so, and the weights as ``install`` would with it as the last patch."""
        part = self._parts[layer]
        part = (
            replace(part, values=rounded(moved)) if isinstance(part, Factors) else replace(part, delta=moved)
        )
        self._parts[layer] = part
        if layer not in self._below:
            mine = [rows for patch in self._installed for rows in patch.rows if rows.layer == layer]
            self._below[layer] = _Sum(mine)
            self._stood[layer] = _standing(self._model, layer)
        _set(self._model, {layer: _made(self._model, layer, _Sum([part], self._below[layer]))})


def _directions(
    part: Factors,
) -> tuple[Float[Tensor, " r"], Float[Tensor, "r k"], Float[Tensor, "r d"]]:
    """What factors come to as the fewest: singular values, and vectors of both sides, but for weak ones."""
    across, within = torch.linalg.qr((part.keys.double() * KEY).T)
    left, strength, right = torch.linalg.svd(within @ part.values.double(), full_matrices=False)
    count = int((strength > _WEAK * strength[0]).sum())
    return strength[:count], (across @ left[:, :count]).T, right[:count]


def _moving(part: Part) -> Tensor:
    return part.values if isinstance(part, Factors) else part.delta
