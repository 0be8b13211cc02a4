"""What a repair did to one row."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from star.bench.cost import Cost, counted
from star.bench.data import Context, Put, Row
from star.bench.measure import Bystanders, effect, samples, watch
from star.bench.watch import Known, Target, Watch, wanted, writes, written
from star.case import Case
from star.decode import decode, write
from star.errors import Cancelled, CaseError
from star.gate import Sample
from star.model import CodeModel
from star.patch import Patch, Rows, installed
from star.repair import Star, repair
from star.result import Budget, Result
from star.stop import StopRule
from star_lsp.prompt import layout_of
from tests import mendable

PREFIXES = ("ab = ", "cd = ", "x = [", "# é\n", "ef")
WISHES = ("one", "two", "on", "one!", "one\n\nx", "o\n", "", "é", "{written}", "{written}e")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes ``one`` after ``ab = ``, and can be made to write ``two``."""
    return mendable.folder(tmp_path_factory.mktemp("models") / "mendable")


@pytest.fixture
def taught(folder: Path) -> CodeModel:
    """The same, ready to run."""
    return CodeModel.load(folder)


def _put(model: CodeModel) -> Put:
    layout = layout_of(model.token_id)
    assert layout is not None
    assert layout.middle_id is not None
    begin, hole, end = layout.prefix_id, layout.suffix_id, layout.middle_id

    def put(context: Context) -> Case:
        left, right = model.encode(context.prefix), model.encode(context.suffix)
        prompt = (begin, *left, hole, *right, end)
        return Case(context.id, prompt, context.expected, StopRule.at(context.prefix, context.suffix))

    return put


def _shaken(model: CodeModel, scale: float, layer: int = 3, seed: int = 3) -> Patch:
    random = torch.Generator().manual_seed(seed)
    delta = torch.randn(model.neurons, model.width, generator=random) * scale
    return Patch(model.fingerprint, (Rows(layer, torch.arange(model.neurons), delta),))


def _cases(model: CodeModel, prefixes: Sequence[str]) -> list[Case]:
    """Places with all kinds of wishes: what is written there, what begins like it, what cannot be shown."""
    put, made = _put(model), []
    for prefix in prefixes:
        text = write(model, put(Context("", prefix, "\n", "abcd")))
        for wish in WISHES:
            expected = wish.replace("{written}", text)
            made.append(put(Context(str(len(made)), prefix, "\n", expected)))
    return made


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.5, 3.0])
def test_looking_says_what_decoding_would(taught: CodeModel, scale: float) -> None:
    _look_and_decode(taught, scale, 2, PREFIXES)


@pytest.mark.parametrize("lowest", [0, 3])
def test_looking_says_what_decoding_would_where_suggestions_do_not_end(one: CodeModel, lowest: int) -> None:
    _look_and_decode(one, 0.3, lowest, PREFIXES[2:4])


def _look_and_decode(model: CodeModel, scale: float, lowest: int, prefixes: Sequence[str]) -> None:
    cases = _cases(model, prefixes)
    texts = Watch([wanted(model, case) for case in cases], lowest)
    kept = Watch([written(model, case) for case in cases], lowest)
    before = [write(model, case) for case in cases]
    assert list(texts.look(model)) == [
        text == case.stop.trim(case.expected) for text, case in zip(before, cases, strict=True)
    ]
    assert all(kept.look(model))
    with installed(model, [*model.patches, _shaken(model, scale)]):
        after = [write(model, case) for case in cases]
        assert list(texts.look(model)) == [
            text == case.stop.trim(case.expected) for text, case in zip(after, cases, strict=True)
        ]
        assert list(kept.look(model)) == [old == new for old, new in zip(before, after, strict=True)]


def test_looking_decodes_only_where_a_pass_does_not_tell(
    taught: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Any] = []

    def counting(*args: Any, **settings: Any) -> Any:
        decoded.append(args)
        return decode(*args, **settings)

    monkeypatch.setattr("star.bench.watch.decode", counting)
    looked = {
        text: writes(taught, wanted(taught, _put(taught)(Context("", "ab = ", "\n", text))))
        for text in ("one", "two", "ox", "one!", "on")
    }
    assert looked == {"one": True, "two": False, "ox": False, "one!": False, "on": False}
    assert len(decoded) == 1  # after "on" more is to come, which might have been cut away


def test_a_look_from_what_was_kept_runs_only_the_layers_above(one: CodeModel) -> None:
    case = _put(one)(Context("a", "x = ", "\n", "abcd"))
    texts = Watch([wanted(one, case)], 3)
    texts.look(one)
    with counted(one, [case]) as cost:
        texts.look(one)
    assert cost.passes == 1 / 4


