"""The keys of ``tracking:``; see ``conf/tracking/local.yaml`` for the meaning of each value."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.schema_types import Duration, Section


class Tracking(Section):
    """The MLflow store."""

    enabled: bool
    uri: str | None
    experiment: str | None
    artifacts: str | None
    parent: Annotated[str, Field(pattern=r"^[0-9a-f]+/[\w./-]+$")] | None
    checkpoints: bool
    flush_timeout: Duration
