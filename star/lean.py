"""The forward pass of Llama-like networks in int8, with a third of the calls that transformers' modules make.

One token waits for memory as long as its weights take; around the products, transformers' modules call as
much again (numbers in README.md). Whatever is not known here is left to the network itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from star import kernel
from star.few import Few
from star.product import Int8Linear, Share
from star.room import mapped
from star.team import team

__all__ = ["Lean", "Past", "lean_of"]

#: Names of transformers' own classes whose arithmetic is this one.
_KNOWN = ("LlamaForCausalLM", "Qwen2ForCausalLM")
#: Tables of positions that change with the length of a text are not known.
_STATIC = ("default", "linear", "llama3", "yarn")
#: Room for keys and values grows by so many tokens.
_ROOM = 128


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer computes with."""

    before: Float[Tensor, " d"]
    qkv: Int8Linear
    out: Int8Linear
    between: Float[Tensor, " d"]
    up: Int8Linear
    down: Int8Linear

    @property
    def linears(self) -> tuple[Int8Linear, ...]:
        """Its products, in the order in which they are made."""
        return self.qkv, self.out, self.up, self.down


class Past:
    """Keys and values of one sequence, for each layer; what is forgotten is only not looked at.

    The layers below the mark may have read more than those above, which a repair has changed: their last
    output is kept, to be gone on with.
    """

    def __init__(self, depth: int, heads: int, size: int, width: int) -> None:
        """Nothing read yet."""
        self.length = self.below = 0
        #: Keys and values, by layer, ``(2, l, h, room, s)``.
        self.both: Float[Tensor, "2 l h room s"] = torch.empty(2, depth, heads, 0, size)
        self.output: Float[Tensor, "room d"] = torch.empty(0, width)

    @property
    def room(self) -> int:
        """For so many tokens there is some."""
        return len(self.output)

    def reserve(self, length: int) -> None:
        """Have room for so many tokens."""
        if length <= len(self.output):
            return
        room = -(-length // _ROOM) * _ROOM
        both = mapped(*self.both.shape[:3], room, self.both.shape[4])
        output = mapped(room, self.output.shape[1])
        both[:, :, :, : self.below] = self.both[:, :, :, : self.below]
        output[: self.below] = self.output[: self.below]
        self.both, self.output = both, output

    def crop(self, length: int) -> None:
        """Forget what is behind the first ``length`` tokens."""
        self.length, self.below = min(self.length, length), min(self.below, length)

    def crop_above(self) -> None:
        """Forget all that the layers from the mark on have read."""
        self.length = 0


class Lean:
    """A network's own weights, in another order of calls; ``lean_of`` makes it."""

    def __init__(self, network: Any, layers: Sequence[Layer]) -> None:
        config, inner = network.config, network.model
        self._network = network
        self._layers = layers
        #: The first of the layers that repairs change, unless they are asked for others: the last half, as
        #: ``locate``, which stands above this module, has it.
        self.mark = len(layers) - max(1, round(len(layers) / 2))
        # As tensors: a number of Python's is made one in each call, which takes longer than to add it.
        self._epsilon, self._share = torch.tensor(config.rms_norm_eps), torch.tensor(1 / config.hidden_size)
        self._heads: int = config.num_attention_heads
        self._shared: int = config.num_key_value_heads
        self._size: int = inner.layers[0].self_attn.head_dim
        self._embedding: Tensor = inner.embed_tokens.weight.data
        self._last: Tensor = inner.norm.weight.data
        self._shape = self._heads, self._shared, self._size
        threads = team()
        head = network.lm_head
        self._few = (
            Few(threads, layers, head, self._last, config.rms_norm_eps, self.mark)
            if threads and isinstance(head, Int8Linear)
            else None
        )
        #: Cosines and signed sines by position.
        self._turns: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    def past(self) -> Past:
        """Of nothing."""
        return Past(len(self._layers), self._shared, self._size, self._embedding.shape[1])

    def read(self, past: Past, ids: Sequence[int], keep: int) -> Float[Tensor, "keep v"]:
        """Read on; the logits after the last ``keep`` of ``ids``, as the network itself computes them.

        ``past`` counts them when all layers have read them; an error before leaves it as it was. The layers
        below the mark have read either all of them or none.
        """
        start, stop = past.length, past.length + len(ids)
        past.reserve(stop)
        cosines, sines = self._turn(start, stop)
        known = past.below >= stop
        logits: Tensor
        hidden = past.output[start:stop] if known else self._embedding[torch.tensor(ids)].float()
        if self._few and len(ids) <= kernel.MOST:
            logits = self._few.read(past, hidden, (cosines, sines), self._shape, known, keep)
            past.length = stop
            past.below = max(past.below, stop)
            return logits
        mask = None if len(ids) == 1 else torch.ones(len(ids), stop, dtype=torch.bool).tril_(start)
        size = (self._heads + self._shared) * self._size
        for number, layer in enumerate(self._layers):
            if number < self.mark and known:
                continue
            if number == self.mark and not known:
                past.output[start:stop] = hidden
            read = layer.qkv.rows(self._normed(hidden, layer.before))
            heads = read[:, :size].view(len(ids), -1, self._size)
            turned = torch.mul(heads, cosines).addcmul_(torch.roll(heads, self._size // 2, -1), sines)
            keys, values = past.both[0, number], past.both[1, number]
            keys[:, start:stop] = turned[:, self._heads :].transpose(0, 1)
            values[:, start:stop] = read[:, size:].view(len(ids), -1, self._size).transpose(0, 1)
            queries = turned[:, : self._heads]
            if number == len(self._layers) - 1 and keep < len(ids):
                # Of what is above the last keys and values, only what was asked for is needed.
                queries, hidden = queries[-keep:], hidden[-keep:]
                mask = None if keep == 1 or mask is None else mask[-keep:]
            hidden = hidden + layer.out.rows(self._seen(queries, keys[:, :stop], values[:, :stop], mask))
            gate, up = layer.up.rows(self._normed(hidden, layer.between)).chunk(2, -1)
            hidden += layer.down.rows(functional.silu(gate).mul_(up))
        past.length = stop
        past.below = max(past.below, stop)
        logits = self._network.lm_head(self._normed(hidden[-keep:], self._last))
        return logits

    def _seen(
        self,
        queries: Float[Tensor, "n q s"],
        keys: Float[Tensor, "h l s"],
        values: Float[Tensor, "h l s"],
        mask: Bool[Tensor, "n l"] | None,
    ) -> Float[Tensor, "n width"]:
        """What every head makes of the values; without a mask there is one query, which looks at all."""
        if mask is None:
            # Heads that share keys are as good as so many tokens of one head.
            one = queries.view(1, self._shared, -1, self._size)
            seen: Tensor = functional.scaled_dot_product_attention(one, keys[None], values[None])
            return seen.view(1, -1)
        seen = functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, enable_gqa=True
        )
        return seen[0].transpose(0, 1).reshape(len(queries), -1)

    def _normed(self, hidden: Float[Tensor, "n d"], gain: Float[Tensor, " d"]) -> Float[Tensor, "n d"]:
        size: Tensor = torch.linalg.vector_norm(hidden, 2, -1, True).square_()
        return (hidden * size.mul_(self._share).add_(self._epsilon).rsqrt_()).mul_(gain)

    def _turn(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of positions, each ``(n, 1, s)``."""
        if len(self._turns[0]) < stop:
            room = -(-stop // _ROOM) * _ROOM
            # The first says in which type they are to be.
            cosines, sines = self._network.model.rotary_emb(self._last, torch.arange(room)[None])
            half = self._size // 2
            signed = torch.cat([-sines[0, :, :half], sines[0, :, half:]], -1)
            self._turns = (cosines[0, :, None], signed[:, None])
        return self._turns[0][start:stop], self._turns[1][start:stop]


def lean_of(network: Any) -> Lean | None:
    """The same forward pass in fewer calls; None where anything is not as it is known here."""
    if type(network).__name__ not in _KNOWN or not type(network).__module__.startswith("transformers."):
        return None
    config = network.config
    told: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    windows = {getattr(layer.self_attn, "sliding_window", None) for layer in network.model.layers}
    if config.hidden_act != "silu" or told.get("rope_type", "default") not in _STATIC or windows != {None}:
        return None
    layers: list[Layer] = []
    for each in network.model.layers:
        found = [
            _whole(each.self_attn.q_proj, 3),
            each.self_attn.o_proj,
            _whole(each.mlp.gate_proj, 2),
            each.mlp.down_proj,
        ]
        qkv, out, up, down = found
        if not all(isinstance(linear, Int8Linear) for linear in found):
            return None
        layers.append(
            Layer(
                each.input_layernorm.weight.data,
                qkv,
                out,
                each.post_attention_layernorm.weight.data,
                up,
                down,
            )
        )
    return Lean(network, layers)


def _whole(first: nn.Module, count: int) -> nn.Module | None:
    """The product that so many layers make together, of which this is the first."""
    together = first.together if isinstance(first, Share) and hasattr(first, "together") else None
    return together.whole if together is not None and together.count == count else None
