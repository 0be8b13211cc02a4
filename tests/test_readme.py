"""The README is true: its map is the tree, its settings and commands are those there are, its commands run.

``python -m tests.test_readme`` writes the map, the settings and the families into the README anew.
"""

import ast
import json
import re
import subprocess
from pathlib import Path

from star.family import supported
from star_lsp.cli.group import cli
from star_lsp.settings import documentation

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def the_map() -> str:
    """Every module with the first line of its docstring."""
    rows = []
    for folder in (
        "star",
        "star/peers",
        "star/bench",
        "server/star_lsp",
        "server/star_lsp/cli",
        "server/star_lsp/cli/latency",
        "server/star_lsp/cli/load",
    ):
        paths = sorted((ROOT / folder).glob("*.py"), key=lambda path: (path.stem != "__init__", path.stem))
        named = {path.name: _first_line(path) for path in paths}
        rows.append(f"{folder}/".ljust(21) + " " + named.pop("__init__.py"))
        rows += [f"  {name}".ljust(22) + line for name, line in named.items()]
    rows += [
        "vscode-client/".ljust(22) + "the extension for VS Code, in TypeScript",
        "tests/".ljust(22) + "mirrors star/ and server/; tests/editors/ drives real editors",
        ".ci/run".ljust(22) + "what a new machine must have, then the test command above",
    ]
    return "```\n" + "\n".join(rows) + "\n```"


def the_settings() -> str:
    """Every setting with its default and meaning."""
    rows = []
    for name, _, default, doc in documentation():
        shown = "files that hold secrets" if name == "completion.exclude" else f"`{json.dumps(default)}`"
        rows.append(f"| `{name}` | {shown} | {doc} |")
    return "\n".join(rows)


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.split("\n")[0]


def _section(title: str) -> str:
    return README.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_map_is_the_tree() -> None:
    assert the_map() in _section("The map")


def test_every_module_says_what_it_is() -> None:
    assert not [line for line in the_map().splitlines() if line.endswith(".py") or line.endswith("/ ")]


def test_every_setting_is_documented() -> None:
    assert the_settings() in _section("Settings")


def test_every_command_is_documented_and_none_else() -> None:
    documented = set(re.findall(r"^\| `star-lsp (\w+)", _section("On the command line"), re.MULTILINE))
    assert documented == set(cli.list_commands(cli.make_context("star-lsp", [], resilient_parsing=True)))


def test_every_family_is_named() -> None:
    assert ", ".join(supported()) in " ".join(_section("Models").split())


def test_ci_runs_the_test_command_of_the_readme() -> None:
    extract = next(line for line in (ROOT / ".ci/run").read_text("utf-8").splitlines() if "sed -n" in line)
    found = subprocess.run(
        ["bash", "-c", f'{extract}; echo "$command"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (
        found.stdout.strip()
        == "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest"
    )


def test_the_walk_has_fewer_than_ten_files_and_all_are_there() -> None:
    walk = _section("The walk")
    present = {path.name for folder in ("star", "server/star_lsp") for path in (ROOT / folder).glob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", walk)) <= present
    assert len(set(re.findall(r"\*\*`(\w+\.py)`\*\*", walk))) < 10


def test_every_row_of_the_threat_model_names_its_tests_and_all_are_there() -> None:
    text = (ROOT / "server/THREATS.md").read_text("utf-8")
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 12
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row[4])
        assert named, row[3]
        assert [name for name in named if f"def {name}(" not in tests] == []
    assert len(text.splitlines()) < 60, "it is one page"


def _rewrite() -> None:
    text = README.read_text("utf-8")
    text = re.sub(r"(\n## The map\n\n).*?(?=\n\n## )", lambda m: m[1] + the_map(), text, flags=re.DOTALL)
    head = "|---|---|---|\n"
    text = re.sub(
        r"(\n## Settings\n.*?\|---\|---\|---\|\n).*?(?=\n\n`STAR_LSP_HOME`)",
        lambda m: m[1] + the_settings(),
        text,
        flags=re.DOTALL,
    )
    assert head in text
    README.write_text(text.replace("FAMILIES", ", ".join(supported())), "utf-8")


if __name__ == "__main__":
    _rewrite()
