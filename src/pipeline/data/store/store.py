"""The store: a folder of preprocessed cases."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from pipeline.data.case import ArraySource, Case
from pipeline.data.preprocessing import Prepared, Preprocessing
from pipeline.data.store.arrays import OpenArrays
from pipeline.data.store.entry import LAYOUT, BrokenEntryError, read_entry
from pipeline.data.store.identity import code_hashes, entry_key, library_versions, parts_of, targets_of
from pipeline.data.store.parallel import Done, attempt, cores, failed, one_thread, write_all
from pipeline.data.store.settings import Places, StoreSettings
from pipeline.data.store.users import Use, evict, touch
from pipeline.data.store.writing import StoreError, Writer, clear_leftovers, prepare_case, store_error
from pipeline.errors import UserError, UserErrors

MOST_ENTRIES = 512  # kept described in memory, class coordinates included

SHOWN = 10  # cases that failed, of which the user is told one by one

Report = Callable[[int, int], None]


class Store:
    """Entries, one per case and way of preprocessing, shared by whoever uses the folder.

    An entry's name is a hash of the bytes of the case's files (``digests``: case to file to sha256), of the
    configuration of preprocessing (``recipe`` and ``preprocessing.identity()``), of its code and of the versions of
    the libraries, so a changed file or transform never meets an old entry. An entry appears whole by a rename; one
    that was cut short or altered is found when it is opened and written again. Cases that already stand together in
    one array file (:class:`ArraySource`) are small: they are kept in memory, thousands of folders would be slower.
    """

    def __init__(
        self,
        folder: Path,
        preprocessing: Preprocessing,
        recipe: str,
        digests: Mapping[str, Mapping[str, str]],
        settings: StoreSettings | None = None,
    ) -> None:
        self.folder = folder
        self.preprocessing = preprocessing
        self.digests = digests
        self.settings = settings or StoreSettings()
        self.places = Places(folder)
        self._common = _common(preprocessing, recipe, self.settings)
        self._in_memory: dict[str, Prepared] = {}
        self._keys: dict[str, tuple[Case, str]] = {}
        self._begin()

    def _begin(self) -> None:
        self._files = OpenArrays()
        self._entries: OrderedDict[str, Prepared] = OrderedDict()
        self._verified: set[str] = set()
        self._guard = threading.RLock()
        self._use = Use(self.places)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: another process opens for itself, and the one that sent it says what is in use."""
        own = ("_files", "_entries", "_verified", "_guard", "_use")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def key(self, case: Case) -> str:
        """The name of the case's entry."""
        known = self._keys.get(case.case_id)
        if known is None or known[0] is not case:
            known = self._keys[case.case_id] = (case, entry_key(self._common, case, self.digests[case.case_id]))
        return known[1]

    def prepare(self, cases: Sequence[Case], *, workers: int | None = None, report: Report | None = None) -> int:
        """Write the entries that are missing; returns how many cases were preprocessed here.

        ``workers`` cases at once (None: ``settings.workers``, else one per core); ``report`` is called with (done,
        total). An entry that another process is writing is waited for. Afterwards the least recently used entries
        above ``max_gb`` are removed. Raises UserError(s): all cases that fail, together.
        """
        wanted = {self.key(case): case for case in cases if not _in_memory(case)}
        with suppress(OSError):  # a store that is only read serves as long as nothing is missing
            self._use.add(wanted)
            clear_leftovers(self.places)
        jobs = [(key, case) for key, case in wanted.items() if not self.places.entry(key).is_dir()]
        loose = [case for case in cases if _in_memory(case) and case.case_id not in self._in_memory]
        progress = _Progress(len(jobs) + len(loose), report)
        self._write(jobs, workers or self.settings.workers or cores(), progress)
        with one_thread():
            for case in loose:
                self._keep(case, progress)
        progress.raise_mistakes()
        for key in wanted:
            touch(self.places.entry(key))
        if self.settings.max_gb is not None:
            try:
                evict(self.places, self.settings.max_gb, set(wanted))
            except OSError as error:
                raise store_error(self.folder, error) from error
        return progress.written

    def __getitem__(self, case: Case) -> Prepared:
        """The prepared case; of its arrays only what is indexed is read."""
        if _in_memory(case):
            if case.case_id not in self._in_memory:
                with one_thread():
                    self._in_memory[case.case_id] = prepare_case(self.preprocessing, case)
            return self._in_memory[case.case_id]
        key = self.key(case)
        with self._guard:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
            prepared = self._entries[key] = self._read(key, case)
            if len(self._entries) > MOST_ENTRIES:
                self._entries.popitem(last=False)
            return prepared

    def close(self) -> None:
        """Close what is open, and let others evict the entries."""
        self._use.close()
        self._begin()

    def _read(self, key: str, case: Case) -> Prepared:
        entry = self.places.entry(key)
        try:
            prepared = read_entry(entry, self._files, verify=key not in self._verified)
        except BrokenEntryError:
            self._files.close(entry)
            with one_thread():
                self._writer().renew(key, case)
            try:
                prepared = read_entry(entry, self._files)
            except BrokenEntryError as error:
                raise UserError(
                    f"{error}: cannot be read back", "is the disk sound? choose another folder: cache=FOLDER"
                ) from error
        if key not in self._verified:
            self._verified.add(key)
            touch(entry)
        return prepared

    def _writer(self) -> Writer:
        return Writer(self.places, self.preprocessing, self.settings)

    def _write(self, jobs: Sequence[tuple[str, Case]], workers: int, progress: _Progress) -> None:
        cases, writer = dict(jobs), self._writer()
        busy = []
        with closing(write_all(writer, jobs, workers)) as written:
            for done in written:
                if done.outcome == "busy":
                    busy.append(done.key)
                else:
                    progress.step(done)
        with one_thread():
            for key in busy:  # another process is at it: wait, and do it where that one died or failed
                progress.step(attempt(writer, key, cases[key], wait=True))

    def _keep(self, case: Case, progress: _Progress) -> None:
        try:
            self._in_memory[case.case_id] = prepare_case(self.preprocessing, case)
            progress.step(Done(case.case_id, "written"))
        except UserError as error:
            progress.step(failed(case.case_id, error))


