"""Rows of a CSV, TSV or Parquet table as text, value by value as it stands there."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pipeline.data.readers.sources import listed
from pipeline.errors import UserError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLES = (*SEPARATORS, ".parquet")

MOST_CELLS = 10_000_000  # of a Parquet table; each becomes a text
MOST_BYTES = 1 << 28
TEXTS = ("string", "large_string", "binary", "large_binary")

Row = dict[str, str]


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Column names and rows; an absent value is the empty text. Leading zeros survive. Raises UserError."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix not in SEPARATORS:
        raise UserError(f"{path}: unknown table format", f"the name should end in {', '.join(TABLES)}")
    return _read_text(path, SEPARATORS[suffix])


def _read_text(path: Path, separator: str) -> tuple[list[str], list[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            names = [name.strip() for name in next(reader, [])]
            if not any(names):
                raise UserError(f"{path}: the table is empty")
            _require_names(path, names)
            _require_separator(path, names, separator)
            rows = []
            for values in reader:
                if not any(values):  # spreadsheets leave rows of nothing but separators
                    continue
                if len(values) != len(names):
                    raise UserError(
                        f"{path}: line {reader.line_num} has {len(values)} values, the head has {len(names)} columns"
                    )
                rows.append(dict(zip(names, (value.strip() for value in values), strict=True)))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not in UTF-8 ({error.reason} at byte {error.start})", "save it as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return names, rows


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():  # a folder would be read as a table in parts
        raise UserError(f"{path}: is no file")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names, metadata = list(file.schema_arrow.names), file.metadata
            texts = [field.name for field in file.schema_arrow if str(field.type) in TEXTS]
        _require_names(path, names)
        size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        _require_size(path, metadata.num_rows, len(names), size)
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:  # a text that is repeated is read once
            table = file.read()
        _require_size(path, table.num_rows, len(names), sum(map(_written_out, table.columns)))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: no Parquet table that can be read ({error})") from None
    columns = [[as_text(value) for value in column.to_pylist()] for column in table.columns]
    return names, [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _require_size(path: Path, rows: int, columns: int, size: int) -> None:
    """Refuse a table that would fill the memory: a few kilobytes can repeat one value billions of times."""
    if rows * columns > MOST_CELLS or size > MOST_BYTES:
        raise UserError(
            f"{path}: too large: {rows:,} rows of {columns} columns, {size:,} bytes; "
            f"the limits are {MOST_CELLS:,} cells and {MOST_BYTES:,} bytes",
            "keep the rows and columns that describe the cases",
        )


def _written_out(column: Any) -> int:
    """Bytes of a column once each of its repeated texts is written out."""
    import pyarrow
    import pyarrow.compute

    total = 0
    for chunk in column.chunks:
        if pyarrow.types.is_dictionary(chunk.type):
            lengths = pyarrow.compute.binary_length(chunk.dictionary)
            total += pyarrow.compute.sum(lengths.take(chunk.indices)).as_py() or 0
        else:
            total += chunk.nbytes
    return total


def as_text(value: object) -> str:
    """A cell as text: empty where absent, whole floats without their point, so that 1, 1.0 and "1" agree.

    The values of a list are separated by semicolons.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list | tuple):
        return ";".join(as_text(one) for one in value)
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool):
        return str(int(value))
    return str(value).strip()


def _require_names(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: column {listed(twice)} stands twice", "give each column its own name")


def _require_separator(path: Path, names: list[str], separator: str) -> None:
    for other in (";", "\t", ",", "|"):
        if len(names) == 1 and other != separator and other in names[0]:
            shown = "tab" if other == "\t" else other
            raise UserError(
                f"{path}: its columns are separated by {shown!r}, not by {separator!r} (wrong delimiter)",
                "save it with commas (.csv) or tabs (.tsv)",
            )
