"""The frames of a torchcodec VideoDecoder, which decodes by itself, read as a video.

torchcodec is not imported: what has its `metadata`, `len` and `get_frames_at` will do.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.limits import DecodeClock, VideoInfo, VideoLimits


class DecoderFrames:
    """The frames of a decoder, turned as the decoder turns them; its limits are its own."""

    def __init__(self, decoder: Any, limits: VideoLimits) -> None:
        facts = decoder.metadata
        path = Path(getattr(facts, "path", None) or "torchcodec decoder")  # `datasets` sets a path
        self.clock, self._path, self._decoder = DecodeClock(path, limits), path, decoder
        height, width = next(self.frames([0])).shape[:2]
        fps = float(facts.average_fps) if facts.average_fps else None
        self.info = VideoInfo(
            path=path,
            num_frames=len(decoder),
            fps=fps,
            duration_seconds=len(decoder) / fps if fps else None,
            height=height,
            width=width,
            codec=facts.codec or "unknown",
            rotation_degrees=0,
        )

    def frames(self, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """The frames of these numbers, RGB (H, W, 3)."""
        try:
            found = self._decoder.get_frames_at(list(wanted)).data
        except (RuntimeError, IndexError) as error:
            raise VideoError(f"{self._path}: torchcodec cannot decode it ({error})") from error
        frames = found.cpu().numpy()  # (N, 3, H, W), or (N, H, W, 3) if the decoder was made so
        yield from frames if frames.shape[-1] == 3 else frames.transpose(0, 2, 3, 1)

    def close(self) -> None:
        """The decoder is the caller's."""
