"""What a case lacks: a modality, or the annotation of some classes."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View
from pipeline.data.missing import lacking_modality


def modality(view: View) -> Iterator[Fault]:
    """A case without one of the modalities, unless the configuration says what to do about it."""
    if view.settings.missing_modality != "error":
        return
    for case in lacking_modality(view.dataset):
        absent = ", ".join(name for name in view.dataset.modalities if name not in case.images)
        source = next(iter(case.images.values()), None)
        fault = f"case {case.case_id} has no {absent}"
        remedy = "add it, or set data.missing.modality=drop, zeros or mean"
        if source is None:
            yield Fault("error", case.case_id, view.index, fault, remedy, "no_modality")
        else:
            yield view.fault("error", case, source, fault, remedy, "no_modality")


def annotated(view: View) -> Iterator[Fault]:
    """Cases that annotate classes which do not exist, or whose mask holds a class that it is said not to annotate."""
    labels = view.dataset.labels
    if labels is None:
        return
    for case in view.dataset.cases:
        if case.labels_present is None:
            continue
        for name in case.labels_present:
            if name not in labels.parts:
                fault = f"case {case.case_id} annotates {name}, which is no class or region"
                remedy = f"there are {', '.join(labels.parts)}"
                yield Fault("error", case.case_id, view.index, fault, remedy, "labels_present")
        reading = view.mask(case)
        if reading is None or case.label is None:
            continue
        inside = {0, *(index for name in case.labels_present for index in labels.parts.get(name, ()))}
        found = {labels.values[value] for value in reading.values or {} if value in labels.values}
        stray = sorted(name for name in found if labels.names.index(name) not in inside)
        if stray:
            fault = f"its mask holds {', '.join(stray)}, which the case is said not to annotate"
            remedy = "name the class in labels_present, or take it out of the mask"
            yield view.fault("error", case, case.label, fault, remedy, "labels_present")