def test_what_was_kept_is_dropped_when_a_patch_reaches_below_it(one: CodeModel) -> None:
    contexts = [Context("", prefix, "\n", "abcd") for prefix in PREFIXES]
    targets = [written(one, _put(one)(context)) for context in contexts]
    kept, bystanders = Watch(targets, 3), Bystanders(one, [Sample(tuple(range(5, 40)), 1)], 3)
    whole = Bystanders(one, [Sample(tuple(range(5, 40)), 1)], 0)
    assert all(kept.look(one))
    with installed(one, [*one.patches, _shaken(one, 3.0, layer=0)]):
        assert kept.look(one) == Watch(targets).look(one)
        assert not all(kept.look(one))
        assert bystanders.moved(one) == whole.moved(one)
        assert bystanders.moved(one).kl > 0
    assert all(kept.look(one))
    assert bystanders.moved(one).kl == 0


def test_bystanders_tell_how_much_moved(one: CodeModel) -> None:
    seen = samples(one, [("def f():\n", "    return 1\n"), ("", "x")])
    assert [(len(sample.ids), sample.start) for sample in seen] == [(22, 9), (1, 1)]
    bystanders = Bystanders(one, seen[:1], 2)
    same = bystanders.moved(one)
    assert (same.positions, same.unchanged, same.kl) == (13, 1.0, 0.0)
    with installed(one, [*one.patches, _shaken(one, 3.0)]):
        moved = bystanders.moved(one)
    assert moved.unchanged < 1
    assert moved.kl > 0.01


ROW = Row(
    "row",
    Context("row", "import c\nimport d\n\nab = ", "\n", "two"),
    (
        Context("row/near-0", "import c\n\ncd = ", "\n", "two", "near"),
        Context("row/near-1", "ef = ", "\n", "one", "near"),  # is right
        Context("row/distant-2", "gh = ", "\n", "two", "distant"),
    ),
    (
        Context("row/neighbour-0", "ha = ", "\n", "nobody writes this", "neighbour"),
        Context("row/neighbour-1", "x", "\n", "", "neighbour"),
    ),
)


def test_what_was_found_before_is_not_looked_at_again(
    taught: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: Known = {}
    first = watch(taught, _put(taught), ROW, known, lowest=2)
    known = json.loads(json.dumps(known))

    def never(*_args: Any, **_settings: Any) -> Any:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr("star.bench.watch.decode", never)
        patched.setattr("star.bench.watch.trace", never)
        again = watch(taught, _put(taught), ROW, known, lowest=2)
    assert again.neighbours.targets == first.neighbours.targets
    assert again.near.targets == first.near.targets
    assert [target.case.expected for target in first.neighbours.targets][:1] == ["one"]
    with installed(taught, [*taught.patches, _shaken(taught, 3.0)]):  # another model as far as that goes
        other = watch(taught, _put(taught), ROW, known, lowest=2)
    assert other.neighbours.targets != first.neighbours.targets


def test_a_repair_is_told_whole(taught: CodeModel) -> None:
    put = _put(taught)
    watched = watch(taught, put, ROW, lowest=2)
    case = put(ROW.flagged)
    before = [write(taught, put(context)) for context in ROW.neighbours]
    with counted(taught, [case]) as cost:
        result = repair(taught, [case], Budget(100), method=Star(layers="2/4", pattern="none"))
    seen = effect(taught, watched, result, cost)
    assert taught.patches == ()
    with installed(taught, [*taught.patches, result.patch]):
        kept = [write(taught, put(c)) == text for c, text in zip(ROW.neighbours, before, strict=True)]
        near = write(taught, put(ROW.siblings[0])) == "two"
        distant = write(taught, put(ROW.siblings[2])) == "two"
        robust = [write(taught, target.case) == "two" for target in watched.robust.targets]
    assert seen.solved
    assert (seen.near, seen.distant) == ((near, 1), (distant, 1))  # the one it had right is not counted
    assert seen.neighbours == (sum(kept), 2)
    assert seen.robust == (sum(robust), 3)
    assert seen.exact_before < seen.exact_after == 100.0
    assert (seen.steps, seen.patch_bytes) == (result.steps, result.patch.size_bytes)
    assert (seen.seconds, seen.passes, seen.peak_mb) == (cost.seconds, cost.passes, cost.peak_mb)


def test_a_patch_without_rows_changes_nothing_and_an_unsolved_row_is_not_called_fragile(
    taught: CodeModel,
) -> None:
    watched = watch(taught, _put(taught), ROW)
    result = Result((), (), (), 50.0, 50.0, Patch(taught.fingerprint, ()), 0, 0.1, ())
    seen = effect(taught, watched, result, Cost(4, 10))
    assert not seen.solved
    assert (seen.near, seen.distant, seen.robust, seen.neighbours) == ((0, 1), (0, 1), (0, 0), (2, 2))


def test_looking_can_be_stopped_and_says_what_is_too_long(one: CodeModel) -> None:
    case = _put(one)(Context("a", "x = ", "\n", "abcd"))
    with pytest.raises(Cancelled):
        Watch([wanted(one, case)]).look(one, lambda: True)
    with pytest.raises(CaseError, match="more than this model's context"):
        Watch([Target(replace(case, prompt=case.prompt * 200), (1,), 9)], 2).look(one)
    assert Watch([]).count(one) == (0, 0)
