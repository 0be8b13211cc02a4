"""The wire, and its twin in TypeScript."""

import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import pytest

from star_lsp import protocol
from star_lsp.errors import ParameterError, ServerError
from star_lsp.protocol import (
    MESSAGES,
    AcceptParams,
    CancelRepairParams,
    CaseInfo,
    DidChangeParams,
    FlagParams,
    FlagResult,
    ListCasesParams,
    Memory,
    PatchInfo,
    Position,
    RepairAllParams,
    RevertParams,
    StatusResult,
    Working,
)
from star_lsp.wire import structure, unstructure

TWIN = (Path(__file__).parents[2] / "vscode-client" / "src" / "protocol.ts").read_text(encoding="utf-8")
ALIASES = {name: getattr(protocol, name) for name in ("CaseStatus", "ServerState", "Changed", "ComparedKind")}
Fields = dict[str, tuple[bool, str]]


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def in_typescript(kind: Any) -> str:
    """A Python type as the twin spells it."""
    for name, alias in ALIASES.items():
        if kind == alias:
            return name
    if get_origin(kind) is list:
        return in_typescript(get_args(kind)[0]) + "[]"
    if get_origin(kind) is dict:
        return "Record<string, unknown>"
    simple = {str: "string", int: "number", float: "number", bool: "boolean"}
    if kind in simple or attrs.has(kind):
        return simple.get(kind) or str(kind.__name__)
    inner = [choice for choice in get_args(kind) if choice is not type(None)]
    return f"{in_typescript(inner[0])} | null"


def fields_here(message: type) -> Fields:
    found: Fields = {}
    for item in attrs.fields(message):
        optional = item.default is not attrs.NOTHING
        spelled = in_typescript(item.type)
        found[camel(item.name)] = (optional, spelled.removesuffix(" | null") if optional else spelled)
    return found


def fields_there(body: str) -> Fields:
    return {
        name: (mark == "?", kind) for name, mark, kind in re.findall(r"^  (\w+)(\??): ([^;]+);$", body, re.M)
    }


def constants_there(name: str) -> dict[str, str]:
    (body,) = re.findall(rf"^export const {name} = \{{\n(.*?)^\}} as const;$", TWIN, re.M | re.S)
    return dict(re.findall(r'^  (\w+): "([^"]+)",$', body, re.M))


def test_the_twin_has_the_same_messages_with_the_same_fields() -> None:
    there = dict(re.findall(r"^export interface (\w+) \{\n(.*?)^\}$", TWIN, re.M | re.S))
    assert {name: fields_there(body) for name, body in there.items()} == {
        message.__name__: fields_here(message) for message in MESSAGES
    }
    assert all(body.count("\n") == len(fields_there(body)) for body in there.values())


def test_the_twin_has_the_same_commands_and_notification() -> None:
    assert sorted(constants_there("Command").values()) == sorted(protocol.COMMANDS)
    assert constants_there("Notification") == {"didChange": protocol.DID_CHANGE}
    assert constants_there("Control") == {"about": protocol.ABOUT, "stop": protocol.STOP}
    for name, command in constants_there("Command").items():
        assert command == f"star.{name}"


def test_the_twin_has_the_same_choices() -> None:
    there = dict(re.findall(r"^export type (\w+) = ([^;]+);$", TWIN, re.M))
    assert {name: tuple(json.loads(f"[{kind.replace('|', ',')}]")) for name, kind in there.items()} == {
        name: get_args(alias) for name, alias in ALIASES.items()
    }


def test_every_message_class_is_among_the_messages() -> None:
    classes = {kind for kind in vars(protocol).values() if isinstance(kind, type) and attrs.has(kind)}
    assert classes == set(MESSAGES)


