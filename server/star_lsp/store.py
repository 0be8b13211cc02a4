"""Cases, patches and accepted completions, in SQLite: what is here cannot be lost."""

import json
import logging
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from filelock import FileLock

from star_lsp import salvage
from star_lsp.errors import NotFound, StoreError, StoreHeld
from star_lsp.holdings import ours
from star_lsp.permissions import mend

__all__ = ["Accepted", "Case", "Health", "Patch", "Purged", "Status", "Store", "examine"]

log = logging.getLogger(__name__)

Status = Literal["pending", "repairing", "solved", "failed", "reverted"]

_VERSION = 3
_SCHEMA = """
CREATE TABLE cases (
    id TEXT PRIMARY KEY, status TEXT NOT NULL, language TEXT NOT NULL, uri TEXT NOT NULL,
    line INTEGER NOT NULL, character INTEGER NOT NULL,
    prefix TEXT NOT NULL, suffix TEXT NOT NULL, expected TEXT NOT NULL, rejected TEXT NOT NULL,
    note TEXT NOT NULL, model TEXT NOT NULL, revision TEXT NOT NULL,
    patch TEXT, reason TEXT, created REAL NOT NULL
);
CREATE INDEX cases_by_status ON cases (status, created);
CREATE TABLE patches (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL UNIQUE, active INTEGER NOT NULL,
    base TEXT NOT NULL, digest TEXT NOT NULL, revision TEXT NOT NULL,
    cases TEXT NOT NULL, verdict TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE accepted (
    prefix TEXT NOT NULL, suffix TEXT NOT NULL, text TEXT NOT NULL, language TEXT NOT NULL,
    created REAL NOT NULL, PRIMARY KEY (prefix, suffix, text)
) WITHOUT ROWID;
"""
#: What each version added to the one before. A table of its own, so that a server of the version before
#: that has the store open just now goes on undisturbed.
_ADDED = {
    2: "CREATE TABLE comparisons (patch TEXT PRIMARY KEY, places TEXT NOT NULL)",
    # Patches that others leaned on, and without which the rest of the history is still to be checked.
    3: "CREATE TABLE unchecked (patch TEXT NOT NULL, base TEXT NOT NULL, PRIMARY KEY (patch, base))",
}
#: After so many pages the log goes into the database: at every start what is in the log is looked through.
_LOG_PAGES = 100
#: What is kept of the store in memory: the system keeps files there too, and the store grows for months.
_CACHE_KB = 500
#: A patch that has left is to be checked for if one that is left is newer, or if a case is solved by none:
#: the model wrote that by itself, perhaps only with this patch.
_LEANED_ON = """
INSERT OR REPLACE INTO unchecked SELECT id, base FROM patches AS gone WHERE id = ? AND (
    EXISTS (SELECT 1 FROM patches WHERE active AND base = gone.base AND position > gone.position)
    OR EXISTS (SELECT 1 FROM cases WHERE status = 'solved' AND patch IS NULL)
)
"""
_AGAIN_SECONDS = 0.1
#: Patches that were reverted or replaced, and are kept to be looked at: 100 MB of the default model's.
_LEFT_KEPT = 100
_LOST = "Its patch was lost when the store was damaged."
_FLAGGED_AGAIN = "Its place was flagged again, with another fix."


@dataclass(frozen=True, slots=True)
class Case:
    """One thing the developer wants, and what became of it.

    ``prefix`` and ``suffix`` are the texts that the prompt was made of, after truncation; ``line`` and
    ``character`` are the LSP position in ``uri``; ``created`` is in seconds since the epoch.
    """

    id: str
    status: Status
    language: str
    uri: str
    line: int
    character: int
    prefix: str
    suffix: str
    expected: str
    rejected: str
    note: str
    model: str
    revision: str
    patch: str | None
    reason: str | None
    created: float

    @property
    def place(self) -> tuple[str, str]:
        """Where it is: what stands before and behind."""
        return self.prefix, self.suffix

    @property
    def wish(self) -> tuple[str, str, str]:
        """What is wanted there, whoever has learnt it."""
        return self.prefix, self.suffix, self.expected


@dataclass(frozen=True, slots=True)
class Patch:
    """What is known of a patch file: which cases it was made for, and the verdict it went live with."""

    id: str
    position: int
    active: bool
    base: str
    digest: str
    #: The revision that it made when it went live.
    revision: str
    cases: tuple[str, ...]
    verdict: Mapping[str, Any]
    created: float


