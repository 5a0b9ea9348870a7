"""The types of values in YAML that several sections share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _names_target(node: dict[str, Any]) -> dict[str, Any]:
    if "_target_" not in node:
        raise ValueError("has no _target_, so nothing says what to build")
    return node


def _lasts(text: str) -> str:
    if not float(text.rstrip("smhd ")):
        raise ValueError("is no time to train in")
    return text


Node = Annotated[dict[str, Any], AfterValidator(_names_target)]
Duration = Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*(s|m|h|d)$")]
Budget = Annotated[Duration, AfterValidator(_lasts)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(gt=0, lt=100)]
Count = Annotated[int, Field(ge=1)]
Sizes = list[Count]
Range = tuple[float, float]
Beta = Annotated[float, Field(gt=0, lt=1)]
ClassWeights = dict[str | int, Annotated[float, Field(ge=0)]]


class Section(BaseModel):
    """A mapping that accepts its own keys and no others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