@pytest.mark.parametrize(
    ("message", "raw"),
    [
        (FlagParams(completion_id="c1"), {"completionId": "c1"}),
        (
            FlagParams(uri="file:///a", position=Position(0, 3), expected="x", note="n"),
            {"uri": "file:///a", "position": {"line": 0, "character": 3}, "expected": "x", "note": "n"},
        ),
        (FlagResult("k1", "pending"), {"caseId": "k1", "status": "pending"}),
        (RepairAllParams(), {}),
        (RepairAllParams(cases=["k1"], from_base=False), {"cases": ["k1"], "fromBase": False}),
        (
            CaseInfo(
                "k1", "solved", "go", None, None, "a", "b", "p1", None, "2026-01-01T00:00:00Z", "m", True
            ),
            {
                "id": "k1",
                "status": "solved",
                "language": "go",
                "uri": None,
                "position": None,
                "rejected": "a",
                "expected": "b",
                "patchId": "p1",
                "reason": None,
                "createdAt": "2026-01-01T00:00:00Z",
                "model": "m",
                "elsewhere": True,
            },
        ),
        (
            PatchInfo("p1", "b1", ["k1"], True, "r1", "2026-01-01T00:00:00Z", {"kl": 0.1, "unchanged": [1]}),
            {
                "id": "p1",
                "base": "b1",
                "cases": ["k1"],
                "active": True,
                "revision": "r1",
                "createdAt": "2026-01-01T00:00:00Z",
                "verdict": {"kl": 0.1, "unchanged": [1]},
            },
        ),
        (
            StatusResult("repairing", None, Working("t", "m", 7), "m", "r", 0, 9, Memory(2, 1, 4, None)),
            {
                "state": "repairing",
                "failure": None,
                "working": {"title": "t", "message": "m", "percent": 7},
                "model": "m",
                "revision": "r",
                "queue": 0,
                "workerPid": 9,
                "memory": {
                    "serverBytes": 2,
                    "serverPrivateBytes": 1,
                    "workerBytes": 4,
                    "workerPrivateBytes": None,
                },
            },
        ),
        (
            DidChangeParams(["cases", "state"], "ready", None),
            {"what": ["cases", "state"], "state": "ready", "revision": None},
        ),
    ],
)
def test_a_message_goes_over_the_wire_and_back(message: object, raw: dict[str, Any]) -> None:
    assert unstructure(message) == raw
    assert structure(type(message), json.loads(json.dumps(raw))) == message
    assert unstructure([message]) == [raw]


def test_null_stands_for_what_is_left_out() -> None:
    assert structure(ListCasesParams, None) == ListCasesParams()
    assert structure(ListCasesParams, {"status": None}) == ListCasesParams()
    assert structure(FlagParams, {"completionId": "c", "position": None}) == FlagParams(completion_id="c")


@pytest.mark.parametrize(
    ("message", "raw", "said"),
    [
        (AcceptParams, {}, "AcceptParams cannot be read: completionId is missing and must be a string."),
        (AcceptParams, {"completionId": 3}, "AcceptParams cannot be read: completionId must be a string."),
        (
            AcceptParams,
            {"completionId": "c", "completionID": "c", "zz": 1},
            "AcceptParams cannot be read: there is no field completionID (did you mean completionId?); "
            "there is no field zz (remove it).",
        ),
        (
            FlagParams,
            {"completionId": "c", "position": {"line": "1", "char": 2}},
            "FlagParams cannot be read: position.line must be a whole number; position.character is missing "
            "and must be a whole number; there is no field position.char (did you mean character?).",
        ),
        (
            FlagParams,
            {"completionId": "c", "position": 3},
            "FlagParams cannot be read: position must be an object with line, character.",
        ),
        (
            FlagParams,
            {"uri": "file:///a"},
            "FlagParams cannot be read: which completion is meant is not said: give completionId, or uri and "
            "position.",
        ),
        (
            RepairAllParams,
            {"cases": "k1"},
            "RepairAllParams cannot be read: cases must be a list of strings.",
        ),
        (RepairAllParams, {"cases": [1]}, "RepairAllParams cannot be read: cases must be a list of strings."),
        (
            RepairAllParams,
            {"fromBase": 1},
            "RepairAllParams cannot be read: fromBase must be true or false.",
        ),
        (
            ListCasesParams,
            {"status": "open"},
            "ListCasesParams cannot be read: status must be one of pending, repairing, solved, failed, "
            "reverted.",
        ),
        (
            RevertParams,
            {},
            "RevertParams cannot be read: what is to be reverted is not said: give patchId or caseId.",
        ),
        (
            CancelRepairParams,
            {},
            "CancelRepairParams cannot be read: which repair is meant is not said: give repairId or caseId.",
        ),
        (AcceptParams, ["c1"], "AcceptParams must be one object with named fields; send it as such."),
    ],
)
def test_what_cannot_be_read_is_refused_by_field_with_the_remedy(
    message: type, raw: object, said: str
) -> None:
    with pytest.raises(ParameterError) as refused:
        structure(message, raw)
    assert str(refused.value) == said
    assert isinstance(refused.value, ServerError)
