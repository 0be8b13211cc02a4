"""Kills at random moments, and what must hold after each: the client's ledger against what is left."""

import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load_file, safe_open

from star.fingerprint import fingerprint
from star.history import base_of, revision
from tests.faults.nursery import Nursery
from tests.mendable import VALUES
from tests.server.client import Client, Refused
from tests.server.test_store import make_old

__all__ = [
    "OURS",
    "SETTINGS",
    "Killer",
    "Machine",
    "Wrong",
    "hello",
    "older",
    "promise",
    "rows_of",
    "weights_of",
]

log = logging.getLogger(__name__)

MODEL = "m"
SETTINGS = {
    "model": MODEL,
    "autoPull": False,
    "repair": {"schedule": "manual", "strength": "gentle", "maxSteps": 8},
    "gate": {"minUnchanged": 0.0, "maxKl": 10.0},
    "feedback": {"keepAccepted": False},
}
_REOPENED = "No longer solved without patch"
OURS = {
    "store.sqlite3",
    "store.sqlite3-wal",
    "store.sqlite3-shm",
    "repair.lock",
    "patches",
    "store.version-1.sqlite3",
    "store.version-2.sqlite3",
}
PHASES: Mapping[str, Sequence[str]] = {
    "start": ("server", "client"),
    "migration": ("server", "client"),
    "flag": ("server", "client"),
    "solve": ("server", "worker", "client"),
    "gate": ("server", "worker", "client"),
    "write": ("server", "worker", "client"),
    "swap": ("server", "worker", "client"),
    "batch": ("server", "worker", "client"),
    "revert": ("server", "worker", "client"),
    "pull": ("pull", "its child"),
    "convert": ("pull", "its child"),
}
#: What comes in turn: what is quick comes more often.
TURNS = (
    "start", "migration", "flag", "solve", "gate", "convert", "start", "migration", "flag", "write",
    "solve", "swap", "convert", "batch", "flag", "revert", "pull",
)  # fmt: skip


class Wrong(AssertionError):
    """A promise that did not hold."""


def promise(holds: object, what: str) -> None:
    """Go on only if it holds."""
    if not holds:
        raise Wrong(what)


# -- what the weights must be, from the files alone ----------------------------------------------------


def rows_of(path: Path) -> tuple[str, dict[int, dict[str, Any]], str]:
    """A patch file's base, what it adds by layer, and its digest, read with nothing of ours."""
    with safe_open(path, "np") as file:
        base = str(file.metadata()["base"])
    tensors = load_file(path)
    digest, rows = hashlib.sha256(base.encode()), {}
    for layer in sorted(int(name.split(".")[0]) for name in tensors if name.endswith(".neurons")):
        mine = _numbers(
            {name.split(".")[1]: tensors[name] for name in tensors if int(name.split(".")[0]) == layer}
        )
        digest.update(f"{layer} {' '.join(str(each.shape) for each in mine.values())}".encode())
        neurons = tensors[f"{layer}.neurons"].astype("<i8")
        if "keys" in mine and not len(neurons):  # all of them go unnamed
            neurons = np.arange(mine["keys"].shape[1], dtype="<i8")
        rows[layer] = {"neurons": neurons} | mine
        for each in rows[layer].values():
            digest.update(each.tobytes())
    return base, rows, digest.hexdigest()


