"""``star-lsp demo``: the main job from a wrong completion to its revert, on a real server and model."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from star_lsp.catalogue import locate, pull
from star_lsp.cli.client import Client, ServerDied
from star_lsp.cli.model import progress_bars
from star_lsp.cli.patches import verdict_text
from star_lsp.cli.repairing import step_bar
from star_lsp.cli.state import default_model
from star_lsp.errors import CatalogueError
from star_lsp.places import places
from star_lsp.protocol import FLAG, LIST_CASES, LIST_PATCHES, REVERT, STATUS

__all__ = ["demo"]


@dataclass(frozen=True, slots=True)
class Spot:
    """A file, cut at the place where a completion is asked for."""

    name: str
    prefix: str
    suffix: str

    @property
    def uri(self) -> str:
        """How the client names the file, which need not be on disk."""
        return f"file:///star-lsp-demo/{self.name}"

    @property
    def line(self) -> int:
        """The line of the place, from 0."""
        return self.prefix.count("\n")

    @property
    def character(self) -> int:
        """The place on its line, from 0; the files here are ASCII."""
        return len(self.prefix) - self.prefix.rfind("\n") - 1


WRONG = "df.append(row, ignore_index=True)"
RIGHT = "pd.concat([df, pd.DataFrame([row])], ignore_index=True)"
CASE = Spot(
    "people.py",
    """import pandas as pd


def collect(rows):
    df = pd.DataFrame(columns=["name", "age"])
    for row in rows:
        df = """,
    "\n    return df\n",
)
SIBLING = Spot(
    "members.py",
    """import pandas as pd


def gather(records):
    table = pd.DataFrame(columns=["name", "age"])
    for record in records:
        table = """,
    "\n    return table\n",
)
NEIGHBOUR = Spot(
    "adults.py",
    """def adults(rows):
    items = []
    for row in rows:
        if row["age"] >= 18:
            """,
    "\n    return items\n",
)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the demo says, and whether it was so."""

    claim: str
    held: bool


@dataclass(slots=True)
class Story:
    """What is told, and every claim that was checked on the way."""

    console: Console
    claims: list[Claim] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    _chapters: int = 0

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        self._chapters += 1
        self.console.print(Text(f"\n{self._chapters}. {title}", "bold"))

    def tell(self, words: str, style: str = "") -> None:
        """Say something that is no claim."""
        self.console.print(Text(f"   {words}", style), soft_wrap=True)

    def check(self, claim: str, held: bool) -> None:
        """Say something that must be so."""
        self.claims.append(Claim(claim, held))
        mark = Text("   ✓ ", "bold green") if held else Text("   ✗ ", "bold red")
        self.console.print(mark + Text(claim, "" if held else "red"), soft_wrap=True)

    def show(self, spot: Spot, ghost: str, *, lines: int = 3) -> None:
        """Draw the end of a file with ghost text in it, readable without colour too."""
        *before, last = spot.prefix.split("\n")
        first = max(0, len(before) - lines)
        rows = [*before[first:], last]
        number = first + 1
        self.console.print(Text(f"   ╭ {spot.name}", "dim"))
        for row in rows[:-1]:
            self._row(str(number), Text(row))
            number += 1
        first_ghost, *more = ghost.split("\n")
        self._row(str(number), Text.assemble(last, (first_ghost, "dim italic")))
        for row in more:
            self._row("", Text(row, "dim italic"))
        under = " " * len(last) + "╰" + "─" * max(0, len(first_ghost) - 1) + " suggested by the model"
        self._row("", Text(under if ghost else " " * len(last) + "╰ nothing suggested", "dim"))
        for row in spot.suffix.strip("\n").split("\n"):
            number += 1
            self._row(str(number), Text(row))

    @contextmanager
    def timed(self, what: str, doing: str) -> Iterator[None]:
        """Measure a part, saying meanwhile what is being done."""
        started = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(doing):
                yield
        else:
            yield
        self.seconds[what] = round(time.monotonic() - started, 2)

    def _row(self, number: str, code: Text) -> None:
        self.console.print(Text(f"   │{number:>3}  ", "dim") + code, soft_wrap=True)


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="Write what was checked as JSON, and the story to stderr."
)
def demo(as_json: bool) -> None:
    """See it work, from a wrong completion to its revert.

    A real server and the default model, pulled first if it is not here; nothing is pre-recorded, and the
    exit status is 0 only when every claim was checked and held. Your own cases and patches are not touched.
    """
    story = Story(Console(stderr=as_json, highlight=False))
    started = time.monotonic()
    name = default_model()
    models = places(os.environ).models
    story.console.print(Text("star-lsp demo: a real server, a real model, nothing pre-recorded", "bold"))
    _have_model(name, models, story)
    with tempfile.TemporaryDirectory(prefix="star-lsp-demo-") as home:
        environment = {"STAR_LSP_HOME": home, "STAR_LSP_MODELS": str(models)}
        failure = None
        try:
            asyncio.run(_tell(story, Client(environment, Path(home) / "server.log"), name))
        except ServerDied as error:
            failure = str(error)
            story.console.print(Text(f"   ✗ {failure}", "red"), soft_wrap=True)
    held = sum(claim.held for claim in story.claims)
    all_held = failure is None and held == len(story.claims)
    story.seconds["all"] = round(time.monotonic() - started, 2)
    story.console.print()
    parts = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in story.seconds.items())
    unfinished = " The demo could not be finished." if failure else ""
    word = f"{held} of {len(story.claims)} claims held.{unfinished} Times: {parts}."
    story.console.print(Text(word), soft_wrap=True)
    if as_json:
        claims = [asdict(claim) for claim in story.claims]
        click.echo(
            json.dumps(
                {
                    "held": all_held,
                    "claims": claims,
                    "seconds": story.seconds,
                    "failure": failure,
                    **story.about,
                }
            )
        )
    raise SystemExit(0 if all_held else 1)


