"""May this patch go live? Earlier cases still solved, and a regression sample unchanged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from star.errors import Cancelled
from star.model import CodeModel, Trunk
from star.trace import Lesson, held, trace

__all__ = ["Limits", "Reading", "Sample", "Verdict", "judge", "read", "whole"]

#: Of each distribution this many likeliest tokens are kept, and the rest as one sum.
_KEPT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What a patch may change on the regression sample."""

    #: Share of argmax tokens that must stay.
    min_unchanged: float = 0.95
    #: Mean KL divergence, in nats a token, from the model before.
    max_kl: float = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids on which nothing should change, looked at from the token ``start`` on (at least 1)."""

    ids: tuple[int, ...]
    start: int
    #: The developer accepted these very tokens: all of them must stay the model's choice.
    accepted: bool = False
    #: Text with which what stands from ``start`` on had to begin (token healing).
    healed: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a model predicts on one sample: argmax, and the head of each distribution."""

    argmax: Int[Tensor, " n"]
    tokens: Int[Tensor, "n k"]
    log_p: Float[Tensor, "n k"]
    #: What the layers below the repair make of the sample: they need not run again after it.
    trunk: Trunk = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate found, in numbers; ``reasons`` is empty when the patch may go live."""

    cases: int
    still_solved: int
    accepted: int
    accepted_unchanged: int
    positions: int
    unchanged: float
    kl: float
    limits: Limits
    #: The active cases that are no longer solved.
    broken: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the patch may go live."""
        return not self.reasons


def whole(model: CodeModel, texts: Sequence[str]) -> list[Sample]:
    """Texts that nothing stands before, as samples; of a single token there is nothing to look at."""
    return [Sample(ids, 1) for text in texts if len(ids := model.encode_first(text)) > 1]


def read(
    model: CodeModel,
    samples: Sequence[Sample],
    lowest_layer: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Reading]:
    """What the model, as it is now, predicts on each sample.

    Patches on ``lowest_layer`` and above can then be judged without running what lies below again.

    Raises:
        Cancelled: ``cancelled`` said so, between two samples.
    """
    readings = []
    for sample in samples:
        trunk = model.trunk(sample.ids[:-1], lowest_layer)
        log_p = _log_p(model, sample, trunk, cancelled)
        top = log_p.topk(min(_KEPT_TOKENS, log_p.shape[-1]))
        readings.append(Reading(top.indices[:, 0].clone(), top.indices, top.values, trunk))
    return readings


def judge(
    model: CodeModel,
    hold: Sequence[Lesson],
    samples: Sequence[Sample],
    before: Sequence[Reading],
    limits: Limits = Limits(),
    cancelled: Callable[[], bool] = lambda: False,
) -> Verdict:
    """The verdict on the patches that are installed, against readings taken before.

    Readings must have been taken, and lessons prepared, for the lowest layer on which the two histories
    differ, or a lower one.

    A case holds when, teacher-forced, every expected token and then the end is the argmax: that is
    what greedy decoding writes, at the price of one pass.

    Raises:
        Cancelled: ``cancelled`` said so, between two passes.
    """
    broken = tuple(lesson.case.id for lesson in hold if not _holds(model, lesson, cancelled))
    same = positions = accepted = kept = 0
    divergence = 0.0
    for sample, old in zip(samples, before, strict=True):
        new = _log_p(model, sample, old.trunk, cancelled)
        stays = new.argmax(-1) == old.argmax
        same += int(stays.sum())
        positions += len(stays)
        divergence += float(_kl(old.log_p, new.gather(-1, old.tokens)).sum())
        chosen = torch.tensor(sample.ids[sample.start :])
        if sample.accepted and bool((old.argmax == chosen).all()):
            accepted += 1
            kept += bool(stays.all())
    unchanged = same / positions if positions else 1.0
    kl = divergence / positions if positions else 0.0
    reasons = []
    if broken:
        reasons.append(f"{len(broken)} of {len(hold)} earlier cases would no longer be solved")
    if kept < accepted:
        reasons.append(f"{accepted - kept} of {accepted} accepted completions would change")
    if unchanged < limits.min_unchanged:
        reasons.append(f"{unchanged:.1%} of tokens unchanged, {limits.min_unchanged:.1%} asked for")
    if kl > limits.max_kl:
        reasons.append(f"mean KL {kl:.2g}, at most {limits.max_kl:.2g} allowed")
    return Verdict(
        len(hold), len(hold) - len(broken), accepted, kept, positions, unchanged, kl, limits, broken,
        tuple(reasons),
    )  # fmt: skip


def _holds(model: CodeModel, lesson: Lesson, cancelled: Callable[[], bool]) -> bool:
    Cancelled.check(cancelled)
    return not trace(model, [lesson]).failures


def _log_p(
    model: CodeModel, sample: Sample, trunk: Trunk, cancelled: Callable[[], bool]
) -> Float[Tensor, "n v"]:
    """Log-probabilities at the positions of a sample that are looked at."""
    Cancelled.check(cancelled)
    with torch.no_grad(), model.resumed(trunk):
        logits = model.logits(sample.ids[:-1], range(sample.start - 1, len(sample.ids) - 1))
    return held(model, sample.healed, sample.ids[sample.start :], logits).log_softmax(-1)


def _kl(old: Float[Tensor, "n k"], new: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """KL(old ‖ new) over the kept tokens and the rest as one: a lower bound of the whole one."""
    p, q = old.double().exp(), new.double().exp()
    rest_p, rest_q = (1 - p.sum(-1)).clamp_min(1e-12), (1 - q.sum(-1)).clamp_min(1e-12)
    kept = torch.where(p > 0, p * (old.double() - new.double()), 0.0).sum(-1)  # barred ones are -inf in both
    return (kept + rest_p * (rest_p / rest_q).log()).clamp_min(0)
