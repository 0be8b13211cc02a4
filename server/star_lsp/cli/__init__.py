"""The command line: ``star-lsp`` serves; everything else works on the same store and models.

What an editor starts, ``star-lsp --stdio``, is here and not among the commands: it joins a server that runs,
and nobody shall wait for the import of what it does not need.
"""

import os
import sys

from star_lsp.errors import ServerError

__all__ = ["main", "share"]


def main() -> None:
    """Run the command line; our own errors are one sentence and exit status 2."""
    try:
        if sys.argv[1:] == ["--stdio"]:
            share()
        else:
            from star_lsp.cli.group import run

            run()
    except KeyboardInterrupt:
        _leave("Stopped.", 130)
    except ServerError as error:
        _leave(f"star-lsp: {error}", 2)


def share() -> None:
    """Hand a client on to the server that all share. Imports next to nothing."""
    from star_lsp import __version__
    from star_lsp.address import folder
    from star_lsp.join import join
    from star_lsp.places import places

    data = places(os.environ).data
    status = join(folder(data, __version__), sys.stdin.buffer, sys.stdout.buffer)
    # A thread may still wait for the client to say more.
    sys.stderr.flush()
    os._exit(status)


def _leave(word: str, status: int) -> None:
    sys.stderr.write(f"{word}\n")
    sys.exit(status)
