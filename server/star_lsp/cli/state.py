"""What the commands work on: the user's store and models, and their ids for the shell to complete."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.text import Text

from star_lsp.catalogue import Installed, locate
from star_lsp.errors import ServerError
from star_lsp.perform import resume
from star_lsp.places import places
from star_lsp.settings import Settings
from star_lsp.store import Store

__all__ = [
    "IdGroup",
    "again",
    "apart",
    "as_json",
    "case_ids",
    "default_model",
    "err",
    "model_option",
    "opened",
    "out",
    "patch_ids",
    "revertible_ids",
    "short",
    "the_model",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Found = TypeVar("Found")


@contextmanager
def opened() -> Iterator[Store]:
    """The user's store; what a process that was cut off has left in it is put right first."""
    store = Store(places(os.environ).data)
    if store.word:
        click.echo(f"star-lsp: {store.word}", err=True)
    try:
        resume(store)
        yield store
    finally:
        store.close()


def the_model(name: str) -> Installed:
    """The installed model of that name.

    Raises:
        CatalogueError: it is not here.
    """
    return locate(name, places(os.environ).models)


def again(model: str) -> str:
    """The command that repairs the pending cases of a model."""
    return "star-lsp repair" + f" --model {model}" * (model not in ("", default_model()))


def default_model() -> str:
    """The model that the server uses when no setting names another."""
    return Settings().model


def as_json(command: Command) -> Command:
    """Give a command the flag ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a table.")(command)


def model_option(command: Command) -> Command:
    """Give a command the option ``--model``."""
    return click.option(
        "--model",
        default=default_model(),
        show_default=True,
        metavar="NAME",
        help="The model; name the one that your editor's setting `model` names.",
    )(command)


def out() -> Console:
    """Where results go for people to read."""
    return Console(highlight=False)


def err() -> Console:
    """Where progress goes."""
    return Console(stderr=True, highlight=False)


def apart(found: Iterable[Found], model: Callable[[Found], str]) -> Iterator[tuple[Text | None, list[Found]]]:
    """What is found for each model, with its name for a title where there are several."""
    parts: dict[str, list[Found]] = {}
    for each in found:
        parts.setdefault(model(each), []).append(each)
    for name, part in parts.items():
        yield Text(name) if len(parts) > 1 else None, part


def short(text: str, most: int = 48) -> str:
    """The first line of a text, cut to a readable length."""
    first, *more = text.strip().split("\n")
    cut = first[: most - 1]
    return cut + "…" if more or cut != first else first


# -- completion in the shell ---------------------------------------------------------------------------


def case_ids(*statuses: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Completes ids of cases, of some statuses or of all."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _items(incomplete, lambda store: [
            (case.id, f"{case.status}: {short(case.expected)}")
            for case in store.cases()
            if not statuses or case.status in statuses
        ])  # fmt: skip

    return complete


def patch_ids(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes ids of patches."""
    return _items(incomplete, lambda store: [
        (patch.id, "active" if patch.active else "not active") for patch in store.patches()
    ])  # fmt: skip


def revertible_ids(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes ids of active patches, and of the cases that they cover."""

    def found(store: Store) -> Iterator[tuple[str, str]]:
        for patch in store.patches():
            if patch.active:
                yield patch.id, f"patch for {', '.join(patch.cases)}"
                yield from ((id_, f"case of {patch.id}") for id_ in patch.cases)

    return _items(incomplete, found)


class IdGroup(click.Group):
    """A group that shows what an id names where a command is expected: ``cases ID`` is ``cases show ID``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take anything that is no command for an id."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            return super().resolve_command(ctx, ["show", *args])
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the commands, and ids as ``show`` does."""
        found = super().shell_complete(ctx, incomplete)
        show = self.get_command(ctx, "show")
        if show and not incomplete.startswith("-"):
            found += show.params[0].shell_complete(ctx, incomplete)
        return found


def _items(
    incomplete: str, found: Callable[[Store], Iterator[tuple[str, str]] | list[tuple[str, str]]]
) -> list[CompletionItem]:
    try:
        store = Store(places(os.environ).data)
        return [CompletionItem(id_, help=about) for id_, about in found(store) if id_.startswith(incomplete)]
    except ServerError:  # in the middle of a command line nothing can be said
        return []
