"""What one client of a server may cost the others."""

import asyncio
import socket

from star_lsp.connection import _Outlet


def test_a_client_that_reads_nothing_is_let_go_before_it_takes_the_servers_memory() -> None:
    async def play() -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            _, writer = await asyncio.open_connection(sock=ours)
            outlet = _Outlet(writer)
            for megabytes in range(200):
                outlet.write(b"x" * (1 << 20))
                if writer.transport.is_closing():
                    return megabytes
        return 200

    assert asyncio.run(play()) < 40
