"""Makers of views that misbehave, in a module that other processes can import."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from torch import Tensor, ones

from videomae.video.reader import VideoReader


class Dying:
    """Kills its process; with a path, only where no file is there yet."""

    def __init__(self, once: Path | None = None) -> None:
        self.once = once

    def read_views(self, _: VideoReader) -> Tensor:
        if self.once is None or not self.once.exists():
            if self.once is not None:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ones(1, 2)


class Hanging:
    def read_views(self, _: VideoReader) -> Tensor:
        time.sleep(600)
        raise AssertionError("not stopped")


class Greedy:
    """Asks for 64 GiB at once."""

    def read_views(self, _: VideoReader) -> Tensor:
        np.empty(2**36, np.uint8)
        raise AssertionError("not refused")


class Counting:
    """Gives the number of frames and the process."""

    def read_views(self, reader: VideoReader) -> Tensor:
        return ones(2) * reader.info.num_frames
