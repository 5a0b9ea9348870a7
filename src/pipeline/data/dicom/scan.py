"""Every DICOM file of a folder tree, grouped into series."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.dicom.fault import Fault
from pipeline.data.dicom.instance import Instance, read_instance
from pipeline.data.dicom.parallel import in_parallel

CHUNK = 200  # headers read in one piece of work
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame variants below it


@dataclass
class Scan:
    """What a folder holds: image series by UID, structure sets and segmentations, and what was passed over."""

    series: dict[str, list[Instance]] = field(default_factory=dict)
    masks: list[Instance] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    files: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def notes(self) -> list[str]:
        """What was passed over, one line."""
        said = ", ".join(f"{count} {what}" for what, count in sorted(self.passed_over.items()))
        return [f"passed over: {said}"] if said else []


def list_files(root: Path) -> list[Path]:
    """All files below a folder, sorted; linked folders are not followed, as they may lead round in a circle."""
    return sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names)


def scan(files: Sequence[Path], *, workers: int = 1, report: Callable[[int, int], None] | None = None) -> Scan:
    """Read the headers of files and group the images by SeriesInstanceUID.

    ``report`` gets the number of headers read and of files.
    """
    found = Scan(files=len(files))
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    done = 0
    for instances, faults, skipped in in_parallel(read_headers, [(chunk,) for chunk in chunks], workers):
        for instance in instances:
            _sort(found, instance)
        found.faults += faults
        if skipped:
            found.passed_over["files that are no DICOM"] += skipped
        done += len(instances) + len(faults) + skipped
        if report is not None:
            report(done, len(files))
    _pass_over(found)
    found.series = {uid: sorted(found.series[uid], key=lambda i: i.path) for uid in sorted(found.series)}
    found.masks.sort(key=lambda instance: instance.path)
    found.faults.sort(key=lambda fault: fault.file)
    return found


def read_headers(files: Sequence[Path]) -> tuple[list[Instance], list[Fault], int]:
    """The DICOM files among ``files``, faults of those that cannot be read, and the number of other files."""
    instances, faults, skipped = [], [], 0
    for path in files:
        try:
            instance = read_instance(path)
        except FileNotFoundError:  # a link that leads nowhere
            faults.append(Fault("unknown", str(path), "the link leads to a missing file", "remove the link"))
        except OSError as error:
            faults.append(Fault("unknown", str(path), f"cannot be read: {error.strerror or error}", ""))
        except ValueError as error:
            faults.append(Fault("unknown", str(path), str(error), "copy or export it again"))
        else:
            if instance is None:
                skipped += 1
            else:
                instances.append(instance)
    return instances, faults, skipped


def _sort(found: Scan, instance: Instance) -> None:
    if not instance.series:
        said = "has no SeriesInstanceUID: nothing tells what it belongs to (truncated?)"
        found.faults.append(Fault("unknown", str(instance.path), said, "copy or export it again"))
    elif instance.kind == "other":
        found.passed_over[f"{instance.modality or 'other'} objects without images"] += 1
    elif instance.kind != "image":
        found.masks.append(instance)
    else:
        found.series.setdefault(instance.series, []).append(instance)


def _pass_over(found: Scan) -> None:
    """Leave out what is no volume by its kind: localizers, and screenshots without a place in the patient."""
    for uid, instances in list(found.series.items()):
        kind = None
        if all("LOCALIZER" in instance.image_type for instance in instances):
            kind = "localizer series"
        elif all(i.sop_class.startswith(SECONDARY_CAPTURE) and i.position is None for i in instances):
            kind = "secondary captures (screenshots)"
        if kind is not None:
            found.passed_over[kind] += 1
            del found.series[uid]
