"""The peer's own process: llama.cpp behind JSON lines, so that memory and processor time are its alone.

Run by ``python -m star_lsp.cli.latency.llama_process GGUF THREADS CONTEXT``. It ends with its input.
"""

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO, Any

from star.stop import StopRule

__all__ = ["main"]

#: As its editor plugins tell people to start it: tokens in a batch, and the least chunk worth shifting.
_BATCH_TOKENS, _REUSE_TOKENS = 1024, 256


class Peer:
    """One model with one slot, and the requests that were taken back."""

    def __init__(self, gguf: Path, threads: int, context: int, answers: IO[bytes]) -> None:
        """Load the model."""
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = os.fspath(gguf)
        params.n_ctx = context
        params.n_parallel = 1
        params.n_batch = params.n_ubatch = _BATCH_TOKENS
        params.n_cache_reuse = _REUSE_TOKENS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.verbosity = -1
        self._server = xllamacpp.Server(params)
        self._answers = answers
        self._taken_back: set[int] = set()

    def take_back(self, number: int) -> None:
        """End a request at its next token; from another thread."""
        self._taken_back.add(number)

    def say(self, message: dict[str, Any]) -> None:
        """Write one line."""
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()

    def answer(self, asked: dict[str, Any]) -> None:
        """Write until the stop rule ends the text; without a rule, to the last token asked for."""
        number = int(asked["id"])
        if number not in self._taken_back:
            self.say({"id": number, **self._written(number, asked)})
        self._taken_back.discard(number)

    def _written(self, number: int, asked: dict[str, Any]) -> dict[str, Any]:
        stop = StopRule(**asked["stop"]) if asked["stop"] else None
        text, ended = "", "cancelled"
        timings: dict[str, float] = {}
        refused: object = None

        def on_chunk(chunk: Any) -> bool:
            """Whether to end here."""
            nonlocal text, ended, timings, refused
            if not isinstance(chunk, dict) or "choices" not in chunk:
                refused = chunk
                return True
            choice = chunk["choices"][0]
            text += choice["text"]
            timings = chunk.get("timings") or timings
            if stop and stop.end(text) is not None:
                ended = "stop"
                return True
            if choice["finish_reason"]:
                ended = "length" if choice["finish_reason"] == "length" else "token"
            return number in self._taken_back

        self._server.handle_completions(
            {
                "prompt": asked["ids"],
                "n_predict": asked["tokens"],
                "temperature": 0,
                "stream": True,
                "timings_per_token": True,
                "id_slot": 0,
                "cache_prompt": stop is not None,  # what is measured without a rule is read afresh
                "ignore_eos": stop is None,
            },
            on_chunk,
        )
        if refused is not None:
            return {"error": str(refused)}
        return {"text": stop.trim(text) if stop else text, "ended": ended, "timings": timings}


def main() -> None:
    """Answer requests until the input ends."""
    gguf, threads, context = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Standard output is the wire: what llama.cpp prints goes to standard error.
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    peer = Peer(gguf, threads, context, wire)
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if "cancel" in message:
                peer.take_back(message["cancel"])
            else:
                asked.put(message)
        os._exit(0)  # whoever asked is gone: what is being written is for nobody

    threading.Thread(target=read, daemon=True).start()
    peer.say({"ready": True})
    while True:
        peer.answer(asked.get())


if __name__ == "__main__":
    main()