def _numbers(part: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's rows, or its keys and values: of packed keys six bits each, the first ones first."""
    if "packed" not in part:
        return {name: part[name] for name in ("delta", "keys", "values") if name in part}
    count = len(part["neurons"]) or part["packed"].shape[1] * 8 // 6
    bits = np.unpackbits(part["packed"], axis=1)[:, : 6 * count].reshape(-1, count, 6)
    keys = (bits @ [32, 16, 8, 4, 2, 1] - 32) * 1024
    values = part["mantissas"] * 2.0 ** part["exponents"][:, None]
    return {"keys": keys.astype("<i2"), "values": values.astype("<f4")}


def weights_of(model: Path, patches: Sequence[Path]) -> dict[str, Any]:
    """What stands in fp32 beside the int8 output projections that base ⊕ patches changes, rebuilt in numpy.

    The numbers of int8 are never written to; what changes are rows, those of the base among them, and keys
    with their values until rows would be smaller. Every patch here is of keys: their sum is exact.
    """
    kept = load_file(model / "int8.safetensors")
    parts: dict[int, list[dict[str, Any]]] = {}
    for path in patches:
        for layer, part in rows_of(path)[1].items():
            parts.setdefault(layer, []).append(part)
    made = {}
    for layer, mine in parts.items():
        name = f"model.layers.{layer}.mlp.down_proj"
        neurons, rows = kept[f"{name}.neurons"], kept[f"{name}.rows"]
        outputs, inputs = kept[f"{name}.numbers"].shape
        keys = np.concatenate([each["keys"] for each in mine]).astype(np.float64) / 2**15
        values = np.concatenate([each["values"] for each in mine])
        if len(keys) * (inputs + outputs) < inputs * outputs:
            made |= {f"{layer} rows": rows, f"{layer} keys": keys.astype("<f4"), f"{layer} values": values}
            continue
        whole = np.zeros((inputs, outputs), "<f4")
        whole[neurons] = rows
        made[f"{layer} rows"] = whole + (keys.T @ values.astype(np.float64)).astype("<f4")
    return made


def holds_in_memory(process: psutil.Process, weights: Mapping[str, Any]) -> list[str]:
    """The parts of which a process does not hold these very bytes in one piece."""
    wanted = {layer: weight.tobytes() for layer, weight in weights.items()}
    with (
        Path(f"/proc/{process.pid}/maps").open() as maps,
        Path(f"/proc/{process.pid}/mem").open("rb", 0) as memory,
    ):
        for line in maps:
            if not wanted:
                break
            place, rights, _, _, inode, *name = line.split()
            start, stop = (int(end, 16) for end in place.split("-"))
            if inode != "0" or not rights.startswith("rw") or (name and name[0].startswith("[v")):
                continue
            try:
                memory.seek(start)
                content = memory.read(stop - start)
            except (OSError, ValueError, OverflowError):
                continue
            wanted = {layer: weight for layer, weight in wanted.items() if weight not in content}
    return sorted(wanted)


# -- one developer's machine ----------------------------------------------------------------------------


@dataclass
class Ledger:
    """What the developer was told, or is being told at this moment."""

    #: Cases that were acknowledged: what they hold.
    cases: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: Cases on their way: prefix and expected.
    sent: list[tuple[str, str]] = field(default_factory=list)
    #: Patches that were seen active, in order.
    history: list[str] = field(default_factory=list)
    #: What is under way may take these out, or put others in for these cases.
    leaving: set[str] = field(default_factory=set)
    repairing: set[str] = field(default_factory=set)
    #: Cases that were seen to be solved no longer though their patch is active.
    reopened: set[str] = field(default_factory=set)


class Machine:
    """A home, and the server that runs there, if one does."""

    #: What there may be in the data folder.
    ours = OURS

    def __init__(self, home: Path, model: Path, nursery: Nursery) -> None:
        self.home, self.nursery = home, nursery
        self.data, self.models = home / "data", home / "models"
        shutil.copytree(model, self.models / MODEL)
        self.model = self.models / MODEL
        self.base = base_of(json.loads((self.model / "star-model.json").read_text())["fingerprint"], "int8")
        self.ledger = Ledger()
        self.server: psutil.Process | None = None
        self.client: Client
        self._pipes: list[Any] = []
        self.opened: set[str] = set()
        self.environ: dict[str, str] = {}

    def ready(self, **settings: Any) -> Client:
        """The client of a new server that is ready."""
        self.launch()
        self.client.initialize(SETTINGS | settings)
        self.client.until_state("ready")
        return self.client

    def flag(self, name: str) -> str:
        """A case, acknowledged: the other one of the two values that the name may have."""
        item = self.item_at(name)
        promise(item is not None, f"nothing is suggested for {name}")
        expected = next(value for value in VALUES[name[0]] if value != item["insertText"])
        self.ledger.sent.append((f"{name} = ", expected))
        id_ = self.client.flag(item, expected)
        self.ledger.cases[id_] = (f"{name} = ", expected)
        self.ledger.sent.clear()
        return id_

    def repaired(self, name: str) -> str:
        """A case, acknowledged and repaired, or found to be too hard."""
        id_ = self.flag(name)
        self.ledger.repairing.add(id_)
        self.client.command("repairAll", cases=[id_], fromBase=False)
        self.client.until_case(id_, "solved", "failed", seconds=60)
        self.client.until_state("ready", seconds=60)
        self.check_disk()
        return id_

    def launch(self) -> None:
        """Start a server; it may not be ready when this returns."""
        self.hang_up()
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        environ = os.environ | {"STAR_LSP_HOME": str(self.home), "OMP_NUM_THREADS": "1"} | self.environ
        with (
            os.fdopen(theirs_in, "rb") as stdin,
            os.fdopen(theirs_out, "wb") as stdout,
            (self.home / "log").open("ab") as errors,
        ):
            self.server = self.nursery.start(
                ["star_lsp", "--stdio", "--standalone"], environ, [stdin, stdout, errors]
            )
        self._pipes = [os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")]
        self.client = Client(*self._pipes)
        self.opened = set()

    def kill(self, whom: str) -> None:
        """End the server, or its client, as a crash does; the server is gone when this returns."""
        assert self.server is not None
        if whom == "server":
            self.server.kill()
        else:  # all that the system closes when an editor dies
            with contextlib.suppress(OSError, ValueError):
                self._pipes[1].close()
        try:
            self.server.wait(10)
        except psutil.TimeoutExpired as error:
            self.server.send_signal(signal.SIGUSR1)
            time.sleep(1)
            said = (self.home / "log").read_text("utf-8", "replace")[-6000:]
            raise Wrong(f"the server outlives its client; its log ends:\n{said}") from error
        self.hang_up()
        self.server = None

    def hang_up(self) -> None:
        """Close the pipes to the server, which may have died by itself."""
        if self._pipes:
            with contextlib.suppress(OSError, ValueError):
                self._pipes[1].close()
            self.client.ended.wait(5)
            with contextlib.suppress(OSError, ValueError):
                self._pipes[0].close()
            self._pipes = []

    def worker(self) -> psutil.Process | None:
        """The repairing process."""
        pid = self.client.command("status").get("workerPid")
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(pid) if pid else None
        return None

    # -- what is on the disk

    def rows(self) -> tuple[dict[str, Any], list[Any]]:
        """Cases by id, and active patches in order; read from a copy, so that nothing is put right by it."""
        copy = self.home / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in self.data.glob("store.sqlite3*") if self.server is None else ():
            if not path.name.endswith("-shm"):
                shutil.copyfile(path, copy / path.name)
        if self.server is not None:  # it may be writing
            with (
                closing(sqlite3.connect(f"file:{self.data}/store.sqlite3?mode=ro", uri=True)) as live,
                closing(sqlite3.connect(copy / "store.sqlite3")) as db,
            ):
                live.backup(db)
        with closing(sqlite3.connect(copy / "store.sqlite3")) as db:
            db.row_factory = sqlite3.Row
            promise(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "the store is damaged")
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "cases" not in tables:
                return {}, []
            cases = {row["id"]: dict(row) for row in db.execute("SELECT * FROM cases")}
            patches = [
                dict(row) for row in db.execute("SELECT * FROM patches WHERE active ORDER BY position")
            ]
        shutil.rmtree(copy)
        return cases, patches

    def unchecked(self) -> list[str]:
        """The patches without which the rest is still to be checked."""
        with (
            contextlib.suppress(sqlite3.OperationalError),  # there is no store yet, or an old one
            closing(sqlite3.connect(f"file:{self.data}/store.sqlite3?mode=ro", uri=True)) as db,
        ):
            return [row[0] for row in db.execute("SELECT patch FROM unchecked ORDER BY rowid")]
        return []

    def until_checked(self) -> None:
        """Wait until the server has checked what is left after a revert, and repaired what is broken."""
        self.ledger.repairing |= set(self.ledger.cases)

        def over() -> bool:
            status = self.client.command("status")
            return not self.unchecked() and status["state"] == "ready" and not status["queue"]

        self.client.until(over, "what is left after a revert is checked", 60)

    def check_disk(self) -> list[str]:
        """That nothing is lost and no patch half active; the history."""
        cases, patches = self.rows()
        ledger = self.ledger
        for id_, (prefix, expected) in ledger.cases.items():
            promise(id_ in cases, f"case {id_} is lost")
            promise(
                (cases[id_]["prefix"], cases[id_]["expected"]) == (prefix, expected), f"case {id_} is altered"
            )
        for id_ in cases.keys() - ledger.cases.keys():
            found = cases[id_]["prefix"], cases[id_]["expected"]
            promise(found in ledger.sent, f"case {id_} came from nowhere")
            ledger.cases[id_] = found
        ledger.sent.clear()
        history = [patch["id"] for patch in patches]
        stay = [id_ for id_ in ledger.history if id_ not in ledger.leaving]
        promise([id_ for id_ in history if id_ in stay] == stay, f"of {stay} only {history} is active")
        for patch in patches:
            path = self.data / "patches" / f"{patch['id']}.safetensors"
            promise(path.exists(), f"the active patch {patch['id']} has no file")
            base, _, digest = rows_of(path)
            promise((base, digest) == (patch["base"], patch["digest"]), f"patch {patch['id']} is another one")
            promise(base == self.base, "a patch for another base")
            promise(
                json.loads(patch["verdict"])["gate"]["passed"], f"patch {patch['id']} did not pass the gate"
            )
            if patch["id"] not in ledger.history:
                solved = json.loads(patch["cases"])
                promise(
                    set(solved) <= ledger.repairing, f"patch {patch['id']} for {solved} came from nowhere"
                )
        active = {patch["id"]: json.loads(patch["cases"]) for patch in patches}
        for case in cases.values():
            if case["patch"]:
                promise(case["status"] in ("solved", "repairing"), f"a {case['status']} case names a patch")
                promise(
                    case["id"] in active.get(case["patch"], ()),
                    f"case {case['id']} names a patch that is not active",
                )
        for id_, solved in active.items():
            for case in solved:
                if cases[case]["patch"] in active:
                    ledger.reopened.discard(case)
                    continue
                # Only a revert's check may have found that it no longer is; a repair then may have failed.
                status, reason = cases[case]["status"], cases[case]["reason"] or ""
                reopened = _REOPENED in reason or (status == "failed" and case in ledger.repairing)
                promise(
                    reopened or case in ledger.reopened,
                    f"patch {id_} is active and its case {case} is {status} ({reason})",
                )
                ledger.reopened.add(case)
        ledger.history = history
        return history

    def check_served(self, *, look: bool) -> None:
        """That what a server that is ready serves is base ⊕ history, and that it has cleaned up."""
        history = self.check_disk()
        cases, patches = self.rows()
        assert self.server is not None
        status = self.client.command("status")
        expected = revision(self.base, [patch["digest"] for patch in patches])
        promise(status["revision"] == expected, f"serves {status['revision']} and the store is {expected}")
        repairing = [case["id"] for case in cases.values() if case["status"] == "repairing"]
        promise(not repairing, f"{repairing} still said to be repaired")
        known = {path.stem for path in (self.data / "patches").iterdir()}
        with closing(sqlite3.connect(f"file:{self.data}/store.sqlite3?mode=ro", uri=True)) as db:
            named = {row[0] for row in db.execute("SELECT id FROM patches")}
        promise(known <= named, f"stray patch files {known - named}")
        strange = {path.name for path in self.data.iterdir()} - self.ours
        promise(not strange, f"stray files {strange}")
        strange = {path.name for path in self.model.iterdir() if path.name.startswith(".")}
        promise(not strange, f"stray files in the model {strange}")
        solved = [case for case in cases.values() if case["status"] == "solved" and case["patch"]]
        for case in solved if look else solved[-1:]:
            text = self.text_at(case["prefix"][:2])
            promise(text == case["expected"], f"case {case['id']} is solved and {text!r} is written")
        if look and history:
            weights = weights_of(
                self.model, [self.data / "patches" / f"{id_}.safetensors" for id_ in history]
            )
            missing = holds_in_memory(self.server, weights)
            promise(not missing, f"layers {missing} in the server are not base ⊕ history")

    # -- what a developer does

    def item_at(self, name: str) -> Any:
        uri = f"file:///{name}.py"
        if uri not in self.opened:
            self.client.open(uri, f"{name} = \n")
            self.opened.add(uri)
        return self.client.inline(uri, 0, len(name) + 3)

    def text_at(self, name: str) -> str:
        item = self.item_at(name)
        return str(item["insertText"]) if item else ""


class Killer:
    """Seeded rounds: something is under way, somebody dies, all is checked."""

    #: Who may die in each phase, which phase comes in turn, and how many are killed in a usual run.
    phases, turns, usual = PHASES, TURNS, len(TURNS)

    def __init__(self, folder: Path, model: Path, shop: tuple[Path, Path, str], seed: int) -> None:
        """``shop`` is an entry to pull, a folder to import, and the fingerprint of what is pulled."""
        self.folder, self.model = folder, model
        self.entry, self.importable, self.fingerprint = shop
        self.random = random.Random(seed)
        self.nursery = Nursery()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self.starts = self.checks = 0
        self._homes = 0
        self._long = {"pull": 3.0, "convert": 2.0, "start": 0.5}
        self.machine = self._new_machine()
        self._pulls = folder / "pulls"
        self._pulls.mkdir()

    def close(self) -> None:
        """End all."""
        with contextlib.suppress(Wrong):
            if self.machine.server is not None:
                self.machine.kill("server")
        self.nursery.close()

    def kill(self, number: int) -> None:
        """One round; each phase has its turn."""
        phase = self.turns[number % len(self.turns)]
        whom = self.random.choice(self.phases[phase])
        began = time.monotonic()
        try:
            if phase in ("pull", "convert"):
                self._pull(phase, whom)
            elif phase in ("start", "migration"):
                self._start(phase, whom)
            else:
                self._serve(phase, whom)
        except (AssertionError, Refused, OSError) as error:
            raise Wrong(f"kill {number} of the {whom} in phase {phase}: {error}") from error
        self.counts[phase, whom] += 1
        self.seconds[phase] += time.monotonic() - began

    def summary(self) -> list[str]:
        """What was done, a line for each phase."""
        lines = []
        for phase, victims in self.phases.items():
            each = ", ".join(f"{self.counts[phase, whom]} {whom}" for whom in victims)
            count = sum(self.counts[phase, whom] for whom in victims)
            caught = f", {self.reached[phase]} with the work done" if self.reached[phase] else ""
            lines.append(f"{phase:<10}{count:>4} kills ({each}{caught}), {self.seconds[phase]:.0f} s")
        return [
            *lines,
            f"all       {sum(self.counts.values()):>4} kills, {self.starts} starts checked, "
            f"{self.checks} checks after a revert made up for, nothing lost",
        ]

    # -- rounds

    def _new_machine(self) -> Machine:
        self._homes += 1
        if self._homes > 1:
            shutil.rmtree(self.machine.home)
        return self._machine(self.folder / f"home{self._homes}")

    def _machine(self, home: Path) -> Machine:
        return Machine(home, self.model, self.nursery)

    def _wait(self, most: float) -> None:
        time.sleep(self.random.uniform(0, most))

    def _ready(self) -> Machine:
        """A machine whose server is ready, and checked if it has just been started."""
        machine = self.machine
        if machine.server is None:
            left = self.nursery.left()
            promise(not left, f"left alive: {left}")
            machine.check_disk()
            unchecked = bool(machine.unchecked())
            began = time.monotonic()
            machine.ready()
            self._long["start"] = time.monotonic() - began
            if unchecked:
                machine.until_checked()
                self.checks += 1
            machine.check_served(look=unchecked or self.starts % 3 == 0)
            machine.ledger.leaving.clear()
            machine.ledger.repairing.clear()
            self.starts += 1
        return machine

    def _start(self, phase: str, whom: str) -> None:
        machine = self._ready()
        machine.kill("server")
        if phase == "migration":
            older(machine.data / "store.sqlite3", self.random.choice((1, 2)))
        machine.launch()
        with contextlib.suppress(OSError, AssertionError):
            machine.client.ask("initialize", hello())
            machine.client.notify("initialized", {})
        self._wait(self._long["start"])
        machine.kill(whom)
        self._ready()

    def _serve(self, phase: str, whom: str) -> None:
        machine = self._ready()
        free = self._free(machine)
        if not free or (phase in ("batch", "revert") and self.random.random() < 0.1):
            machine.kill("server")
            machine = self.machine = self._new_machine()
            machine = self._ready()
            free = sorted(VALUES)
        if phase in ("batch", "revert"):
            while len(machine.ledger.history) < 2 and free:
                self._flag(machine, free, repaired=True)
                free = self._free(machine)
        getattr(self, f"_in_{phase}")(machine, free, whom)
        if machine.server is not None:
            self._settled(machine)
        self._ready()

    def _settled(self, machine: Machine) -> None:
        """The server lives: it ends what was under way, one way or another."""
        machine.client.until(
            lambda: (status := machine.client.command("status"))["state"] == "ready" and not status["queue"],
            "the server has got over the death of its worker",
            60,
        )
        machine.check_served(look=True)
        machine.ledger.repairing.clear()

    def _flag(self, machine: Machine, letters: Sequence[str], *, repaired: bool) -> str:
        """The id of a case of one of these letters, acknowledged and perhaps repaired."""
        name = self._suggested(machine, letters)
        promise(name, f"nothing is suggested for any name of {', '.join(letters)}")
        return machine.repaired(name) if repaired else machine.flag(name)

    def _suggested(self, machine: Machine, letters: Sequence[str]) -> str:
        """A name of one of these letters for which something is suggested, if there is one."""
        names = [letter + second for letter in letters for second in sorted(VALUES)]
        self.random.shuffle(names)
        return next(filter(machine.item_at, names), "")

    def _free(self, machine: Machine) -> list[str]:
        """The letters of which nothing is flagged yet, and something can be.

        A few repairs of so small a model may have left nothing to suggest for all names of a letter.
        """
        flagged = {prefix[0] for prefix, _ in machine.ledger.cases.values()}
        return [letter for letter in sorted(VALUES.keys() - flagged) if self._suggested(machine, [letter])]

    def _strike(self, machine: Machine, whom: str, most: float) -> None:
        """Wait a while, then kill."""
        worker = machine.worker() if whom == "worker" else None
        self._wait(most)
        if whom != "worker":
            machine.kill(whom)
        elif worker is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()

    def _in_flag(self, machine: Machine, free: Sequence[str], whom: str) -> None:
        first = self._suggested(machine, free)
        others = [first[0] + second for second in self.random.sample(sorted(VALUES), 2)]
        for name in (first, *others):
            item = machine.item_at(name)
            if item is None:
                continue
            expected = next(value for value in VALUES[name[0]] if value != item["insertText"])
            machine.ledger.sent.append((f"{name} = ", expected))
            (named,) = item["command"]["arguments"]
            order = {"command": "star.flag", "arguments": [{**named, "expected": expected}]}
            answer = machine.client.ask("workspace/executeCommand", order)
            if self.random.random() < 0.5:
                case = answer.get()["caseId"]
                machine.ledger.cases[case] = machine.ledger.sent[-1]
        self._strike(machine, whom, 0.02)
        self.reached["flag"] += bool(answer.there)

    def _repair(
        self, phase: str, machine: Machine, free: Sequence[str], whom: str, sign: str, most: float
    ) -> None:
        id_ = self._flag(machine, free, repaired=False)
        machine.ledger.repairing.add(id_)
        machine.client.told.clear()
        machine.client.command("repairAll", cases=[id_], fromBase=False)

        def reached() -> bool:
            told = [each["value"].get("message", "") for each in machine.client.of("$/progress")]
            return any(sign in each for each in told) or machine.client.case(id_)["status"] in (
                "solved",
                "failed",
            )

        machine.client.until(reached, f"phase {phase}", 60)
        self._strike(machine, whom, most)

    def _in_solve(self, machine: Machine, free: Sequence[str], whom: str) -> None:
        self._repair("solve", machine, free, whom, "starting", 0.3)

    def _in_gate(self, machine: Machine, free: Sequence[str], whom: str) -> None:
        self._repair("gate", machine, free, whom, "nothing else moved", 0.04)

    def _in_write(self, machine: Machine, free: Sequence[str], whom: str) -> None:
        self._repair("write", machine, free, whom, "writing the patch", 0.004)

    def _in_swap(self, machine: Machine, free: Sequence[str], whom: str) -> None:
        self._repair("swap", machine, free, whom, "writing the patch", 0.04)

    def _in_batch(self, machine: Machine, free: Sequence[str], whom: str) -> None:
        if free:
            self._flag(machine, free, repaired=False)
        cases = [case["id"] for case in machine.client.command("listCases") if case["status"] != "reverted"]
        machine.ledger.leaving = set(machine.ledger.history)
        machine.ledger.repairing |= set(cases)
        machine.client.command("repairAll", cases=cases, fromBase=True)
        self._strike(machine, whom, 1.0)

    def _in_revert(self, machine: Machine, free: Sequence[str], whom: str) -> None:
        if not machine.ledger.history:
            return
        patch = self.random.choice(machine.ledger.history)
        machine.ledger.leaving = {patch}
        machine.ledger.repairing |= set(machine.ledger.cases)  # what leaned on it is repaired again
        answer = machine.client.ask(
            "workspace/executeCommand", {"command": "star.revert", "arguments": [{"patchId": patch}]}
        )
        self._strike(machine, whom, self.random.choice((0.01, 0.3)))
        if answer.there:
            self.reached["revert"] += 1
            promise(
                patch not in [each["id"] for each in machine.rows()[1]],
                f"patch {patch} was reverted and is active",
            )

    # -- models

    def _pull(self, phase: str, whom: str) -> None:
        models = self._pulls / "models"
        shutil.rmtree(models, ignore_errors=True)
        models.mkdir()
        what = ["pull", str(self.entry)] if phase == "pull" else ["import", str(self.importable)]
        for whole in (False, True):
            began = time.monotonic()
            process = self._puller([*what, str(models)])
            if not whole:
                end = time.monotonic() + self.random.uniform(0, self._long[phase])
                while time.monotonic() < end and process.is_running():
                    time.sleep(0.002)
                with contextlib.suppress(psutil.NoSuchProcess):
                    children = process.children(recursive=True)
                    (self.random.choice(children) if children and whom != "pull" else process).kill()
            with contextlib.suppress(psutil.NoSuchProcess):
                process.wait(60)
            left = self.nursery.left(*(each for each in [self.machine.server] if each))
            promise(not left, f"left alive by a pull: {left}")
            there = (models / "tiny" / "star-model.json").exists()
            promise(there or not (models / "tiny").exists(), "a folder with the model's name is no model")
            if there:
                told = json.loads((models / "tiny" / "star-model.json").read_text())["fingerprint"]
                promise(told == fingerprint(models / "tiny"), "the model is not what it says")
                if phase == "pull":
                    promise(told == self.fingerprint, "another model was pulled")
            self.reached[phase] += there and not whole
            if there and not whole:
                return
            if whole:
                self._long[phase] = 0.5 * self._long[phase] + 0.5 * (time.monotonic() - began)
        promise(there, f"the second try made no model: {(self._pulls / 'log').read_text()[-300:]}")
        strange = {path.name for path in models.iterdir()} - {"tiny", ".lock"}
        promise(not strange, f"left of the pull: {strange}")

    def _puller(self, words: Sequence[str]) -> psutil.Process:
        with (self._pulls / "log").open("ab") as errors, Path(os.devnull).open("r+b") as nothing:
            environ = os.environ | {"OMP_NUM_THREADS": "1"}
            return self.nursery.start(["tests.faults.pulling", *words], environ, [nothing, nothing, errors])


def older(path: Path, version: int = 1) -> None:
    """Make a store one of an earlier version."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        make_old(db, version)


def hello() -> dict[str, Any]:
    capabilities = {"textDocument": {"inlineCompletion": {}}, "window": {"workDoneProgress": True}}
    return {
        "processId": os.getpid(),
        "rootUri": None,
        "capabilities": capabilities,
        "initializationOptions": SETTINGS,
    }


def rounds(killer: Killer, count: int, say: Callable[[str], None] = log.info) -> None:
    """So many kills."""
    for number in range(count):
        killer.kill(number)
        if number % 100 == 99:
            say(f"{number + 1} kills")
