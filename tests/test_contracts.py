"""What is promised of the code itself: types, style, who may import whom, and that nothing prints."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from star.history import revision
from star.product import round_rows

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> None:
    """Fails with all that the command had to say."""
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, f"{' '.join(map(str, command))}\n{found.stdout}{found.stderr}"


def test_imports_go_one_way_and_every_module_has_its_place() -> None:
    run(BIN / "lint-imports", "--no-logo")


@pytest.mark.process
def test_every_type_is_said_and_holds() -> None:
    run(sys.executable, "-m", "mypy", "--strict")


def test_a_wrong_shape_and_a_wrong_type_are_refused_while_tests_run() -> None:
    with pytest.raises(TypeCheckError):
        round_rows(torch.zeros(3))
    wrong: Any = 5
    with pytest.raises(BeartypeCallHintParamViolation):
        revision(wrong, [])


def test_the_style_is_kept() -> None:
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".")


def test_nothing_prints_and_no_comment_allows_it_to() -> None:
    check = [sys.executable, "-m", "ruff", "check", "--no-cache"]
    run(*check, "--select", "T20", "--ignore-noqa", "star", "server")


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "core", "manager"])
def test_no_module_is_named_after_nothing(name: str) -> None:
    assert not [path for folder in ("star", "server") for path in (ROOT / folder).rglob(f"{name}.py")]
