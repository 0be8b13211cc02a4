"""Int8 layers compute what their weights say, whatever stands beside a row, and a repair works on them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from star import kernel, product, quantize
from star.cache import KVCache
from star.decode import decode
from star.errors import PatchError
from star.history import base_of
from star.locate import layers_by_loss
from star.model import CodeModel
from star.patch import Factors, Patch, Rows, install, installed, rounded
from star.product import Beside, Int8Linear, Share, round_rows
from star.quantize import Plan, made
from star.repair import repair
from star.stop import StopRule
from star.trace import prepare, trace
from tests import tiny

SIZES = st.integers(1, 70)
INPUTS = st.integers(2, 70)
SEEDS = st.integers(0, 999)


@cache
def _int8(model_type: str, dtype: torch.dtype = torch.float32) -> CodeModel:
    network = tiny.network(model_type, dtype=dtype)
    return CodeModel(network, tiny.tokenizer(), f"tiny-{model_type}", weights="int8")


@pytest.fixture(params=tiny.EACH)
def model(request: pytest.FixtureRequest) -> Iterator[CodeModel]:
    """A tiny int8 model of every architecture."""
    yield _int8(request.param)
    install(_int8(request.param), [])


@pytest.fixture
def one() -> Iterator[CodeModel]:
    """A tiny int8 model, for what no architecture makes different."""
    yield _int8("qwen2")
    install(_int8("qwen2"), [])


def _made(seed: int, rows: int, outputs: int, inputs: int) -> tuple[Int8Linear, Tensor]:
    torch.manual_seed(seed)
    bias = torch.randn(outputs) if seed % 2 else None
    x = torch.randn(rows, inputs) * 10.0 ** torch.randint(-3, 3, (rows, 1))
    x[:, 0] *= 100  # every model has coordinates that dwarf all others
    weight, neurons = torch.randn(outputs, inputs), torch.tensor([0, inputs - 1])
    beside = Beside(neurons, weight[:, neurons].T.contiguous()) if seed % 3 else None
    if beside and seed % 7 == 0:
        beside = replace(beside, factors=(torch.randn(3, inputs), torch.randn(3, outputs)))
    lift = torch.rand(inputs) + 0.5 if seed % 5 else None
    lifted = weight if lift is None else weight / lift
    return Int8Linear(*round_rows(lifted, neurons if beside else None), bias, beside, lift), x


@given(SEEDS, SIZES, SIZES)
def test_rounding_moves_no_weight_by_more_than_half_a_step(seed: int, outputs: int, inputs: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(outputs, inputs)
    weight[0] = 0
    numbers, scale = round_rows(weight)
    assert ((numbers * scale[:, None] - weight).abs() <= scale[:, None] * 0.501).all()
    assert int(numbers.min()) >= -127


@settings(deadline=None)
@given(SEEDS, SIZES, SIZES, INPUTS)
def test_the_product_is_that_of_the_dequantized_weight_to_fourteen_bits(
    seed: int, rows: int, outputs: int, inputs: int
) -> None:
    linear, x = _made(seed, rows, outputs, inputs)
    wide = linear.weight.double()
    beside, linear.beside = linear.beside, None
    lifted = x if linear.lift is None else x * linear.lift
    plain = linear.weight if linear.lift is None else linear.weight / linear.lift
    linear.beside = beside
    wanted = x.double() @ wide.T + (0 if linear.bias is None else linear.bias)
    # Each activation is off by at most half a fine digit of its row.
    error = lifted.double().abs().amax(1, keepdim=True) / 63 / 126 * 0.51 * plain.double().abs().sum(1)
    error += 1e-6 * (x.double().abs() @ wide.abs().T)  # what stands beside is added in fp32
    assert ((linear(x) - wanted).abs() <= error + 1e-5 * wanted.abs() + 1e-6).all()


@settings(deadline=None)
@given(SEEDS, SIZES, SIZES, INPUTS)
def test_a_row_gives_bit_for_bit_the_same_alone_and_among_others(
    seed: int, rows: int, outputs: int, inputs: int
) -> None:
    linear, x = _made(seed, rows, outputs, inputs)
    linear.beside = None  # fp32 is not that exact
    assert torch.equal(torch.cat([linear(row[None]) for row in x]), linear(x))


def _gradients(linear: Int8Linear, x: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
    """Of the inputs of a layer in int8, and of its dequantized weight."""
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    linear(mine).backward(pull)
    nn.functional.linear(theirs, linear.weight).backward(pull)
    assert mine.grad is not None
    assert theirs.grad is not None
    return mine.grad, theirs.grad


@settings(deadline=None)
@given(SEEDS, SIZES, SIZES, INPUTS)
def test_gradients_are_those_of_the_dequantized_weight(
    seed: int, rows: int, outputs: int, inputs: int
) -> None:
    linear, x = _made(seed, rows, outputs, inputs)
    pull = torch.randn(rows, outputs)
    with pytest.MonkeyPatch.context() as patch:  # in fp32, where nothing is compiled
        patch.setattr(product, "way", lambda: "plain")
        mine, theirs = _gradients(linear, x, pull)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(SEEDS, SIZES, SIZES, INPUTS)
def test_compiled_gradients_are_off_by_no_more_than_rounding_to_16_bits(
    seed: int, rows: int, outputs: int, inputs: int
) -> None:
    linear, x = _made(seed, rows, outputs, inputs)
    pull = torch.randn(rows, outputs)
    mine, theirs = _gradients(linear, x, pull)
    rounded = (pull * linear.scale).abs().amax(1, keepdim=True) / kernel.STEEPEST / 2
    lift = 1.0 if linear.lift is None else linear.lift
    allowed = rounded * linear.numbers.float().abs().sum(0) * lift
    assert ((mine - theirs).abs() <= allowed + 1e-4 + 1e-4 * theirs.abs()).all()


def test_the_other_ways_give_the_same_bits_and_the_first_one_but_for_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for inputs in (2, 33, 300, 3000):
        linear, x = _made(3, 9, 40, inputs)
        first, others = linear(x), []
        for way in ("packed", "plain", "parts"):
            with monkeypatch.context() as patched:
                patched.setattr(product, "way", lambda way=way: way)
                others.append(_made(3, 9, 40, inputs)[0](x))
        assert torch.equal(others[0], others[1])
        assert torch.equal(others[0], others[2])
        largest = first.abs().amax(1, keepdim=True)
        assert ((others[0] - first).abs() <= 1e-6 * largest).all()


def test_zeros_stay_zeros_and_what_is_no_number_stays_none() -> None:
    linear = Int8Linear(*round_rows(torch.randn(5, 8)))
    assert not linear(torch.zeros(3, 8)).any()
    bad = torch.ones(3, 8)
    bad[0, 0], bad[1, 0] = torch.nan, torch.inf
    assert linear(bad).isnan().all(1).tolist() == [True, True, False]


def test_a_layer_of_one_input_is_left_alone() -> None:
    network = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1))
    plan = Plan.of(network, "layers", ())
    quantize.quantize(network, plan, made(network, plan, ()))
    assert [type(module) for module in network] == [nn.Linear, Int8Linear]


@settings(deadline=None)
@given(SEEDS, st.integers(1, 9), INPUTS)
def test_no_sum_of_the_largest_numbers_is_cut(seed: int, rows: int, inputs: int) -> None:
    torch.manual_seed(seed)
    weight = torch.where(torch.rand(40, inputs) < 0.9, 1.0, -1.0)
    x = torch.where(torch.rand(rows, inputs) < 0.9, 1.0, -1.0)
    torch.testing.assert_close(Int8Linear(*round_rows(weight))(x), x @ weight.T, rtol=1e-5, atol=1e-5)


def test_layers_that_read_the_same_tensor_are_one_product_and_say_what_they_said_alone() -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"a": nn.Linear(8, 5), "b": nn.Linear(8, 3, bias=False), "c": nn.Linear(8, 2)})
    alone = {name: Int8Linear(*round_rows(m.weight.data), m.bias) for name, m in network.items()}
    x, other = torch.randn(3, 8, requires_grad=True), torch.randn(2, 8)
    plan = Plan.of(network, "layers", [["a", "b"], ["c", "d"]])
    assert set(plan.units) == {"a+b", "c"}
    quantize.quantize(network, plan, made(network, plan, ()))
    for given_ in (x, other, x):  # in turn, and one of them twice
        for name in ("a", "b", "c", "a"):
            assert torch.equal(network[name](given_), alone[name](given_))
    (network["a"](x).sum() + 2 * network["b"](x).sum()).backward()
    mine = x.grad
    x.grad = None
    (alone["a"](x).sum() + 2 * alone["b"](x).sum()).backward()
    torch.testing.assert_close(mine, x.grad)


def test_neurons_that_make_others_coarse_and_those_of_large_activations_stay_as_they_are() -> None:
    network = tiny.network("qwen2")
    projection = network.model.layers[1].mlp.down_proj
    projection.weight.data[:, 7] *= 50
    network.model.layers[1].mlp.up_proj.weight.data[30] *= 200
    weight = projection.weight.data.clone()
    plan = Plan.of(network, "model.layers", ())
    quantize.quantize(network, plan, made(network, plan, [[1, 2, 3], [4]]))
    there = network.model.layers[1].mlp.down_proj
    assert there.beside.neurons.tolist() == [7, 30]
    assert torch.equal(there.weight[:, [7, 30]], weight[:, [7, 30]])
    assert (there.weight - weight).abs().max() <= weight[:, 8:].abs().max() / 127


# -- models ----------------------------------------------------------------------------------------


def test_every_linear_layer_is_int8_and_says_what_it_said(model: CodeModel) -> None:
    stored = tiny.model(model.network.config.model_type)
    for name, module in stored.network.named_modules():
        there = model.network.get_submodule(name)
        if type(module) is not nn.Linear:
            assert type(there) is type(module)
        else:
            assert isinstance(there, Int8Linear | Share)
            wanted = module(inputs := torch.randn(2, module.in_features))
            off = 0.02 * float(wanted.detach().abs().max())
            torch.testing.assert_close(there(inputs), wanted, rtol=0, atol=off)
    for layer in range(model.depth):
        one, other = model.base_rows(layer), stored.base_rows(layer)
        assert (one - other).abs().max() <= other.abs().max() / 100
    assert torch.equal(model.head, stored.head)


def test_every_architecture_says_nearly_the_same(model: CodeModel) -> None:
    stored = tiny.model(model.network.config.model_type)
    ids = stored.encode("def f(x):\n    return x + 1\n")
    wanted, got = stored.logits(ids).log_softmax(-1), model.logits(ids).log_softmax(-1)
    kl = (wanted.exp() * (wanted - got)).sum(-1).mean()
    assert float(kl) < 1e-3


def test_every_architecture_writes_the_same_with_a_cache(model: CodeModel) -> None:
    cache, block = KVCache(model), StopRule.at("", "")
    for text in ("def f(x):\n    return ", "def f(x):\n    ret", "def g(", "def f(x):\n    return x"):
        prompt = model.encode(text * 3)
        assert decode(model, prompt, block, 6, cache=cache) == decode(model, prompt, block, 6)


def test_gradients_at_the_projections_are_those_of_the_dequantized_model(model: CodeModel) -> None:
    twin = CodeModel(tiny.network(model.network.config.model_type), tiny.tokenizer(), "twin")
    for name, module in twin.network.named_modules():
        if type(module) is nn.Linear:
            there = model.network.get_submodule(name)
            module.weight = nn.Parameter(there.weight, requires_grad=False)
    traces = []
    for each in (model, twin):
        every = {layer: torch.arange(each.neurons) for layer in range(each.depth)}
        case = tiny.case(each)
        traces.append(trace(each, prepare(each, [case]), every, system="targets"))
    mine, theirs = traces
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-2)
    for layer in range(model.depth):
        a, b = mine.gradients[layer].flatten(), theirs.gradients[layer].flatten()
        assert float(nn.functional.cosine_similarity(a, b, dim=0)) > 0.999
        assert float(a.norm()) == pytest.approx(float(b.norm()), rel=2e-2)


def test_patched_weights_are_base_plus_delta_and_go_back(model: CodeModel) -> None:
    ids = model.encode("def f(x):\n    return x")
    before, base = model.logits(ids), model.base_rows(1).clone()
    rows = Rows(1, torch.tensor([2, 5]), torch.randn(2, model.width))
    with installed(model, [Patch(model.fingerprint, (rows,))]):
        wanted = base.clone()
        wanted[rows.neurons] += rows.delta
        assert torch.equal(model.by_neuron(model.projection(1).weight.data), wanted)
        assert not torch.equal(model.logits(ids), before)
    assert torch.equal(model.logits(ids), before)


def test_few_factors_stay_beside_and_many_are_rows_and_both_are_their_sum(one: CodeModel) -> None:
    random = torch.Generator().manual_seed(0)
    base, every, linear = one.base_rows(1).clone(), torch.arange(one.neurons), one.projection(1)
    patches, sums = [], torch.zeros(one.neurons, one.width, dtype=torch.float64)
    for _ in range(9):
        keys = torch.randint(-(2**15), 2**15, (3, one.neurons), generator=random, dtype=torch.int16)
        part = Factors(1, every, keys, rounded(torch.randn(3, one.width, generator=random)))
        patches.append(Patch(one.fingerprint, (part,)))
        sums += part.exact
        with installed(one, patches):
            few = 3 * len(patches) * (one.neurons + one.width) < one.neurons * one.width
            assert (linear.beside.factors is not None) == few
            wanted = base + sums.float()
            torch.testing.assert_close(one.by_neuron(linear.weight), wanted, rtol=1e-6, atol=1e-6)
            x = torch.randn(2, one.neurons, generator=random)
            bias = 0 if linear.bias is None else linear.bias
            torch.testing.assert_close(linear.rows(x), x @ wanted + bias, rtol=1e-2, atol=1e-1)
    assert not few


@pytest.mark.process
def test_a_case_is_repaired(one: CodeModel) -> None:
    case = tiny.case(one)
    result = repair(one, [case])
    assert result.outcomes[0].solved
    assert result.patch.base == one.fingerprint
    assert len(layers_by_loss(one, prepare(one, [case]), "all")) == one.depth


@pytest.mark.parametrize("model_type", tiny.EACH)
def test_what_is_stored_in_half_precision_computes_as_if_it_were_stored_in_fp32(model_type: str) -> None:
    half = _int8(model_type, torch.bfloat16)
    ids = half.encode("def f(x):\n    return x")
    wide = CodeModel(
        tiny.network(model_type, dtype=torch.bfloat16).float(), tiny.tokenizer(), "wide", weights="int8"
    )
    wanted = wide.logits(ids)
    stored = tiny.model(model_type, dtype=torch.bfloat16).logits(ids)
    torch.testing.assert_close(half.logits(ids), stored, rtol=0.1, atol=0.1)
    # What int8 is fitted to was read in half precision there.
    assert (half.logits(ids) - wanted).norm() <= 0.02 * wanted.norm()


def test_of_what_is_stored_in_half_precision_only_tables_of_embeddings_stay_so() -> None:
    network = _int8("gpt2", torch.bfloat16).network
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16, torch.float32}
    for module in network.modules():
        kinds = {parameter.dtype for parameter in module.parameters(recurse=False)}
        assert kinds <= {torch.bfloat16 if isinstance(module, nn.Embedding) else torch.float32}


@pytest.mark.process
def test_a_model_stored_in_half_precision_is_repaired() -> None:
    half = _int8("llama", torch.float16)
    result = repair(half, [tiny.case(half)])
    assert result.solved


def test_a_patch_for_the_stored_weights_is_for_another_base(one: CodeModel) -> None:
    stored = tiny.model("qwen2")
    assert one.fingerprint == base_of("tiny-qwen2", "int8") != base_of("tiny-qwen2", "stored")
    with pytest.raises(PatchError, match="cannot be used"):
        install(one, [Patch(stored.fingerprint, ())])


# -- folders ---------------------------------------------------------------------------------------


def test_what_was_rounded_once_is_mapped_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.folder(tmp_path / "m")
    first = CodeModel.load(folder, "int8")
    assert [path.name for path in folder.glob("*int8*")] == ["int8.safetensors"]
    written = (folder / "int8.safetensors").stat().st_mtime_ns
    again = CodeModel.load(folder, "int8")
    assert (folder / "int8.safetensors").stat().st_mtime_ns == written
    ids = first.encode("def f(x):")
    assert torch.equal(first.logits(ids), again.logits(ids))


@pytest.mark.process
@pytest.mark.parametrize("how", ["cut", *map(tiny.later, ("other weights", "other base", "empty"))])
def test_a_file_that_is_not_this_models_is_made_anew(tmp_path: Path, how: str) -> None:
    folder, other = tiny.folder(tmp_path / "m"), tiny.folder(tmp_path / "o", seed=1)
    ids = CodeModel.load(folder).encode("def f(x):")
    wanted = CodeModel.load(folder, "int8").logits(ids)
    CodeModel.load(other, "int8")
    path = folder / "int8.safetensors"
    match how:
        case "cut":
            path.write_bytes(path.read_bytes()[:-9])
        case "other weights":
            tensors = (other / "int8.safetensors").read_bytes()
            path.write_bytes(tensors.replace(b"tiny-qwen2-1", b"tiny-qwen2-0"))
        case "other base":
            path.write_bytes((other / "int8.safetensors").read_bytes())
        case _:
            path.write_bytes(b"")
    assert torch.equal(CodeModel.load(folder, "int8").logits(ids), wanted)


def test_a_folder_that_cannot_be_written_to_still_serves(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m")
    (folder / "int8.safetensors").mkdir()
    model = CodeModel.load(folder, "int8")
    assert model.logits(model.encode("def f(x):")).isfinite().all()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
