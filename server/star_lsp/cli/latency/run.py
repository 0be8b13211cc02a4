"""A run: the same traces through our server and through the peer, row by row in turn."""

import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from star.bench.plan import OnProgress
from star_lsp.cli.latency.cost import Cost
from star_lsp.cli.latency.llama import Llama, beside
from star_lsp.cli.latency.ours import Ours, serving
from star_lsp.cli.latency.rates import DECODE_TOKENS, Speed, median
from star_lsp.cli.latency.repaired import repaired
from star_lsp.cli.latency.replay import Pace, Request, gaps, replay
from star_lsp.cli.latency.summary import Measured
from star_lsp.cli.latency.trace import Trace

__all__ = ["Asked", "run"]

_TIMES = 3


class _Costing(Protocol):
    @property
    def name(self) -> str: ...

    def cost(self) -> Cost: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is asked for.

    Attributes:
        traces: What is typed.
        pace: How fast.
        seed: Of the time between keys.
        model: The model's folder; its name is what the server is told.
        gguf: The same model for the peer; None without one.
        threads: Of the peer: as many as ours has.
        rates: Whether tokens a second are measured too.
        repairs: How many wrong suggestions are flagged and repaired.
    """

    traces: Sequence[Trace]
    pace: Pace
    seed: int
    model: Path
    gguf: Path | None
    threads: int
    rates: bool = True
    repairs: int = 0


async def run(asked: Asked, folder: Path, measured: Measured, on_progress: OnProgress) -> None:
    """Replay and measure; ``measured`` holds all that is known when it is stopped.

    Each request goes to ``latency.jsonl`` in ``folder`` as soon as it is over; what the peer logs goes to
    ``llama.log``.

    Raises:
        ServerError: our server cannot serve the model.
        StarError: the peer cannot.
    """
    async with AsyncExitStack() as stack:
        peer: Llama | None = None
        if asked.gguf:
            log = folder / "llama.log"
            peer = await stack.enter_async_context(beside(asked.gguf, asked.model, asked.threads, log))
        async with serving(asked.model.name, asked.model.parent) as ours:
            servers: list[Ours | Llama] = [ours, *([peer] if peer else [])]
            measured.servers = [server.name for server in servers]
            with (folder / "latency.jsonl").open("w", encoding="utf-8") as lines:
                await _replayed(asked, servers, lines, measured, on_progress)
                on_progress(len(asked.traces), len(asked.traces), "repairs", None)
                async for request in repaired(asked.traces, ours, asked.repairs):
                    _noted(request, lines, measured)
        if asked.rates:
            on_progress(len(asked.traces), len(asked.traces), "tokens a second", None)
            await _rated(asked, peer, measured)


async def _replayed(
    asked: Asked,
    servers: Sequence[Ours | Llama],
    lines: IO[str],
    measured: Measured,
    on_progress: OnProgress,
) -> None:
    before = {server.name: server.cost() for server in servers}
    began = time.monotonic()
    for number, trace in enumerate(asked.traces):
        left = (time.monotonic() - began) / number * (len(asked.traces) - number) if number else None
        # Who begins takes turns, so that neither always finds the machine as the other left it.
        for server in servers if number % 2 == 0 else reversed(servers):
            on_progress(number, len(asked.traces), f"{server.name} {trace.name}", left)
            between = gaps(asked.pace, f"{asked.seed}/{trace.name}")
            async for request in replay(trace, server, between):
                _noted(request, lines, measured)
            _costed(server, before[server.name], measured)


def _noted(request: Request, lines: IO[str], measured: Measured) -> None:
    measured.requests.append(request)
    lines.write(json.dumps(asdict(request)) + "\n")
    lines.flush()


def _costed(server: _Costing, before: Cost, measured: Measured) -> None:
    """Take down what a server has cost since ``before``."""
    now = server.cost().after(before)
    known = measured.costs.get(server.name)
    measured.costs[server.name] = known.peak(now) if known else now


async def _rated(asked: Asked, peer: Llama | None, measured: Measured) -> None:
    """Tokens a second, in turn; our server has ended, so that the model is here once."""
    speed = Speed(asked.model)
    text = "\n".join(each.prefix + each.truth + each.suffix for each in asked.traces)
    prompt = speed.prompt(text)
    measured.swap_milliseconds = speed.swap_milliseconds()
    ours, peers = [], []
    speed.rates(prompt[: len(prompt) // 4], 2)  # kernels choose themselves at the first run
    for _ in range(_TIMES):
        ours.append(speed.rates(prompt))
        measured.rates[Ours.name] = median(ours)
        if peer:
            peers.append(await peer.rates(prompt, DECODE_TOKENS))
            measured.rates[Llama.name] = median(peers)
