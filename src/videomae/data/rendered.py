"""Folders of rendered videos: claimed by their settings, written by processes, carried on."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from videomae.errors import ConfigError
from videomae.hub import read_json, write_json
from videomae.settings import RenderSettings
from videomae.video.decoder import Frames
from videomae.video.writer import write_video

AnySettings = TypeVar("AnySettings", bound=RenderSettings)


def check_shape(size: int, num_frames: int) -> None:
    """Raise ConfigError for a shape that no video can have."""
    if size < 8 or size % 2 or num_frames < 1:
        raise ConfigError(
            f"{size=}, {num_frames=}: expected an even size of at least 8 pixels (H.264 halves "
            "colour) and at least 1 frame"
        )


def render_set(
    settings: AnySettings,
    classes: Sequence[str],
    counts: Mapping[str, int],
    render: Callable[[AnySettings, Path], Frames],
    *,
    made_by: str,
    defaults: Mapping[str, Any] | None = None,
    crf: int = 18,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the files of a set that are missing, here or in processes, and return all of them.

    counts: how many clips each folder of `settings.output` gets, "" is the output itself; the
    classes take turns, each in a folder of its own. render: what a file is to show. defaults:
    settings that earlier versions did not write into dataset.json. Raises ConfigError for
    impossible shapes, and for a folder that holds something else.
    """
    check_shape(settings.size, settings.num_frames)
    values = {key: each for key, each in vars(settings).items() if key not in ("output", "workers")}
    asked = {"made_by": made_by, **values, "classes": list(classes)}
    _check_folder(settings.output, asked, defaults or {})
    for folder in [folder for folder, count in counts.items() if count]:
        for name in classes:
            (settings.output / folder / name).mkdir(parents=True, exist_ok=True)
    (settings.output / "labels.txt").write_text("".join(f"{name}\n" for name in classes))
    write_json(settings.output / "dataset.json", asked)
    paths = [
        settings.output / folder / classes[index % len(classes)] / f"{index:05d}.mp4"
        for folder, count in counts.items()
        for index in range(count)
    ]
    # A file appears under its name only when it is complete, so what exists is finished.
    missing = [path for path in paths if not path.exists()]
    write = partial(_write_clip, settings, render, crf)
    workers = min(settings.workers or os.cpu_count() or 1, len(missing))
    # Processes, as small arrays keep the interpreter busy. Spawned, not forked: the caller may have
    # torch's threads running.
    pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else None
    with pool or nullcontext():
        written = pool.map(write, missing, chunksize=4) if pool else map(write, missing)
        for done, _ in enumerate(written, len(paths) - len(missing) + 1):
            if on_progress:
                on_progress(done, len(paths))
    return paths


def _write_clip(
    settings: AnySettings, render: Callable[[AnySettings, Path], Frames], crf: int, path: Path
) -> None:
    clip = render(settings, path)
    if settings.still:
        clip[:] = clip[len(clip) // 2].copy()
    write_video(path, clip, fps=settings.fps, crf=crf)


def _check_folder(output: Path, asked: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise ConfigError where a folder holds something other than a set of these settings."""
    record = output / "dataset.json"
    if record.is_file():
        found = {**defaults, **read_json(record)}
        wrong = [key for key in asked if found.get(key) != asked[key]]
        if wrong:
            raise ConfigError(
                f"{output} holds a data set made with "
                f"{', '.join(f'{key}={found.get(key)!r}' for key in wrong)}; asked for "
                f"{', '.join(f'{key}={asked[key]!r}' for key in wrong)}; give another folder, or "
                "remove this one"
            )
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(
            f"{output} is not empty and has no dataset.json, so it is not a data set to carry "
            "on with; give a new folder"
        )
