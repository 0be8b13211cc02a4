"""Every shape and type that ``star`` declares is checked at run time, and one thread is enough."""

import gc
import inspect
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, combinations
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

#: As mypy sees it: an int is a float.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_with_shapes = jaxtyping.jaxtyped


def _kinds(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from _kinds(part)


def _shaped(function: Callable[..., Any]) -> bool:
    """Whether a function declares a shape, or what it declares cannot be told."""
    try:
        hints = get_type_hints(function)
    except NameError:
        return True
    return any(isinstance(kind, type(AbstractArray)) for hint in hints.values() for kind in _kinds(hint))


def _jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """What jaxtyping would make of it, but for the book of shapes where none is declared.

    The book takes 0.1 ms in each call, which was a third of the time of all quick tests.
    """
    if function is None:
        return partial(_jaxtyped, typechecker=typechecker)
    if function.__module__ == "star.kernel":
        return function  # is compiled, and would not be with a check around it
    if inspect.isfunction(function) and not _shaped(function):
        return typechecker(function)
    return _with_shapes(function, typechecker=typechecker)


# Before any test module imports star: only what is imported afterwards is checked.
jaxtyping.jaxtyped = _jaxtyped
install_import_hook("star", f"{__name__}.checked")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from _pytest.mark.expression import Expression  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)

# What a shell runs in the background ignores Ctrl-C, and so would all that tests start and stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_HERE = Path(__file__).parent
#: The one mark that all tests of a folder have.
_MARKS = {_HERE / "star" / "bench": "bench", _HERE / "star" / "peers": "bench", _HERE / "editors": "editor"}
_OTHERS = ("bench", "process", "model", "editor", "long")


def _wanted(config: pytest.Config, mark: str) -> bool:
    """Whether a test of a mark can be wanted, whatever other marks it has."""
    if not (asked := config.getoption("markexpr")):
        return True
    expression = Expression.compile(asked)
    marked = chain.from_iterable(combinations(_OTHERS, count) for count in range(len(_OTHERS) + 1))
    return any(expression.evaluate(lambda name, others=others: name in (mark, *others)) for others in marked)


def pytest_configure(config: pytest.Config) -> None:
    """The quick part tries a sixth of the examples that the whole suite tries of each promise."""
    if not _wanted(config, "process"):
        settings.register_profile("quick", max_examples=settings.default.max_examples // 6)
        settings.load_profile("quick")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A folder of whose tests none is wanted is not even imported."""
    mark = _MARKS.get(collection_path)
    return True if mark and not _wanted(config, mark) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything in a folder is of its mark; what is long is run when it is named."""
    asked = "long" in config.getoption("markexpr")
    for item in items:
        if not asked and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long; run it by `pytest -m long`"))
        for folder, mark in _MARKS.items():
            if folder in item.path.parents:
                item.add_marker(mark)


# What is imported stays: looking through it for garbage again and again took six seconds.
gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, in what the tests make."""
    gc.collect()
    gc.freeze()
    gc.enable()
