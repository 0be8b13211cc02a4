"""What a developer waits for while the model is repaired, and right after: the same keys each time."""

from collections.abc import AsyncIterator, Sequence
from time import perf_counter

from star_lsp.cli.latency.ours import Ours
from star_lsp.cli.latency.replay import Document, Kind, Request
from star_lsp.cli.latency.trace import Trace

__all__ = ["repaired"]

#: No suggestion begins so, so the model is asked until it has nothing to say; memory answers the rest.
_KEYS = "xqzjkvwyxqzjkvwyxqzjkvwy"


async def repaired(traces: Sequence[Trace], server: Ours, repairs: int) -> AsyncIterator[Request]:
    """Type the same keys at rest, and while what was suggested is flagged and repaired; then one more.

    That many places are repaired whose suggestion is wrong; the time before a place's first suggestion is
    none of this. The last request of each is the first one under the new revision, asked for as soon as it
    is there, after the first of these keys; a repair that failed has none.
    """
    for trace in traces:
        if repairs == 0:
            return
        document = Document(f"{trace.uri}#at-rest", trace.prefix, trace.suffix)
        await server.open(document)
        suggestion = await server.complete(document)
        if not suggestion.text or trace.truth.startswith(suggestion.text):
            continue
        repairs -= 1
        for key in _KEYS:
            document, request = await _typed(server, trace, document, key, "at rest")
            yield request
        document = Document(trace.uri, trace.prefix, trace.suffix)
        await server.open(document)
        suggestion = await server.complete(document)
        before = await server.revision()
        repair = await server.flag(suggestion, trace.truth)
        for key in _KEYS:
            document, request = await _typed(server, trace, document, key, "during repair")
            if repair.done():
                break
            yield request
        if await repair:
            await server.until_other_than(before)
            document = Document(trace.uri, trace.prefix, trace.suffix)
            await server.open(document)
            _, request = await _typed(server, trace, document, _KEYS[0], "after repair")
            yield request


async def _typed(
    server: Ours, trace: Trace, document: Document, key: str, kind: Kind
) -> tuple[Document, Request]:
    """The document with one more key, and the request that it led to."""
    await server.insert(document, key)
    document = document.typed(key)
    asked = perf_counter()
    found = await server.complete(document)
    waited = (perf_counter() - asked) * 1000
    return document, Request(server.name, trace.name, kind, waited, True, len(found.text), 0, 0)
