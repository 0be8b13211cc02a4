"""Rows of output projections that are added to the base: the only code that writes weights."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from star.errors import PatchError
from star.model import CodeModel
from star.product import Beside, Int8Linear

__all__ = ["Draft", "Patch", "Rows", "install", "installed", "load"]

_FORMAT = "1"
#: Bytes of a patch's header, and of the manifest in it: what it is made of is a few kB.
_LONGEST_HEADER, _LONGEST_MANIFEST = 1 << 24, 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What is added to some neurons of one layer, in fp32."""

    layer: int
    neurons: Int[Tensor, " k"]
    delta: Float[Tensor, "k d"]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A repair: rows to add to the base named by its fingerprint, and where they come from."""

    base: str
    rows: tuple[Rows, ...]
    #: Cases, method and its settings, verdict: plain JSON, not part of the identity.
    manifest: Mapping[str, Any] = field(default_factory=dict)

    #: Kept, once known: what is damaged on disk later must not be read again.
    _digest: str = field(default="", init=False, repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 over the base and every row: what a revision is made of."""
        if not self._digest:
            digest = hashlib.sha256(self.base.encode())
            for rows in self.rows:
                digest.update(f"{rows.layer} {tuple(rows.delta.shape)}".encode())
                digest.update(rows.neurons.long().contiguous().numpy().tobytes())
                digest.update(rows.delta.float().contiguous().numpy().tobytes())
            object.__setattr__(self, "_digest", digest.hexdigest())
        return self._digest

    @property
    def size_bytes(self) -> int:
        """What the rows take on disk."""
        return sum(rows.delta.numel() * 4 + rows.neurons.numel() * 8 for rows in self.rows)

    def save(self, path: Path) -> None:
        """Write the patch, all of it or nothing (synced, then renamed into place)."""
        tensors = {}
        for rows in self.rows:
            tensors[f"{rows.layer}.neurons"] = rows.neurons.long().contiguous()
            tensors[f"{rows.layer}.delta"] = rows.delta.float().contiguous()
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
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != _FORMAT:
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
            rows = tuple(_rows(path, file, layer, model) for layer in _layers(path, file, model.depth))
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


def _layers(path: Path, file: Any, depth: int) -> list[int]:
    names = set(file.keys())
    layers = sorted(int(name.split(".")[0]) for name in names if name.endswith(".neurons"))
    wanted = {f"{layer}.{part}" for layer in layers for part in ("neurons", "delta")}
    if names != wanted or not all(0 <= layer < depth for layer in layers):
        raise _bad(path, "has parts that no patch for this model has")
    return layers


def _rows(path: Path, file: Any, layer: int, model: CodeModel) -> Rows:
    """One layer's rows; shapes are looked at before anything is read."""
    index, delta = (file.get_slice(f"{layer}.{part}") for part in ("neurons", "delta"))
    shape = index.get_shape()
    if (index.get_dtype(), delta.get_dtype()) != ("I64", "F32"):
        raise _bad(path, f"has numbers of the wrong type in layer {layer}")
    if len(shape) != 1 or shape[0] > model.neurons or delta.get_shape() != [shape[0], model.width]:
        raise _bad(path, f"has rows of the wrong shape in layer {layer}")
    rows = Rows(layer, file.get_tensor(f"{layer}.neurons"), file.get_tensor(f"{layer}.delta"))
    known = (rows.neurons >= 0).all() and (rows.neurons < model.neurons).all()
    if not (known and (rows.neurons.diff() > 0).all()):
        raise _bad(path, f"names neurons out of order, twice or that are not there, in layer {layer}")
    if not rows.delta.isfinite().all():
        raise _bad(path, f"holds a number that is not finite in layer {layer}")
    return rows


def _bad(path: Path, what: str) -> PatchError:
    return PatchError(f"The patch {path.name} {what}; delete it, or take a good copy of it.")


def install(model: CodeModel, patches: Sequence[Patch]) -> None:
    """Make the weights base ⊕ patches: rebuilt from the base, never subtracted.

    Raises:
        PatchError: a patch is for another base; the model is untouched.
    """
    for patch in patches:
        if patch.base != model.fingerprint:
            raise PatchError(
                f"A patch for the base {patch.base[:12]} cannot be used with {model.fingerprint[:12]}; "
                "use it with the model that it was made for."
            )
    touched = {rows.layer for patch in (*model.patches, *patches) for rows in patch.rows}
    # Everything is computed before anything is set: an error leaves the old weights in force.
    rebuilt = {layer: _rebuilt(model, layer, patches) for layer in touched}
    for layer, made in rebuilt.items():
        _set(model, layer, made)
    model.patches = tuple(patches)


@contextmanager
def installed(model: CodeModel, patches: Sequence[Patch]) -> Iterator[None]:
    """Run with these patches and no others; afterwards with those that were there before."""
    before = model.patches
    install(model, patches)
    try:
        yield
    finally:
        install(model, before)


