"""A benchmark run as it is asked for on the command line: data, model and measures put together."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from star.errors import BenchError
from star_lsp import prompt
from star_lsp.cli.state import the_model
from star_lsp.regression import TEXTS
from star_lsp.settings import Settings

if TYPE_CHECKING:
    from star.bench.data import Context, Put
    from star.bench.plan import OnProgress, Plan
    from star.bench.run import Bench
    from star.model import CodeModel

__all__ = ["Asked", "alone", "measure", "model_folder", "progress", "put_as_served"]

#: Where no terminal listens, progress is told so often and no more.
_LINE_SECONDS = 10.0
#: Everyday code for methods that weigh by it: so many texts, of so many tokens.
_ORDINARY_TEXTS, _ORDINARY_TOKENS = 64, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of ``bench repair``."""

    files: tuple[Path, ...]
    recipe: str
    template: str | None
    methods: tuple[str, ...]
    rows: str
    tuning: tuple[Path, ...]
    tuning_rows: int
    limit: int | None
    seed: int
    steps: int
    measures: tuple[str, ...]
    humaneval: Path | None
    humaneval_rows: int
    infilling: Path | None
    infilling_rows: int
    singles: bool
    lifelong: int
    lifelong_methods: tuple[str, ...]
    gate: bool
    batch: int
    model: str


