"""The VS Code extension agrees with the server: its settings, its commands, its version; and it is small."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import star_lsp
from star_lsp import protocol, settings

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "vscode-client"
MANIFEST = json.loads((CLIENT / "package.json").read_text("utf-8"))
WORDS = json.loads((CLIENT / "package.nls.json").read_text("utf-8"))
CONTRIBUTES = MANIFEST["contributes"]
SOURCES = {path.name: path.read_text("utf-8") for path in (CLIENT / "src").glob("*.ts")}

#: What the extension keeps for itself in the section; the server is never told of it.
OF_THE_CLIENT = {
    "server.path",
    "server.package",
    "editor.lensAfterAccept",
    "editor.debounceMilliseconds",
    "trace.server",
}


def said(text: str) -> str:
    """A string of package.json as it shows."""
    return str(WORDS[text[1:-1]]) if re.fullmatch(r"%[\w.-]+%", text) else text


def declared() -> dict[str, dict[str, Any]]:
    """Every setting by its name without the section's."""
    found: dict[str, dict[str, Any]] = {}
    for group in CONTRIBUTES["configuration"]:
        for name, entry in group["properties"].items():
            found[name.removeprefix("star-lsp.")] = entry
    return found


def commands() -> list[dict[str, Any]]:
    return list(CONTRIBUTES["commands"])


def test_every_setting_of_the_server_is_one_of_the_extension_and_says_the_same() -> None:
    ours = {
        name: {key: value for key, value in entry.items() if key not in ("scope", "enumDescriptions")}
        | {"description": said(entry["description"])}
        for name, entry in declared().items()
        if name not in OF_THE_CLIENT
    }
    assert ours == settings.schema()


def test_the_extension_has_no_other_setting_than_those_named_here() -> None:
    assert set(declared()) - set(settings.schema()) == OF_THE_CLIENT


def test_the_server_passes_over_what_is_the_extensions_own() -> None:
    raw = {"star-lsp": {name: declared()[name]["default"] for name in OF_THE_CLIENT}}
    assert settings.read(raw) == (settings.Settings(), [])


def test_no_workspace_can_name_a_program() -> None:
    for name in ("server.path", "server.package"):
        assert declared()[name]["scope"] == "machine"


def test_a_workspace_that_is_not_trusted_changes_nothing_that_matters() -> None:
    restricted = set(MANIFEST["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"])
    assert restricted <= {f"star-lsp.{name}" for name in declared()}
    for name in settings.schema():
        if not name.startswith("completion.") or name in ("completion.exclude", "completion.languages"):
            assert f"star-lsp.{name}" in restricted, name


def test_every_text_that_is_named_exists_and_every_text_is_used() -> None:
    named = set(re.findall(r'"%([\w.-]+)%"', (CLIENT / "package.json").read_text("utf-8")))
    named |= set(re.findall(r"%([\w.-]+)%", json.dumps(CONTRIBUTES)))
    assert named == set(WORDS)


def test_every_command_has_a_title_and_is_registered() -> None:
    source = "\n".join(SOURCES.values())
    for each in commands():
        assert re.fullmatch(r"%[\w.-]+%", each["title"]), each
        assert said(each["title"])
        # The views name theirs without the section: `command("case.open", …)`.
        name = re.escape(each["command"].removeprefix("star-lsp."))
        assert re.search(rf'"(star-lsp\.)?{name}"', source), f"{each['command']} is registered nowhere"


def test_every_command_in_a_menu_or_on_a_key_is_declared() -> None:
    known = {each["command"] for each in commands()}
    used = {item["command"] for menu in CONTRIBUTES["menus"].values() for item in menu if "command" in item}
    used |= {key["command"] for key in CONTRIBUTES["keybindings"]}
    for name in used:
        assert name in known or re.fullmatch(r"star-lsp\.\w+\.focus", name), name


def test_commands_of_the_server_are_left_to_the_language_client() -> None:
    ids = {each["command"] for each in commands()}
    assert not ids & set(protocol.COMMANDS)
    for name, source in SOURCES.items():
        for registered in re.findall(r'registerCommand\(\s*"([^"]+)"', source):
            assert not registered.startswith("star."), name


def test_the_extension_and_the_server_are_of_one_version() -> None:
    assert MANIFEST["version"] == star_lsp.__version__
    assert f"## {MANIFEST['version']}\n" in (CLIENT / "CHANGELOG.md").read_text("utf-8")


def test_the_types_are_those_of_the_oldest_editor() -> None:
    types = MANIFEST["devDependencies"]["@types/vscode"]
    assert MANIFEST["engines"]["vscode"] == f"^{types}"


def test_the_marketplace_has_what_it_shows() -> None:
    for name in ("README.md", "CHANGELOG.md", "LICENSE", MANIFEST["icon"]):
        assert (CLIENT / name).is_file(), name
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_lock_names_no_registry() -> None:
    lock = (CLIENT / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock


def test_what_was_built_is_small() -> None:
    bundle, package = CLIENT / "dist" / "extension.js", CLIENT / f"star-lsp-{MANIFEST['version']}.vsix"
    assert not bundle.exists() or bundle.stat().st_size <= 1_000_000
    assert not package.exists() or package.stat().st_size <= 1_000_000


@pytest.mark.editor
@pytest.mark.parametrize("script", ["check", "build"])
def test_the_types_hold_and_the_style_is_kept_and_it_builds(script: str) -> None:
    npm = shutil.which("npm")
    if npm is None or not (CLIENT / "node_modules").is_dir():
        pytest.skip("npm or node_modules is not here: run `npm ci --ignore-scripts` in vscode-client")
    done = subprocess.run([npm, "run", "--silent", script], cwd=CLIENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
