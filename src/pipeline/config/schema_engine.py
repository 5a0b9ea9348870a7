"""Keys of ``engine``: how a network is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.schema_types import Count, Section


class Engine(Section):
    """How the network is computed: see ``pipeline.networks.engine`` and ``pipeline.training.engine``."""

    norm: Literal["auto", "stock", "fused"]
    memory_format: Literal["auto", "contiguous", "channels_last"]
    compile: bool | Literal["auto", "graphs"]
    augment: Literal["auto", "device", "host"]
    keep_memory: bool
    oom: Literal["stop", "shrink"]
    trial_seconds: Annotated[float, Field(gt=0)]
    trial_steps: Count
    least_gain: Annotated[float, Field(ge=0, lt=1)]
