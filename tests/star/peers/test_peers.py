"""What holds of every peer: it stops as soon as all is solved, and leaves the model as it was found."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch import Tensor

from star.case import Case
from star.decode import write
from star.errors import Cancelled, CaseError
from star.model import CodeModel
from star.patch import install, load
from star.peers import ClosedForm, Gradient, Lora, Mint
from star.repair import repair
from star.result import Budget, Result, Step
from tests import tiny

Peer = Gradient | Lora | Mint | ClosedForm

#: With the rates that tiny random models, which are nearly flat, need.
PEERS: dict[str, Peer] = {
    "sgd": Gradient("sgd", 1.0, "2/4"),
    "adamw": Gradient("adamw", 1e-2, "2/4"),
    "lora": Lora(rate=3e-2, layers="2/4"),
    "mint": Mint(step=1.0, edits=40),
    "closed form": ClosedForm(layers="2/4", at="last", rate=0.3, tries=50, reach=3.0),
}


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> Peer:
    """Each peer in turn."""
    return PEERS[request.param]


def _timid(peer: Peer) -> Peer:
    """The same peer, too timid ever to solve anything."""
    if isinstance(peer, Mint):
        return replace(peer, step=1e-6)
    if isinstance(peer, ClosedForm):
        return replace(peer, reach=1e-6)
    return replace(peer, rate=1e-9)


def _weights(model: CodeModel) -> list[Tensor]:
    return [model.projection(layer).weight.detach().clone() for layer in range(model.depth)]


def _same(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    return all(map(torch.equal, left, right))


def _run(model: CodeModel, peer: Peer, case: Case, budget: Budget) -> tuple[Result, list[Step]]:
    seen: list[Step] = []
    return peer(model, [case], budget, seen.append), seen


def test_a_case_is_solved_or_reported_as_not_solved_in_every_architecture(
    model: CodeModel, peer: Peer
) -> None:
    before, case = _weights(model), tiny.case(model, "x")
    result, _ = _run(model, peer, case, Budget(40))
    assert result.failures_before
    assert _same(_weights(model), before)
    assert model.patches == ()
    install(model, [result.patch])
    assert result.solved == (write(model, case) == "x")
    assert result.outcomes[0].after == write(model, case)
    assert result.solved == (not result.failures_after)
    assert (result.exact_after == 100.0) == result.solved


def test_every_peer_can_solve_a_case(one: CodeModel, peer: Peer) -> None:
    result, _ = _run(one, peer, tiny.case(one, "x"), Budget(40))
    assert result.solved


def test_two_cases_are_taught_together(one: CodeModel, peer: Peer) -> None:
    cases = [tiny.case(one, "x"), tiny.case(one, "o", "import ", id="b")]
    result = peer(one, cases, Budget(60))
    install(one, [result.patch])
    assert [each.case for each in result.outcomes] == ["a", "b"]
    assert [each.after for each in result.outcomes] == [write(one, case) for case in cases]


def test_a_peer_stops_as_soon_as_all_is_solved(one: CodeModel, peer: Peer) -> None:
    result, seen = _run(one, peer, tiny.case(one, "x"), Budget(40))
    assert seen[-1].failures == 0
    assert seen[-1].number == result.steps
    assert all(step.failures for step in seen[:-1])
    assert [step.number for step in seen] == list(range(result.steps + 1))


def test_steps_are_a_budget(one: CodeModel, peer: Peer) -> None:
    result, seen = _run(one, _timid(peer), tiny.case(one), Budget(3))
    tokens = len(result.failures_before) if isinstance(peer, Mint) else 1
    assert not result.solved
    assert result.steps == 3 * tokens == seen[-1].number
    nothing, seen = _run(one, peer, tiny.case(one), Budget(0))
    assert (nothing.steps, nothing.patch.rows, len(seen)) == (0, (), 1)


def test_seconds_are_a_budget_too(one: CodeModel, peer: Peer) -> None:
    result, seen = _run(one, peer, tiny.case(one), Budget(10_000, seconds=0.0))
    assert (result.steps, len(seen), result.patch.rows) == (0, 1, ())
    started = time.monotonic()
    endless = Mint(step=1e-6, edits=10**9) if isinstance(peer, Mint) else _timid(peer)
    result, _ = _run(one, endless, tiny.case(one), Budget(10**9, seconds=0.2))
    assert 0.2 <= result.seconds <= time.monotonic() - started < 5


def test_what_is_already_right_needs_no_rows(one: CodeModel, peer: Peer) -> None:
    prefix = "def f(x):\n    return "
    case = tiny.case(one, write(one, tiny.case(one, "q" * 20, prefix)), prefix)
    if write(one, case) != case.expected:  # it never ends: teach it to, first
        case = tiny.case(one, "x")
        install(one, [Gradient("sgd", 1.0, "2/4")(one, [case], Budget(99)).patch])
    result, seen = _run(one, peer, case, Budget(9))
    assert result.solved
    assert (result.steps, result.patch.rows, len(seen)) == (0, (), 1)


def test_a_repair_stands_on_what_is_installed(one: CodeModel, peer: Peer) -> None:
    below = Gradient("sgd", 0.5, "2/4")(one, [tiny.case(one, "os", "import ")], Budget(2)).patch
    install(one, [below])
    before = _weights(one)
    result, _ = _run(one, peer, tiny.case(one, "x"), Budget(40))
    assert one.patches == (below,)
    assert _same(_weights(one), before)
    install(one, [below, result.patch])
    assert result.outcomes[0].after == write(one, tiny.case(one, "x"))


@pytest.mark.parametrize("after", [0, 1, 2, 7, 30])
def test_a_cancelled_repair_leaves_the_model_as_it_was_found(one: CodeModel, peer: Peer, after: int) -> None:
    before, asked = _weights(one), iter(range(10**6))
    with pytest.raises(Cancelled):
        _timid(peer)(one, [tiny.case(one)], Budget(40), cancelled=lambda: next(asked) >= after)
    assert _same(_weights(one), before)
    assert one.patches == ()


def test_an_exception_on_the_way_leaves_the_model_as_it_was_found(model: CodeModel, peer: Peer) -> None:
    before = _weights(model)

    def fail(step: Step) -> None:
        if step.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        peer(model, [tiny.case(model)], Budget(9), fail)
    assert _same(_weights(model), before)


def test_a_cancel_is_heard_between_any_two_passes(one: CodeModel, peer: Peer) -> None:
    """The server's own decoding, which has the last word, apart."""
    runs, most = 0, 0

    def count(_module: object, _args: object, given: Mapping[str, object]) -> None:
        nonlocal runs, most
        runs += not given["use_cache"]
        most = max(most, runs)

    def asked() -> bool:
        nonlocal runs
        runs = 0
        return False

    handle = one.network.register_forward_pre_hook(count, with_kwargs=True)
    _timid(peer)(one, [tiny.case(one)], Budget(2), cancelled=asked)
    handle.remove()
    assert most == 1


