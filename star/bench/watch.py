"""Texts that a model shall write, or go on writing, looked at as cheaply as exactness allows.

"Writes" is under the server's own decoding. Nothing is decoded where one teacher-forced pass says it all:
every token the argmax, and then an end, is what greedy decoding writes; and a first other token that fits no
text which could be cut down to the one asked for is enough to say no. What is left in between is decoded.
"""

import hashlib
import json
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from star.case import Case
from star.decode import decode
from star.errors import Cancelled
from star.history import revision
from star.model import CodeModel, Trunk
from star.patch import Patch
from star.trace import Lesson, trace

__all__ = ["Known", "Pair", "Target", "Watch", "below", "remembered", "wanted", "writes", "written"]

#: How many of how many.
Pair = tuple[int, int]

#: What was found on a model before, as plain JSON: paid once for all methods, and to be kept between runs.
Known = MutableMapping[str, Any]

#: More tokens than expected that are written before a suggestion is cut, as in ``decode.write``.
_SLACK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Target:
    """A text that a model shall write at one place: ``case.expected``, as token ids ``ids``."""

    case: Case
    ids: tuple[int, ...]
    #: Tokens after which the server cuts.
    limit: int


class Watch:
    """Targets to be looked at again and again.

    What the layers below ``lowest`` make of a target at the first look is kept (tokens x d floats): a look
    then costs a pass through the layers above, unless other patches reach below.
    """

    def __init__(self, targets: Sequence[Target], lowest: int = 0) -> None:
        """Be ready to look; nothing runs yet."""
        self.targets = tuple(targets)
        self._lowest = lowest
        self._trunks: dict[int, Trunk] = {}
        self._below: tuple[Patch, ...] = ()

    def look(self, model: CodeModel, cancelled: Callable[[], bool] = lambda: False) -> tuple[bool, ...]:
        """Of each target, whether ``model`` as it is now writes it; always the same model.

        Raises:
            CaseError: a target is longer than the model's context.
            Cancelled: ``cancelled`` said so, between two targets.
        """
        now = below(model, self._lowest)
        if not self._trunks:
            self._below = now
        as_kept = now == self._below
        seen = []
        for index, target in enumerate(self.targets):
            Cancelled.check(cancelled)
            ids = target.case.prompt + target.ids
            model.check_length(len(ids))
            if as_kept and index not in self._trunks:
                self._trunks[index] = model.trunk(ids, min(self._lowest, model.depth - 1))
            seen.append(writes(model, target, self._trunks[index] if as_kept else None))
        return tuple(seen)

    def count(self, model: CodeModel, cancelled: Callable[[], bool] = lambda: False) -> Pair:
        """How many of the targets ``model`` as it is now writes; raises as ``look`` does."""
        seen = self.look(model, cancelled)
        return sum(seen), len(seen)


def below(model: CodeModel, lowest: int) -> tuple[Patch, ...]:
    """The installed patches that reach below a layer; patches are equal only to themselves."""
    return tuple(patch for patch in model.patches if any(rows.layer < lowest for rows in patch.rows))


def writes(model: CodeModel, target: Target, trunk: Trunk | None = None) -> bool:
    """Whether the model as it is now, under the server's decoding, writes the text of a target."""
    trunk = Trunk(0) if trunk is None else trunk
    case, stop = target.case, target.case.stop
    failures = trace(model, [Lesson(case, target.ids, trunk)]).failures
    if not failures or failures[0].position >= target.limit:
        return True
    goal = stop.trim(case.expected)
    right, other = target.ids[: failures[0].position], failures[0].predicted
    if other in model.stop_ids:
        return stop.trim(model.decode_next(case.prompt, right, case.healed).rstrip("�")) == goal
    text = model.decode_next(case.prompt, (*right, other), case.healed)
    if not text.endswith("�") and stop.end(text) is not None:
        return stop.trim(text) == goal
    text = text.rstrip("�")
    if not (text.startswith(goal) or goal.startswith(text)):
        return False  # what is yet to come cannot mend it, and trimming takes away from the end only
    return decode(model, case.prompt, stop, target.limit, guess=target.ids, healed=case.healed).text == goal


def wanted(model: CodeModel, case: Case) -> Target:
    """What a case expects, as a target."""
    ids = model.encode_next(case.written)
    return Target(case, ids, len(ids) + _SLACK_TOKENS)


def written(model: CodeModel, case: Case, known: Known | None = None) -> Target:
    """What the model as it is now writes at the place of a case, as a target.

    What the case expects is only a guess at it, and says how much may be written.
    """
    guess = wanted(model, case)

    def find() -> list[Any]:
        made = decode(model, case.prompt, case.stop, guess.limit, guess=guess.ids, healed=case.healed)
        return [made.text, list(made.ids), len(made.ids) if made.ended == "length" else guess.limit]

    text, ids, limit = remembered(known, "text", model, case, find)
    return Target(replace(case, expected=text), tuple(ids), limit)


def remembered(known: Known | None, what: str, model: CodeModel, case: Case, find: Callable[[], Any]) -> Any:
    """What was found before on the same weights at the same place, or is found and kept now; plain JSON."""
    name = revision(model.fingerprint, [patch.digest for patch in model.patches])
    place = json.dumps([case.prompt, case.healed, case.expected, astuple(case.stop)])
    key = f"{what} {name} {hashlib.sha256(place.encode()).hexdigest()[:32]}"
    if known is None:
        return find()
    if key not in known:
        known[key] = find()
    return known[key]
