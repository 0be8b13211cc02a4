"""Where a server listens: only where its user can reach it, unless said in so many words."""

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from star_lsp import address
from star_lsp.address import Address, Running, parse
from star_lsp.errors import ListenError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("127.0.0.1:80", Address(host="127.0.0.1", port=80)),
        ("localhost:0", Address(host="localhost")),
        ("[::1]:8080", Address(host="::1", port=8080)),
        ("unix:/run/star", Address(path="/run/star")),
    ],
)
def test_an_address_is_read_and_told_alike(text: str, meant: Address) -> None:
    assert parse(text) == meant
    assert parse(str(meant)) == meant


@pytest.mark.parametrize("text", ["", "80", ":80", "unix:", "127.0.0.1:", "127.0.0.1:99999", "a:b", "a:²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ListenError, match="is no address"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "local"),
    [("127.0.0.1:1", True), ("127.9.9.9:1", True), ("[::1]:1", True), ("localhost:1", True),
     ("unix:/a", True), ("0.0.0.0:1", False), ("[::]:1", False),
     ("192.168.1.2:1", False), ("example.org:1", False)],
)  # fmt: skip
def test_only_loopback_and_unix_sockets_are_local(text: str, local: bool) -> None:
    assert parse(text).local is local


def test_a_long_home_gets_a_short_socket_in_a_folder_of_the_users_own(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 100)
    place.mkdir()
    found = address.free(place)
    assert len(found.path) < 108
    assert stat.S_IMODE(Path(found.path).parent.stat().st_mode) == 0o700
    assert address.free(place) == found
    Path(found.path).parent.chmod(0o755)
    with pytest.raises(ListenError, match="not yours alone"):
        address.free(place)
    Path(found.path).parent.rmdir()


def test_where_temporary_files_go_deep_too_the_socket_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("x" * 100)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    found = address.free(place)
    folder = Path(found.path).parent
    try:
        assert folder.parent == Path("/tmp")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(found.path)
        Path(found.path).unlink()
    finally:
        folder.rmdir()


def test_where_no_path_is_short_enough_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("x" * 100)
    monkeypatch.setattr(address, "_LONGEST", 20)
    with pytest.raises(ListenError, match=r"too long .* set STAR_LSP_HOME or TMPDIR to a folder"):
        address.free(place)


def test_the_token_is_made_once_for_the_user_alone(tmp_path: Path) -> None:
    made = address.token(tmp_path)
    assert len(made) > 30
    assert address.token(tmp_path) == made
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_a_token_whose_maker_died_before_it_was_written_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("")
    assert len(address.token(tmp_path)) > 30


@pytest.mark.parametrize("given", [None, 5, "", "wor", "words", "\ud800", {"a": 1}])
def test_only_the_very_word_is_trusted(given: object) -> None:
    assert address.trusted("word", "word")
    assert not address.trusted(given, "word")


def test_what_a_server_tells_is_read_by_others_and_garbage_is_nothing(tmp_path: Path) -> None:
    told = Running(os.getpid(), "1", ("unix:/a",), "/log")
    told.write(tmp_path)
    assert address.running(tmp_path) == told
    for garbage in ("", "{", "[]", '{"pid": "x"}', '{"pid": 1, "version": "1"}'):
        (tmp_path / "server.json").write_text(garbage)
        assert address.running(tmp_path) is None
