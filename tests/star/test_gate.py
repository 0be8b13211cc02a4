"""May this patch go live?"""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from star.case import Case
from star.decode import decode
from star.errors import Cancelled
from star.gate import Limits, Sample, _kl, judge, read
from star.model import CodeModel
from star.patch import Patch, Rows, install
from star.repair import Star, repair
from star.result import Budget
from star.stop import StopRule
from star.trace import prepare
from tests import tiny

SAMPLES = [Sample(tuple(range(5, 40)), 1), Sample(tuple(range(60, 80)), 12)]
STRONG = Star(layers="2/4", pattern="none", margin=0.1, rate=0.1)


def _greedy(model: CodeModel, tokens: int = 3) -> tuple[int, ...]:
    """Token ids of which the last are what the model writes itself."""
    ids = [*model.encode("import os\n")]
    for _ in range(tokens):
        ids.append(int(model.logits(ids)[-1].argmax()))
    return tuple(ids)


def _shaken(model: CodeModel, scale: float) -> Patch:
    delta = torch.randn(48, 32, generator=torch.Generator().manual_seed(3)) * scale
    return Patch(model.fingerprint, (Rows(3, torch.arange(48), delta),))


@pytest.mark.parametrize("lowest", [0, 2])
def test_an_unchanged_model_passes_with_a_divergence_of_zero(model: CodeModel, lowest: int) -> None:
    verdict = judge(model, [], SAMPLES, read(model, SAMPLES, lowest))
    assert verdict.passed
    assert (verdict.kl, verdict.unchanged, verdict.positions) == (0.0, 1.0, 34 + 8)


def test_readings_from_a_trunk_judge_like_readings_of_whole_runs(model: CodeModel) -> None:
    whole, resumed = read(model, SAMPLES), read(model, SAMPLES, 3)
    install(model, [_shaken(model, 0.3)])
    assert judge(model, [], SAMPLES, resumed) == judge(model, [], SAMPLES, whole)


def test_a_patch_that_changes_too_much_is_refused_with_the_numbers(model: CodeModel) -> None:
    before = read(model, SAMPLES)
    install(model, [_shaken(model, 3.0)])
    verdict = judge(model, [], SAMPLES, before, Limits(min_unchanged=0.98, max_kl=0.002))
    assert not verdict.passed
    assert verdict.unchanged < 0.98
    assert verdict.kl > 0.002
    assert any("of tokens unchanged, 98.0% asked for" in reason for reason in verdict.reasons)
    assert any("mean KL" in reason and "at most 0.002 allowed" in reason for reason in verdict.reasons)
    assert judge(model, [], SAMPLES, before, Limits(0.0, 100.0)).passed


def test_the_divergence_of_the_gate_is_the_exact_one_when_all_tokens_are_kept(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("star.gate._KEPT_TOKENS", 264)
    sample = SAMPLES[0]
    old = one.logits(sample.ids[:-1]).double().log_softmax(-1)
    before = read(one, [sample])
    install(one, [_shaken(one, 1.0)])
    new = one.logits(sample.ids[:-1]).double().log_softmax(-1)
    exact = float((old.exp() * (old - new)).sum(-1).mean())
    assert judge(one, [], [sample], before).kl == pytest.approx(exact, rel=1e-4)


@settings(max_examples=2 * settings.default.max_examples, deadline=None)
@given(
    v=st.integers(2, 30), kept=st.integers(1, 30), scale=st.floats(0.01, 5), seed=st.integers(0, 2**32 - 1)
)
def test_the_divergence_of_the_gate_is_never_more_than_the_exact_one(
    v: int, kept: int, scale: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    # Logits in fp64: in fp32 what is left of a distribution that is nearly sure is rounding.
    old, new = ((torch.randn(4, v, generator=random).double() * scale).log_softmax(-1) for _ in range(2))
    top = old.topk(min(kept, v))
    exact = (old.exp() * (old - new)).sum(-1)
    bound = _kl(top.values, new.gather(-1, top.indices))
    assert (bound <= exact * (1 + 1e-6) + 1e-9).all()
    assert (bound >= 0).all()


def _repaired(model: CodeModel) -> tuple[Case, Patch]:
    case = tiny.case(model)
    result = repair(model, [case], Budget(60), method=STRONG)
    assert result.solved
    return case, result.patch


def test_a_solved_case_holds_and_a_broken_one_is_named(one: CodeModel) -> None:
    case, patch = _repaired(one)
    install(one, [patch])
    assert judge(one, prepare(one, [case]), [], []).still_solved == 1
    install(one, [])
    verdict = judge(one, prepare(one, [case]), [], [])
    assert not verdict.passed
    assert verdict.broken == ("a",)
    assert verdict.reasons == ("1 of 1 earlier cases would no longer be solved",)


def test_an_accepted_completion_must_stay_to_the_last_token(one: CodeModel) -> None:
    ids = _greedy(one)
    accepted = Sample(ids, len(ids) - 3, accepted=True)
    before = read(one, [accepted])
    assert judge(one, [], [accepted], before).accepted_unchanged == 1
    install(one, [_shaken(one, 5.0)])
    verdict = judge(one, [], [accepted], before, Limits(0.0, 1e9))
    assert (verdict.accepted, verdict.accepted_unchanged) == (1, 0)
    assert verdict.reasons == ("1 of 1 accepted completions would change",)


def test_a_completion_that_was_held_to_what_stood_there_counts_as_accepted(one: CodeModel) -> None:
    prompt, healed = one.encode("def f(x):\n    y "), "= "
    written = decode(one, prompt, StopRule.at("def f(x):\n    y = ", "\n"), 8, healed=healed)
    held = Sample((*prompt, *written.ids), len(prompt), accepted=True, healed=healed)
    verdict = judge(one, [], [held], read(one, [held]))
    assert (verdict.accepted, verdict.accepted_unchanged) == (1, 1)
    assert 0 <= verdict.kl < 1e-6
    free = dataclasses.replace(held, healed="")
    assert judge(one, [], [free], read(one, [free])).accepted == 0


def test_what_the_model_would_not_have_written_itself_is_no_accepted_completion(one: CodeModel) -> None:
    ids = _greedy(one)
    other = dataclasses.replace(Sample(ids, len(ids) - 3, accepted=True), ids=(*ids[:-1], 77))
    assert judge(one, [], [other], read(one, [other])).accepted == 0


def test_nothing_to_look_at_is_nothing_against_it(one: CodeModel) -> None:
    assert judge(one, [], [], []).passed


def test_reading_and_judging_stop_when_cancelled(one: CodeModel) -> None:
    before = read(one, SAMPLES)
    with pytest.raises(Cancelled):
        read(one, SAMPLES, cancelled=lambda: True)
    with pytest.raises(Cancelled):
        judge(one, [], SAMPLES, before, cancelled=lambda: True)
    with pytest.raises(Cancelled):
        judge(one, prepare(one, [tiny.case(one)]), [], [], cancelled=lambda: True)
