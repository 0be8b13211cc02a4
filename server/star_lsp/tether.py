"""Runs a module that must not outlive the process that started it: ``python -m star_lsp.tether MODULE ARG…``.

The parent holds the other end of standard input and never writes to it; when the parent dies, however
it dies, the end closes and this process goes at once. That works on every system and needs no signal.
"""

import os
import runpy
import sys
import threading

__all__: list[str] = []


def _watch(line: int) -> None:
    """Waits until the parent is gone, and goes too."""
    while os.read(line, 1):
        pass
    os._exit(1)


def main() -> None:
    """Ties this process to its parent and becomes the module that the arguments name."""
    line = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_watch, args=(line,), daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
