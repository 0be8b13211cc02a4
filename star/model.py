"""A causal language model of code that can be read from the inside.

Knows how to load, tokenize, run, and record what enters and leaves the output projections. It never
changes a weight: that is ``patch.py``'s alone.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from star.errors import CaseError, ModelError
from star.family import Family, family_of, tensor_at
from star.fingerprint import read_config
from star.history import Weights, base_of, weights_of
from star.lean import Lean, lean_of
from star.product import Int8Linear
from star.quantize import SAMPLE, Plan, kept, made, map_anew, quantize
from star.tokenizer import Plain, marks, start_ids, stop_ids, tokenizer_in
from star.vocabulary import Vocabulary

if TYPE_CHECKING:
    from star.patch import Patch

__all__ = ["CodeModel", "Stem", "Tap", "Trunk"]


#: So many tokens at most are looked back for the beginning of a character, which has at most four bytes.
_CONTEXT = 8


@dataclass(slots=True)
class Tap:
    """What passed one output projection in one run: ``inputs`` (t, f), ``outputs`` (t, d)."""

    inputs: Float[Tensor, "t f"]
    outputs: Float[Tensor, "1 t d"]

    @property
    def gradient(self) -> Float[Tensor, "t d"]:
        """Of what was computed from the outputs, with respect to them, in fp32; zero before that."""
        given = self.outputs.grad
        return torch.zeros_like(self.outputs[0]).float() if given is None else given[0].float()


class CodeModel:
    """A network, its tokenizer, and the way round in it."""

    def __init__(
        self,
        network: Any,
        tokenizer: Tokenizer,
        fingerprint: str,
        *,
        weights: Weights = "stored",
        folder: Path | None = None,
    ) -> None:
        """Take over a network, whose weights are from here on the base.

        Args:
            network: as it was loaded; is changed.
            tokenizer: belongs to it.
            fingerprint: of the stored weights; the model's own is another where it computes with others.
            weights: what all linear layers compute with.
            folder: where int8 weights are kept from one start to the next, if anywhere.

        Raises:
            UnsupportedFamily: no family for ``network.config.model_type``.
            ModelError: head and tokenizer do not fit.
        """
        self.family: Family = family_of(network.config.model_type)
        self.network = network.eval().requires_grad_(False)
        self.fingerprint = base_of(fingerprint, weights)
        #: Whether weights were rounded, and kept in the folder, for this one.
        self.rounded = False
        #: The active patches in order; set by ``patch.install`` only.
        self.patches: tuple[Patch, ...] = ()
        self._tokenizer, self._plain = tokenizer, Plain(tokenizer)
        self._layers: list[Any] = list(tensor_at(self.network, self.family.layers))
        #: The stored one, which need not be what the head computes with.
        self._head: Tensor = self.network.get_output_embeddings().weight.data
        self.stop_ids: frozenset[int] = stop_ids(self.network.config, tokenizer)
        if not self.stop_ids:
            raise ModelError(
                "This model has no token that ends a text; use the tokenizer that belongs to it."
            )
        #: What the tokenizer puts before every text: a token that begins it, or nothing.
        self.start_ids: tuple[int, ...] = start_ids(tokenizer)
        self.vocabulary = Vocabulary(tokenizer, self.stop_ids)
        if self.head.shape[0] < tokenizer.get_vocab_size():
            raise ModelError(
                f"The head of this model has {self.head.shape[0]} rows and its tokenizer "
                f"{tokenizer.get_vocab_size()} tokens; use the tokenizer that belongs to it."
            )
        if weights == "int8":
            together = [
                [f"{self.family.layers}.{layer}.{name}" for name in group]
                for layer in range(self.depth)
                for group in self.family.together
            ]
            plan = Plan.of(self.network, self.family.layers, together)
            ordinary = self.encode(SAMPLE)
            begun = [[*self.start_ids, *ordinary]]
            begun += [[*self.start_ids, mark, *ordinary[:16]] for mark in marks(self.stop_ids, tokenizer)]
            samples = [ids[: self.context] for ids in begun]
            # Numbers that were fitted to texts which begin otherwise are others.
            fitted = f"{fingerprint} {self.start_ids}" if self.start_ids else fingerprint
            if folder is None:
                numbers = made(self.network, plan, samples)
            else:
                numbers, self.rounded = kept(folder, self.network, plan, samples, fitted)
            quantize(self.network, plan, numbers)
            if folder is not None:
                numbers.clear()
                map_anew(self.network, folder, plan, fitted)
        #: The same forward pass in fewer calls, where this network's is known.
        self.lean: Lean | None = lean_of(self.network) if weights == "int8" else None
        #: The stored weight of a projection; one in int8 knows its own base.
        self._base: list[Tensor | None] = [
            None if isinstance(each, Int8Linear) else each.weight.data
            for each in map(self.projection, range(self.depth))
        ]

    @classmethod
    def load(cls, folder: Path, weights: Weights | None = None) -> "CodeModel":
        """The model in a folder made by the catalogue, its weights memory-mapped.

        Args:
            folder: tells in ``star-model.json`` what the model is to compute with.
            weights: something else to compute with.

        Raises:
            ModelError: the folder cannot be read as a model.
        """
        family_of(str(read_config(folder).get("model_type")))
        try:
            about = json.loads((folder / "star-model.json").read_text("utf-8"))
            fingerprint = str(about["fingerprint"])
            weights = weights or weights_of(about)
            tokenizer = tokenizer_in(folder)
        except Exception as error:  # two libraries, each with errors of its own; one says plain Exception
            raise _unreadable(folder, f"{type(error).__name__}: {error}") from error
        model = cls(_network(folder), tokenizer, fingerprint, weights=weights, folder=folder)
        if model.rounded:  # what was read for that would stay mapped: two gigabytes of the default model
            del model
            model = cls(_network(folder), tokenizer, fingerprint, weights=weights, folder=folder)
        return model

    # -- shape -----------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self._layers)

    @property
    def width(self) -> int:
        """Model width ``d``."""
        return self.base_shape[1]

    @property
    def neurons(self) -> int:
        """Neurons of one layer, ``f``."""
        return self.base_shape[0]

    @property
    def head(self) -> Float[Tensor, "v d"]:
        """The unembedding, as it is stored."""
        return self._head

    @property
    def final_gain(self) -> Float[Tensor, " d"]:
        """What the final norm multiplies each coordinate by."""
        weight: Tensor = tensor_at(self.network, self.family.norm).weight
        return weight.data.float() + self.family.gain_offset

    @property
    def context(self) -> int | None:
        """How many tokens the model can look at; None: as many as one likes."""
        limit: int | None = getattr(self.network.config, "max_position_embeddings", None)
        return limit

    def projection(self, layer: int) -> Any:
        """The output projection module of a layer."""
        return tensor_at(self._layers[layer], self.family.projection)

    @property
    def base_shape(self) -> tuple[int, int]:
        """Neurons of one layer, and the model's width."""
        first = self.projection(0)
        shape = first.numbers.shape if isinstance(first, Int8Linear) else first.weight.shape
        return (shape[0], shape[1]) if self.family.stored_by_neuron else (shape[1], shape[0])

    def base_weight(self, layer: int) -> Tensor:
        """The pristine output projection of a layer, the way round it is stored. Never write to it."""
        stored, projection = self._base[layer], self.projection(layer)
        if stored is not None:
            return stored
        assert isinstance(projection, Int8Linear)
        return projection.base_weight

    def base_rows(self, layer: int) -> Float[Tensor, "f d"]:
        """The pristine output projection of a layer, seen by neuron. Never write to it."""
        return self.by_neuron(self.base_weight(layer))

    def by_neuron(self, weight: Tensor) -> Float[Tensor, "f d"]:
        """A view of a stored projection weight with one neuron a row."""
        return weight if self.family.stored_by_neuron else weight.T

    # -- text ------------------------------------------------------------------------------------

    def token_id(self, token: str) -> int | None:
        """The id of a token by its very name, such as ``<|fim_prefix|>``."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text; text that spells a special token or markup stays text."""
        return tuple(self._plain(text))

    def encode_first(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that nothing stands before, behind what the model is used to there."""
        return (*self.start_ids, *self.encode(text))

    def encode_next(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that follows other text (no blank put before it by the tokenizer)."""
        mark, both = self.encode("\n"), self.encode("\n" + text)
        return both[len(mark) :] if both[: len(mark)] == mark else self.encode(text)

    def decode_next(self, prompt: Sequence[int], ids: Sequence[int], healed: str = "") -> str:
        """The text of ids behind a prompt, from ``healed`` on.

        What they spell depends on the tokens before: a first blank is one behind others alone, and of bytes
        that are tokens a text is made together.
        """
        context: list[int] = []
        before = "�"
        while "�" in before and len(context) < min(len(prompt), _CONTEXT):
            context = list(prompt[-len(context) - 1 :])
            before = self._tokenizer.decode(context, skip_special_tokens=False)
        both = self._tokenizer.decode([*context, *ids], skip_special_tokens=False)
        return str(both[len(before) + len(healed) :])

    # -- running ---------------------------------------------------------------------------------

    def fits(self, tokens: int) -> bool:
        """Whether so many tokens are no more than this model can read at once."""
        return self.context is None or tokens <= self.context

    def check_length(self, tokens: int) -> None:
        """Do nothing, if so many tokens fit.

        Raises:
            CaseError: they do not.
        """
        if not self.fits(tokens):
            limit = f"this model's context of {self.context}"
            raise CaseError(f"{tokens} tokens are more than {limit}; shorten the prompt.")

    def logits(
        self, ids: Sequence[int], positions: Sequence[int] | None = None, stem: "Stem | None" = None
    ) -> Float[Tensor, "n v"]:
        """Logits after each of ``positions`` (default: all) of one sequence of token ids, or of its rest.

        ``stem`` is what the model has read of what stands before ``ids``.

        Raises:
            CaseError: the sequence is longer than the model's context.
        """
        self.check_length(len(ids) + (stem.length if stem else 0))
        keep: Int[Tensor, " n"] = torch.tensor(range(len(ids)) if positions is None else list(positions))
        cache = stem.cache() if stem else None
        out = self.network(
            torch.tensor([list(ids)]), cache=cache, use_cache=cache is not None, logits_to_keep=keep
        )
        logits: Tensor = out.logits[0]
        return logits.float()

    @contextlib.contextmanager
    def tapped(self, layers: Sequence[int]) -> Iterator[dict[int, Tap]]:
        """Record what passes the output projections of ``layers`` while inside, ready for gradients.

        The lowest one's output becomes the leaf of the graph, so that a backward pass ends there and
        computes no gradient of any weight: a weight's is ``inputsᵀ · outputs.grad``.
        """
        taps: dict[int, Tap] = {}
        handles = [
            self.projection(layer).register_forward_hook(partial(_record, taps, layer, layer == min(layers)))
            for layer in layers
        ]
        try:
            yield taps
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def without_mlp(self, layer: int) -> Iterator[None]:
        """Run with the feed-forward block of a layer replaced by the identity."""
        block = tensor_at(self._layers[layer], self.family.mlp)
        handle = block.register_forward_hook(lambda _module, args, _output: args[0])
        try:
            yield
        finally:
            handle.remove()

    @contextlib.contextmanager
    def resumed(self, trunk: "Trunk", start: int = 0, stop: int | None = None) -> Iterator[None]:
        """Run only from ``trunk.layer`` up, on what was recorded below it at some positions (all)."""
        skipped = self._layers[: trunk.layer]
        output = trunk.part(start, stop)
        for layer in skipped:
            # An instance attribute shadows the class's forward; deleting it brings that back.
            layer.forward = lambda *_args, **_kwargs: output
        try:
            yield
        finally:
            for layer in skipped:
                del layer.forward

    def trunk(self, ids: Sequence[int], layer: int) -> "Trunk":
        """What the layers below ``layer`` make of a sequence, to be kept while only higher ones change."""
        if layer == 0:
            return Trunk(0)
        kept: list[Any] = []
        below = self._layers[layer - 1]
        handle = below.register_forward_hook(lambda _module, _args, output: kept.append(output))
        # The rest of the run is wasted; ending it by an exception is cheaper and reads as what it is.
        stop = self._layers[layer].register_forward_pre_hook(_leave)
        try:
            with torch.no_grad(), contextlib.suppress(_Left):
                self.logits(ids, [len(ids) - 1])
        finally:
            handle.remove()
            stop.remove()
        return Trunk(layer, kept[0])

    def stem(self, ids: Sequence[int], trunk: "Trunk") -> "Stem":
        """What the layers from ``trunk.layer`` up make of the first tokens of its sequence."""
        cache = _cache()
        layers = range(trunk.layer, self.depth)
        stop = tensor_at(self.network, self.family.norm).register_forward_pre_hook(_leave)
        try:
            with (
                torch.no_grad(),
                self.tapped(layers) as taps,
                self.resumed(trunk, 0, len(ids)),
                contextlib.suppress(_Left),
            ):
                self.network(torch.tensor([list(ids)]), cache=cache, use_cache=True, logits_to_keep=1)
        finally:
            stop.remove()
        return Stem(
            len(ids),
            tuple((cache.layers[layer].keys, cache.layers[layer].values) for layer in layers),
            {layer: tap.inputs for layer, tap in taps.items()},
        )


@dataclass(frozen=True, slots=True)
class Trunk:
    """The output of the layer below ``layer`` for one sequence (a tensor, or a tuple of them)."""

    layer: int
    output: Any = field(default=None, repr=False)

    def part(self, start: int, stop: int | None) -> Any:
        """That of some positions."""
        if isinstance(self.output, tuple):
            return (self.output[0][:, start:stop], *self.output[1:])
        return self.output if self.output is None else self.output[:, start:stop]


@dataclass(frozen=True, slots=True, eq=False)
class Stem:
    """What the layers above a trunk have made of the first tokens of its sequence, to be gone on from.

    As the weights were then: where they have changed since, what comes after it is only nearly right.
    """

    length: int
    #: Keys and values ``(1, h, t, s)``, of the layer above the trunk and of each that follows.
    pairs: tuple[tuple[Tensor, Tensor], ...]
    #: What passed the output projections, by layer.
    inputs: Mapping[int, Float[Tensor, "t f"]]

    def cache(self) -> Any:
        """Keys and values as the network asks for them; layers that do not run have those of another."""
        made = _cache()
        lowest = min(self.inputs)
        for layer in range(lowest + len(self.pairs)):
            made.update(*self.pairs[max(0, layer - lowest)], layer)
        return made


def _cache() -> Any:
    """Of nothing; one that forgets nothing, whatever the network looks at."""
    from transformers.cache_utils import DynamicCache  # costs seconds; only those who load pay

    return DynamicCache()


def _network(folder: Path) -> Any:
    """The network in a folder, its weights memory-mapped.

    Raises:
        ModelError: the folder cannot be read as a model.
    """
    from transformers import AutoModelForCausalLM  # costs seconds; only those who load pay
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        network, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, use_safetensors=True, output_loading_info=True
        )  # trust_remote_code stays off
    except Exception as error:
        raise _unreadable(folder, f"{type(error).__name__}: {error}") from error
    # Left alone, a weight that is not there would be made up at random.
    if absent := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise _unreadable(folder, f"it lacks the weight {absent[0]}")
    return network


def _record(
    taps: dict[int, Tap], layer: int, lowest: bool, _module: nn.Module, args: tuple[Tensor], output: Tensor
) -> Tensor:
    if lowest:
        output = output.detach().requires_grad_()
    elif output.requires_grad:
        output.retain_grad()
    taps[layer] = Tap(args[0].detach().reshape(-1, args[0].shape[-1]), output)
    return output


class _Left(Exception):
    """Ends a run whose rest nobody needs."""


def _leave(_module: nn.Module, _args: object) -> None:
    raise _Left


def _unreadable(folder: Path, why: str) -> ModelError:
    why = why.strip().splitlines()[0]
    return ModelError(f"The model in {folder} cannot be read ({why}); remove it and pull or import it again.")