def test_repeated_repairs_are_bit_for_bit_the_same(one: CodeModel, peer: Peer) -> None:
    first, second = (_run(one, peer, tiny.case(one), Budget(3))[0].patch for _ in range(2))
    assert first.digest == second.digest


def test_a_bf16_model_is_repaired_in_fp32(half: CodeModel, peer: Peer) -> None:
    case = tiny.case(half, "x")
    result, _ = _run(half, peer, case, Budget(40))
    assert all(rows.delta.dtype == torch.float32 for rows in result.patch.rows)
    install(half, [result.patch])
    assert result.outcomes[0].after == write(half, case)


def test_nothing_to_repair_and_nothing_before_it_are_refused(one: CodeModel, peer: Peer) -> None:
    with pytest.raises(CaseError, match="no case"):
        peer(one, [])
    with pytest.raises(CaseError, match="empty prompt"):
        peer(one, [replace(tiny.case(one), prompt=())])


def test_a_patch_says_whose_it_is_and_can_be_kept(one: CodeModel, peer: Peer, tmp_path: Path) -> None:
    patch = _run(one, peer, tiny.case(one, "x"), Budget(40))[0].patch
    assert patch.manifest["cases"] == ["a"]
    assert json.loads(json.dumps(patch.manifest))["method"]["layers"] == "2/4"
    patch.save(tmp_path / "patch")
    assert load(tmp_path / "patch", one).digest == patch.digest


def test_peers_are_called_as_repair_is() -> None:
    ours = signature(repair).parameters
    for peer in PEERS.values():
        theirs = signature(peer).parameters
        assert list(theirs)[:4] == list(ours)[:4]
        assert all(theirs[name].default == ours[name].default for name in ("budget", "on_step"))
        assert "cancelled" in theirs
