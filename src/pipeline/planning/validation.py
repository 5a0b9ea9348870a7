"""How often a training validates, and on how many cases: as much as it can pay for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod

from pipeline.config.schema_planning import Planning
from pipeline.data.fingerprint import Fingerprint
from pipeline.inference.windows import window_starts
from pipeline.planning.document import Chosen, Node
from pipeline.planning.measured import reference_grid

STEP = 3  # times the work of a prediction that a training step takes, voxel by voxel: there, and twice back


def validation_section(
    fingerprint: Fingerprint,
    rules: Planning,
    spacing: Sequence[float],
    patch_size: Sequence[int],
    batch: int,
    batches: int,
) -> Mapping[str, Node]:
    """The keys of ``trainer`` about validation; sizes per axis in the fingerprint's order, ``batches``: of an epoch.

    A case is predicted whole, window by window, so that a large image can cost more than epochs of patches.
    """
    shape = [round(size.median / mm) for size, mm in zip(reference_grid(fingerprint).size, spacing, strict=True)]
    windows = prod(
        len(window_starts(max(extent, edge), edge, rules.overlap))
        for extent, edge in zip(shape, patch_size, strict=True)
    )
    epochs = windows / (STEP * batch * batches)
    least, most = rules.validation.cases
    cases = max(least, min(most, int(1 / epochs)))
    every = max(rules.validation.every, ceil(cases * epochs / rules.validation.share))
    takes = f"a case takes as long as {epochs:.2g} epochs of training ({windows} windows)"
    return {
        "validate_every": Chosen(
            every,
            f"epochs; {takes}, validation at most {rules.validation.share:.0%} of the time; "
            f"at least {rules.validation.every}",
        ),
        "validate_cases": Chosen(cases, f"as many as take an epoch, from {least} to {most}"),
    }
