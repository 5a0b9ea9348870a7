"""Keys of ``inference`` and ``evaluation``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.schema_types import Count, Section


class Inference(Section):
    """From an image to probabilities on its own voxel grid."""

    overlap: Annotated[float, Field(ge=0, lt=1)]
    window_batch: Count | Literal["auto"]
    blending: Literal["gaussian", "constant"]
    mirror_axes: list[Annotated[int, Field(ge=0, le=2)]] | Literal["auto"]
    accumulate: Literal["auto", "float32", "float16"]
    memory_gb: Annotated[float, Field(gt=0)] | None
    region_threshold: Annotated[float, Field(gt=0, lt=1)]

    def window(self) -> dict[str, Any]:
        """The settings of the sliding window."""
        return self.model_dump(exclude={"region_threshold"})


class Evaluation(Section):
    """What is measured, and how its uncertainty is stated."""

    checkpoint: Literal["last", "best"]
    tolerance_mm: Annotated[float, Field(gt=0)]
    resamples: Count
    seed: int
    figures: bool
    postprocess: Literal["auto", "none"]
    connectivity: Literal["faces", "edges", "corners"]
