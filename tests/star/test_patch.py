"""Patches: installed, reverted, drafted, saved, loaded, refused."""

import gc
import json
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from operator import mul
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from star.errors import PatchError
from star.model import CodeModel
from star.parts import coarse_keys, coarse_values
from star.patch import Draft, Factors, Patch, Rows, install, installed, load, rounded, strip

IDS = tuple(range(5, 45))


def _patch(model: CodeModel, seed: int = 0, layers: tuple[int, ...] = (1, 3), scale: float = 0.1) -> Patch:
    random = torch.Generator().manual_seed(seed)
    rows = []
    for layer in layers:
        neurons = torch.randperm(model.neurons, generator=random)[:7].sort().values
        delta = torch.randn(7, model.width, generator=random) * scale
        rows.append(Rows(layer, neurons, delta) if seed % 2 == 0 else _factors(layer, neurons, delta[:3]))
    return Patch(model.fingerprint, tuple(rows), {"cases": [f"case {seed}"]})


def _factors(layer: int, neurons: Tensor, values: Tensor) -> Factors:
    random = torch.Generator().manual_seed(layer)
    keys = torch.randint(-(2**15), 2**15, (len(values), len(neurons)), generator=random, dtype=torch.int16)
    return Factors(layer, neurons, keys, rounded(values))


def _coarse(layer: int, neurons: Tensor, values: Tensor) -> Factors:
    """What takes few bits."""
    fine = _factors(layer, neurons, values)
    keys = torch.from_numpy(coarse_keys(fine.keys.double().numpy()))
    return Factors(layer, neurons, keys, torch.from_numpy(coarse_values(values.double().numpy())))


def _weights(model: CodeModel) -> list[Tensor]:
    return [model.projection(layer).weight.detach().clone() for layer in range(model.depth)]


def _same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


# -- install and revert ----------------------------------------------------------------------------


def test_a_patch_is_added_to_its_rows_and_to_no_others(model: CodeModel) -> None:
    patch = _patch(model)
    install(model, [patch])
    assert model.patches == (patch,)
    for layer in range(model.depth):
        moved = torch.zeros(model.neurons, model.width)
        for rows in patch.rows:
            if rows.layer == layer:
                moved[rows.neurons] = rows.delta
        weight = model.by_neuron(model.projection(layer).weight.data)
        assert torch.equal(weight, model.base_rows(layer) + moved)


def test_revert_restores_every_weight_and_logit_bit_for_bit(model: CodeModel) -> None:
    weights, logits = _weights(model), model.logits(IDS)
    install(model, [_patch(model, 0), _patch(model, 1, (3,)), _patch(model, 2)])
    assert not torch.equal(model.logits(IDS), logits)
    install(model, [])
    assert _same(_weights(model), weights)
    assert torch.equal(model.logits(IDS), logits)


def test_reverting_one_of_several_leaves_what_the_others_alone_would_make(model: CodeModel) -> None:
    a, b, c = (_patch(model, seed) for seed in range(3))
    install(model, [a, c])
    wanted = _weights(model)
    install(model, [a, b, c])
    assert not _same(_weights(model), wanted)
    install(model, [a, c])
    assert _same(_weights(model), wanted)


def test_how_one_got_to_a_history_does_not_matter(model: CodeModel) -> None:
    a, b, c = (_patch(model, seed) for seed in range(3))
    install(model, [a, b, c])
    wanted = _weights(model)
    for way in ([[c], [b, a]], [[b, c]], [[a], [a, b]]):
        for history in way:
            install(model, history)
        install(model, [a, b, c])
        assert _same(_weights(model), wanted)


def test_what_is_stripped_has_its_name_and_its_weights_still_and_can_be_left_but_not_built_on(
    model: CodeModel,
) -> None:
    base, a, b = _weights(model), _patch(model), _patch(model, 1)
    install(model, [a, b])
    wanted = _weights(model)
    strip(model)
    strip(model)  # once more is no more
    assert [patch.digest for patch in model.patches] == [a.digest, b.digest]
    assert not sum(patch.size_bytes for patch in model.patches)
    assert _same(_weights(model), wanted)
    for refused in (lambda: install(model, model.patches), lambda: Draft(model, {1: torch.tensor([0])})):
        with pytest.raises(PatchError, match="load it from its file"):
            refused()
    assert _same(_weights(model), wanted)
    install(model, [b])
    install(model, [])
    assert _same(_weights(model), base)


