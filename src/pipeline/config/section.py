"""What every part of the schema is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A mapping that accepts its own keys and no others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
