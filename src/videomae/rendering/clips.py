"""Folders of rendered videos: claimed by their settings, written by processes, carried on."""

import contextlib
import itertools
import signal
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, TypeVar

from videomae.claim import LOCK_NAME, claimed
from videomae.compute.cores import num_cores
from videomae.errors import ConfigError, counted, keeping
from videomae.hub import read_json, write_json, write_text
from videomae.settings import RenderSettings
from videomae.video.decoder import Frames
from videomae.video.writer import write_video

AnySettings = TypeVar("AnySettings", bound=RenderSettings)

_AGAIN = "the same command goes on from there"


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
    crf: int = 18,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the files of a set that are missing, here or in processes, and return all of them.

    counts: how many clips each folder of `settings.output` gets, "" is the output itself; the
    classes take turns, each in a folder of its own. render: what a file is to show. Raises
    ConfigError for impossible shapes, and for a folder that holds something else.
    """
    check_shape(settings.size, settings.num_frames)
    values = {key: each for key, each in vars(settings).items() if key not in ("output", "workers")}
    asked = {"made_by": made_by, **values, "classes": list(classes)}
    _check_folder(settings.output, asked)
    folders = [settings.output / folder for folder, count in counts.items() if count]
    paths = [
        settings.output / folder / classes[index % len(classes)] / f"{index:05d}.mp4"
        for folder, count in counts.items()
        for index in range(count)
    ]
    parts = [str(path.relative_to(settings.output)) for path in {path.parent for path in paths}]
    write = partial(_write_clip, settings, render, crf)

    def kept() -> str:
        there = sum(path.exists() for path in paths)
        return f"{there} of {counted(len(paths), 'video')} are in {settings.output}; {_AGAIN}"

    with keeping(kept), claimed(settings.output, *parts, again=f"make room; {_AGAIN}"):
        write_json(settings.output / "dataset.json", asked)
        for folder, name in itertools.product(folders, classes):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_text(settings.output / "labels.txt", "".join(f"{name}\n" for name in classes))
        # A file appears under its name only when it is complete, so what exists is finished.
        missing = [path for path in paths if not path.exists()]
        workers = min(settings.workers or num_cores(), len(missing))
        with contextlib.closing(_each(write, missing, workers)) as written:
            for done, _ in enumerate(written, len(paths) - len(missing) + 1):
                if on_progress:
                    on_progress(done, len(paths))
    return paths


def _each(write: Callable[[Path], None], paths: Sequence[Path], workers: int) -> Generator[None]:
    """Call `write` on each path, here or in processes, which do not outlive the iterator."""
    if workers <= 1:
        yield from map(write, paths)
        return
    others = set(active_children())
    # Processes, as small arrays keep the interpreter busy. Spawned, not forked: the caller may have
    # torch's threads running. Ctrl-C reaches all of a terminal's: this one ends the others.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    pending: deque[Future[None]] = deque()
    try:
        for path in paths:
            pending.append(pool.submit(write, path))
            if len(pending) > 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise ConfigError(
            f"a process that renders was killed, perhaps for want of memory; {_AGAIN}, and fewer "
            "workers need less memory"
        ) from error
    finally:
        for process in set(active_children()) - others if pending else ():
            process.kill()
        pool.shutdown()


def _write_clip(
    settings: AnySettings, render: Callable[[AnySettings, Path], Frames], crf: int, path: Path
) -> None:
    clip = render(settings, path)
    if settings.still:
        clip[:] = clip[len(clip) // 2].copy()
    write_video(path, clip, fps=settings.fps, crf=crf)


def _check_folder(output: Path, asked: Mapping[str, Any]) -> None:
    """Raise ConfigError where a folder holds something other than a set of these settings."""
    record = output / "dataset.json"
    if record.is_file():
        found = read_json(record)
        wrong = [key for key in asked if found.get(key) != asked[key]]
        if wrong:
            raise ConfigError(
                f"{output} holds a data set made with "
                f"{', '.join(f'{key}={found.get(key)!r}' for key in wrong)}; asked for "
                f"{', '.join(f'{key}={asked[key]!r}' for key in wrong)}; give another folder, or "
                "remove this one"
            )
    elif output.exists() and (
        not output.is_dir() or any(path.name != LOCK_NAME for path in output.iterdir())
    ):
        raise ConfigError(
            f"{output} is not empty and has no dataset.json, so it is not a data set to carry "
            "on with; give a new folder"
        )