def _rebuilt(model: CodeModel, layer: int, patches: Sequence[Patch]) -> Tensor | Beside | None:
    """A layer's weight; where its numbers stay as they are, what stands beside them."""
    mine = [rows for patch in patches for rows in patch.rows if rows.layer == layer]
    projection = model.projection(layer)
    if isinstance(projection, Int8Linear):
        if not mine:
            return projection.base
        moved = torch.unique(torch.cat([rows.neurons for rows in mine]))
        return _beside(projection, moved, _summed(mine, moved, model.width))
    base = model.base_weight(layer)
    if not mine:
        return base
    weight = base.clone()
    index = torch.unique(torch.cat([rows.neurons for rows in mine]))
    _write(model, layer, weight, index, _summed(mine, index, model.width))
    return weight


def _set(model: CodeModel, layer: int, made: Tensor | Beside | None) -> None:
    """Have a layer compute with what ``_rebuilt`` made."""
    projection = model.projection(layer)
    if isinstance(made, Tensor):
        projection.weight.data = made
    else:
        projection.beside = made


def _beside(projection: Int8Linear, moved: Int[Tensor, " k"], delta: Float[Tensor, "k d"]) -> Beside:
    """The base's rows in fp32 with those that patches add, ascending: a new one, nothing is overwritten."""
    base = projection.base
    index = moved if base is None else torch.unique(torch.cat([base.neurons, moved]))
    rows = torch.zeros(len(index), delta.shape[1])
    if base is not None:
        rows[torch.searchsorted(index, base.neurons)] = base.rows
    rows[torch.searchsorted(index, moved)] += delta
    return Beside(index, rows)


def _summed(all_rows: Sequence[Rows], index: Int[Tensor, " k"], width: int) -> Float[Tensor, "k d"]:
    """The deltas of the neurons in ``index``, ascending, summed in order from the first rows on."""
    total = torch.zeros(len(index), width)
    for rows in all_rows:
        mine = torch.isin(rows.neurons, index)
        total[torch.searchsorted(index, rows.neurons[mine])] += rows.delta[mine]
    return total


def _write(model: CodeModel, layer: int, weight: Tensor, index: Tensor, delta: Tensor) -> None:
    """Set rows of a private copy to base + delta, added in fp32 whatever the weights are kept in."""
    rows = model.base_rows(layer)[index].float() + delta
    model.by_neuron(weight)[index] = rows.to(weight.dtype)


class Draft:
    """A patch in the making, on top of what is installed; its deltas are the fp32 masters.

    While a draft is open the model serves nobody else. ``close`` brings the installed weights back.
    """

    def __init__(self, model: CodeModel, neurons: Mapping[int, Int[Tensor, " k"]]) -> None:
        """Open a draft on some neurons by layer, ascending, all deltas zero."""
        self._model = model
        self._installed = model.patches
        self._rows = {
            layer: Rows(layer, index, torch.zeros(len(index), model.width))
            for layer, index in sorted(neurons.items())
        }
        #: What the installed patches add to the same neurons, and the draft's own copy of the weight.
        self._below: dict[int, Float[Tensor, "k d"]] = {}
        self._weights: dict[int, Tensor | None] = {}

    @property
    def neurons(self) -> dict[int, Int[Tensor, " k"]]:
        """The neurons that may move, by layer."""
        return {layer: rows.neurons for layer, rows in self._rows.items()}

    def add(self, layer: int, step: Float[Tensor, "k d"]) -> None:
        """Add to a layer's deltas, and put the result into the model."""
        self._rows[layer].delta.add_(step)
        self._put(layer)

    def deltas(self) -> dict[int, Float[Tensor, "k d"]]:
        """A copy of the deltas by layer, for ``restore``."""
        return {layer: rows.delta.clone() for layer, rows in self._rows.items()}

    def restore(self, deltas: Mapping[int, Float[Tensor, "k d"]]) -> None:
        """Go back to deltas taken earlier."""
        for layer, delta in deltas.items():
            self._rows[layer].delta.copy_(delta)
            self._put(layer)

    def patch(self, manifest: Mapping[str, Any]) -> Patch:
        """The draft as a patch; layers that did not move are left out."""
        rows = tuple(
            Rows(rows.layer, rows.neurons, rows.delta.clone())
            for rows in self._rows.values()
            if bool(rows.delta.any())
        )
        return Patch(self._model.fingerprint, rows, manifest)

    def close(self) -> None:
        """Bring the installed weights back."""
        for layer in self._weights:
            _set(self._model, layer, _rebuilt(self._model, layer, self._installed))
        self._weights.clear()

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _put(self, layer: int) -> None:
        """Write the draft's rows, and no others, as ``install`` would with the draft as the last patch."""
        rows = self._rows[layer]
        if isinstance(self._model.projection(layer), Int8Linear):
            self._put_beside(rows)
            return
        if layer not in self._weights:
            mine = [each for patch in self._installed for each in patch.rows if each.layer == layer]
            self._below[layer] = _summed(mine, rows.neurons, self._model.width)
            projection = self._model.projection(layer)
            projection.weight.data = self._weights[layer] = projection.weight.data.clone()
        weight = self._weights[layer]
        assert weight is not None
        _write(self._model, layer, weight, rows.neurons, self._below[layer] + rows.delta)

    def _put_beside(self, rows: Rows) -> None:
        """The same where a projection's numbers stay as they are."""
        draft = Patch(self._model.fingerprint, (rows,))
        self._weights[rows.layer] = None
        _set(self._model, rows.layer, _rebuilt(self._model, rows.layer, [*self._installed, draft]))
