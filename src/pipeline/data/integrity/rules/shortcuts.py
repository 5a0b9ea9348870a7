"""What gives the class away without a look at the image: a network learns that instead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View

FEWEST = 5  # cases that a site or shape must have to count
MOST = 8  # different shapes beyond which they are as good as random


def class_given_away(view: View) -> Iterator[Fault]:
    """Each class has sites, image shapes or file formats of its own (Zech et al. 2018, DeGrave et al. 2021)."""
    if view.dataset.task != "classification":
        return
    traits: dict[str, dict[str, list[str]]] = {
        name: defaultdict(list) for name in ("site", "image shape", "number of channels", "file format")
    }
    for case in view.dataset.cases:
        images = view.images(case)
        if case.target is None or not images:
            continue
        source, reading = images[0]
        if case.site is not None:
            traits["site"][case.site].append(case.target)
        traits["image shape"][" x ".join(map(str, reading.shape))].append(case.target)
        traits["number of channels"][str(reading.channels)].append(case.target)
        traits["file format"]["".join(source.path.suffixes[-2:]).lower()].append(case.target)
    for name, values in traits.items():
        classes = {target for targets in values.values() for target in targets}
        pure = all(len(set(targets)) == 1 and len(targets) >= FEWEST for targets in values.values())
        if pure and len(classes) > 1 and len(values) <= MOST:
            said = ", ".join(f"{value}: {targets[0]}" for value, targets in sorted(values.items()))
            fault = f"the {name} gives the class away ({said})"
            remedy = "a network can learn it instead of the disease; mix them, or validate elsewhere"
            yield view.dataset_fault("warning", fault, remedy, "class_given_away")
