"""Which series make a case: one each, or several modalities of a study or patient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate

from pipeline.data.dicom.fault import Fault
from pipeline.data.dicom.instance import Instance
from pipeline.data.dicom.naming import Names
from pipeline.data.dicom.scan import Scan
from pipeline.data.dicom.settings import CASE, DicomSettings


@dataclass(frozen=True)
class CasePlan:
    """A case to convert. ``images``: name -> the files of its series; ``masks``: what outlines image ``outlined``."""

    case_id: str
    patient_id: str
    images: Mapping[str, tuple[Instance, ...]]
    masks: tuple[Instance, ...]
    outlined: str
    series: str

    @property
    def series_uid(self) -> str:
        """UID of the first series, to name the case to the user."""
        return next(iter(self.images.values()))[0].series


def plan_cases(scan: Scan, settings: DicomSettings) -> tuple[list[CasePlan], list[Fault], list[str]]:
    """The cases of a folder, sorted by id, series that cannot be used, and notes."""
    names = Names(settings.keep_ids, settings.salt)
    patterns = {name: _pattern(pattern) for name, pattern in settings.images.items()}
    faults, notes, unused = [], [], 0
    groups: dict[tuple[str, ...], dict[str, list[tuple[Instance, ...]]]] = {}
    nameless = 0
    used: set[str] = set()
    for uid, instances in scan.series.items():
        fault = _mixed(uid, instances)
        if fault is not None:
            faults.append(fault)
            continue
        first = instances[0]
        if not (first.patient or first.study):
            said = "neither PatientID nor StudyInstanceUID: nothing tells whose images these are"
            faults.append(Fault(uid, str(first.path), said, "set PatientID"))
            continue
        described = f"{first.modality} {first.description}".casefold()
        name = next((name for name, pattern in patterns.items() if pattern.match(described)), None)
        if name is None:
            unused += 1
            continue
        nameless += not first.patient
        used.add(uid)
        patient = first.patient or first.study
        single = settings.modalities is None or len(patterns) == 1
        key = (uid,) if single else (patient, first.study if settings.group == "study" else "")
        groups.setdefault(key, {}).setdefault(name, []).append(tuple(instances))
    outlines, lost = _outlines(scan, used)
    faults += lost
    plans: list[CasePlan] = []
    for series in groups.values():
        twice = _ambiguous(series, settings)
        if twice is None:
            plans.append(_plan({n: series[n][0] for n in patterns if n in series}, outlines, names, settings))
        else:
            faults.append(twice)
    outlined = {plan.images[plan.outlined][0].series for plan in plans}
    apart = sum(len(masks) for uid, masks in outlines.items() if uid in used and uid not in outlined)
    if apart:
        notes.append(f"{apart} structure sets of a case's other modalities were left out: a case has one mask")
    if unused:
        notes.append(f"{unused} series are none of the modalities {', '.join(patterns)} and were left out")
    if nameless:
        notes.append(f"{nameless} series have no PatientID: each of their studies counts as a patient")
    return sorted(plans, key=lambda plan: plan.case_id), faults, notes


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern.casefold()))


def _mixed(uid: str, instances: Sequence[Instance]) -> Fault | None:
    first = instances[0]
    for keyword, name in (("patient", "PatientID"), ("study", "StudyInstanceUID"), ("modality", "Modality")):
        for other in instances:
            if getattr(other, keyword) != getattr(first, keyword):
                said = f"its {name} is not that of {first.path.name}, which has the same SeriesInstanceUID"
                return Fault(uid, str(other.path), said, "separate the files, or correct the tag")
    return None


def _outlines(scan: Scan, used: set[str]) -> tuple[dict[str, list[Instance]], list[Fault]]:
    """Structure sets and segmentations by the UID of the series they outline, and those whose series is not there."""
    by_image = {i.uid: uid for uid, instances in scan.series.items() for i in instances}
    by_space: dict[str, list[str]] = {}
    for uid, instances in scan.series.items():
        by_space.setdefault(instances[0].frame_of_reference, []).append(uid)
    outlines: dict[str, list[Instance]] = {}
    faults = []
    for mask in scan.masks:
        if not mask.names:
            said = "lists no ROIs or segments: it is empty, or truncated"
            faults.append(Fault(mask.series, str(mask.path), said, "export it again, or leave it out"))
            continue
        found = [uid for uid in mask.series_referred if uid in scan.series]
        found = found or list(dict.fromkeys(by_image[uid] for uid in mask.images_referred if uid in by_image))
        if not found and not mask.series_referred and mask.frame_of_reference:
            same = by_space.get(mask.frame_of_reference, [])
            found = same if len(same) == 1 else []
        if not found:
            said = "refers to a series that is not in the folder"
            if not mask.series_referred:
                said = "does not say which of the series it outlines"
            remedy = "add the images it was drawn on, or leave it out"
            faults.append(Fault(mask.series, str(mask.path), said, remedy))
            continue
        chosen = [uid for uid in found if uid in used] or found
        outlines.setdefault(chosen[0], []).append(mask)
    return outlines, faults


def _ambiguous(series: Mapping[str, Sequence[tuple[Instance, ...]]], settings: DicomSettings) -> Fault | None:
    for name, found in series.items():
        if len(found) > 1:
            first = found[0][0]
            described = ", ".join(sorted(repr(series[0].description or "no description") for series in found))
            said = f"the {settings.group} has {len(found)} series for image {name}: {described}"
            remedy = f"choose by description: modalities={{{name}: '{first.modality} *PART OF IT*'}}"
            return Fault(first.series, str(first.path), said, remedy)
    return None


def _plan(
    images: dict[str, tuple[Instance, ...]],
    outlines: Mapping[str, list[Instance]],
    names: Names,
    settings: DicomSettings,
) -> CasePlan:
    first = next(iter(images.values()))[0]
    patient = first.patient or first.study
    outlined = next((name for name, series in images.items() if outlines.get(series[0].series)), next(iter(images)))
    uid = first.series
    modality = first.modality
    if settings.modalities is not None and len(settings.images) > 1:
        uid = first.study if settings.group == "study" else patient
        modality = settings.group
    return CasePlan(
        case_id=names.case(patient, modality, uid),
        patient_id=names.patient(patient),
        images=images,
        masks=tuple(outlines.get(images[outlined][0].series, ())),
        outlined=outlined,
        series=" ".join(names.uid(series[0].series) for series in images.values()),
    )


def image_names(settings: DicomSettings) -> tuple[str, ...]:
    """Names of the images of a case, in order; one called ``image`` where no modalities are named."""
    return tuple(settings.images) if settings.modalities is not None else (CASE,)
