"""The figures of the README: ``python -m tests.measure`` prints them, on a real server and the default model.

Seconds are of this machine at this hour; ratios are within one run.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from star_lsp.cli.client import Client
from star_lsp.cli.demo import CASE, NEIGHBOUR, RIGHT, SIBLING, WRONG
from star_lsp.places import places
from star_lsp.protocol import FLAG, LIST_CASES, LIST_PATCHES, REVERT, STATUS

_IDLE_ROUNDS = 8
_REPAIRS = 3


async def measure(folder: Path) -> dict[str, Any]:
    """One session: latency at rest, repairs with completions going on, memory."""
    environment = {"STAR_LSP_HOME": str(folder), "STAR_LSP_MODELS": str(places(os.environ).models)}
    client = Client(environment, folder / "server.log")
    started = time.monotonic()
    await client.start()
    initialize = time.monotonic() - started
    found: dict[str, Any] = {"initialize_seconds": initialize}

    async def ready() -> bool | None:
        status = await client.command(STATUS)
        assert status["state"] != "failed", (folder / "server.log").read_text("utf-8")
        return True if status["state"] == "ready" else None

    await client.until(ready)
    found["ready_seconds"] = time.monotonic() - started
    spots = (CASE, SIBLING, NEIGHBOUR)
    for spot in spots:
        client.open(spot.uri, spot.prefix + spot.suffix)

    async def timed(number: int) -> float:
        spot = spots[number % len(spots)]
        begun = time.monotonic()
        text, _ = await client.complete(spot.uri, spot.line, spot.character)
        assert text, f"a completion in {spot.name} failed"
        return time.monotonic() - begun

    await timed(0)
    idle = [await timed(number) for number in range(_IDLE_ROUNDS * len(spots))]
    alone, busy = [], []
    for round_ in range(2 * _REPAIRS):
        text, shown = await client.complete(CASE.uri, CASE.line, CASE.character)
        assert text == WRONG
        begun = time.monotonic()
        case = (await client.command(FLAG, completionId=shown, expected=RIGHT))["caseId"]

        async def ended(case: str = case) -> str | None:
            (status,) = [each["status"] for each in await client.command(LIST_CASES) if each["id"] == case]
            return status if status in ("solved", "failed") else None

        if round_ % 2 == 0:
            assert await client.until(ended) == "solved"
            alone.append(time.monotonic() - begun)
        else:
            while await ended() is None:
                busy.append(await timed(len(busy)))
                await asyncio.sleep(1.0)  # a person reads what is suggested
            assert await ended() == "solved"
        status = await client.command(STATUS)
        (patch,) = [each for each in await client.command(LIST_PATCHES) if each["active"]]
        if round_ == 0:
            found["memory"] = status["memory"]
            found["patch_bytes"] = patch["verdict"]["sizeBytes"]
            found["kl"] = patch["verdict"]["gate"]["kl"]
            found["unchanged"] = patch["verdict"]["gate"]["unchanged"]
        await client.command(REVERT, patchId=patch["id"])
    await client.stop()
    found |= {
        "first_repair_seconds": alone[0],
        "later_repair_seconds": statistics.median(alone[1:]),
        "idle_median_seconds": statistics.median(idle),
        "completions_during_repairs": len(busy),
        "during_repair_over_idle": statistics.median(busy) / statistics.median(idle),
    }
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        click.echo(json.dumps(asyncio.run(measure(Path(scratch))), indent=2))
