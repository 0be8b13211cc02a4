"""Kills of the server that editors share, its worker, a relay, an editor; a second editor looks on."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from star_lsp import address
from star_lsp.protocol import ABOUT
from star_lsp.running import ask
from tests.faults.killing import OURS, SETTINGS, Killer, Machine, Wrong, hello, older, promise
from tests.faults.nursery import Nursery
from tests.server.client import Answer, Client

__all__ = ["SharedKiller", "SharedMachine"]

_ALL = ("server", "worker", "relay", "client")
PHASES: Mapping[str, Sequence[str]] = {
    "start": ("server", "relay", "client"),
    "migration": ("server", "relay", "client"),
    "flag": ("server", "relay", "client"),
    "solve": _ALL,
    "gate": _ALL,
    "write": _ALL,
    "swap": _ALL,
    "batch": _ALL,
    "revert": _ALL,
}
#: The first twelve have each phase once or more: so many are killed in a usual run.
TURNS = (
    "start", "flag", "solve", "revert", "migration", "gate", "start", "write", "flag", "swap", "batch",
    "start", "migration", "flag", "revert", "start", "solve",
)  # fmt: skip
#: What a server may have in a folder of its own.
_SERVERS = {"lock", "server.json", "socket", "token"}
#: An editor that was let down is told within this time, and a new one gets its server within the other.
_TOLD, _SERVED = 10.0, 60.0


class Editor:
    """An editor, and its ``star-lsp --stdio``: the relay to the server that all share."""

    def __init__(self, machine: "SharedMachine", log: Path) -> None:
        """Start the relay; nothing is said to it."""
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        environ = os.environ | {"STAR_LSP_HOME": str(machine.home), "OMP_NUM_THREADS": "1"}
        with (
            os.fdopen(theirs_in, "rb") as stdin,
            os.fdopen(theirs_out, "wb") as stdout,
            log.open("wb") as errors,
        ):
            self.relay = machine.nursery.start(["star_lsp", "--stdio"], environ, [stdin, stdout, errors])
        self._pipes = [os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")]
        self.client = Client(*self._pipes)
        self.opened: set[str] = set()
        self.greeting = Answer(0, "initialize")
        self._log = log

    @property
    def said(self) -> str:
        """What its user is told where nothing else can be."""
        return self._log.read_text("utf-8", "replace")

    @property
    def ended(self) -> bool:
        """Whether it has lost its server, or its relay."""
        return self.client.ended.is_set()

    def die(self, whom: str) -> None:
        """Its relay is killed, or it dies itself, with all that it has open; both are gone after this."""
        if whom == "relay":
            self.relay.kill()
        self.close()
        try:
            self.relay.wait(_TOLD)
        except psutil.TimeoutExpired as error:
            self.relay.send_signal(signal.SIGUSR1)
            time.sleep(1)
            raise Wrong(f"a relay outlives its editor:\n{self.said[-6000:]}") from error

    def close(self) -> None:
        """Close its pipes."""
        with contextlib.suppress(OSError, ValueError):
            self._pipes[1].close()
        self.client.ended.wait(5)
        with contextlib.suppress(OSError, ValueError):
            self._pipes[0].close()


class SharedMachine(Machine):
    """A home where two editors share a server: the first one does things, the second one looks on."""

    ours = OURS | {"server", "logs"}

    def __init__(self, home: Path, model: Path, nursery: Nursery) -> None:
        super().__init__(home, model, nursery)
        self.editors: list[Editor | None] = [None, None]
        self._started = 0

    @property
    def place(self) -> Path:
        """The folder of the server."""
        return address.folder(self.data, version("star-lsp"))

    def launch(self) -> None:
        """Start what is missing of two relays, at once; nothing may be ready when this returns."""
        for number, editor in enumerate(self.editors):
            if editor is None or editor.ended:
                if editor:
                    editor.die("client")
                self._started += 1
                self.editors[number] = Editor(self, self.home / f"relay{self._started}")
        self._use(0)

    def ready(self, **settings: Any) -> Client:
        """The first editor's client; both have a server that is ready, and it is the same one."""
        new = [number for number, each in enumerate(self.editors) if each is None or each.ended]
        before = self.server
        self.launch()
        for number in new:
            self._editor(number).client.initialize(SETTINGS | settings)
        for number in (0, 1):
            self._use(number)
            self._until(lambda: self.client.command("status")["state"] == "ready", "ready", _SERVED)
        self._use(0)
        told = address.running(self.place)
        promise(told is not None, "a server that runs does not tell where")
        assert told is not None
        self.server = psutil.Process(told.pid)
        promise(before in (None, self.server), "there is another server, and the one before has not died")
        self._until(lambda: self._connected() == 2, "two editors on one server")
        servers = self.nursery.named("serve")
        promise(servers == [self.server], f"{servers} run where {self.server} should")
        return self.client

    def kill(self, whom: str) -> None:
        """End the server, the first editor, or its relay, as a crash does; who is left is told, or served."""
        assert self.server is not None
        if whom == "server":
            self.server.kill()
            for editor in filter(None, self.editors):
                if editor.ended:
                    continue
                promise(editor.client.ended.wait(_TOLD), "an editor is not told that its server has died")
                editor.die("client")
                promise("star-lsp: the server has ended" in editor.said, f"an editor is told {editor.said!r}")
            self.hang_up()
            self.server.wait(_TOLD)
            self.server = None
            return
        self._editor(0).die(whom)
        self._use(1)
        promise(self.server.is_running(), f"the server died with the {whom} of one of two editors")
        left = self.nursery.left(self.server, self._editor(1).relay)
        promise(not left, f"left alive: {left}")

    def greet(self) -> None:
        """Have both editors say hello, and wait for nothing."""
        for editor in filter(None, self.editors):
            with contextlib.suppress(OSError):
                editor.greeting = editor.client.ask("initialize", hello())
                editor.client.notify("initialized", {})

    def kill_starting(self, whom: str) -> None:
        """The same while relays start a server, or join one; who lives is served then, or told why not."""
        servers = self.nursery.named("serve")
        if whom == "server" and servers:
            servers[-1].kill()
        else:
            self._editor(0).die("client" if whom == "client" else "relay")
            self.editors[0] = None
        for editor in filter(None, self.editors):
            self._until(lambda each=editor: each.ended or each.greeting.there, "served or told", _SERVED)
            answer = None
            with contextlib.suppress(OSError):  # it may have been greeted by the one that was killed
                answer = editor.client.ask("workspace/executeCommand", {"command": "star.status"})
            self._until(
                lambda each=editor, answer=answer: each.ended or (answer and answer.there), "served", _SERVED
            )
            if editor.ended:
                editor.die("client")
                last = ["nothing", *editor.said.splitlines()][-1]
                promise(last.startswith("star-lsp: "), f"an editor is told {editor.said!r}")

    def hang_up(self) -> None:
        """Close all pipes."""
        for editor in filter(None, self.editors):
            editor.die("client")
        self.editors = [None, None]

    def settled(self) -> None:
        """Wait until what was under way is over, whoever had asked for it."""
        alive = [number for number, each in enumerate(self.editors) if each and not each.ended]
        self._until(lambda: self._connected() == len(alive), f"{len(alive)} editors are connected")

        def idle() -> bool:
            status = self.client.command("status")
            return status["state"] == "ready" and not status["queue"]

        self._until(lambda: idle() and not time.sleep(0.1) and idle(), "all is done", _SERVED)

    # -- what is seen

    def check_disk(self) -> list[str]:
        """As of one server; what was sent when a relay died may still come."""
        sent = [*self.ledger.sent] if self.server else []
        history = super().check_disk()
        self.ledger.sent += sent
        return history

    def check_served(self, *, look: bool) -> None:
        """As of one server; and every editor sees the same."""
        super().check_served(look=look)
        cases, _ = self.rows()
        solved = [case for case in cases.values() if case["status"] == "solved" and case["patch"]]
        status = self.client.command("status")
        for number, editor in enumerate(self.editors):
            if editor is None or editor.ended:
                continue
            self._use(number)
            promise(self.client.command("status")["revision"] == status["revision"], "editors disagree")
            seen = {case["id"]: case["status"] for case in self.client.command("listCases")}
            promise(seen == {id_: case["status"] for id_, case in cases.items()}, f"an editor sees {seen}")
            told = self.client.of("star/didChange")
            promise(
                not told or told[-1]["revision"] == status["revision"],
                f"editor {number} was last told {told[-1:]}, and {status['revision']} is served",
            )
            for case in solved if look else solved[-1:]:
                text = self.text_at(case["prefix"][:2])
                promise(text == case["expected"], f"editor {number} is given {text!r} for {case['id']}")
        self._use(0 if self.editors[0] and not self.editors[0].ended else 1)
        strange = {path.name for path in self.place.iterdir()} - _SERVERS
        promise(not strange, f"stray files of servers {strange}")

    # -- inside

    def _editor(self, number: int) -> Editor:
        found = self.editors[number]
        assert found is not None
        return found

    def _use(self, number: int) -> None:
        editor = self._editor(number)
        self.client, self.opened = editor.client, editor.opened

    def _connected(self) -> int:
        return len(ask(self.place, ABOUT).get("editors", ()))

    def _until(self, holds: Callable[[], Any], what: str, seconds: float = _TOLD) -> None:
        end = time.monotonic() + seconds
        while not holds():
            promise(time.monotonic() < end, f"not within {seconds} s: {what}")
            time.sleep(0.01)


