"""Settings: each once, and all that is wrong with them at once."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from star_lsp.settings import Settings, documentation, read, schema

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = [entry.name for entry in documentation()]
SOME: dict[str, Any] = {"completion.maxTokens": 32, "completion.languages": {"go": False}, "gate.maxKl": 1}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        inside = tree
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[last] = value
    return tree


def messages(raw: object) -> list[str]:
    return [problem.message for problem in read(raw)[1]]


@pytest.mark.parametrize("raw", [None, {}, [], {"star-lsp": None}, {"starLsp": {}}, {"completion": None}])
def test_nothing_said_means_all_defaults(raw: object) -> None:
    assert read(raw) == (Settings(), [])


@pytest.mark.parametrize(
    "raw",
    [
        SOME,
        nested(SOME),
        {"star-lsp": SOME},
        {"starLsp": nested(SOME)},
        {"star-lsp": nested(SOME), "python": {"analysis": 1}},
        {f"star-lsp.{name}": value for name, value in SOME.items()},
        {"completion": {"maxTokens": 32.0, "languages": {"go": False}}, "gate.maxKl": 1.0},
    ],
)
def test_nested_and_dotted_names_with_and_without_the_section_mean_the_same(raw: object) -> None:
    settings, problems = read(raw)
    assert problems == []
    assert settings.completion.max_tokens == 32
    assert settings.completion.languages == {"go": False}
    assert settings.gate.max_kl == 1.0
    assert settings.completion.prefix_tokens == 1024


def test_all_problems_are_named_at_once_and_the_good_values_used() -> None:
    settings, problems = read(
        {
            "model": "/home/me/model",
            "completion": {"maxTokens": 0, "enabled": "yes", "suffixTokens": 128, "maxToken": 3},
            "repair.schedule": "never",
            "gate": 7,
            "feedback.keptCompletions": True,
            "completion.exclude": [1],
            "trace": {"server": "off"},
            "autopull": False,
        }
    )
    assert {problem.name for problem in problems} == {
        "model",
        "autopull",
        "completion.maxTokens",
        "completion.maxToken",
        "completion.enabled",
        "completion.exclude",
        "repair.schedule",
        "gate",
        "feedback.keptCompletions",
    }
    assert settings.completion.suffix_tokens == 128
    assert settings.completion.max_tokens == 64
    assert settings.model == Settings().model


def test_a_problem_says_what_is_wrong_and_what_is_used() -> None:
    assert messages({"completion.maxTokens": 1000}) == [
        "Setting completion.maxTokens must be from 1 to 512, not 1000; 64 is used until you change it."
    ]
    assert messages({"completion.maxTokens": "64"}) == [
        'Setting completion.maxTokens must be a whole number, not "64"; 64 is used until you change it.'
    ]
    assert messages({"repair": {"schedule": "soon"}}) == [
        'Setting repair.schedule must be one of "at once", "idle", "manual", not "soon"; '
        '"at once" is used until you change it.'
    ]
    assert messages({"completion": {"maxtokens": 3}}) == [
        "There is no setting completion.maxtokens; did you mean completion.maxTokens?"
    ]
    assert messages({"maxTokens": 3}) == ["There is no setting maxTokens; did you mean completion.maxTokens?"]
    assert messages({"zzz": 3}) == ["There is no setting zzz; remove it."]
    assert "star-lsp model import" in messages({"model": "../x"})[0]
    assert "must be an object" in messages(3)[0]
    assert "must be a number" in messages({"gate": {"maxKl": 10**400}})[0]


@given(JSON)
def test_no_settings_at_all_raise(raw: object) -> None:
    settings, _ = read(raw)
    assert isinstance(settings, Settings)


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_whatever_is_given_every_setting_stays_of_its_type_and_within_its_bounds(raw: object) -> None:
    settings, problems = read(raw)
    again, none = read(json.loads(json.dumps(to_wire(settings))))
    assert (again, none) == (settings, [])
    assert len({problem.name for problem in problems}) == len(problems)


def to_wire(settings: Settings) -> dict[str, Any]:
    def camel(name: str) -> str:
        first, *others = name.split("_")
        return first + "".join(word.capitalize() for word in others)

    def renamed(values: dict[str, Any]) -> dict[str, Any]:
        return {
            camel(key): renamed(value) if isinstance(value, dict) and key != "languages" else value
            for key, value in values.items()
        }

    return renamed(asdict(settings))


def test_every_setting_is_documented_with_its_default() -> None:
    settings = to_wire(Settings())
    for name, kind, default, doc in documentation():
        group, _, last = name.rpartition(".")
        value = (settings[group] if group else settings)[last]
        assert (list(value) if isinstance(value, tuple) else value) == default
        assert doc.endswith(".")
        assert kind in {"boolean", "integer", "number", "string", "array", "object"}
    assert len(NAMES) == len(set(NAMES)) == 22


def test_the_schema_is_json_and_holds_the_bounds() -> None:
    entries = json.loads(json.dumps(schema()))
    assert entries["completion.maxTokens"]["maximum"] == 512
    assert entries["repair.schedule"]["enum"] == ["at once", "idle", "manual"]
    assert entries["completion.languages"]["default"] == {"*": True}
