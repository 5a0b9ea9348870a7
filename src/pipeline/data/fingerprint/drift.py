"""Whether new images are like those of a fingerprint; whatever is found is a warning, for it may be right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.data.case import Case
from pipeline.data.fingerprint.drift_rules import Finding, compare_grids, compare_intensities
from pipeline.data.fingerprint.limits import DriftSettings
from pipeline.data.fingerprint.measure import CaseMeasure, measure_case
from pipeline.data.fingerprint.model import Fingerprint
from pipeline.data.parallel import in_order

STRONGEST = 1e6  # in JSON, which knows no infinity


@dataclass(frozen=True)
class Drift:
    """All findings; ``training``: name of the data set that the inputs were compared with."""

    training: str
    training_cases: int
    inputs: int
    settings: DriftSettings
    findings: tuple[Finding, ...]

    @property
    def lines(self) -> list[str]:
        """One line per rule and image: the finding with most files, and in which quantities else it shows."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.image, finding.rule), []).append(finding)
        lines = []
        for group in groups.values():
            group = sorted(group, key=lambda finding: (finding.median is None, -len(finding.files), -finding.strength))
            others = ", ".join(finding.quantity for finding in group[1:])
            lines.append(group[0].text + (f" (also {others})" if others else ""))
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain containers for drift.json."""
        findings = [asdict(found) | {"strength": min(found.strength, STRONGEST)} for found in self.findings]
        return asdict(self) | {"lines": self.lines, "findings": findings}


def find_drift(
    fingerprint: Fingerprint,
    cases: Sequence[Case],
    settings: DriftSettings | None = None,
    *,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> Drift:
    """Measure new cases as the training cases were, and compare; masks are not read.

    One image per worker is in memory. ``report`` is called with (done, total). Raises UserError for an image that
    cannot be read.
    """
    drawn = fingerprint.settings.drawn(fingerprint.overall.cases)

    def measure(case: Case) -> CaseMeasure:
        place = int(hashlib.sha256(case.case_id.encode()).hexdigest()[:15], 16)
        return measure_case(case, None, fingerprint.settings, drawn=drawn, place=place)

    measured = []
    for case, found in in_order(measure, cases, workers):
        measured.append(({modality: source.name for modality, source in case.images.items()}, found))
        if report is not None:
            report(len(measured), len(cases))
    return compare(fingerprint, measured, settings)


def compare(
    fingerprint: Fingerprint,
    measured: Sequence[tuple[Mapping[str, str], CaseMeasure]],
    settings: DriftSettings | None = None,
) -> Drift:
    """Compare measured cases, each with its file names by modality, with a fingerprint."""
    settings = settings or DriftSettings()
    findings: list[Finding] = []
    for modality, grid in fingerprint.overall.grids.items():
        grids = [(names[modality], case.grids[modality]) for names, case in measured if modality in case.grids]
        if grids:
            findings += compare_grids(modality, grid, grids, settings, fingerprint.axes, fingerprint.unit)
    for channel, training in fingerprint.overall.intensities.items():
        channels = [
            (names[case.channels[channel].modality], case.channels[channel])
            for names, case in measured
            if channel in case.channels
        ]
        if channels:
            findings += compare_intensities(channel, training, channels, settings, fingerprint.settings)
    return Drift(fingerprint.name, fingerprint.overall.cases, len(measured), settings, tuple(findings))
