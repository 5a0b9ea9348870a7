"""The keys of ``launch:``, and of the command that it starts for each fold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.schema_types import Count, Duration, Node, Section


class Launch(Section):
    """Where the jobs of a run are started; see ``conf/launch/base.yaml`` for the meaning of each value."""

    engine: Node | None
    retries: Annotated[int, Field(ge=0)]
    wait: bool
    dry_run: bool
    poll: Duration
    grace: Duration


class FoldConfig(Section):
    """``python -m pipeline fold``"""

    run: str
    fold: Annotated[int, Field(ge=0)]
    threads: Count | None
    trust: list[str]