def measure(asked: Asked, folder: Path, console: Console, *, fresh: bool) -> None:
    """Measure what is asked for and not in the folder yet.

    Raises:
        BenchError: data do not fit, a library is missing, or the folder holds another run.
        CatalogueError: the model is not here.
    """
    plan = _plan(asked)  # before anything that takes seconds
    _check_libraries(plan.methods)
    where = model_folder(asked.model)
    console.print(f"Loading {asked.model} …", markup=False)
    import torch

    from star.bench.machine import commit, machine, versions
    from star.bench.results import Results
    from star.bench.run import run
    from star.model import CodeModel

    torch.manual_seed(asked.seed)
    model = CodeModel.load(where)
    head = {
        "same": {"base": model.fingerprint, **_same(asked, plan)},
        "model": asked.model,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(Path(__file__).parent),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    results = Results(folder, head, fresh=fresh)
    if not any(data.tuning for data in plan.data) and len(plan.methods) > 1:
        console.print("No tuning rows: every method has its published settings.", markup=False)
    with progress(console) as on_progress:
        run(_bench(asked, plan, model), plan, results, on_progress)


def put_as_served(model: "CodeModel") -> "Put":
    """How the server puts a context to this model: its layout, its truncation, its stop rule.

    The result raises CaseError for a context that the server would not take as a case.
    """
    from star_lsp.put import Put

    settings = Settings().completion
    put = Put(
        model.encode,
        model.encode_next,
        model.start_ids,
        prompt.layout_of(model.token_id),
        prompt.Limits(settings.prefix_tokens, settings.suffix_tokens),
        settings.max_tokens,
    )
    return lambda context: put(context.id, context.prefix, context.suffix, context.expected)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder of results: lines of two runs must not mix.

    Raises:
        BenchError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise BenchError(f"Another run writes to {folder}; wait for it, or give --out another one.") from None
    except OSError as error:
        raise BenchError(f"{folder} cannot be written ({error.strerror}); give --out another one.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def ending() -> Iterator[None]:
    """Whoever ends this process, or closes its terminal, has it end as Ctrl-C does: nothing stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [(each, signal.signal(each, _as_ctrl_c)) for each in told]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it that started this with &
        before.append((signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)))
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler)


def _as_ctrl_c(_signal: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


# -- what is asked for -------------------------------------------------------------------------------------


def _plan(asked: Asked) -> "Plan":
    from star.bench.data import halves, read
    from star.bench.methods import DEFAULT, named
    from star.bench.plan import MEASURES, Data, Plan, apart
    from star.result import Budget

    names = _names([*asked.files, *asked.tuning])
    data = []
    for name, path in zip(names, asked.files, strict=False):
        rows = read(path, asked.recipe, asked.template)
        tuning, figures = halves(rows)
        if asked.rows == "all":
            data.append(Data(name, rows))
        elif asked.rows == "tuning":
            data.append(Data(name, tuning))
        else:
            data.append(Data(name, figures, () if asked.tuning else tuning))
    for name, path in zip(names[len(asked.files) :], asked.tuning, strict=True):
        data.append(Data(name, (), read(path, asked.recipe, asked.template)))
    if asked.batch > 1 and not asked.singles:
        raise BenchError("--batch is measured against the single repairs; leave out --no-singles.")
    methods = named(asked.methods or DEFAULT)
    lifelong = named(asked.lifelong_methods) if asked.lifelong else ()
    if absent := [name for name in lifelong if name not in methods]:
        raise BenchError(
            f"--lifelong-method {absent[0]} is not among the methods of this run; name it with --method too."
        )
    return Plan(
        apart(data) if asked.tuning_rows else tuple(Data(each.name, each.figures) for each in data),
        methods,
        Budget(asked.steps),
        seed=asked.seed,
        limit=asked.limit,
        tuning_rows=asked.tuning_rows,
        measures=frozenset(asked.measures or MEASURES),
        singles=asked.singles,
        batch=asked.batch,
        lifelong=asked.lifelong,
        lifelong_methods=lifelong,
    )


def _bench(asked: Asked, plan: "Plan", model: "CodeModel") -> "Bench":
    from star.bench.data import programs, select
    from star.bench.measure import samples
    from star.bench.run import Bench
    from star.gate import Limits, whole

    put, gate = put_as_served(model), Settings().gate
    unrelated = select(programs(asked.humaneval), asked.humaneval_rows, asked.seed) if asked.humaneval else ()
    tuning = [row.flagged for data in plan.data for row in data.tuning][:_ORDINARY_TEXTS]
    texts = [*TEXTS, *(f"{each.prefix}{each.expected}{each.suffix}" for each in tuning)]
    encoded = [ids for text in texts if len(ids := model.encode_first(text)[:_ORDINARY_TOKENS]) > 1]
    return Bench(
        model,
        put,
        [each for each in samples(model, unrelated) if len(each.ids) <= (model.context or len(each.ids))],
        encoded,
        whole(model, TEXTS),
        Limits(gate.min_unchanged, gate.max_kl) if asked.gate else None,
        _infilling(asked, put) if asked.infilling else None,
    )


def _infilling(asked: Asked, put: "Put") -> "Callable[[CodeModel], tuple[int, int]]":
    """How many programs pass with what a model writes into them, as it is when asked."""
    from star.bench.data import select
    from star.bench.infill import rate, read
    from star.decode import decode

    assert asked.infilling
    rows = select(read(asked.infilling), asked.infilling_rows, asked.seed)
    known: dict[str, bool] = {}
    most = Settings().completion.max_tokens

    def passed(model: "CodeModel") -> tuple[int, int]:
        def write(context: "Context") -> str:
            case = put(context)
            guess = model.encode_next(case.written)
            return decode(model, case.prompt, case.stop, most, guess=guess, healed=case.healed).text

        return rate(rows, write, known)

    return passed


def _same(asked: Asked, plan: "Plan") -> dict[str, Any]:
    """What must be the same for a run to go on; files by what is in them."""
    told = {
        name: [_file(path) for path in value] if isinstance(value, tuple) and name in ("files", "tuning")
        else _file(value) if isinstance(value, Path)
        else list(value) if isinstance(value, tuple)
        else value
        for name, value in asdict(asked).items()
    }  # fmt: skip
    del told["model"]  # its base is what counts
    return {**told, "methods": list(plan.methods), "measures": sorted(plan.measures)}


def _file(path: Path) -> str:
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each file, from its folder and its own, each once."""
    names: list[str] = []
    for path in paths:
        name = "/".join(part for part in (path.absolute().parent.name, path.stem) if part)
        count = sum(each == name or each.startswith(f"{name} (") for each in names)
        names.append(f"{name} ({count + 1})" if count else name)
    return names


def model_folder(model: str) -> Path:
    """Where a model is: the folder that is named, or an installed model's."""
    given = Path(model)
    return given if os.sep in model and given.is_dir() else the_model(model).folder


def _check_libraries(methods: Sequence[str]) -> None:
    """Do nothing, if all is there that a run needs at its end too."""
    needed = ["matplotlib", *(["peft"] if "lora" in methods else [])]
    if absent := [name for name in needed if find_spec(name) is None]:
        raise BenchError(
            f"The benchmark needs {' and '.join(absent)}, not installed here; "
            "run: pip install 'star-lsp[bench]'."
        )


# -- progress ----------------------------------------------------------------------------------------------


@contextmanager
def progress(console: Console) -> Iterator["OnProgress"]:
    """Where a run can tell how far it is: a bar, or now and then a line where no terminal listens."""
    if not console.is_terminal:
        last = -_LINE_SECONDS

        def line(done: int, total: int, what: str, left: float | None) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_SECONDS:
                last = time.monotonic()
                console.print(f"  {done}/{total} {what}, {_left(left)}", markup=False, soft_wrap=True)

        yield line
        return
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}", markup=False),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("beginning", total=None, left="")
        yield lambda done, total, what, left: bars.update(
            task, completed=done, total=total, description=what, left=_left(left)
        )


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "no telling yet how long"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min left" if minutes >= 60 else f"{minutes} min left"
