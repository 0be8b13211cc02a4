"""What the model writes around flagged places under one history and under another."""

import time
from collections.abc import Callable, Sequence

from star.decode import Decoded, decode
from star.errors import Cancelled
from star.model import CodeModel
from star.patch import Patch, installed
from star_lsp import jobs
from star_lsp.around import Kind, Spot

__all__ = ["compare"]

#: As in ``star.decode.write``: a little more than expected, so that what does not end is seen.
_SLACK_TOKENS = 16
#: Of the time, this share is for the first history: the second is quicker, as it is known what to guess.
_SHARE = 0.6
#: Besides the flagged places, so many are asked at however long it takes.
_LEAST = 2
#: Lines that are told of the text around a place.
_ABOVE, _BELOW = 20, 10
_KINDS: tuple[Kind, ...] = ("flagged", "sibling", "neighbour")


def compare(
    model: CodeModel,
    spots: Sequence[Spot],
    without: Sequence[Patch],
    with_: Sequence[Patch],
    seconds: float,
    on_spot: Callable[[str, float], None] = lambda phase, share: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[jobs.Compared, ...]:
    """What is written at the spots, case by case: first without, then with what is to be compared.

    When time runs short the last ones are left out. ``on_spot`` is told before each spot which it is, and
    the share that is done.

    Raises:
        CaseError: a spot is longer than the model's context.
        Cancelled: ``cancelled`` said so, at the next token.
    """
    started = time.monotonic()
    least = sum(spot.kind == "flagged" for spot in spots) + _LEAST
    before: list[Decoded] = []
    with installed(model, without):
        for spot in spots:
            if len(before) >= least and time.monotonic() - started > seconds * _SHARE:
                break
            on_spot(f"without it: place {len(before) + 1} of {len(spots)}", 0.5 * len(before) / len(spots))
            before.append(_written(model, spot, (), cancelled))
    asked = spots[: len(before)]
    after: list[str] = []
    with installed(model, with_):
        for spot, old in zip(asked, before, strict=True):
            on_spot(f"with it: place {len(after) + 1} of {len(asked)}", 0.5 + 0.5 * len(after) / len(asked))
            # What is likely: a neighbour is as it was, and the others are as they should be.
            likely = old.ids if spot.kind == "neighbour" else model.encode_next(spot.case.written)
            after.append(_written(model, spot, likely, cancelled).text)
    found = [_compared(spot, old.text, new) for spot, old, new in zip(asked, before, after, strict=True)]
    cases = list(dict.fromkeys(spot.flagged for spot in spots))
    return tuple(sorted(found, key=lambda each: (cases.index(each.case), _KINDS.index(each.kind))))


def _written(model: CodeModel, spot: Spot, likely: Sequence[int], cancelled: Callable[[], bool]) -> Decoded:
    case = spot.case
    limit = len(model.encode_next(case.written)) + _SLACK_TOKENS
    decoded = decode(model, case.prompt, case.stop, limit, cancelled, guess=likely, healed=case.healed)
    Cancelled.check(lambda: decoded.ended == "cancelled")
    return decoded


def _compared(spot: Spot, before: str, after: str) -> jobs.Compared:
    context = spot.context
    return jobs.Compared(
        spot.kind,
        spot.flagged,
        spot.where,
        "\n".join(context.prefix.split("\n")[-_ABOVE:]),
        "\n".join(context.suffix.split("\n")[:_BELOW]),
        None if spot.kind == "neighbour" else spot.case.expected,
        before,
        after,
    )
