"""An output folder for one process at a time: locked, swept, and full disks told in a sentence.

And no output that replaces what is read.
"""

import contextlib
import errno
import json
import os
import re
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

from videomae.errors import ConfigError, VideoMAEError
from videomae.hub import PathLike

LOCK_NAME = ".lock"
# The names that `hub.atomic_path` gives to files until they are whole.
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")
# What a file system says of itself, and not of the one file that is written.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@contextlib.contextmanager
def claimed(folder: PathLike, *parts: str, again: str) -> Iterator[None]:
    """Keep other processes out of an output folder, made if missing, while the block runs.

    What killed processes left unfinished in the folder, and in its `parts` (patterns of folders in
    it), is removed. Raises ConfigError where another process holds the folder, naming it, and
    where the block fails as the disk is full or cannot be written; `again` says what to do then.

    The lock is the system's and ends with its process, however that ends; the file `.lock` may
    stay, and means nothing without it. Where a file system has no locks, a warning says so.
    """
    folder = Path(folder)
    try:
        with held(folder / LOCK_NAME):
            _sweep(folder, parts)
            try:
                yield
            finally:
                _sweep(folder, parts)  # what killed processes of ours left
    except Exception as error:
        reason = _disk_reason(error, folder)
        if reason is None:
            raise
        raise ConfigError(f"cannot write to {folder}: {reason}; {again}") from error


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """Keep others who hold the same lock file out while the block runs, and see `claimed`."""
    made = [each for each in lock.parents if not each.exists()]
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(lock)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no file that is open
                lock.unlink()
            file.close()
    finally:
        with contextlib.suppress(OSError):  # not empty: something was written
            for each in made:
                each.rmdir()


def refuse_to_replace(what: str, outputs: Iterable[PathLike], sources: Iterable[PathLike]) -> None:
    """ConfigError where a file to be written is one that is read, or lies in a folder of frames.

    what: the option or argument that names the outputs.
    """
    there = [path.resolve() for path in map(Path, outputs) if path.exists()]
    read = {Path(path).resolve() for path in sources} if there else set()
    for path in there:
        if read & {path, path.parent}:
            raise ConfigError(f"{what} would replace {path}, which is read; name another place")


def _disk_reason(error: BaseException | None, folder: Path) -> str | None:
    """Why the disk refused what this error comes from, in the system's words; None for others.

    Libraries wrap the error of the system, or name its number in their text.
    """
    if isinstance(error, VideoMAEError):
        return None
    while error is not None:
        found = re.search(r"\(os error (\d+)\)", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        path = getattr(error, "filename", None)
        ours = path is None or Path(os.fsdecode(path)).is_relative_to(folder)
        if number in _DISK and ours:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def _locked(path: Path) -> IO[bytes]:
    """The lock file, open, locked, and naming this process."""
    while True:
        file = path.open("a+b", buffering=0)
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):  # as Unix and as Windows call it
            holder = _holder(file)
            file.close()
            raise ConfigError(
                f"{path.parent} is in use by {holder}; wait until it ends, end it, or choose "
                "another --output"
            ) from None
        except OSError as error:
            warnings.warn(
                f"the file system of {path.parent} has no locks ({error.strerror}): see to it that "
                "no second run writes there",
                stacklevel=4,
            )
        with contextlib.suppress(OSError):
            # The file may have been removed by who held it, and then locks nobody out.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    facts = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
    with contextlib.suppress(OSError):  # a full disk is found out by who needs room
        file.truncate(0)
        file.write(json.dumps(facts).encode())
    return file


def _holder(file: IO[bytes]) -> str:
    try:
        file.seek(0)
        facts = json.loads(file.read())
        return f"process {facts['process']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun
        return "another process"


def _sweep(folder: Path, parts: Sequence[str]) -> None:
    """Remove what nobody will finish, as we hold the lock: files before they have their name."""
    inside = [place for part in parts for place in folder.glob(part) if place.is_dir()]
    for place in (folder, *inside):
        if place != folder and (place / LOCK_NAME).exists():
            continue  # another's, who may be at work
        for path in place.glob(".*"):
            if _UNFINISHED.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(1 << 30)  # what is locked cannot be read by others, who want to know the holder
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