class SharedKiller(Killer):
    """The same rounds around a server that two editors share."""

    phases, turns, usual = PHASES, TURNS, 12
    machine: SharedMachine

    def kill(self, number: int) -> None:
        """One round; when a promise does not hold, with the end of the server's log."""
        try:
            super().kill(number)
        except Wrong as error:
            log = self.machine.data / "logs" / "server.log"
            said = log.read_text("utf-8", "replace")[-6000:] if log.exists() else "nothing"
            raise Wrong(f"{error}\nThe log of the server ends:\n{said}") from error

    def close(self) -> None:
        """End all, and remove the folders of sockets whose path would have been too long."""
        super().close()
        for home in self.folder.glob("home*"):
            place = Path(address.free(address.folder(home / "data", version("star-lsp"))).path).parent
            if not place.is_relative_to(home):
                shutil.rmtree(place)

    def _machine(self, home: Path) -> SharedMachine:
        return SharedMachine(home, self.model, self.nursery)

    def _ready(self) -> SharedMachine:
        """A machine whose two editors have a server that is ready; checked if any has just been started."""
        machine = self.machine
        cold = machine.server is None
        if cold or any(each is None or each.ended for each in machine.editors):
            if cold and not any(machine.editors):
                left = self.nursery.left()
                promise(not left, f"left alive: {left}")
                machine.check_disk()
            began = time.monotonic()
            machine.ready()
            if cold:
                self._long["start"] = time.monotonic() - began
            machine.check_served(look=self.starts % 3 == 0)
            machine.ledger.leaving.clear()
            machine.ledger.repairing.clear()
            self.starts += 1
        return machine

    def _settled(self, machine: Machine) -> None:
        """The server lives: it ends what was under way, one way or another, and whoever is left sees that."""
        assert isinstance(machine, SharedMachine)
        machine.settled()
        machine.check_served(look=True)
        machine.ledger.leaving.clear()
        machine.ledger.repairing.clear()

    def _start(self, phase: str, whom: str) -> None:
        machine = self._ready()
        machine.kill("server")
        if phase == "migration":
            older(machine.data / "store.sqlite3")
        machine.launch()
        machine.greet()
        self._wait(self._long["start"])
        machine.kill_starting(whom)
        if not self.nursery.named("serve") and all(not each or each.ended for each in machine.editors):
            machine.hang_up()
        self._ready()
