"""What a patch changed, for people: the neurons that moved most, and what is written around its cases."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from star_lsp.cli.state import short
from star_lsp.protocol import Compared, MovedLayer

__all__ = ["compared_table", "moved_table"]

_MOST = 4


def moved_table(layers: Sequence[MovedLayer]) -> Table:
    """The neurons of each layer that moved most, each with the norm by which."""
    table = Table(title="Neurons that moved most", title_justify="left")
    table.add_column("layer", justify="right")
    table.add_column("neurons, each with the norm of its delta", overflow="fold")
    for layer in layers:
        most = ", ".join(f"{each.neuron} ({each.norm:.2g})" for each in layer.most[:_MOST])
        table.add_row(str(layer.layer), most + ", …" * (layer.neurons > _MOST))
    return table


def compared_table(comparison: Sequence[Compared]) -> Table:
    """What is written without and with a patch; a mark says whether it is right, or has stayed the same."""
    table = Table(title="Without it and with it", title_justify="left")
    for column in ("", "where", "without", "with"):
        table.add_column(column, overflow="fold")
    for each in comparison:
        good = each.after == (each.before if each.expected is None else each.expected)
        table.add_row(
            Text("✓", "green") if good else Text("✗", "red"),
            Text(f"{each.kind}: {each.where}"),
            Text(short(each.before, 80)),
            Text("the same" if each.after == each.before else short(each.after, 80)),
        )
    return table
