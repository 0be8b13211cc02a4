"""A program in the worker's place, which acts as it is told: real processes without seconds of imports."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

#: Stands in for the Python that runs the worker. Its model is a folder with a script: what it answers to
#: each job, in order over all its lives.
ACTOR = """#!{python} -S
import hashlib, json, os, sys, time
folder = sys.argv[-2]
base = "b"
if os.path.exists(folder + "/star-model.json"):
    with open(folder + "/star-model.json") as file:
        base = json.load(file)["fingerprint"]
# A patch that changes nothing, which is what its digest says too.
header = json.dumps({{"__metadata__": {{"format": "1", "base": base, "manifest": "{{}}"}}}}).encode()
rows, digest = len(header).to_bytes(8, "little") + header, hashlib.sha256(base.encode()).hexdigest()
def say(**message):
    print(json.dumps(message), flush=True)
say(kind="tied")
for line in sys.stdin:
    if line.startswith("cancel "):
        continue
    job = json.loads(line)
    if not job["teach"] and not job["check"]:  # to be ready for the next one
        say(kind="report", job=job["id"], cases=[], steps=0, seconds=0.0, base=base)
        continue
    with open(folder + "/jobs", "a") as heard:
        heard.write(line)
    with open(folder + "/jobs") as heard:
        turn = sum(1 for _ in heard) - 1
    with open(folder + "/script") as file:
        script = json.load(file)
    act = script[min(turn, len(script) - 1)]
    if act == "die":
        os._exit(3)
    elif act == "hang":
        time.sleep(600)
    elif act == "slow and alive":
        for _ in range(12):
            time.sleep(0.1)
            say(kind="alive")
        say(kind="report", job=job["id"], cases=[], steps=0, seconds=0.0, base=base)
    elif act == "babble":
        print("no message of ours", flush=True)
    elif act == "sleep":
        say(kind="progress", job=job["id"], phase="asleep", percent=5)
        if "cancel" in sys.stdin.readline():
            say(kind="failed", job=job["id"], reason="as asked", cancelled=True)
    elif act == "fail":
        say(kind="failed", job=job["id"], reason="No memory.", cancelled=False)
    else:
        if act in ("slow", "late"):
            time.sleep(0.4)
        say(kind="progress", job=job["id"], phase="at work", percent=50)
        wrong = {{"unsolved": len(job["teach"]), "all but the first": 1}}.get(act, 0)
        solved = [
            {{"id": teach["id"], "solved": at >= wrong, "after": "x",
              "reason": None if at >= wrong else "Too hard."}}
            for at, teach in enumerate(job["teach"])
        ]
        live = act in ("solve", "late", "all but the first") and not job["check"] and job["compare"] is None
        if live and job["out"]:
            with open(job["out"], "wb") as file:
                file.write(rows)
        verdict = {{"steps": 3}}
        if act == "break":
            verdict["gate"] = {{"broken": [hold["id"] for hold in job["hold"]]}}
        say(kind="report", job=job["id"], cases=solved, steps=3, seconds=1.0, base=base,
            digest=digest if live else None, revision="r" if live else None, verdict=verdict, compared=[
                {{"kind": "flagged", "case": teach["id"], "where": "here", "prefix": "p", "suffix": "s",
                  "expected": teach["expected"], "before": "old", "after": teach["expected"]}}
                for teach in job["teach"] if job["compare"] is not None
            ])
"""


def hire(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every worker of this test be the actor."""
    actor = folder / "actor"
    actor.write_text(ACTOR.format(python=sys.executable))
    actor.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(actor))


def script(model: Path, *acts: str) -> None:
    """What the worker on a model does with each job; the last act again and again."""
    (model / "script").write_text(json.dumps(acts))


def heard(model: Path) -> list[Any]:
    """The jobs that taught or checked something, over all lives of the worker."""
    path = model / "jobs"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
