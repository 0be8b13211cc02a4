"""Waiting for a store that another program holds, while everything else on the event loop goes on."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from star_lsp.errors import StoreHeld

__all__ = ["patiently"]

P = ParamSpec("P")
T = TypeVar("T")

#: A store that is held is asked again so often, for so long.
_PAUSE_SECONDS = 0.1
_SECONDS = 10.0


async def patiently(do: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What ``do`` returns, done again until the store is free; nothing else has run in between if it is.

    ``do`` is all done or not at all, as every method of the store is, or may be done twice.

    Raises:
        StoreHeld: another program has held the store all the time.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _SECONDS
    while True:
        try:
            return do(*arguments, **named)
        except StoreHeld:
            if loop.time() >= until:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)
