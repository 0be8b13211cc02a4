"""Lines of a run that nobody had to wait for."""

from typing import Any

from star.bench.results import Line

HEAD: dict[str, Any] = {
    "kind": "run",
    "same": {"base": "b" * 64, "seed": 0},
    "model": "tiny",
    "machine": {"cpu": "A <CPU>", "cores": 2, "memoryBytes": 8e9, "threads": 2},
    "versions": {"python": "3.11"},
    "commit": "c" * 40,
    "at": "2026-01-01T00:00:00+00:00",
}


def repair(method: str = "ours", row: str = "a", data: str = "api-drift", **more: Any) -> dict[str, Any]:
    """One repair that went well."""
    return {
        "kind": "repair", "method": method, "settings": {"rate": 0.01}, "data": data, "row": row, "seed": 0,
        "solved": True, "exactBefore": 60.0, "exactAfter": 100.0, "near": [2, 2], "distant": [1, 2],
        "robust": [9, 10], "neighbours": [4, 4], "unchanged": 0.998, "kl": 1e-4, "steps": 3, "seconds": 1.0,
        "passes": 9.0, "patchBytes": 1e6, "memoryBytes": 2e8,
    } | more  # fmt: skip


def checkpoint(method: str = "ours", repairs: int = 200, **more: Any) -> dict[str, Any]:
    """One look at a model after so many repairs."""
    return {
        "kind": "lifelong", "method": method, "settings": {}, "repairs": repairs, "live": repairs,
        "solved": [repairs, repairs], "neighbours": [126, 128], "neighboursTaught": [100, 102],
        "unchanged": 0.99, "kl": 1e-3, "infilling": [80, 100], "seconds": 400.0, "patchBytes": 2e8,
    } | more  # fmt: skip


def batch(method: str = "ours", **more: Any) -> dict[str, Any]:
    """Twenty cases as one system."""
    return {
        "kind": "batch", "method": method, "settings": {}, "data": "api-drift", "solved": [20, 20],
        "seconds": 10.0, "singleSeconds": 40.0, "steps": 6, "patchBytes": 1e6,
    } | more  # fmt: skip


def whole() -> list[Line]:
    """A run in which the default method met all that was asked, and its peers did worse."""
    lines: list[Line] = [HEAD]
    for data in ("api-drift", "conala <test>"):
        for row in ("a", "b", "c", "d"):
            where: dict[str, Any] = {"row": row, "data": data}
            if data != "api-drift":
                where |= {"near": None, "distant": None, "neighbours": None}
            drift = data == "api-drift"
            less = {"near": [0, 2], "distant": [0, 2]} if drift else {"kl": 1e-3}
            spilt = {"neighbours": [1, 4]} if drift else {}
            lines += [
                repair("ours", **where),
                repair("mint", **where | less, solved=row == "a", seconds=9.0),
                repair("sgd", **where | spilt, solved=row != "b", kl=2e-3),
            ]
    lines += [{"kind": "infilling", "passed": 81, "of": 100, "infilling": [81, 100]}]
    lines += [checkpoint(repairs=count) for count in (1, 10, 50, 100, 200)]
    lines += [checkpoint("sgd", count, solved=[1, count], infilling=None) for count in (1, 10)]
    lines += [batch(), batch("sgd")]
    lines += [{"kind": "tuned", "method": "sgd", "settings": {"rate": 0.01},
               "seen": [{"settings": {"rate": 0.01}, "solved": 3, "of": 4, "kl": 1e-3}]}]  # fmt: skip
    return lines
