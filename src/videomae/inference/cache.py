"""Where converted models are kept: one folder each, under a name that says what went into it.

    ~/.cache/videomae/engines/openvino-3f9a...e1/   model.xml model.bin

A folder is written whole or not at all, and nothing in it is ever unpickled.
"""

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from videomae.errors import ConfigError
from videomae.hub import PathLike, atomic_folder, local_path

# A few of each size, on any laptop: ViT-B takes 0.35 GB, ViT-g 4.
MAX_BYTES = 16 * 2**30
# Leavings of a killed process are only known by their age; no conversion takes so long.
_STALE_SECONDS = 24 * 3600
_OURS = re.compile(r"\.?(openvino|onnxruntime)-[0-9a-f]{32}(-[0-9a-f]{16})?(\.[0-9a-f]{8})?")


def cache_root(cache_dir: PathLike | None = None) -> Path:
    """The folder of all converted models; it need not exist yet.

    `engines` in `cache_dir`, else in $VIDEOMAE_CACHE, else in `videomae` of the user's cache, which
    is $XDG_CACHE_HOME or ~/.cache, ~/Library/Caches on macOS, %LOCALAPPDATA% on Windows.
    """
    users = platformdirs.user_cache_path("videomae", appauthor=False, opinion=False)
    return local_path(cache_dir or os.environ.get("VIDEOMAE_CACHE") or users) / "engines"


def find_entry(root: Path, name: str) -> Path | None:
    """The newest folder of that name, with any calibration; it counts as used. Else None."""
    found = [path for path in (root / name, *root.glob(f"{name}-*")) if path.is_dir()]
    newest = max(found, key=_last_used, default=None)
    if newest is not None:
        with suppress(OSError):  # a cache that others filled for us may be read-only
            os.utime(newest)
    return newest


def make_entry(root: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Let `make` write into an empty folder, which takes its name on success.

    Where another process was faster its folder stays, as good as ours. The least recently used
    folders beyond MAX_BYTES are removed. ConfigError where the place cannot be written.
    """
    place = root / name
    try:
        with atomic_folder(place) as temporary:
            make(temporary)
    except OSError as error:
        if not place.is_dir():
            raise ConfigError(
                f"converted models cannot be kept in {root} ({error.strerror or error}); name a "
                "folder that can be written: set VIDEOMAE_CACHE, or pass engine_cache_dir="
            ) from error
    _make_room(root, keep=place)
    return place


def clear_cache(cache_dir: PathLike | None = None) -> int:
    """Remove all converted models, no other files: how many bytes that freed."""
    return sum(remove_entry(path) for path in _entries(cache_root(cache_dir)))


def num_bytes(place: Path) -> int:
    """The size of all files in a folder."""
    total = 0
    with suppress(FileNotFoundError):  # another process is making room
        for path in place.iterdir():
            total += path.stat().st_size
    return total


def remove_entry(place: Path) -> int:
    """Remove one converted model: how many bytes that freed."""
    freed = num_bytes(place)
    shutil.rmtree(place, ignore_errors=True)
    return freed


def _entries(root: Path) -> list[Path]:
    return [path for path in root.glob("*") if _OURS.fullmatch(path.name) and path.is_dir()]


def _last_used(place: Path) -> float:
    with suppress(FileNotFoundError):  # another process is making room
        return place.stat().st_mtime
    return 0


def _make_room(root: Path, keep: Path) -> None:
    """Remove what a killed process left, then the least recently used beyond MAX_BYTES."""
    room = MAX_BYTES - num_bytes(keep)
    for path in sorted(_entries(root), key=_last_used, reverse=True):
        unfinished = path.name.startswith(".")
        if path == keep or (unfinished and time.time() - _last_used(path) < _STALE_SECONDS):
            continue  # ours, or somebody is at it
        room -= num_bytes(path)
        if unfinished or room < 0:
            remove_entry(path)