@dataclass(frozen=True, slots=True)
class Accepted:
    """A completion that the developer took: repairs must leave it as it is."""

    prefix: str
    suffix: str
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Purged:
    """How much was forgotten, and the patches whose files are of no use now."""

    cases: int
    accepted: int
    comparisons: int
    patches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """What a store is like that nobody needs to open for it."""

    #: What it is written in, and what this version of ours writes.
    version: int
    known: int
    #: What SQLite finds wrong with it.
    problems: tuple[str, ...]
    #: None when they cannot be read.
    patches: tuple[Patch, ...] | None


class Store:
    """The one door to the database. Every method is one transaction, or none."""

    def __init__(self, folder: Path, wait_seconds: float = 10.0) -> None:
        """Open the store in a folder, making it where there is none.

        Another process that writes is waited for, up to ``wait_seconds``. What is damaged is set aside, and
        what can be read of it taken over; ``word`` tells of that.

        Raises:
            StoreError: it cannot be read, or is from a newer version; StoreHeld if another program holds it.
        """
        self.path = folder / "store.sqlite3"
        self.patches_folder = folder / "patches"
        #: What the developer must hear about the opening of the store, if anything.
        self.word: str | None = None
        self._wait_seconds = wait_seconds
        #: How often another file was found in the store's place.
        self._exchanged = 0
        #: Which file is open; None when opening what is there now has failed.
        self._file: tuple[int, int] | None = None
        self._open()

    def _open(self) -> None:
        try:
            for each in (self.path.parent, self.patches_folder):  # a mode is not for parents made with it
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            mend([self.path.parent, *ours(self.path.parent)])
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._recover()
            self._file = _identity(self.path)
            self._db = sqlite3.connect(
                self.path, timeout=self._wait_seconds, isolation_level=None, check_same_thread=False
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            self._db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            self._db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            held = salvage.is_held(error)
            remedy = (
                "check its permissions, and that the disk can be written to and has room, or set "
                "STAR_LSP_HOME to another folder"
            )
            if held:
                remedy = "another program holds it; end that one, then try again"
            raise (StoreHeld if held else StoreError)(
                f"The store {self.path} cannot be opened ({error}); {remedy}. Nothing in it was changed."
            ) from error

    def wait(self, seconds: float) -> None:
        """From now on wait so long for other processes that write, and no longer."""
        self._wait_seconds = seconds
        with self._reading():
            self._db.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def snapshot(self, folder: Path) -> "Store":
        """A store in another folder that holds what this one holds now, patch files included.

        Raises:
            StoreError: it cannot be written there.
        """
        copy = Store(folder)
        with self._reading():
            self._db.backup(copy._db)
        try:
            for patch in self.active():
                shutil.copyfile(self.patch_path(patch.id), copy.patch_path(patch.id))
        except OSError as error:
            raise StoreError(
                f"The active patches could not be copied to {folder} ({error}); check that they are there "
                "(`star-lsp patches`), and that the disk has room."
            ) from error
        return copy

    def version(self) -> int:
        """A number that changes when another process has changed the store."""
        with self._reading():
            return int(self._db.execute("PRAGMA data_version").fetchone()[0]) + (self._exchanged << 32)

    # -- cases -----------------------------------------------------------------------------------

    def add_case(
        self,
        *,
        prefix: str,
        suffix: str,
        expected: str,
        rejected: str,
        language: str = "",
        uri: str = "",
        line: int = 0,
        character: int = 0,
        note: str = "",
        model: str = "",
        revision: str = "",
    ) -> Case:
        """A new pending case, on disk when this returns; it takes the place of a pending one just there."""
        case = Case(
            _new_id("c"), "pending", language, uri, line, character, prefix, suffix, expected, rejected,
            note, model, revision, None, None, time.time(),
        )  # fmt: skip
        with self._writing():
            self._db.execute(
                "UPDATE cases SET status = 'reverted', reason = ? "
                "WHERE prefix = ? AND suffix = ? AND status = 'pending' AND model = ?",
                [_FLAGGED_AGAIN, prefix, suffix, model],
            )
            self._insert(case)
        return case

    def cases(self, status: Status | None = None) -> list[Case]:
        """All cases, or those of one status, oldest first."""
        where, values = ("WHERE status = ?", [status]) if status else ("", [])
        with self._reading():  # not by the time: the clock may have been set back
            rows = self._db.execute(f"SELECT * FROM cases {where} ORDER BY rowid", values)
            return [_case(row) for row in rows]

    def known(self, ids: Iterable[str]) -> dict[str, Case]:
        """Those of some cases that are there, by their ids, oldest first."""
        with self._reading():  # and not all that ever were: a few of many, after some months
            rows = self._db.execute(
                "SELECT * FROM cases WHERE id IN (SELECT value FROM json_each(?)) ORDER BY rowid",
                [json.dumps(list(ids))],
            )
            return {row["id"]: _case(row) for row in rows}

    def flagged_at(self, prefix: str, suffix: str) -> list[str]:
        """The cases of one place, oldest first."""
        with self._reading():
            rows = self._db.execute(
                "SELECT id FROM cases WHERE prefix = ? AND suffix = ? ORDER BY rowid", [prefix, suffix]
            )
            return [row["id"] for row in rows]

    def case(self, id_: str) -> Case:
        """One case.

        Raises:
            NotFound: there is none of that id.
        """
        with self._reading():
            row = self._db.execute("SELECT * FROM cases WHERE id = ?", [id_]).fetchone()
        if row is None:
            raise NotFound(f"There is no case {id_}; `star-lsp cases` lists those there are.")
        return _case(row)

    def others(self, base: str, model: str) -> set[str]:
        """The cases that are not of this model but of another: solved by a patch of its, or flagged in it."""
        with self._reading():
            rows = self._db.execute(
                "SELECT cases.id, model, base FROM cases LEFT JOIN patches ON patches.id = patch"
            )
            return {row["id"] for row in rows if not _is_ours(row, base, model)}

    def of_model(self, base: str, model: str, status: Status | None = None) -> list[Case]:
        """The cases of a model, or those of one status, oldest first."""
        others = self.others(base, model)
        return [case for case in self.cases(status) if case.id not in others]

    def untaught(self, base: str, model: str) -> list[str]:
        """Cases of other models, the newest of each place, where this model has none of its own."""
        theirs = self.known(self.others(base, model))
        taught = {case.place for case in self.of_model(base, model)}
        newest = _newest(case for case in theirs.values() if case.status != "reverted")
        wanted = {id_ for place, id_ in newest.items() if place not in taught}
        return [id_ for id_ in theirs if id_ in wanted]

    def taken(self, ids: Iterable[str], base: str, model: str) -> list[str]:
        """Some cases as this model's, each once: of another's a copy, pending, or the copy that there is.

        So what becomes of it here leaves what the other model has as it is. Of several for one place the
        newest is taken.
        """
        ids = list(dict.fromkeys(ids))
        theirs = self.known(self.others(base, model).intersection(ids))
        if not theirs:  # as nearly always: nothing is written
            return ids
        with self._writing():
            known = {case.wish: case.id for case in self.of_model(base, model)}
            copies = {
                id_: known.get(theirs[id_].wish) or self._insert(_copy(theirs[id_], model))
                for id_ in _newest(theirs.values()).values()
            }
        return list(dict.fromkeys(copies.get(id_, id_) for id_ in ids if id_ not in theirs or id_ in copies))

    def set_status(self, ids: Iterable[str], status: Status, reason: str | None = None) -> None:
        """Move cases to a status, with the reason when they failed."""
        with self._writing():
            self._db.executemany(
                "UPDATE cases SET status = ?, reason = ? WHERE id = ?", [(status, reason, i) for i in ids]
            )

    def delete_case(self, id_: str) -> None:
        """Forget a case that no active patch solves.

        Raises:
            NotFound: there is none of that id.
            StoreError: it is being repaired, or an active patch solves it.
        """
        with self._writing():
            case = self.case(id_)
            if case.status == "repairing":
                raise StoreError(f"Case {id_} is being repaired; cancel the repair, then delete it.")
            if case in self.solved_by(self.active()):
                raise StoreError(f"Case {id_} is solved by an active patch; revert it, then delete it.")
            self._db.execute("DELETE FROM cases WHERE id = ?", [id_])

    def begin(self, ids: Sequence[str], model: str = "") -> list[Case]:
        """Those of the cases that are still there, now marked as being repaired, as cases of ``model``."""
        with self._writing():
            known = self.known(ids)
            cases = [known[id_] for id_ in ids if id_ in known]
            self._db.executemany(
                "UPDATE cases SET status = 'repairing', model = coalesce(nullif(?, ''), model) WHERE id = ?",
                [(model, case.id) for case in cases],
            )
        return cases

    def put_back(self, ids: Iterable[str], status: Status, reason: str | None = None) -> list[str]:
        """End the repair of cases without a patch; those whose repair that was.

        A case that an active patch solved before stays solved, whatever ``status`` says of the others. These
        keep the reason that they had when there is no new one.
        """
        ended = []
        with self._writing():
            covered = {case.id for case in self.solved_by(self.active())}
            for id_ in ids:
                now, why = ("solved", "NULL") if id_ in covered else (status, "coalesce(:reason, reason)")
                done = self._db.execute(
                    f"UPDATE cases SET status = :now, reason = {why} WHERE id = :id AND status = 'repairing'",
                    {"now": now, "reason": reason, "id": id_},
                )
                ended += [id_] * done.rowcount
        return ended

    def unchecked(self, base: str) -> list[str]:
        """The patches without which the history of a base is still to be checked, oldest first."""
        with self._reading():
            rows = self._db.execute("SELECT patch FROM unchecked WHERE base = ? ORDER BY rowid", [base])
            return [row["patch"] for row in rows]

    def checked(
        self, base: str, broken: Iterable[str], reason: str, leans_on: Sequence[str]
    ) -> list[str] | None:
        """End the check of a history: what it found broken is pending; the cases whose status that changed.

        ``leans_on`` is the history that was checked; nothing happens, and None is returned, when that is no
        longer the history.
        """
        with self._writing():
            if [each.id for each in self.active(base)] != list(leans_on):
                return None
            self._db.execute("DELETE FROM unchecked WHERE base = ?", [base])
            return [
                id_
                for id_ in broken
                if self._db.execute(
                    "UPDATE cases SET status = 'pending', patch = NULL, reason = ? "
                    "WHERE id = ? AND status = 'solved'",
                    [reason, id_],
                ).rowcount
            ]

    def resume(self) -> list[str]:
        """Cases whose repair was cut off by the end of its process, now as they were before it."""
        return self.put_back([case.id for case in self.cases("repairing")], "pending")

    # -- patches ---------------------------------------------------------------------------------

    def patches(self, base: str | None = None) -> list[Patch]:
        """All patches, or those for one base, in order."""
        where, values = ("WHERE base = ?", [base]) if base else ("", [])
        with self._reading():
            rows = self._db.execute(f"SELECT * FROM patches {where} ORDER BY position", values)
            return [_patch(row) for row in rows]

    def active(self, base: str | None = None) -> list[Patch]:
        """The history of one base, or of each: active patches in order."""
        where, values = ("AND base = ?", [base]) if base else ("", [])
        with self._reading():  # and not all that ever were: a few of many, after some days
            rows = self._db.execute(f"SELECT * FROM patches WHERE active {where} ORDER BY position", values)
            return [_patch(row) for row in rows]

    def solved_by(self, patches: Iterable[Patch]) -> list[Case]:
        """The cases that the active ones of some patches solve, each once, in the order of the patches.

        A case that a patch was made for, and that is solved no longer, names no patch any more.
        """
        ids = dict.fromkeys(id_ for patch in patches if patch.active for id_ in patch.cases)
        known = self.known(ids)
        return [known[id_] for id_ in ids if id_ in known and known[id_].patch]

    def patch(self, id_: str) -> Patch:
        """One patch.

        Raises:
            NotFound: there is none of that id.
        """
        with self._reading():
            row = self._db.execute("SELECT * FROM patches WHERE id = ?", [id_]).fetchone()
        if row is None:
            raise NotFound(f"There is no patch {id_}; `star-lsp patches` lists those there are.")
        return _patch(row)

    def patch_path(self, id_: str) -> Path:
        """Where a patch's rows are, or will be, kept."""
        return self.patches_folder / f"{id_}.safetensors"

    def new_patch_id(self) -> str:
        """An id that no patch has."""
        return _new_id("p")

    def activate(
        self,
        id_: str,
        *,
        base: str,
        digest: str,
        revision: str,
        solved: Sequence[str],
        failed: Mapping[str, str],
        verdict: Mapping[str, Any],
        replaces: Sequence[str] = (),
        leans_on: Sequence[str] | None = None,
    ) -> bool:
        """Make a written patch part of the history: from here on it counts.

        ``replaces`` are the patches whose cases it covers too; ``failed`` maps cases to reasons.
        ``leans_on`` is the history that it was made for; nothing happens, and False is returned, when
        that is no longer the history.
        """
        with self._writing():
            if leans_on is not None and [each.id for each in self.active(base)] != list(leans_on):
                return False
            self._db.executemany("UPDATE patches SET active = 0 WHERE id = ?", [(i,) for i in replaces])
            self._db.executemany(  # those that are not solved again below
                "UPDATE cases SET status = 'reverted', patch = NULL, reason = ? WHERE patch = ?",
                [(_FLAGGED_AGAIN, replaced) for replaced in replaces],
            )
            (last,) = self._db.execute("SELECT coalesce(max(position), 0) FROM patches").fetchone()
            self._db.execute(
                "INSERT INTO patches VALUES (?,?,1,?,?,?,?,?,?)",
                [id_, last + 1, base, digest, revision, json.dumps(list(solved)), json.dumps(verdict),
                 time.time()],
            )  # fmt: skip
            self._db.executemany(
                "UPDATE cases SET status = 'solved', reason = NULL, patch = ? WHERE id = ?",
                [(id_, case) for case in solved],
            )
            self._db.executemany(
                "UPDATE cases SET status = 'failed', patch = NULL, reason = ? WHERE id = ?",
                [(reason, case) for case, reason in failed.items()],
            )
        return True

    def deactivate(
        self,
        ids: Iterable[str],
        reverted: Sequence[str],
        pending: Sequence[str] = (),
        reason: str | None = None,
        *,
        check: bool = True,
    ) -> bool:
        """Take patches out of the history; their cases are reverted, or pending again for a reason.

        Whether what is left is to be checked without them: something there was made on top of them, and may
        have leaned on them. It stays to be checked, whoever is killed, until ``checked``; never with
        ``check`` off.
        """
        gone = [(id_,) for id_ in ids]
        with self._writing():
            self._db.executemany("UPDATE patches SET active = 0 WHERE id = ?", gone)
            for status, cases, why in (("reverted", reverted, None), ("pending", pending, reason)):
                self._db.executemany(
                    "UPDATE cases SET status = ?, patch = NULL, reason = ? WHERE id = ?",
                    [(status, why, case) for case in cases],
                )
            leaned_on = self._db.executemany(_LEANED_ON, gone if check else [])
            return leaned_on.rowcount > 0

    def keep_comparison(self, id_: str, places: Sequence[Mapping[str, Any]]) -> None:
        """Keep what the model was found to write without a patch and with it, instead of what was kept."""
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO comparisons VALUES (?,?)", [id_, json.dumps(list(places))]
            )

    def comparison(self, id_: str) -> list[Mapping[str, Any]] | None:
        """What is kept of a comparison without a patch and with it."""
        with self._reading():
            row = self._db.execute("SELECT places FROM comparisons WHERE patch = ?", [id_]).fetchone()
        return cast("list[Mapping[str, Any]]", json.loads(row["places"])) if row else None

    def sweep(self) -> None:
        """Forget patches that left the history long ago, and delete patch files that no patch names.

        Nothing makes a patch active again that is not: the newest are kept to be looked at. A file has no
        patch when its repair was cut off between file and database.
        """
        with self._writing():
            self._db.execute(
                "DELETE FROM patches WHERE NOT active AND id NOT IN "
                "(SELECT id FROM patches WHERE NOT active ORDER BY position DESC LIMIT ?)",
                [_LEFT_KEPT],
            )
            self._db.execute("DELETE FROM comparisons WHERE patch NOT IN (SELECT id FROM patches)")
            known = {row["id"] for row in self._db.execute("SELECT id FROM patches")}
        try:
            for path in self.patches_folder.iterdir():
                if path.name.split(".safetensors")[0] not in known:
                    path.unlink(missing_ok=True)
        except OSError as error:  # whoever needs what is there will say more
            log.warning("patch files that no patch names could not be deleted (%s)", error)

    # -- accepted completions --------------------------------------------------------------------

    def accept(self, completion: Accepted, keep: int) -> None:
        """Remember an accepted completion, and of all only the newest ``keep``."""
        with self._writing():
            (last,) = self._db.execute("SELECT coalesce(max(created), 0) FROM accepted").fetchone()
            # Later than all others, whatever the clock says: the order is what is kept by.
            now = max(time.time(), last + 1e-5)
            self._db.execute(
                "INSERT OR REPLACE INTO accepted VALUES (?,?,?,?,?)",
                [completion.prefix, completion.suffix, completion.text, completion.language, now],
            )
            self._db.execute(
                "DELETE FROM accepted WHERE created NOT IN "
                "(SELECT created FROM accepted ORDER BY created DESC LIMIT ?)",
                [keep],
            )

    def accepted(self, most: int) -> list[Accepted]:
        """The newest accepted completions."""
        with self._reading():
            rows = self._db.execute("SELECT * FROM accepted ORDER BY created DESC LIMIT ?", [most])
            return [Accepted(row["prefix"], row["suffix"], row["text"], row["language"]) for row in rows]

    def forget_accepted(self, prefix: str, suffix: str) -> None:
        """Forget what was accepted at a place that the developer has now flagged."""
        with self._writing():
            self._db.execute("DELETE FROM accepted WHERE prefix = ? AND suffix = ?", [prefix, suffix])

    # -- forgetting ------------------------------------------------------------------------------

    def purge(self, *, cases: bool, accepted: bool, before: float | None = None, dry: bool = False) -> Purged:
        """Forget cases with all that was made of them, accepted completions, or both; nothing if ``dry``.

        With ``before``, in seconds since the epoch, only what is older, and of cases and patches none that
        the history stands on or that is being repaired.
        """
        older, values = ("", []) if before is None else (" AND created < ?", [before])
        covered = [] if before is None else [case.id for case in self.solved_by(self.active())]
        with self._writing():
            of_cases = of_accepted = compared = 0
            gone: list[str] = []
            if accepted:
                of_accepted = self._db.execute(f"DELETE FROM accepted WHERE 1{older}", values).rowcount
            if cases:
                idle = "" if before is None else " AND active = 0"
                rows = self._db.execute(f"SELECT id FROM patches WHERE 1{idle}{older}", values)
                gone = [row["id"] for row in rows]
                if before is None:  # nothing is left to be checked
                    self._db.execute("DELETE FROM unchecked")
                free = "" if before is None else " AND status != 'repairing' AND id NOT IN "
                marks = f"({','.join('?' * len(covered))})" if free else ""
                of_cases = self._db.execute(
                    f"DELETE FROM cases WHERE 1{free}{marks}{older}", [*covered, *values]
                ).rowcount
                for id_ in gone:
                    compared += self._db.execute("DELETE FROM comparisons WHERE patch = ?", [id_]).rowcount
                    self._db.execute("DELETE FROM patches WHERE id = ?", [id_])
            if dry:
                self._db.execute("ROLLBACK")
                self._db.execute("BEGIN")
        return Purged(of_cases, of_accepted, compared, tuple(gone))

    def compact(self) -> bool:
        """Leave nothing of what was deleted in the files; False when another process held the log open."""
        with self._reading():
            self._db.execute("PRAGMA temp_store = MEMORY")  # what is copied shall not lie elsewhere
            self._db.execute("VACUUM")
            return not self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]

    # -- what is damaged -------------------------------------------------------------------------

    def _recover(self) -> None:
        """Take over what can be read of a damaged store, which is kept under a name with the date.

        Cut off at any moment, it is gone on with the next time: the copies come first, then what is
        recovered, whole; only then is the store exchanged.
        """
        folder = self.path.parent / "aside"
        begun = [*folder.glob("recovering-*")]
        if not begun and salvage.damage(self.path, self._wait_seconds) is None:
            return
        time.sleep(_AGAIN_SECONDS)  # another process may be writing: that passes, and damage stays
        folder.mkdir(mode=0o700, exist_ok=True)
        with FileLock(folder / "lock"):
            for aside in folder.glob("recovering-*"):
                if not (aside / "recovered.sqlite3").exists():
                    shutil.rmtree(aside)  # copies alone
            found = [*folder.glob("recovering-*")]
            if not found:
                if (what := salvage.damage(self.path, self._wait_seconds)) is None:
                    return  # another process was faster
                found = [self._set_aside(what)]
            for aside in found:
                self._exchange(aside)

    def _set_aside(self, what: str) -> Path:
        """A folder with copies of the damaged store, and what could be recovered from it."""
        aside = self._new_aside("recovering")
        for path in (self.path, *self.path.parent.glob(f"{self.path.name}-wal")):
            if path.exists():
                shutil.copy2(path, aside / path.name)
        part = aside / "part"
        part.mkdir(mode=0o700)
        empty = _new_database(part / "empty.sqlite3")
        tables = {"cases": _is_case, "patches": _is_patch}
        tables |= dict.fromkeys(("accepted", "comparisons", "unchecked"), _is_row)
        rows = salvage.rows(aside / self.path.name, empty, tables, part / "image.sqlite3")
        recovered = _new_database(part / "recovered.sqlite3")
        with closing(sqlite3.connect(recovered, isolation_level=None)) as db:
            db.execute("BEGIN")
            for table, found in rows.items():
                for row in found:
                    names = ",".join(row)
                    db.execute(
                        f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({','.join('?' * len(row))})",
                        list(row.values()),
                    )
            db.execute(  # what is left may have leaned on those that are lost
                "INSERT OR IGNORE INTO unchecked SELECT DISTINCT cases.patch, patches.base FROM cases "
                "JOIN patches ON active WHERE patch NOT IN (SELECT id FROM patches WHERE active)"
            )
            db.execute(
                "UPDATE cases SET status = 'pending', patch = NULL, reason = ? WHERE patch IS NOT NULL "
                "AND patch NOT IN (SELECT id FROM patches WHERE active)",
                [_LOST],
            )
            counts = [
                db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("cases", "patches")
            ]
            db.execute("COMMIT")
        (aside / "about.json").write_text(
            json.dumps({"what": what, "cases": counts[0], "patches": counts[1]})
        )
        _synced(recovered)
        recovered.replace(aside / "recovered.sqlite3")
        shutil.rmtree(part)
        return aside

    def _new_aside(self, what: str) -> Path:
        """A new folder for what is set aside, with the date in its name."""
        name = f"{what}-{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(2)}"
        made = self.path.parent / "aside" / name
        for each in (made.parent, made):
            each.mkdir(mode=0o700, exist_ok=True)
        return made

    def _exchange(self, aside: Path) -> None:
        """Put what was recovered in the place of the damaged store, and keep what is left over."""
        about = json.loads((aside / "about.json").read_text())
        for end in ("-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        fresh = self.path.with_suffix(".part")
        shutil.copyfile(aside / "recovered.sqlite3", fresh)
        fresh.chmod(0o600)
        _synced(fresh)
        fresh.replace(self.path)
        with closing(sqlite3.connect(self.path)) as db:
            known = {row[0] for row in db.execute("SELECT id FROM patches")}
        for path in self.patches_folder.glob("*.safetensors"):
            if path.stem not in known:
                path.rename(aside / path.name)
        kept = aside.with_name(aside.name.replace("recovering", "damaged"))
        aside.rename(kept)
        (kept / "recovered.sqlite3").unlink()
        self._tell(
            f"The store was damaged ({about['what']}). What could be read of it is in use: {about['cases']} "
            f"cases, {about['patches']} patches. The damaged files are kept in {kept}; look through "
            "`star-lsp cases`, and check the disk."
        )

    def _tell(self, word: str) -> None:
        log.warning("%s", word)
        self.word = f"{self.word} {word}" if self.word else word

    # -- inside ----------------------------------------------------------------------------------

    def _insert(self, case: Case) -> str:
        self._db.execute(
            f"INSERT INTO cases VALUES ({','.join('?' * 16)})",
            [getattr(case, name) for name in Case.__slots__],
        )
        return case.id

    def _follow(self) -> None:
        """Open what was put in the store's place meanwhile: written to the old file, cases would be lost."""
        if self._file and (self._db.in_transaction or _identity(self.path) == self._file):
            return
        gone = not self.path.exists()
        self._db.close()
        self._exchanged += 1
        try:
            self._open()
        except StoreError:
            self._file = None
            raise
        if gone:
            self._tell(f"The store {self.path} was removed while it was in use; an empty one has been begun.")

    def _migrate(self) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found > _VERSION:
            self.close()
            raise StoreError(
                f"The store {self.path} was written by a newer star-lsp (format {found}, this one knows "
                f"{_VERSION}); update star-lsp."
            )
        if found == _VERSION:
            return
        with self._writing():
            # Asked again inside the transaction: two processes may start at once.
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found == 0:
                self._keep_strange_patches()
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                found = 1
            elif found < _VERSION:
                self._back_up(found)
            for version in range(found + 1, _VERSION + 1):
                self._db.execute(_ADDED[version])
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def _keep_strange_patches(self) -> None:
        """Move patch files out of the way of a store that is new: they would be swept as of no use."""
        if strange := [*self.patches_folder.glob("*.safetensors")]:
            kept = self._new_aside("damaged")
            for path in strange:
                path.rename(kept / path.name)
            self._tell(
                f"The store {self.path} was not there or empty, though {len(strange)} patches were; they are "
                f"kept in {kept}. Put the store back from a backup if you have one."
            )

    def _back_up(self, version: int) -> None:
        """Copy what is in the store beside it, before it becomes one of the next version.

        Read by a connection of its own, which sees what was there before our transaction.
        """
        path = self.path.with_suffix(f".version-{version}.sqlite3")
        part = path.with_suffix(".part")
        for rest in (part, part.with_name(f"{part.name}-journal")):  # of one that was cut off
            rest.unlink(missing_ok=True)
        os.close(os.open(part, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(sqlite3.connect(self.path)) as old, closing(sqlite3.connect(part)) as copy:
            old.backup(copy)
        part.replace(path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._reading():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._follow()
        try:
            yield
        except sqlite3.Error as error:
            held = salvage.is_held(error)
            remedy = "Check the disk, and that no other program holds the file."
            if held:
                remedy = "Another program holds it; end that one, then try again."
            elif salvage.is_damage(error):
                remedy = "Restart star-lsp: it takes over what can be read, and keeps the damaged file."
            raise (StoreHeld if held else StoreError)(
                f"The store {self.path} could not be used ({error}); nothing was changed. {remedy}"
            ) from error


def examine(folder: Path) -> Health | None:
    """What the store in a folder is like, read without changing it; None where there is none."""
    path = folder / "store.sqlite3"
    if not path.exists():
        return None
    version, problems, patches = 0, [], None
    try:
        with closing(sqlite3.connect(path, timeout=10.0, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA query_only = ON")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            problems = [row[0] for row in db.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
            if 0 < version <= _VERSION:
                patches = tuple(_patch(row) for row in db.execute("SELECT * FROM patches ORDER BY position"))
    except (OSError, sqlite3.Error, ValueError) as error:
        problems.append(str(error))
    return Health(version, _VERSION, tuple(problems), patches)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at a path."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _new_database(path: Path) -> Path:
    """A database with our tables and nothing in them."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in [*_SCHEMA.split(";"), *_ADDED.values(), f"PRAGMA user_version = {_VERSION}"]:
            db.execute(statement)
    return path


def _synced(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _is_row(row: Mapping[str, Any]) -> bool:
    """Whether every value is one of ours."""
    return all(isinstance(value, str | int | float) for value in row.values())


def _is_case(row: Mapping[str, Any]) -> bool:
    kinds: dict[str, Any] = {"line": int, "character": int, "created": float}
    kinds |= dict.fromkeys(("patch", "reason"), (str, type(None)))
    fits = all(isinstance(value, kinds.get(name, str)) for name, value in row.items())
    return fits and row["id"].startswith("c") and row["status"] in get_args(Status)


def _is_patch(row: Mapping[str, Any]) -> bool:
    try:
        return isinstance(json.loads(row["cases"]), list) and isinstance(json.loads(row["verdict"]), dict)
    except (TypeError, ValueError):
        return False


def _new_id(kind: str) -> str:
    return f"{kind}{secrets.token_hex(5)}"


def _is_ours(row: sqlite3.Row, base: str, model: str) -> bool:
    """Whether a case is this model's: solved by a patch for its base or, by none, flagged in it."""
    return row["base"] == base if row["base"] else row["model"] in ("", model)


def _newest(cases: Iterable[Case]) -> dict[tuple[str, str], str]:
    """Of each place the last case; one that failed only where there is no other."""
    return {case.place: case.id for case in sorted(cases, key=lambda case: case.status != "failed")}


def _copy(case: Case, model: str) -> Case:
    """The same case, flagged in another model now."""
    copy = replace(case, id=_new_id("c"), model=model, created=time.time())
    return replace(copy, status="pending", patch=None, reason=None)


def _case(row: sqlite3.Row) -> Case:
    return Case(**{name: row[name] for name in Case.__slots__})


def _patch(row: sqlite3.Row) -> Patch:
    values = dict(row)
    values["active"] = bool(values["active"])
    values["cases"] = tuple(json.loads(values["cases"]))
    values["verdict"] = cast("Mapping[str, Any]", json.loads(values["verdict"]))
    return Patch(**values)
