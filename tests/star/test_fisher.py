"""What ordinary predictions heed, against the KL that is seen."""

import numpy as np
import pytest
import torch
from torch import Tensor

from star.errors import Cancelled
from star.everyday import texts
from star.fisher import _gram, fisher
from star.model import CodeModel
from star.patch import installed
from star.repair import repair
from star.result import Budget
from star.solve import Basis
from star_lsp import regression
from tests import tiny

TEXTS = ["def f(x):\n    return x + 1\n", "import os\n\nprint(os.getcwd())\n", "for i in x:\n    print(i)\n"]


def test_moving_an_output_a_little_costs_half_of_what_its_fisher_information_says(model: CodeModel) -> None:
    layer = model.depth - 1
    made = fisher(model, TEXTS, [layer])[layer].outputs.double()
    assert torch.equal(made, made.T)
    moved = 1e-2 * torch.randn(model.width, generator=torch.Generator().manual_seed(1)).double()
    expected = float(moved @ made @ moved) / 2
    seen = _kl(model, layer, moved.float())
    assert 0.5 < seen / expected < 2.0  # F is of one draw at each of some hundred tokens


@pytest.mark.process
def test_it_is_the_same_each_time_and_of_the_base_whatever_is_installed(one: CodeModel) -> None:
    layers = [one.depth - 2, one.depth - 1]
    basis = Basis(one)
    basis.learn(layers)
    patch = repair(one, [tiny.case(one)], Budget(2), basis=basis).patch
    again = Basis(one, basis.factor)
    with installed(one, [patch]):
        again.learn(layers)
        assert one.patches == (patch,)
    assert all(torch.equal(basis.ordinary[layer].outputs, again.ordinary[layer].outputs) for layer in layers)


def test_texts_too_short_or_too_long_for_the_model_are_left_out_or_cut(one: CodeModel) -> None:
    long = "x = 1\n" * (one.context or 512)
    assert torch.isfinite(fisher(one, ["", "a", long], [0])[0].outputs).all()
    assert not fisher(one, [""], [0])[0].outputs.any()


def test_everyday_code_is_all_here_and_none_of_it_is_in_the_gates_sample() -> None:
    code = texts()
    assert len(code) == 26
    assert all(len(each) > 100 for each in code)
    assert not any(each in whole or whole in each for each in code for whole in regression.TEXTS)


def test_activations_beyond_fp16_leave_it_finite(one: CodeModel) -> None:
    block = one.projection(0)
    handle = block.register_forward_pre_hook(lambda _module, args: (args[0] * 1e7,))
    try:
        made = fisher(one, TEXTS, [0])[0]
    finally:
        handle.remove()
    assert float(made.inputs.abs().max()) > 1e4
    assert torch.isfinite(made.inputs).all()


def test_what_goes_in_is_kept_as_its_second_moment(one: CodeModel) -> None:
    with torch.no_grad(), one.tapped([1]) as taps:
        one.logits(one.encode(TEXTS[0]))
    inputs = taps[1].inputs[1:].float()
    kept = fisher(one, TEXTS[:1], [1])[1].inputs.float()
    torch.testing.assert_close(kept.T @ kept, inputs.T @ inputs / len(inputs), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 511, 512, 513, 1300])
def test_half_of_a_gram_matrix_tells_the_rest(rows: int) -> None:
    wide = torch.randn(rows, 9, generator=torch.Generator().manual_seed(rows))
    assert np.allclose(_gram(wide).numpy(), wide.numpy() @ wide.numpy().T, atol=1e-5)


def test_it_can_be_cancelled(one: CodeModel) -> None:
    with pytest.raises(Cancelled):
        fisher(one, TEXTS, [0], lambda: True)


def _kl(model: CodeModel, layer: int, moved: Tensor) -> float:
    """The mean KL of predictions when a layer's projection gives that much more everywhere."""

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        return output + moved

    total, count = 0.0, 0
    for text in TEXTS:
        ids = model.encode(text)
        old = _log_p(model, ids)
        handle = model.projection(layer).register_forward_hook(hook)
        new = _log_p(model, ids)
        handle.remove()
        total += float((old.exp() * (old - new)).sum())
        count += len(old)
    return total / count


def _log_p(model: CodeModel, ids: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        return model.logits(ids, range(1, len(ids))).double().log_softmax(-1)
