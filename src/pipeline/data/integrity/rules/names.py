"""Names that are not what they seem: one patient or class written in two ways, or no name at all."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from pipeline.data.case import FileSource
from pipeline.data.image_io import SUFFIXES, stem_of
from pipeline.data.integrity.result import Fault, Severity
from pipeline.data.integrity.view import View

ABSENT = {"nan", "n/a", "#n/a", "null", "nat", "?", "missing"}  # what programs write where nothing is known
DOUBTFUL = {"na", "none", "unknown", "-", "."}


def look_alike(view: View) -> Iterator[Fault]:
    """Ids of patients or cases, or classes, that differ in case, spaces, leading zeros or Unicode alone."""
    cases = view.dataset.cases
    for what, names, harm in (
        ("patient", (case.patient_id for case in cases), "one patient under two ids leaks into validation"),
        ("case", (case.case_id for case in cases), "on some file systems their results overwrite each other"),
        ("class", (case.target for case in cases if case.target is not None), "one class becomes two"),
    ):
        for group in _alike(names, numbers=what != "case"):
            said = " and ".join(repr(name) for name in group)
            fault = f"{what} names {said} differ in their writing alone: {harm}"
            same = len({unicodedata.normalize("NFC", name) for name in group}) == 1
            severity: Severity = "error" if same else "warning"
            yield view.dataset_fault(severity, fault, "write the name in one way", "look_alike")


def absent(view: View) -> Iterator[Fault]:
    """A target or patient called nan, null or the like: a cell that was empty before a program filled it."""
    for case in view.dataset.cases:
        if case.case_id.casefold() in ABSENT:
            fault = f"a case is called {case.case_id!r}: its id seems to be missing"
            yield Fault("warning", case.case_id, view.index, fault, "give it an id", "absent_name")
        for what, name in (("target", case.target), ("patient_id", case.patient_id)):
            folded = (name or "").casefold()
            if folded in ABSENT or (folded in DOUBTFUL and what == "patient_id"):
                fault = f"{what} of case {case.case_id} is {name!r}: it seems to be missing"
                remedy = "leave the cell empty, fill it in, or take the case out"
                yield Fault("error", case.case_id, view.index, fault, remedy, "absent_name")
            elif folded in DOUBTFUL:
                fault = f"{what} of case {case.case_id} is {name!r}: is that a class, or is it missing?"
                remedy = "leave the cell empty where it is not known, or choose the classes with data.targets"
                yield Fault("warning", case.case_id, view.index, fault, remedy, "absent_name")


def mispaired(view: View) -> Iterator[Fault]:
    """A mask bears the name of another case's image, while most masks bear that of their own."""
    pairs = [
        (case, case.label, stem_of(image.path), stem_of(case.label.path))
        for case in view.dataset.cases
        if isinstance(case.label, FileSource) and isinstance(image := next(iter(case.images.values())), FileSource)
        if image.path.name.lower().endswith(SUFFIXES) and case.label.path.name.lower().endswith(SUFFIXES)
    ]
    images = {image for _, _, image, _ in pairs}
    odd = [pair for pair in pairs if pair[2] != pair[3] and pair[3] in images]
    if 2 * len(odd) < len(pairs):
        for case, label, own, mask in odd:
            fault = f"is the mask of {own}, but bears the name of another image, {mask}: are they exchanged?"
            yield view.fault("warning", case, label, fault, "compare the pair, correct the list", "mispaired")


def _alike(names: Iterable[str], *, numbers: bool) -> list[list[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for name in set(names):
        folded = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        if not folded.isascii():  # what has no width, such as a byte order mark in the middle of a table
            folded = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
        if numbers:
            folded = re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"^(\d+)\.0+$", r"\1", folded))
        groups[folded].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)
