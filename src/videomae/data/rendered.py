"""Folders of rendered videos: claimed by their settings, written by processes, carried on."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from videomae.errors import ConfigError
from videomae.hub import read_json, write_json


def check_shape(size: int, num_frames: int) -> None:
    """Raise ConfigError for a shape that no video can have."""
    if size < 8 or size % 2 or num_frames < 1:
        raise ConfigError(
            f"{size=}, {num_frames=}: expected an even size of at least 8 pixels (H.264 halves "
            "colour) and at least 1 frame"
        )


def write_set(
    paths: Sequence[Path],
    write: Callable[[Path], None],
    workers: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> list[Path]:
    """Write the files that are missing, here or in processes, and return all of them.

    A file appears under its name only when it is complete, so what exists is finished.
    """
    missing = [path for path in paths if not path.exists()]
    written = _each(write, missing, workers or os.cpu_count() or 1)
    for done, _ in enumerate(written, len(paths) - len(missing) + 1):
        if on_progress:
            on_progress(done, len(paths))
    return list(paths)


def _each(act: Callable[[Path], None], paths: Sequence[Path], workers: int) -> Iterator[None]:
    """Write the files in order, here or in processes: small arrays keep the interpreter busy."""
    workers = min(workers, len(paths))
    if workers <= 1:
        yield from map(act, paths)
        return
    # Spawned, not forked: the caller may have torch's threads running.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(act, paths, chunksize=4)


def claim(
    output_dir: Path,
    asked: dict[str, Any],
    *,
    folders: Iterable[str],
    defaults: dict[str, Any] | None = None,
) -> None:
    """Make a folder the place of a set, or check that it already holds one of these settings.

    asked: the settings and the classes, for dataset.json. folders: what to make in it. defaults:
    settings that earlier versions did not write.
    """
    record = output_dir / "dataset.json"
    if record.is_file():
        found = {**(defaults or {}), **read_json(record)}
        wrong = [key for key in asked if found.get(key) != asked[key]]
        if wrong:
            raise ConfigError(
                f"{output_dir} holds a data set made with "
                f"{', '.join(f'{key}={found.get(key)!r}' for key in wrong)}; asked for "
                f"{', '.join(f'{key}={asked[key]!r}' for key in wrong)}; give another folder, or "
                "remove this one"
            )
    elif output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ConfigError(
            f"{output_dir} is not empty and has no dataset.json, so it is not a data set to carry "
            "on with; give a new folder"
        )
    for folder in folders:
        (output_dir / folder).mkdir(parents=True, exist_ok=True)
    (output_dir / "labels.txt").write_text("".join(f"{name}\n" for name in asked["classes"]))
    write_json(record, asked)
