"""The keys of ``launch:``, and of the commands that work on a run of several processes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.schema_types import Duration, Node, Section


class Launch(Section):
    """Where the jobs of a run are started; see ``conf/launch/base.yaml`` for the meaning of each value."""

    engine: Node | None
    retries: Annotated[int, Field(ge=0)]
    wait: bool
    dry_run: bool
    poll: Duration
    grace: Duration