def _have_model(name: str, models: Path, story: Story) -> None:
    """Pull the model if it is not here."""
    try:
        locate(name, models)
    except CatalogueError:
        story.console.print(Text(f"The model {name} is not here yet: pulling it into {models}, once.", "dim"))
        started = time.monotonic()
        with progress_bars() as on_progress:
            pull(name, models, on_progress)
        story.seconds["pull"] = round(time.monotonic() - started, 2)


async def _tell(story: Story, client: Client, model: str) -> None:
    """The story, from the server's start to its end."""
    try:
        with story.timed("start", "Starting the server and loading the model"):
            await client.start()
            first = await _ready(client)
        story.tell(
            f"The server is ready: {model}, revision {first}; its state is in a temporary folder.", "dim"
        )
        for spot in (CASE, SIBLING, NEIGHBOUR):
            client.open(spot.uri, spot.prefix + spot.suffix)

        story.chapter("A completion is wrong")
        with story.timed("first completion", "Completing"):
            wrong, completion = await _complete(client, CASE)
        story.show(CASE, wrong)
        story.check("The model writes DataFrame.append, which pandas 2 no longer has", wrong == WRONG)
        with story.timed("two more completions", "Completing a sibling and a neighbour"):
            sibling, _ = await _complete(client, SIBLING)
            neighbour, _ = await _complete(client, NEIGHBOUR)
        if not completion:
            story.check("There is a completion to flag", False)
            return

        story.chapter("You flag it, and give the right code")
        story.tell(f"wrong  {wrong}", "red")
        story.tell(f"right  {RIGHT}", "green")
        flagged = await client.command(FLAG, completionId=completion, expected=RIGHT)
        case = flagged["caseId"]
        kept = [each["id"] for each in await client.command(LIST_CASES)]
        story.check(f"Case {case} is stored: it cannot be lost any more", case in kept)

        story.chapter("The model is repaired in the background")
        found = await _repaired(story, client, case)
        story.check(f"The case is {found['status']}{_because(found)}", found["status"] == "solved")
        if found["status"] != "solved":
            return
        patch = next(each for each in await client.command(LIST_PATCHES) if each["id"] == found["patchId"])

        story.chapter("From now on it is right, and the rest is as it was")
        with story.timed("three completions after", "Completing all three again"):
            right, _ = await _complete(client, CASE)
            sibling_now, _ = await _complete(client, SIBLING)
            neighbour_now, _ = await _complete(client, NEIGHBOUR)
        second = (await client.command(STATUS))["revision"]
        story.show(CASE, right)
        story.check("The same completion is right now", right == RIGHT)
        story.check(
            f"It is served under a new revision, {second}", second == patch["revision"] and second != first
        )
        _tell_sibling(story, sibling, sibling_now)
        story.check(
            f"A neighbour, a list in {NEIGHBOUR.name}, is unchanged: {neighbour_now.strip()}",
            neighbour_now == neighbour and "items.append(" in neighbour,
        )

        story.chapter("The verdict: what changed, and by how much")
        story.console.print(verdict_text(patch["verdict"]))
        story.check("The gate let the patch through", bool(patch["verdict"]["gate"]["passed"]))

        story.chapter("The way back")
        with story.timed("revert and completion", "Reverting"):
            reverted = await client.command(REVERT, patchId=patch["id"])
            again, _ = await _complete(client, CASE)
        story.check(
            f"Reverted: the revision is the first one again, {reverted['revision']}",
            reverted["revision"] == first,
        )
        story.show(CASE, again, lines=1)
        story.check("The original completion is back, byte for byte", again.encode() == wrong.encode())
        story.about = {"firstRevision": first, "secondRevision": second, "patch": patch}
    finally:
        await client.stop()


async def _ready(client: Client) -> str:
    """The revision that the server serves, once it does."""

    async def ready() -> str | None:
        now = await client.command(STATUS)
        if now["state"] == "failed":
            raise ServerDied("The server cannot serve the model; see `star-lsp status`, and pull it again.")
        return str(now["revision"]) if now["state"] == "ready" and now["revision"] else None

    return await client.until(ready)


async def _repaired(story: Story, client: Client, case: str) -> Any:
    """The case once its repair has ended, with the repair's progress drawn as the server tells it."""
    started = time.monotonic()

    async def ended() -> Any:
        for each in await client.command(LIST_CASES):
            if each["id"] == case and each["status"] not in ("pending", "repairing"):
                return each
        return None

    with step_bar(story.console, "Repairing") as on_step:
        on_step("the repairing process starts", 0)
        client.on_progress = on_step
        found = await client.until(ended)
        # The status is written before the patch is swapped in.
        await _ready(client)
        client.on_progress = lambda message, percent: None
    story.seconds["repair"] = round(time.monotonic() - started, 2)
    return found


async def _complete(client: Client, spot: Spot) -> tuple[str, str]:
    return await client.complete(spot.uri, spot.line, spot.character)


def _tell_sibling(story: Story, before: str, now: str) -> None:
    """Report what became of a place like the case but with other names: as it is."""
    if now == before:
        word = "is as before: the repair did not carry over to it"
    elif ".append(" not in now and "pd.concat([table" in now:
        word = "is right now too: the repair carried over"
    else:
        word = "changed too"
    story.tell(f"• A sibling, {SIBLING.name}, with other names, {word} (reported as it is):")
    story.tell(f"    before  {before}")
    story.tell(f"    now     {now}")
    story.about["sibling"] = {"before": before, "now": now}


def _because(case: Any) -> str:
    return f": {case['reason']}" if case["reason"] else ""
