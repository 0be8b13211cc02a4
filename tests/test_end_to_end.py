"""The main job on the default model: wrong, flagged, right, all else as before, and back again."""

import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.default_model import models_folder
from tests.server.client import Client, Server

pytestmark = pytest.mark.model
#: What was measured is shown by `-o log_cli=true -o log_cli_level=info`.
log = logging.getLogger(__name__)

URI, OTHER = "file:///work/people.py", "file:///work/items.py"
#: `|` is where the completion is asked for.
TEXT = """import pandas as pd


def collect(rows):
    df = pd.DataFrame(columns=["name", "age"])
    for row in rows:
        df = |
    return df
""".replace("|", "")
AT = (6, 13)
WRONG = "df.append(row, ignore_index=True)"
RIGHT = "pd.concat([df, pd.DataFrame([row])], ignore_index=True)"
NEIGHBOUR = """def collect(rows):
    items = []
    for row in rows:
        items.
    return items
"""
NEIGHBOUR_AT = (3, 14)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    models = models_folder()
    with Server(tmp_path / "home", tmp_path / "log", STAR_LSP_MODELS=str(models), OMP_NUM_THREADS="") as made:
        yield made


def text_at(client: Client, uri: str, place: tuple[int, int]) -> str:
    item = client.inline(uri, *place, seconds=60)
    return "" if item is None else str(item["insertText"])


def seconds(client: Client) -> float:
    began = time.monotonic()
    text_at(client, URI, AT)
    return time.monotonic() - began


def test_a_wrong_completion_is_flagged_repaired_and_reverted(server: Server) -> None:
    client = server.client
    began = time.monotonic()
    client.initialize()
    log.info("%s: %s", "initialize_seconds", time.monotonic() - began)
    client.open(URI, TEXT)
    client.open(OTHER, NEIGHBOUR)
    client.until_state("ready", seconds=120)
    log.info("%s: %s", "ready_seconds", time.monotonic() - began)
    first = client.command("status")["revision"]
    item: Any = client.inline(URI, *AT, seconds=60)
    assert item["insertText"] == WRONG
    neighbour = text_at(client, OTHER, NEIGHBOUR_AT)
    assert neighbour.startswith("append(")
    idle = statistics.median(seconds(client) for _ in range(5))

    began = time.monotonic()
    case = client.flag(item, RIGHT)
    client.until_case(case, "repairing")
    during = []
    while client.case(case)["status"] == "repairing":
        during.append(seconds(client))  # none fails
        time.sleep(1.0)
    found = client.until_case(case, "solved", seconds=120)
    log.info("%s: %s", "repair_seconds_with_completions_meanwhile", time.monotonic() - began)
    log.info("%s: %s", "median_completion_seconds_idle", idle)
    log.info("%s: %s", "median_completion_seconds_during", statistics.median(during))
    status = client.command("status")
    log.info("%s: %s", "memory", status["memory"])
    assert status["memory"]["serverBytes"] <= 3.5e9
    assert status["memory"]["workerPrivateBytes"] <= 2e9

    client.until(lambda: text_at(client, URI, AT) == RIGHT, "the completion is right", 10)
    assert text_at(client, OTHER, NEIGHBOUR_AT) == neighbour
    second = client.command("status")["revision"]
    assert second != first
    (patch,) = client.command("listPatches")
    assert (patch["id"], patch["active"], patch["revision"]) == (found["patchId"], True, second)
    assert patch["verdict"]["gate"]["passed"]

    assert client.command("revert", 60, patchId=patch["id"]) == {"revision": first}
    assert text_at(client, URI, AT) == WRONG
    assert text_at(client, OTHER, NEIGHBOUR_AT) == neighbour
    assert client.case(case)["status"] == "reverted"
    assert server.leave() == 0
    assert client.wire_is_clean


def test_the_same_server_repairs_within_the_time_promised_when_nothing_else_is_asked(server: Server) -> None:
    client = server.client
    client.initialize()
    client.open(URI, TEXT)
    client.until_state("ready", seconds=120)
    item: Any = client.inline(URI, *AT, seconds=60)
    began = time.monotonic()
    case = client.flag(item, RIGHT)
    client.until_case(case, "solved", seconds=120)
    client.until_state("ready")  # the patch is swapped in
    log.info("%s: %s", "repair_seconds", time.monotonic() - began)
    # A restart knows the patch: the completion is right from the first one on.
    revision = client.command("status")["revision"]
    assert server.leave() == 0
    with Server(server.home, server.log, STAR_LSP_MODELS=str(models_folder()), OMP_NUM_THREADS="") as again:
        again.client.initialize()
        again.client.open(URI, TEXT)
        again.client.until_state("ready", seconds=120)
        assert again.client.command("status")["revision"] == revision
        assert text_at(again.client, URI, AT) == RIGHT


def test_a_repair_is_told_compared_and_undone(server: Server) -> None:
    client = server.client
    client.initialize({"completion": {"exclude": ["**/items.py"]}})
    client.open(URI, TEXT)
    client.open(OTHER, NEIGHBOUR)
    assert client.inline(URI, *AT) is None
    client.until_state("ready", seconds=120)
    assert client.inline(OTHER, *NEIGHBOUR_AT) is None
    excluded, loading = client.command("why")
    assert "take that out of completion.exclude" in excluded["reason"]
    assert "is being loaded" in loading["reason"]

    item: Any = client.inline(URI, *AT, seconds=60)
    case = client.flag(item, RIGHT)
    patch = client.until_case(case, "solved", seconds=120)["patchId"]
    began = time.monotonic()
    found = client.command("compare", 300, patchId=patch)["comparison"]
    log.info("%s: %s", "compare_seconds", time.monotonic() - began)
    log.info("%s: %s", "compared", [(each["where"], each["before"], each["after"]) for each in found])
    assert (found[0]["kind"], found[0]["before"], found[0]["after"]) == ("flagged", WRONG, RIGHT)
    assert found[0]["expected"] == RIGHT
    kinds = [each["kind"] for each in found]
    assert {"sibling", "neighbour"} < set(kinds)
    neighbours = [each for each in found if each["kind"] == "neighbour"]
    # Most stay; the loop around the flagged place, which is the nearest and on a slow machine the only one
    # that there is time for, learns with it. How many stay on many rows is a figure of the benchmark.
    others = neighbours[1:]
    still = [each for each in others if each["before"] == each["after"]]
    assert 2 * len(still) >= len(others)
    report = client.command("showPatch", patchId=patch)
    assert report["comparison"] == found
    assert (report["depth"], report["cases"][0]["case"]["id"]) == (24, case)
    assert all(0 <= layer["layer"] < 24 and layer["most"] for layer in report["layers"])

    assert client.command("unflag", 60, caseId=case) == {"was": "solved"}
    assert text_at(client, URI, AT) == WRONG
    assert client.command("listCases") == []
    assert server.leave() == 0
    assert client.wire_is_clean
