"""``python -m star_lsp`` is ``star-lsp``."""

from star_lsp.cli import main

main()
