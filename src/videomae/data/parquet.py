"""Tables of Parquet, written whole; the door to pyarrow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videomae.errors import needing
from videomae.hub import atomic_path


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
