"""A fingerprint in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.data.fingerprint.model import ClassMeasures, Fingerprint, Group, Spread

SHOWN = 12  # classes, targets or sites that are listed


def describe(fingerprint: Fingerprint) -> list[str]:
    """Lines for people: cases, grids, intensities and classes; medians, with lowest to highest where they differ."""
    group, unit = fingerprint.overall, fingerprint.unit
    lines = [f"{fingerprint.name}: {group.cases} cases of {group.patients} patients"]
    if len(fingerprint.sites) > 1:
        lines[0] += f", {len(fingerprint.sites)} sites"
    for modality, grid in group.grids.items():
        there = "" if grid.cases == group.cases else f" ({grid.cases} cases)"
        said = f"  {modality}{there}: "
        if unit == "mm":
            said += f"spacing {_per_axis(grid.spacing)} mm ({', '.join(fingerprint.axes)}), "
        said += f"shape {_per_axis(grid.shape)}"
        said += " voxels" if unit == "mm" else f" px ({', '.join(fingerprint.axes)})"
        if any(whole.median != cut.median for whole, cut in zip(grid.shape, grid.cropped_shape, strict=True)):
            said += f", cropped to nonzero {_per_axis(grid.cropped_shape)}"
        lines.append(said)
    for channel, found in group.intensities.items():
        pool = found.foreground or found.image
        first, *_, last = pool.percentiles.items()
        where = "foreground" if found.foreground else "image"
        lines.append(
            f"  {channel}: {', '.join(found.stored)}; {where} mean {pool.mean:.4g}, std {pool.std:.4g}, "
            f"{first[0]} to {last[0]} percentile {first[1]:.4g} to {last[1]:.4g}"
        )
    lines += [f"  {line}" for line in _parts(group.classes, unit, "class")]
    lines += [f"  {line}" for line in _parts(group.regions, unit, "region")]
    lines += [f"  {line}" for line in _counts(group, fingerprint.sites)]
    return lines


def _parts(parts: Mapping[str, ClassMeasures], unit: str, kind: str) -> Iterator[str]:
    for name, part in list(parts.items())[:SHOWN]:
        said = f"{kind} {name}: in {part.present} of {part.annotated} cases, {part.share:.2%} of the voxels"
        if part.volume is not None and part.components is not None:
            size = "mm3" if unit == "mm" else "px"
            said += f", volume {_one(part.volume)} {size}, components {_one(part.components)}"
        if part.touching:
            said += f", touches the border in {part.touching}"
        yield said
    if len(parts) > SHOWN:
        yield f"... and {len(parts) - SHOWN} more"


def _counts(group: Group, sites: Mapping[str, Group]) -> Iterator[str]:
    for title, counts in (("targets", group.targets), ("sites", {name: site.cases for name, site in sites.items()})):
        if counts:
            said = [f"{name} {count}" for name, count in list(counts.items())[:SHOWN]]
            more = f", and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
            yield f"{title}: {', '.join(said)}{more}"


def _per_axis(spreads: tuple[Spread, ...]) -> str:
    return " x ".join(_one(spread) for spread in spreads)


def _one(spread: Spread) -> str:
    median, low, high = (f"{value:.4g}" for value in (spread.median, spread.min, spread.max))
    return median if low == high else f"{median} ({low} to {high})"
