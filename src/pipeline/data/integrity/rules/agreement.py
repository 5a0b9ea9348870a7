"""Masks that disagree with their image, or with their own names, in a way that those of the other cases do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from pipeline.data.case import Case, Source
from pipeline.data.integrity.reading import Reading
from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View, affine_of

FEWEST = 5  # cases from which the usual is known
USUAL = 0.8  # part of the cases that must agree before another one is unusual
CONTRAST = 0.5  # of the foreground, in standard deviations of the image, from which it tells something
FAINT = 0.2  # part of the usual contrast; less is no contrast
LEAST = (0.2, 0.1, 0.03)  # least scale of ln(part of the image), of brightness, and of each coordinate of the centre
FARTHEST = 10.0  # scales that one property may count
UNLIKE, LIKE = 2.0, 1.5  # times the usual distance: more is another class, less is this class
MOST_CLASSES = 12  # classes that are compared pair by pair

Measured = list[tuple[Case, Source, Reading]]


def faint(view: View) -> Iterator[Fault]:
    """The foreground of a mask is as bright as its surroundings, while all others stand out: another case's mask."""
    found = [item for item in view.masks if item[2].classes and len(item[2].classes) > 1]
    if len(found) < FEWEST:
        return
    contrasts = np.array([_contrast(reading.classes or {}) for _, _, reading in found])
    usual = float(np.median(contrasts))
    if abs(usual) < CONTRAST or np.mean(contrasts / usual > CONTRAST) < USUAL:
        return
    for number in np.flatnonzero(contrasts / usual < FAINT):
        case, source, _ = found[number]
        fault = (
            f"the label mask does not fit its image: its foreground differs from the rest by {contrasts[number]:.2f} "
            f"standard deviations, that of most masks by {usual:.2f}"
        )
        yield view.fault("warning", case, source, fault, "is it shifted, or the mask of another case?", "faint_mask")


def _contrast(classes: Mapping[int, Sequence[float]]) -> float:
    """Mean brightness of the foreground above that of the background, in standard deviations of the image."""
    parts = {value: properties[:2] for value, properties in classes.items()}
    share, brightness = parts.pop(0, (0.0, 0.0))
    return sum(part * mean for part, mean in parts.values()) / sum(part for part, _ in parts.values()) - (
        brightness if share else 0.0
    )


def exchanged(view: View) -> Iterator[Fault]:
    """Two classes of a mask have each other's size, brightness and place, as the other masks have them."""
    labels = view.dataset.labels
    if labels is None or len(labels.values) > MOST_CLASSES:
        return
    found = [item for item in view.masks if item[2].classes]
    known = [_properties(reading) for _, _, reading in found]
    usual: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for value in labels.values:
        rows = np.array([properties[value] for properties in known if value in properties])
        if len(rows) >= FEWEST:
            middle = np.median(rows, axis=0)
            spread = 1.4826 * np.median(np.abs(rows - middle), axis=0)  # of a normal distribution: its deviation
            usual[value] = middle, np.maximum(spread, [*LEAST[:2], *[LEAST[2]] * (rows.shape[1] - 2)])

    def distance(properties: np.ndarray, value: int) -> float:
        middle, scale = usual[value]
        return float(np.minimum(np.abs(properties - middle) / scale, FARTHEST).sum())

    for one, other in combinations(usual, 2):
        if labels.values[one] == labels.values[other]:
            continue
        both = [number for number, properties in enumerate(known) if one in properties and other in properties]
        if len(both) < FEWEST:
            continue
        as_is = np.array([distance(known[n][one], one) + distance(known[n][other], other) for n in both])
        turned = np.array([distance(known[n][one], other) + distance(known[n][other], one) for n in both])
        limit = float(np.quantile(as_is, 0.75))
        for place in np.flatnonzero((as_is > UNLIKE * np.maximum(limit, turned)) & (turned < LIKE * limit)):
            case, source, _ = found[both[place]]
            fault = (
                f"classes {labels.values[one]} ({one}) and {labels.values[other]} ({other}) seem to be exchanged: "
                "each has the size, brightness and place that the other has in most masks"
            )
            yield view.fault("warning", case, source, fault, "look at the mask, exchange its values", "exchanged")


def _properties(reading: Reading) -> dict[int, np.ndarray]:
    """ln(part of the image), brightness and centre of each mask value, in the world's axes where there are any."""
    axes = np.eye(2)
    if len(reading.shape) == 3:
        axes = affine_of(reading)[:3, :3]
        axes = axes / np.sqrt((axes**2).sum(axis=0))
    return {
        value: np.array([np.log(share), brightness, *(axes @ np.array(centre))])
        for value, (share, brightness, *centre) in (reading.classes or {}).items()
    }
