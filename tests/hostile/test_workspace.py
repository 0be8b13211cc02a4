"""What a folder of other people's code can set: never a program, a path, a socket,
or where a model is from."""

import json
from pathlib import Path
from typing import Any

import pytest

from star_lsp.catalogue import find
from star_lsp.errors import CatalogueError
from star_lsp.installed import locate
from star_lsp.settings import OF_CLIENTS, documentation, read, schema

CLIENT = Path(__file__).parents[2] / "vscode-client"
MANIFEST = json.loads((CLIENT / "package.json").read_text("utf-8"))
PATHS = (
    "/tmp/evil", "../evil", "..", ".", "~/evil", "evil/model", "evil\\model", "C:\\evil", "C:evil",
    "file:///tmp/evil",
    "unix:/tmp/s", "127.0.0.1:9", "http://127.0.0.1/x", "$(touch x)", "`x`", "a;b", "a b", "a\n", "a\x00b",
    "", "-x", "\\\\host\\s",
)  # fmt: skip


def kept(name: str, value: object) -> bool:
    """Whether a value is used as it was given."""
    group, _, inner = name.rpartition(".")
    settings, problems = read({name: value})
    found: Any = getattr(settings, group) if group else settings
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in inner)
    return not problems and getattr(found, snake) == value


@pytest.mark.parametrize("name", [name for name, entry in schema().items() if entry["type"] == "string"])
@pytest.mark.parametrize("value", PATHS)
def test_no_setting_takes_a_path_a_command_or_an_address(name: str, value: str) -> None:
    assert not kept(name, value)


def test_the_settings_that_take_more_than_a_word_or_a_number_are_those_about_files_and_languages() -> None:
    free = {name for name, entry in schema().items() if entry["type"] in ("array", "object")}
    assert free == {"completion.exclude", "completion.languages"}


@pytest.mark.parametrize(
    "word", ["path", "command", "socket", "listen", "port", "host", "secret", "url", "endpoint", "index",
    "home", "program", "env"]
)  # fmt: skip
def test_no_setting_is_about_where_a_thing_is_or_what_is_run(word: str) -> None:
    for name, *_ in documentation():
        assert word not in name.lower().split(".")[-1], name
    for name in (word, f"server.{word}", f"model.{word}", f"modelS{word}"):
        settings, problems = read({name: "/tmp/evil", "star-lsp": {name: "/tmp/evil"}})
        assert settings == read(None)[0]
        assert problems or name.split(".")[0] in OF_CLIENTS


def test_a_model_is_one_that_is_here_or_in_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    outside = tmp_path / "evil"
    outside.mkdir()
    (outside / "star-model.json").write_text('{"format": 1, "fingerprint": "x"}')
    for name in ("../evil", "..", str(outside), "evil", "someone--evil"):
        with pytest.raises(CatalogueError, match="is not installed"):
            locate(name, tmp_path / "models")
        with pytest.raises(CatalogueError, match="no model"):
            find(name)


def test_in_vs_code_no_workspace_names_a_program_and_one_that_is_not_trusted_sets_nothing_that_matters() -> (
    None
):
    declared = {
        name: entry
        for group in MANIFEST["contributes"]["configuration"]
        for name, entry in group["properties"].items()
    }
    restricted = set(MANIFEST["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"])
    assert MANIFEST["capabilities"]["untrustedWorkspaces"]["supported"] == "limited"
    for name, entry in declared.items():
        if name.startswith("star-lsp.server."):
            assert entry["scope"] == "machine", name
        if entry["type"] in ("string", "array", "object") and not entry.get("enum"):
            assert name in restricted or entry.get("scope") == "machine", name
        # What is kept, what is changed in the model, what is excluded.
        if name.split(".")[1] in (
            "model",
            "autoPull",
            "repair",
            "gate",
            "feedback",
            "log",
            "server",
            "trace",
        ):
            assert name in restricted, name
    assert {"star-lsp.completion.exclude", "star-lsp.completion.languages"} <= restricted
