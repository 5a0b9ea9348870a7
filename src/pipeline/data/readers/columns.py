"""Which column of a table, or which template over its columns, gives each property of a case."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.readers.rows import Row, as_text
from pipeline.data.readers.sources import listed, nearest, raise_all
from pipeline.errors import UserError

PROPERTIES = ("case_id", "patient_id", "image", "label", "labels_present", "target", "site", "fold", "split")
MODALITY = "image:"  # what the property (or the column) of one of several modalities begins with
STRICT = ("image", "patient_id")
FIELD = re.compile(r"\{([^{}]*)\}")


class Columns:
    """The mapping ``data.columns``: property -> column name, template such as ``images/{file}``, or None.

    ``modalities``: name -> property: one ``image``, or several ``image:<name>``, the first of which is the reference.
    Where the mapping has no image, the columns called ``image:<name>`` are taken. A column that bears the name of its
    property may be absent from the table, but for image and patient_id: a patient taken for several would leak from
    training to validation.
    Raises UserError(s) for unknown properties and for columns that the table does not have.
    """

    def __init__(self, mapping: Mapping[str, str | None], names: Sequence[str], table: Path) -> None:
        self.given = {key: value for key, value in mapping.items() if value is not None and value != ""}
        self._require_one_way(names, table)
        mistakes = []
        for key, value in list(self.given.items()):
            if key not in PROPERTIES and not (key.startswith(MODALITY) and key != MODALITY):
                near = nearest(key, PROPERTIES)
                remedy = f"did you mean {near[0]}?" if near else f"one of {', '.join(PROPERTIES)}, image:NAME"
                mistakes.append(UserError(f"data.columns.{key}: unknown property of a case", remedy))
                continue
            if key == value and key not in (*names, *STRICT) and not key.startswith(MODALITY):
                del self.given[key]
                continue
            wanted = FIELD.findall(value) or [value]
            mistakes += [
                missing_column(name, names, table, f"data.columns.{key}") for name in wanted if name not in names
            ]
        raise_all(mistakes)
        self.modalities = {key[len(MODALITY) :]: key for key in self.given if key.startswith(MODALITY)}
        if "image" in self.given:
            self.modalities = {"image": "image"}

    def _require_one_way(self, names: Sequence[str], table: Path) -> None:
        """One image or several modalities; what only bears its own name gives way to what is there."""
        named = [key for key in self.given if key.startswith(MODALITY)]
        found = [name for name in names if name.startswith(MODALITY) and name != MODALITY]
        default = self.given.get("image") == "image"
        if default and "image" not in names and (named or found):
            del self.given["image"]
        if "image" not in self.given and not named:
            self.given |= {name: name for name in found}
        elif "image" in self.given and (named or (default and found)):
            raise UserError(
                f"{table}: one image and several modalities ({listed(named or found)}) are given for each case",
                "set data.columns.image=null to use the modalities, or take out their columns",
            )

    def __contains__(self, key: str) -> bool:
        return key in self.given

    def value(self, key: str, row: Row) -> str | None:
        """The property of one row; None where the mapping has none, the table's cell is empty, or a part of it is."""
        given = self.given.get(key)
        if given is None:
            return None
        fields = FIELD.findall(given)
        if not fields:
            return row[given] or None
        if any(not row[name] for name in fields):
            return None
        return FIELD.sub(lambda match: row[match.group(1)], given)


def missing_column(name: str, names: Sequence[str], table: Path, key: str) -> UserError:
    """The mistake of naming a column that a table lacks."""
    near = nearest(name, names)
    remedies = [f"did you mean {near[0]}?" if near else f"the table has {listed(list(names))}"]
    if key == "data.columns.patient_id":
        remedies.append(f"{key}=null if every case is another patient")
    return UserError(f"{table}: has no column {name!r} ({key})", *remedies)


def keep_rows(
    rows: list[Row], keep: Mapping[str, Any] | None, names: Sequence[str], table: Path
) -> tuple[list[Row], list[str]]:
    """The rows whose columns hold the wanted value or one of several, and a note for each column that dropped some."""
    notes = []
    for column, wanted in (keep or {}).items():
        if column not in names:
            raise missing_column(column, names, table, "data.keep")
        values = {as_text(value) for value in (wanted if isinstance(wanted, list | tuple) else [wanted])}
        present = {row[column] for row in rows}
        unknown = sorted(values - present)
        if unknown:
            raise UserError(
                f"{table}: no row has {column}={listed(unknown)} (data.keep)", f"it holds {listed(sorted(present))}"
            )
        before = len(rows)
        rows = [row for row in rows if row[column] in values]
        if len(rows) < before:
            notes.append(f"{before - len(rows)} of {before} rows dropped: data.keep.{column}={listed(sorted(values))}")
    return rows, notes
