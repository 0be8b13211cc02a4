"""A server in this very thread, spoken to message by message: who was answered, and how long that took."""

import asyncio
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from star.stop import StopRule
from star_lsp.app import build
from star_lsp.body import parse
from star_lsp.engine import Request, Serving, Written
from star_lsp.places import Places
from star_lsp.service import Service

LIMIT_SECONDS = 1.0


class Quick:
    """An engine that writes the same at once, and remembers nothing."""

    def load(self, folder: Path, patches: Sequence[Path]) -> "asyncio.Future[str]":
        return self.install(patches)

    def complete(self, request: Request, cancelled: threading.Event) -> "asyncio.Future[Written]":
        stop = StopRule.at(request.prefix, request.suffix)
        return _done(Written("sum(y)", request.prefix, request.suffix, stop, "r", 1.0, "stop"))

    def install(self, patches: Sequence[Path]) -> "asyncio.Future[str]":
        return _done("r")

    def close(self) -> None:
        pass


def _done(value: Any) -> "asyncio.Future[Any]":
    future = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


class Talk:
    """One connection. ``say`` checks what is promised of every message."""

    def __init__(self, folder: Path, engine: Serving | None = None) -> None:
        model = folder / "models" / "qwen2.5-coder-0.5b"
        model.mkdir(parents=True, exist_ok=True)
        (model / "star-model.json").write_text(json.dumps({"format": 1, "fingerprint": "base"}))
        self.model = model
        self._loop = asyncio.new_event_loop()
        self.service = Service(Places(folder / "data", folder / "models"), engine or Quick())
        built = build(self.service)
        self.server = getattr(built, "server", built)
        self.protocol: Any = self.server.protocol
        self.protocol.set_writer(self)
        self._options = {"repair": {"schedule": "manual"}}
        self.slowest = 0.0
        self.said: list[Any] = []
        self._loop.set_exception_handler(self._unheard)
        self.unheard: list[Mapping[str, Any]] = []

    def write(self, data: bytes) -> None:
        """What the server says; each thing is whole JSON."""
        head, _, body = data.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        self.said.append(parse(body))

    def close(self) -> None:
        pass

    def begin(self, **more: Any) -> Any:
        """Initialize, and wait for the model."""
        params = {
            "processId": None,
            "rootUri": None,
            "capabilities": {"textDocument": {"inlineCompletion": {}}},
            **more,
        }
        answer = self.ask("initialize", {"initializationOptions": self._options, **params})
        self.tell("initialized", {})
        end = time.monotonic() + 20
        while self.service.state != "ready":
            assert time.monotonic() < end, self.service.failure
            self._step(0.001)
        return answer

    def ask(self, method: str, params: Any, seconds: float = LIMIT_SECONDS) -> Any:
        """The answer to a good request."""
        (answer,) = self.say(
            {"jsonrpc": "2.0", "id": f"ask {time.monotonic_ns()}", "method": method, "params": params},
            seconds,
        )
        return answer

    def tell(self, method: str, params: Any) -> None:
        assert self.say({"jsonrpc": "2.0", "method": method, "params": params}) == []

    def put(self, message: Any) -> None:
        """Send a message, and let the server do what it can at once."""
        self._loop.call_soon(self.protocol.handle_message, message)
        for _ in range(5):
            self._step(0)

    def say(self, message: Any, seconds: float = LIMIT_SECONDS) -> list[Any]:
        """The answers to a message: one to a request or to what is none of the protocol's, else none."""
        self.said.clear()
        began = time.process_time()  # others may be at work on this machine
        end = time.monotonic() + 20
        self._loop.call_soon(self.protocol.handle_message, message)
        self._step(0)
        expected = wanted(message)
        while len(answers := [each for each in self.said if "method" not in each]) < expected:
            assert time.monotonic() < end, f"no answer to {_shown(message)}"
            self._step(0.001)
        self._step(0)
        took = time.process_time() - began
        self.slowest = max(self.slowest, took)
        assert took < seconds, f"{took:.2f} s for {_shown(message)}"
        answers = [each for each in self.said if "method" not in each]
        assert len(answers) == expected, (_shown(message), answers)
        for answer in answers:
            _check(message, answer)
        for each in self.said:  # what the client is asked is answered too
            if "method" in each and "id" in each:
                self._loop.call_soon(
                    self.protocol.handle_message, {"jsonrpc": "2.0", "id": each["id"], "result": None}
                )
        assert self.unheard == [], self.unheard
        return answers

    def end(self) -> None:
        """Leave, as the process would."""

        async def stop() -> None:
            self.service.close()
            if (process := self.service._process) is not None:
                await process.end()
            await asyncio.sleep(0.05)
            tasks = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._loop.run_until_complete(stop())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _step(self, seconds: float) -> None:
        self._loop.run_until_complete(asyncio.sleep(seconds))

    def _unheard(self, _loop: asyncio.AbstractEventLoop, about: Mapping[str, Any]) -> None:
        self.unheard.append(about)


def wanted(message: Any) -> int:
    """How many answers a message must get."""
    match message:
        case {"jsonrpc": "2.0", "method": str()}:
            return int("id" in message)
        case {"jsonrpc": "2.0", "id": _} if "method" not in message:
            return 0
    return 1


def _check(message: Any, answer: Any) -> None:
    assert ("result" in answer) != ("error" in answer), answer
    id_ = message.get("id") if isinstance(message, dict) else None
    assert answer["id"] == (id_ if type(id_) in (int, str, float) else None), (answer, _shown(message))
    if "error" in answer:
        error = answer["error"]
        assert type(error["code"]) is int
        assert error["message"], answer
        assert "Traceback" not in json.dumps(error)
        assert len(error["message"]) < 5000, answer
        # -32603 is a fault of ours; there is none.
        assert error["code"] != -32603, (error, _shown(message))


def _shown(message: Any) -> str:
    return json.dumps(message)[:3000]
