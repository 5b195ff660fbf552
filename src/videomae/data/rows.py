"""Rows of CSV and Parquet, and names of classes: what lists are made of, whatever stands in them.

The door to pyarrow.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videomae.errors import ConfigError, as_text, in_brief, needing
from videomae.hub import atomic_path

LABELS_NAME = "labels.txt"


def csv_rows(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The rows of a CSV by their columns, or why one cannot be taken apart; the lines they end in.

    Cells beyond the columns of the first line are a list under the key None, and those that a row
    lacks are left out.

    Raises ConfigError where the file cannot be read.
    """
    try:
        # Names of files may hold any bytes, which are not always UTF-8.
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)  # not its DictReader, which takes as long again
            columns: list[str] | None = None
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield reader.line_num, f"cannot be taken apart ({error}); is a quote left open?"
                    continue
                if cells is None:
                    break
                if columns is None:
                    columns = cells
                elif cells:
                    row: dict[Any, Any] = dict(zip(columns, cells, strict=False))
                    if len(cells) > len(columns):
                        row[None] = cells[len(columns) :]
                    yield reader.line_num, row
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error}") from error


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows by their columns, atomically; None is an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: v if v is None else as_text(v) for k, v in row.items()})
    return path


def import_pyarrow() -> Any:
    """pyarrow with its Parquet; ConfigError where it is missing, best raised before the work."""
    with needing("Parquet", extra="batch"):
        import pyarrow.parquet
    return pyarrow


def write_table(path: Path, columns: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write Arrow arrays as the columns of a file, atomically, with texts by key as metadata."""
    arrow = import_pyarrow()
    table = arrow.table(dict(columns)).replace_schema_metadata(dict(metadata))
    with atomic_path(path) as temporary:
        arrow.parquet.write_table(table, temporary)


def is_one_line(name: str) -> bool:
    """Whether a text has no line end, as the name of a class, split or group must not."""
    return "\n" not in name and not name.endswith("\r")


def check_classes(names: Sequence[str], where: str) -> None:
    """Raise ConfigError for classes that labels.txt cannot hold, or that are there twice."""
    odd = [name for name in names if not name or not is_one_line(name)]
    odd += [name for name, times in Counter(names).items() if times > 1]
    if odd:
        raise ConfigError(
            f"{where}: class {in_brief(repr(odd[0]))} cannot be written to {LABELS_NAME}; expected "
            "names of one line, each once"
        )