def test_bf16_patches_revert_bit_for_bit_too(half: CodeModel) -> None:
    weights = _weights(half)
    install(half, [_patch(half, 0), _patch(half, 1)])
    assert not _same(_weights(half), weights)
    install(half, [])
    assert _same(_weights(half), weights)


def test_an_install_that_fails_leaves_the_old_weights(model: CodeModel) -> None:
    good = _patch(model)
    install(model, [good])
    weights = _weights(model)
    astray = Patch(model.fingerprint, (Rows(0, torch.tensor([99]), torch.ones(1, 32)),))
    foreign = Patch("another base", good.rows)
    for bad, error in ((astray, IndexError), (foreign, PatchError)):
        with pytest.raises(error):
            install(model, [good, _patch(model, 1), bad])
        assert _same(_weights(model), weights)
        assert model.patches == (good,)


def test_the_base_is_never_written_to(model: CodeModel) -> None:
    before = [model.base_weight(layer).clone() for layer in range(model.depth)]
    install(model, [_patch(model)])
    with Draft(model, {2: torch.arange(5), 3: torch.arange(48)}) as draft:
        draft.add(2, torch.ones(5, 32))
        draft.add(3, torch.ones(48, 32))
    assert _same([model.base_weight(layer) for layer in range(model.depth)], before)


# -- drafts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [0, 2])
def test_a_draft_is_bit_for_bit_what_its_patch_makes(model: CodeModel, below: int) -> None:
    history = [_patch(model, seed) for seed in range(below)]
    install(model, history)
    found = _weights(model)
    random = torch.Generator().manual_seed(9)
    with Draft(model, {1: torch.arange(3, 20), 2: torch.arange(48)}) as draft:
        for _ in range(3):
            draft.add(1, torch.randn(17, 32, generator=random) * 0.01)
            draft.add(2, torch.randn(48, 32, generator=random) * 0.01)
        drafted, patch = _weights(model), draft.patch({})
    assert _same(_weights(model), found)
    install(model, [*history, patch])
    assert _same(_weights(model), drafted)


@pytest.mark.parametrize("below", [0, 3])
def test_a_draft_of_factors_is_bit_for_bit_what_its_patch_makes(model: CodeModel, below: int) -> None:
    history = [_patch(model, seed) for seed in range(below)]
    install(model, history)
    random = torch.Generator().manual_seed(9)
    with Draft(model, {1: torch.arange(3, 20), 3: torch.arange(48)}, factored=True) as draft:
        for layer, inner in ((1, 17), (3, 48)):
            lengths = draft.extend(layer, torch.randn(2, inner, generator=random))
            draft.extend(layer, torch.zeros(1, inner))
            assert float(draft.keys(layer).abs().max()) <= 1 < min(lengths)
            draft.add(layer, torch.randn(3, 32, generator=random) * 0.01)
        kept = draft.deltas()
        draft.extend(3, torch.randn(4, 48, generator=random))
        draft.add(3, torch.ones(7, 32))
        draft.restore(kept)  # what was added since has no value
        drafted, patch = _weights(model), draft.patch({})
    install(model, [*history, patch])
    assert _same(_weights(model), drafted)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_condensed_draft_comes_to_the_same_in_as_many_directions_as_were_steered(
    one: CodeModel, data: st.DataObject
) -> None:
    count, inner = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 48))
    steered = data.draw(st.integers(0, count))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    scale = data.draw(st.sampled_from([1e-3, 1.0, 50.0]))
    spread = torch.randn(count, steered, generator=random, dtype=torch.float64)
    with Draft(one, {2: torch.arange(inner)}, factored=True) as draft:
        lengths = draft.extend(2, torch.randn(count, inner, generator=random))
        for _ in range(2):
            steers = torch.randn(steered, 32, generator=random, dtype=torch.float64)
            draft.add(2, torch.tensor(lengths)[:, None] * (spread @ steers).float() * scale / 100)
        before = draft.patch({})
        draft.condense()
        drafted, after = _weights(one), draft.patch({})
    with installed(one, [after]):
        assert _same(_weights(one), drafted)
    assert len(after.rows) == len(before.rows) == bool(steered)
    for old, new in zip(before.rows, after.rows, strict=True):
        assert isinstance(new, Factors)
        assert len(new.keys) <= min(steered, inner)
        norm = float(torch.linalg.matrix_norm(old.delta, 2))
        assert float(torch.linalg.matrix_norm(new.delta - old.delta, 2)) < 2e-3 * norm


