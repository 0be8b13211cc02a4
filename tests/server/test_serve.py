"""The server as a process: it starts before torch, speaks nothing but LSP, and goes when it should."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.client import Client, Server

#: No model is here and none may be pulled: all but completions works.
pytestmark = pytest.mark.process

NOTHING = {"model": "no-such-model", "autoPull": False}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "home", tmp_path / "log") as made:
        yield made


def test_what_answers_initialize_imports_nothing_heavy() -> None:
    code = (
        "import sys, star_lsp.app, star_lsp.engine, star_lsp.service, star_lsp.cli;"
        "heavy = {'torch', 'transformers', 'numpy', 'safetensors', 'jaxtyping', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_it_leaves_at_once_when_told_to(server: Server) -> None:
    server.client.initialize(NOTHING)
    server.client.until_state("failed")
    began = time.monotonic()
    assert server.leave() == 0
    assert time.monotonic() - began < 2
    assert server.client.wire_is_clean
    (line,) = server.log.read_text().splitlines()
    assert "ERROR" in line
    assert "The model no-such-model is not installed" in line


def test_it_leaves_when_its_client_is_gone_without_a_word(server: Server) -> None:
    server.client.initialize(NOTHING)
    server.client.until_state("failed")
    assert server.process.stdin is not None
    server.process.stdin.close()
    server.process.wait(5)


def test_the_log_names_what_failed_and_holds_no_code(server: Server) -> None:
    client = server.client
    client.initialize(NOTHING)
    client.open("file:///secret.py", "password = 'hunter2'\n")
    client.until_state("failed")
    assert client.inline("file:///secret.py", 0, 11) is None
    client.ask("workspace/executeCommand", {"command": "star.flag", "arguments": [{"expected": "hunter3"}]})
    assert server.leave() == 0
    assert "hunter" not in server.log.read_text()


def test_whatever_prints_prints_to_standard_error_and_not_into_the_conversation(tmp_path: Path) -> None:
    code = """
import os, subprocess, sys
import star_lsp.app as app
real = app.build
def noisy(service):
    print("printed")
    sys.stdout.write("written\\n")
    os.write(1, b"written to the descriptor\\n")
    subprocess.run(["echo", "said by a child"])
    return real(service)
app.build = noisy
from star_lsp.cli import main
sys.argv = ["star-lsp", "--standalone"]
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"STAR_LSP_HOME": str(tmp_path)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    client = Client(process.stdout, process.stdin)
    client.initialize(NOTHING)
    client.request("shutdown")
    client.notify("exit")
    assert process.wait(5) == 0
    assert client.wire_is_clean
    assert client.ended.wait(5)
    said = process.stderr.read().decode()
    for line in ("printed", "written", "written to the descriptor", "said by a child"):
        assert f"{line}\n" in said
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


def test_cases_are_listed_and_kept_though_no_model_is_there(server: Server) -> None:
    client = server.client
    client.initialize(NOTHING)
    client.until_state("failed")
    assert client.command("listCases") == client.command("listPatches") == []
    status = client.command("status")
    assert (status["model"], status["revision"], status["queue"]) == ("no-such-model", None, 0)
    assert json.dumps(status)


def test_a_folder_that_is_not_ours_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = subprocess.run(
        [sys.executable, "-P", "-m", "star_lsp", "--stdio"],
        input=b"",
        capture_output=True,
        env=os.environ | {"STAR_LSP_HOME": str(tmp_path / "file" / "home")},
    )
    assert found.returncode == 2
    assert found.stdout == b""
    assert b"cannot be used" in found.stderr
    assert found.stderr.count(b"\n") == 1
