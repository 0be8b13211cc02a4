"""An LSP client as bare as can be: what is asserted is what was on the wire."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

INLINE = {"inlineCompletion": {}}
Message = dict[str, Any]


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, error: Message) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]


class Answer:
    """What a request will be answered with."""

    def __init__(self, number: int, method: str) -> None:
        self.number = number
        self._method = method
        self._there = threading.Event()
        self._message: Message = {}

    @property
    def there(self) -> bool:
        return self._there.is_set()

    def put(self, message: Message) -> None:
        self._message = message
        self._there.set()

    def get(self, seconds: float = 20) -> Any:
        """The result; a request that is left hanging fails here."""
        assert self._there.wait(seconds), f"{self._method} was not answered within {seconds} s"
        if "error" in self._message:
            raise Refused(self._message["error"])
        return self._message["result"]


class Client:
    """A client on two pipes. What the server tells by itself is kept in ``told``, in order."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes], *, answers: bool = True) -> None:
        self.told: list[Message] = []
        #: Answers to nothing that was asked through here.
        self.unasked: list[Message] = []
        self.wire_is_clean = True
        self._answers = answers
        self._reader, self._writer = reader, writer
        self._waiting: dict[int, Answer] = {}
        self._news = threading.Condition()
        self._write_lock = threading.Lock()
        self._last = 0
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    # -- requests and notifications

    def ask(self, method: str, params: Any = None) -> Answer:
        with self._write_lock:
            self._last += 1
            answer = self._waiting[self._last] = Answer(self._last, method)
        self._send({"id": answer.number, "method": method, "params": params})
        return answer

    def request(self, method: str, params: Any = None, seconds: float = 20) -> Any:
        return self.ask(method, params).get(seconds)

    def notify(self, method: str, params: Any = None) -> None:
        self._send({"method": method, "params": params})

    def cancel(self, answer: Answer) -> None:
        self.notify("$/cancelRequest", {"id": answer.number})

    # -- what an editor does

    def initialize(
        self,
        options: Any = None,
        *,
        text_document: Mapping[str, Any] = INLINE,
        general: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> Any:
        capabilities = {
            "textDocument": dict(text_document),
            "window": {"workDoneProgress": progress},
            "general": dict(general or {}),
        }
        params = {"processId": os.getpid(), "rootUri": None, "capabilities": capabilities}
        result = self.request("initialize", params | {"initializationOptions": options})
        self.notify("initialized", {})
        return result

    def open(self, uri: str, text: str, language: str = "python") -> None:
        document = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})

    def rewrite(self, uri: str, text: str) -> None:
        document = {"uri": uri, "version": 2}
        self.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})

    def ask_inline(self, uri: str, line: int, character: int) -> Answer:
        params = {"position": {"line": line, "character": character}, "context": {"triggerKind": 1}}
        return self.ask("textDocument/inlineCompletion", params | {"textDocument": {"uri": uri}})

    def inline(self, uri: str, line: int, character: int, seconds: float = 20) -> Message | None:
        """The one item at a place, if there is one."""
        items = self.ask_inline(uri, line, character).get(seconds)["items"]
        assert len(items) <= 1
        return items[0] if items else None

    def command(self, name: str, seconds: float = 20, /, **fields: Any) -> Any:
        params = {"command": f"star.{name}", "arguments": [fields]}
        return self.request("workspace/executeCommand", params, seconds)

    def flag(self, item: Message, expected: str) -> str:
        """The case that an item was flagged as."""
        (argument,) = item["command"]["arguments"]
        flagged = self.command("flag", completionId=argument["completionId"], expected=expected)
        assert flagged["status"] == "pending"
        return str(flagged["caseId"])

    def case(self, id_: str) -> Message:
        (found,) = [case for case in self.command("listCases") if case["id"] == id_]
        return dict(found)

    # -- waiting

    def until(self, holds: Callable[[], Any], what: str, seconds: float = 30) -> Any:
        """The first true value of ``holds``, asked for again whenever the server tells something."""
        end = time.monotonic() + seconds
        while not (value := holds()):
            left = end - time.monotonic()
            assert left > 0, f"{what}: not within {seconds} s; told {self.told[-5:]}"
            assert not self.ended.is_set(), f"{what}: the server has ended"
            with self._news:
                self._news.wait(min(left, 0.1))
        return value

    def until_state(self, *states: str, seconds: float = 30) -> None:
        self.until(lambda: self.command("status")["state"] in states, f"state {states}", seconds)

    def until_case(self, id_: str, *statuses: str, seconds: float = 30) -> Message:
        def there() -> Message | None:
            case = self.case(id_)
            return case if case["status"] in statuses else None

        return dict(self.until(there, f"case {id_} {statuses}", seconds))

    def of(self, method: str) -> list[Any]:
        """The parameters of all messages of one method that the server sent by itself."""
        return [message["params"] for message in list(self.told) if message["method"] == method]

    # -- inside

    def _send(self, message: Message) -> None:
        body = json.dumps({"jsonrpc": "2.0"} | message).encode()
        with self._write_lock:
            self._writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            self._writer.flush()

    def _read(self) -> None:
        try:
            while message := self._message():
                if "method" not in message:
                    waiting = self._waiting.pop(message["id"], None)
                    if waiting is None:
                        self.unasked.append(message)
                    else:
                        waiting.put(message)
                else:
                    with self._news:
                        self.told.append(message | {"at": time.monotonic()})
                        self._news.notify_all()
                    if "id" in message and self._answers:
                        self._send({"id": message["id"], "result": None})
        except (OSError, ValueError):  # the pipe is closed
            pass
        finally:
            self.ended.set()

    def _message(self) -> Message | None:
        size = 0
        while line := self._reader.readline():
            if line == b"\r\n":
                return dict(json.loads(self._reader.read(size)))
            if line.startswith(b"Content-Length: "):
                size = int(line[16:])
            elif not line.startswith(b"Content-Type: "):
                self.wire_is_clean = False
        return None


class Server:
    """A real server in a process of its own, its standard error in a file; killed at the end."""

    def __init__(self, home: Path, log: Path, *, shared: bool = False, **environ: str) -> None:
        """``shared``: below it runs the server that all editors share, in a process of its own."""
        self.home, self.log = home, log
        how = "--stdio" if shared else "--standalone"
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "star_lsp", how],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment({"STAR_LSP_HOME": str(home), "OMP_NUM_THREADS": "1"} | environ),
            )
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        self.client = Client(self.process.stdout, self.process.stdin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End the server as a crash does."""
        self.process.kill()
        self.process.wait()
        self.client.ended.wait(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def leave(self, seconds: float = 5) -> int:
        """The exit status after a proper goodbye."""
        self.client.request("shutdown")
        self.client.notify("exit")
        return self.process.wait(seconds)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Ours on top of what there is; what is empty is left out."""
    return {name: value for name, value in (os.environ | ours).items() if value or name not in ours}