@given(data=st.data())
def test_what_is_brought_into_few_bits_comes_to_nearly_the_same(data: st.DataObject) -> None:
    count, inner = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 48))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    scale = data.draw(st.sampled_from([1e-3, 1.0, 50.0]))
    part = _factors(2, torch.arange(inner), torch.randn(count, 8, generator=random) * scale)
    patch = Patch("base", (part, _coarse(3, torch.arange(inner), part.values)), {"cases": ["a"]})
    (coarse, other), was = patch.coarse().rows, patch.rows[1]
    assert isinstance(coarse, Factors)
    assert "packed" in coarse.tensors
    norm = float(torch.linalg.matrix_norm(part.exact, 2)) if count else 0.0
    assert float(torch.linalg.matrix_norm(coarse.exact - part.exact, 2) if count else 0.0) <= 0.06 * norm
    torch.testing.assert_close(other.delta, was.delta, rtol=0, atol=0.02 * scale * count**0.5)
    assert patch.coarse().manifest == patch.manifest


@given(data=st.data())
def test_what_factors_come_to_is_exact_in_whatever_order_and_parts(data: st.DataObject) -> None:
    count, inner, width = (data.draw(st.integers(1, most)) for most in (9, 6, 5))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    scale = data.draw(st.sampled_from([1e-7, 1e-3, 1.0, 50.0]))
    neurons = torch.arange(inner)
    part = _factors(0, neurons, torch.randn(count, width, generator=random) * scale)
    numbers = [[int(value) for value in row] for row in (part.values.double() * 2**30).tolist()]
    columns = list(zip(*part.keys.tolist(), strict=True)), list(zip(*numbers, strict=True))
    wanted = [
        [float(Fraction(sum(map(mul, key, column)), 2**45)) for column in columns[1]] for key in columns[0]
    ]
    assert part.exact.tolist() == wanted
    some = torch.randperm(count, generator=random).split(max(1, count // 2))
    parts = [Factors(0, neurons, part.keys[each], part.values[each]).exact for each in some]
    assert sum(parts[1:], parts[0]).tolist() == wanted


@pytest.mark.process
def test_a_draft_keeps_what_rounding_to_bf16_would_lose(half: CodeModel) -> None:
    install(half, [_patch(half)])
    found = _weights(half)
    step = torch.full((48, 32), 1e-5)
    with Draft(half, {3: torch.arange(48)}) as draft:
        draft.add(3, step)
        once = _weights(half)[3]
        for _ in range(999):
            draft.add(3, step)
        drafted, patch = _weights(half), draft.patch({})
    moved = (drafted[3].float() - found[3].float()).mean()
    assert (once != found[3]).float().mean() < 0.1  # a single step is mostly too small to be seen
    assert float(moved) == pytest.approx(1e-2, rel=0.05)
    assert _same(_weights(half), found)
    install(half, [*half.patches, patch])
    assert _same(_weights(half), drafted)


def test_a_draft_goes_back_to_deltas_taken_earlier(model: CodeModel) -> None:
    with Draft(model, {3: torch.arange(10)}) as draft:
        draft.add(3, torch.ones(10, 32) * 0.1)
        kept, weights = draft.deltas(), _weights(model)
        draft.add(3, torch.ones(10, 32))
        draft.restore(kept)
        assert _same(_weights(model), weights)
        draft.add(3, torch.ones(10, 32))
        assert torch.equal(kept[3], torch.ones(10, 32) * 0.1)  # a copy: later steps do not reach it


def test_a_draft_becomes_a_patch_as_if_that_were_installed(one: CodeModel) -> None:
    for patch in (_patch(one, 1), _patch(one, 2)):
        neurons = {part.layer: part.neurons for part in patch.rows}
        with installed(one, [_patch(one, 3)]):
            with Draft(one, neurons, factored=isinstance(patch.rows[0], Factors)) as draft:
                draft.become(patch)
                assert draft.patch({}).digest == patch.digest
                drafted = _weights(one)
            install(one, [*one.patches, patch])
            assert _same(_weights(one), drafted)


def test_a_draft_is_closed_by_an_exception(model: CodeModel) -> None:
    install(model, [_patch(model)])
    found = _weights(model)

    def fail() -> None:
        with Draft(model, {1: torch.arange(48)}) as draft:
            draft.add(1, torch.ones(48, 32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert _same(_weights(model), found)


def test_a_layer_that_did_not_move_is_no_part_of_the_patch(one: CodeModel) -> None:
    with Draft(one, {1: torch.arange(3), 2: torch.arange(3)}) as draft:
        draft.add(2, torch.ones(3, 32))
        assert [rows.layer for rows in draft.patch({}).rows] == [2]


# -- files -----------------------------------------------------------------------------------------


def test_saved_loaded_and_installed_it_gives_the_same_logits(model: CodeModel, tmp_path: Path) -> None:
    patch = _patch(model)
    install(model, [patch])
    wanted = model.logits(IDS)
    install(model, [])
    patch.save(tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors", model)
    install(model, [loaded])
    assert torch.equal(model.logits(IDS), wanted)
    assert loaded.manifest == {"cases": ["case 0"]}
    assert loaded.digest == patch.digest


def test_layers_that_move_the_same_neurons_are_saved_as_any_others(one: CodeModel, tmp_path: Path) -> None:
    every = torch.arange(one.neurons)
    delta = torch.ones(one.neurons, one.width)
    patch = Patch(one.fingerprint, tuple(Rows(layer, every, layer * delta) for layer in (0, 1)))
    patch.save(tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors", one)
    assert loaded.digest == patch.digest
    assert [rows.tensors["delta"].mean() for rows in loaded.rows] == [0, 1]


@pytest.mark.process
@pytest.mark.parametrize("make", [_factors, _coarse])
def test_reading_a_patch_again_and_again_leaves_nothing_behind(
    one: CodeModel, tmp_path: Path, make: Callable[[int, Tensor, Tensor], Factors]
) -> None:
    path = tmp_path / "a.safetensors"
    parts = [make(layer, torch.arange(1, 8), torch.randn(3, 32)) for layer in (1, 3)]
    Patch(one.fingerprint, tuple(parts)).save(path)

    def left(times: int) -> int:
        for _ in range(times):
            load(path, one)
        gc.collect()
        return sys.getallocatedblocks()

    counts = [left(100) for _ in range(4)]  # names that types remember come first, so many and no more
    grown = [after - before for before, after in pairwise(counts)]
    # What never comes back would be one for each tensor, or more, each time; what others leave is not.
    assert min(grown) < 100


def test_factors_are_kept_as_such_and_take_little_room(one: CodeModel, tmp_path: Path) -> None:
    patch = _patch(one, 1)
    patch.save(tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors", one)
    assert all(isinstance(part, Factors) for part in loaded.rows)
    assert loaded.digest == patch.digest
    assert patch.size_bytes == 2 * (7 * 4 + 3 * 7 * 2 + 3 * 32 * 4)


@pytest.mark.parametrize("neurons", [[0, 1, 2, 3], [0, 1, 2], [2, 3, 5, 40], list(range(48))])
def test_coarse_factors_take_six_bits_a_key_and_eight_a_value_and_come_back_as_they_were(
    one: CodeModel, tmp_path: Path, neurons: list[int]
) -> None:
    part = _coarse(3, torch.tensor(neurons), torch.randn(5, 32))
    patch = Patch(one.fingerprint, (part,))
    patch.save(tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors", one)
    (back,) = loaded.rows
    assert isinstance(back, Factors)
    assert torch.equal(back.neurons, part.neurons)
    assert torch.equal(back.keys, part.keys)
    assert torch.equal(back.values, part.values)
    assert loaded.digest == patch.digest
    named = 0 if neurons in ([0, 1, 2, 3], list(range(48))) else 4 * len(neurons)
    assert patch.size_bytes == named + 5 * ((6 * len(neurons) + 7) // 8 + 32 + 1)
    assert patch.size_bytes < (tmp_path / "a.safetensors").stat().st_size < patch.size_bytes + 600


def test_a_file_is_for_its_owner_alone_and_nothing_else_is_left(one: CodeModel, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"older")
    path.chmod(0o644)
    _patch(one).save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_digest_is_of_the_base_and_the_rows_and_of_nothing_else(one: CodeModel) -> None:
    patch = _patch(one)
    assert patch.digest == "c0d72389767b746065d9aa18954f9eac296cb30953e9a7563cf6f4cae5b0ec83"
    assert Patch(patch.base, patch.rows, {"other": 1}).digest == patch.digest
    first = patch.rows[0]
    others = [
        Patch("another", patch.rows),
        Patch(patch.base, patch.rows[:1]),
        Patch(patch.base, patch.rows[::-1]),
        Patch(patch.base, (Rows(0, first.neurons, first.delta), patch.rows[1])),
        Patch(patch.base, (Rows(1, first.neurons, first.delta.nextafter(torch.tensor(9.0))), patch.rows[1])),
        _patch(one, 1),
    ]
    assert len({patch.digest, *(other.digest for other in others)}) == 7


GOOD: dict[str, Any] = {"3.neurons": torch.arange(4), "3.delta": torch.ones(4, 32)}


def _with(**changes: object) -> dict[str, Any]:
    renamed = {name.replace("_", "."): value for name, value in changes.items()}
    return {name: value for name, value in (GOOD | renamed).items() if value is not None}


FACTORS: dict[str, Any] = {
    "3.neurons": torch.arange(4).int(),
    "3.keys": torch.ones(2, 4, dtype=torch.int16),
    "3.values": torch.ones(2, 32),
}

PACKED: dict[str, Any] = {
    "3.neurons": torch.arange(4).int(),
    "3.packed": torch.ones(2, 3, dtype=torch.uint8),
    "3.mantissas": torch.ones(2, 32, dtype=torch.int8),
    "3.exponents": torch.tensor([0, -30], dtype=torch.int8),
}

BAD_TENSORS: dict[str, Mapping[str, Any]] = {
    "values between the exact ones": FACTORS | {"3.values": torch.full((2, 32), 2.0**-31)},
    "values that are not finite": FACTORS | {"3.values": torch.full((2, 32), float("inf"))},
    "more keys than values": FACTORS | {"3.values": torch.ones(1, 32)},
    "keys of other neurons": FACTORS | {"3.keys": torch.ones(2, 5, dtype=torch.int16)},
    "keys of more neurons than there are, unnamed": FACTORS
    | {"3.neurons": torch.arange(0).int(), "3.keys": torch.ones(2, 49, dtype=torch.int16)},
    "keys of one dimension": FACTORS | {"3.keys": torch.ones(4, dtype=torch.int16)},
    "keys in fp32": FACTORS | {"3.keys": torch.ones(2, 4)},
    "keys without values": {name: FACTORS[name] for name in ("3.neurons", "3.keys")},
    "rows and factors in one": FACTORS | {"3.delta": torch.ones(4, 32)},
    "packed keys of other neurons": PACKED | {"3.packed": torch.ones(2, 4, dtype=torch.uint8)},
    "packed keys of more neurons than there are, unnamed": PACKED
    | {"3.neurons": torch.arange(0).int(), "3.packed": torch.ones(2, 39, dtype=torch.uint8)},
    "packed keys of one dimension": PACKED | {"3.packed": torch.ones(3, dtype=torch.uint8)},
    "packed keys with a sign": PACKED | {"3.packed": torch.ones(2, 3, dtype=torch.int8)},
    "exponents of other keys": PACKED | {"3.exponents": torch.zeros(3, dtype=torch.int8)},
    "an exponent beyond all numbers": PACKED
    | {
        "3.exponents": torch.tensor([0, 127]).to(torch.int8),
        "3.mantissas": torch.full((2, 32), 9).to(torch.int8),
    },
    "an exponent below the exact ones": PACKED | {"3.exponents": torch.tensor([0, -31]).to(torch.int8)},
    "packed keys without exponents": {name: PACKED[name] for name in list(PACKED)[:3]},
    "packed keys and others": PACKED | {"3.keys": FACTORS["3.keys"], "3.values": FACTORS["3.values"]},
    "NaN": _with(**{"3.delta": torch.ones(4, 32).index_fill(0, torch.tensor([2]), float("nan"))}),
    "inf": _with(**{"3.delta": torch.full((4, 32), float("inf"))}),
    "wrong width": _with(**{"3.delta": torch.ones(4, 31)}),
    "delta of one dimension": _with(**{"3.delta": torch.ones(4)}),
    "neurons of two dimensions": _with(**{"3.neurons": torch.zeros(4, 1, dtype=torch.int64)}),
    "more deltas than neurons": _with(**{"3.delta": torch.ones(5, 32)}),
    "more neurons than there are": _with(**{"3.neurons": torch.arange(49), "3.delta": torch.ones(49, 32)}),
    "half precision": _with(**{"3.delta": torch.ones(4, 32).half()}),
    "neurons in 32 bits": _with(**{"3.neurons": torch.arange(4).int()}),
    "neuron out of range": _with(**{"3.neurons": torch.tensor([0, 1, 2, 48])}),
    "negative neuron": _with(**{"3.neurons": torch.tensor([-1, 1, 2, 3])}),
    "neuron twice": _with(**{"3.neurons": torch.tensor([0, 1, 1, 3])}),
    "neurons out of order": _with(**{"3.neurons": torch.tensor([3, 2, 1, 0])}),
    "one tensor too many": _with(**{"head": torch.ones(1)}),
    "no neurons": _with(**{"3.neurons": None}),
    "no delta": _with(**{"3.delta": None}),
    "layer out of range": {"4.neurons": torch.arange(4), "4.delta": torch.ones(4, 32)},
    "negative layer": {"-1.neurons": torch.arange(4), "-1.delta": torch.ones(4, 32)},
    "layer that is no number": {"a.neurons": torch.arange(4), "a.delta": torch.ones(4, 32)},
    "layer written twice": GOOD | {"03.neurons": torch.arange(4), "03.delta": torch.ones(4, 32)},
}


def _refused(path: Path, model: CodeModel) -> str:
    before = _weights(model)
    with pytest.raises(PatchError) as refused:
        load(path, model)
    message = str(refused.value)
    assert path.name in message
    assert message.endswith(".")
    assert _same(_weights(model), before)
    return message


@pytest.mark.parametrize("what", BAD_TENSORS)
def test_a_file_that_holds_what_no_patch_holds_is_refused_by_name(
    one: CodeModel, tmp_path: Path, what: str
) -> None:
    about = {"format": "1", "base": one.fingerprint, "manifest": "{}"}
    kinds = {"3.keys": FACTORS, "3.packed": PACKED}
    good = next((kinds[name] for name in BAD_TENSORS[what] if name in kinds), GOOD)
    save_file(dict(good), tmp_path / "good.safetensors", about)
    assert len(load(tmp_path / "good.safetensors", one).rows) == 1
    save_file(dict(BAD_TENSORS[what]), tmp_path / "bad.safetensors", about)
    assert "delete it, or take a good copy" in _refused(tmp_path / "bad.safetensors", one)


def test_neurons_that_are_all_go_unnamed_and_what_named_them_reads_alike(
    one: CodeModel, tmp_path: Path
) -> None:
    every = torch.arange(one.neurons)
    patch = Patch(one.fingerprint, (_factors(3, every, torch.randn(2, one.width)),))
    unnamed, named = tmp_path / "unnamed.safetensors", tmp_path / "named.safetensors"
    patch.save(unnamed)
    about = {"format": "2", "base": one.fingerprint, "manifest": "{}"}
    (part,) = patch.rows
    save_file(
        {f"3.{name}": each for name, each in (part.tensors | {"neurons": every.int()}).items()}, named, about
    )
    assert unnamed.stat().st_size < named.stat().st_size
    assert patch.size_bytes == sum(each.nbytes for name, each in part.tensors.items() if name != "neurons")
    for path in (unnamed, named):
        (back,) = load(path, one).rows
        assert torch.equal(back.neurons, every)
        assert load(path, one).digest == patch.digest


@pytest.mark.parametrize("change", [
    {"format": "5"}, {"format": None}, {"base": None}, {"manifest": None}, {"manifest": "{"},
    {"manifest": "[]"}, {"manifest": "[" * 100_000},
])  # fmt: skip
def test_a_file_with_a_wrong_header_is_refused_by_name(
    one: CodeModel, tmp_path: Path, change: dict[str, str | None]
) -> None:
    about = {"format": "1", "base": one.fingerprint, "manifest": "{}"} | change
    given = {key: value for key, value in about.items() if value is not None}
    save_file(dict(GOOD), tmp_path / "bad.safetensors", given)
    _refused(tmp_path / "bad.safetensors", one)


def test_a_patch_for_another_base_is_refused_and_says_which(one: CodeModel, tmp_path: Path) -> None:
    about = {"format": "1", "base": "0123456789abcdef", "manifest": json.dumps({})}
    save_file(dict(GOOD), tmp_path / "other.safetensors", about)
    message = _refused(tmp_path / "other.safetensors", one)
    assert "for the base 0123456789ab, and this model is tiny-qwen2-" in message


def test_a_truncated_file_is_refused_at_every_length(one: CodeModel, tmp_path: Path) -> None:
    _patch(one).save(tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in [*range(0, 40), *range(40, len(content), 53), len(content) - 1]:
        cut.write_bytes(content[:length])
        _refused(cut, one)
    cut.write_bytes(content + b"\0")
    _refused(cut, one)


def _missing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [_missing, Path.mkdir, lambda path: path.write_bytes(b"PK\3\4" * 99)])
def test_what_is_no_patch_at_all_is_refused_by_name(
    one: CodeModel, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "a.safetensors")
    _refused(tmp_path / "a.safetensors", one)


@settings(
    max_examples=settings.default.max_examples * 6 // 10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(at=st.integers(0, 4095), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_gives_a_patch_of_another_digest(
    one: CodeModel, tmp_path: Path, at: int, bit: int
) -> None:
    patch = Patch(one.fingerprint, (*_patch(one).rows, _coarse(2, torch.arange(48), torch.randn(3, 32))))
    path = tmp_path / "flipped.safetensors"
    patch.save(path)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        loaded = load(path, one)
    except PatchError:
        return
    assert loaded.digest != patch.digest or loaded.manifest != patch.manifest


def test_what_is_installed_in_the_meantime_is_gone_afterwards(model: CodeModel) -> None:
    before = _weights(model)
    with installed(model, []):
        install(model, [_patch(model, 1)])
        assert not _same(_weights(model), before)
    assert model.patches == ()
    assert _same(_weights(model), before)


def test_patches_are_installed_for_a_while_and_those_before_come_back_whatever_happens(
    model: CodeModel,
) -> None:
    first, second = _patch(model, 1), _patch(model, 2)
    install(model, [first])
    with installed(model, [first, second]):
        assert model.patches == (first, second)
    assert model.patches == (first,)
    with pytest.raises(ZeroDivisionError), installed(model, []):
        1 / 0  # noqa: B018
    assert model.patches == (first,)
    install(model, [])
