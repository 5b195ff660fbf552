"""Decoded videos on disk, so that each is decoded once for all epochs, processes and runs.

T frames, H x W pixels. A video is a .npy file, uint8 (T, H, W, 3), of which a clip reads its own
frames alone; what was read of late, the system keeps in memory.
"""

import contextlib
import hashlib
import os
import threading
import warnings
from pathlib import Path

import numpy as np

from videomae.data.manifest import Video
from videomae.hub import atomic_path, check_writable
from videomae.settings import OnDamage
from videomae.video.decoder import Frames

# Other processes fill the same folder: its size is asked for again after so much of our own.
_LOOK_AGAIN_BYTES = 64 << 20


class FrameCache:
    """A folder of decoded videos, filled up to `max_bytes` and then left as it is.

    First come, first kept: an epoch reads every video once, so that to drop the one that was used
    longest ago would drop each shortly before its turn. Any number of threads, processes and runs
    may share a folder; together they may exceed the size by 64 MB each. Raises ConfigError where
    nothing can be written there.
    """

    def __init__(self, folder: Path, max_bytes: float) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._left = self._since_looked = 0.0
        self._look()

    def read(self, name: str) -> Frames | None:
        """The frames (T, H, W, 3) kept under a name, not in memory yet; None where there are none.

        A damaged file counts as none.
        """
        try:
            kept: Frames = np.load(self.folder / name, mmap_mode="r")
        except Exception:  # of a damaged file, numpy raises all kinds
            return None
        return kept if kept.dtype == np.uint8 and kept.ndim == 4 and kept.shape[3] == 3 else None

    def keeps(self, num_bytes: int) -> bool:
        """Whether so many more bytes have room, which is reserved for them."""
        with self._lock:
            if self._since_looked + num_bytes > _LOOK_AGAIN_BYTES:
                self._look()
            if num_bytes > self._left:
                return False
            self._left -= num_bytes
            self._since_looked += num_bytes
            return True

    def write(self, name: str, frames: Frames) -> None:
        """Keep frames; a disk that takes no more is warned of once, as they can be decoded."""
        try:
            with atomic_path(self.folder / name) as temporary:
                np.save(temporary, frames)
        except OSError as error:
            with self._lock:
                self.max_bytes = self._left = 0
            reason = error.strerror or error
            warnings.warn(
                f"{self.folder} takes no more decoded videos ({reason}); those that are not there "
                "are decoded each time",
                stacklevel=2,
            )

    def _look(self) -> None:
        """Ask what is left, by the sizes of all files that are there."""
        self._left, self._since_looked = self.max_bytes, 0.0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another thread just renamed it
                    self._left -= entry.stat().st_size


def name_of(video: Video, fps: float | None, on_damage: OnDamage) -> str | None:
    """The name of a video's decoded frames, by all that decides on them; None for no such name.

    A local file is known by its place, size and time of change, so that another one in its place
    is decoded anew. Of an address only the place is known, and what lies there may change: None.
    """
    state = video.file_state()
    if state is None:
        return None
    part = [video.start_seconds, video.end_seconds, video.first_frame, video.num_frames]
    where = [str(Path(video.path).resolve()), *state, video.offset, video.num_bytes]
    key = repr([where, part, fps, on_damage, 1])  # 1: the layout of these files
    return hashlib.sha256(key.encode()).hexdigest()[:32] + ".npy"
