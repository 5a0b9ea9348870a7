"""The keys that a pydantic model accepts at some place inside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel


def keys_at(model: type[BaseModel], keys: tuple[str | int, ...]) -> list[str]:
    """Names of the fields below ``keys``; empty where any name is accepted or none is known."""
    models = [model]
    for key in keys:
        annotations = [m.model_fields[str(key)].annotation for m in models if str(key) in m.model_fields]
        if isinstance(key, int):
            continue  # a list: the models of its elements were found through its annotation
        models = [found for annotation in annotations for found in _models(annotation)]
    return sorted({field.alias or name for m in models for name, field in m.model_fields.items()})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
