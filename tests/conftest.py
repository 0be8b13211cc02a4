"""Every shape and type that ``star`` declares is checked at run time, and one thread is enough."""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

#: As mypy sees it: an int is a float.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

# Before any test module imports star: only what is imported afterwards is checked.
install_import_hook("star", f"{__name__}.checked")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

_BENCH = [Path(__file__).parent / "star" / name for name in ("bench", "peers")]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything about the benchmark and the peers is of one mark; what is long is run when it is named."""
    asked = "long" in config.getoption("markexpr")
    for item in items:
        if not asked and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long; run it by `pytest -m long`"))
        if any(folder in item.path.parents for folder in _BENCH):
            item.add_marker(pytest.mark.bench)