class _Progress:
    """Cases done, and the mistakes met."""

    def __init__(self, total: int, report: Report | None) -> None:
        self.total, self.report = total, report
        self.done = self.written = 0
        self.mistakes: list[UserError] = []

    def step(self, done: Done) -> None:
        if done.storage:  # a full disk: what else failed may follow from it
            raise StoreError(*done.mistakes[0])
        self.mistakes += [UserError(*parts) for parts in done.mistakes]
        self.done += 1
        self.written += done.outcome == "written"
        if self.report is not None:
            self.report(self.done, self.total)

    def raise_mistakes(self) -> None:
        if len(self.mistakes) == 1:
            raise self.mistakes[0]
        if self.mistakes:
            more = len(self.mistakes) - SHOWN
            rest = [UserError(f"... and {more} more cases")] if more > 0 else []
            raise UserErrors([*self.mistakes[:SHOWN], *rest])


def _in_memory(case: Case) -> bool:
    return any(isinstance(source, ArraySource) for source in case.images.values())


def _common(preprocessing: Preprocessing, recipe: str, settings: StoreSettings) -> str:
    """A hash of all that shapes an entry besides the case's own files."""
    identity = {
        "layout": LAYOUT,
        "recipe": recipe,
        "preprocessing": preprocessing.identity(),
        "storage": [settings.format, settings.dtype],
        "libraries": library_versions(),
        "code": code_hashes([type(preprocessing), *parts_of(preprocessing.transforms), *targets_of(recipe)]),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
