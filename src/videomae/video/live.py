"""A camera or a stream on the network, decoded as it comes.

An address is opened only where a person gave it on a command line, never one that was read from a
file or list: those go through `container`, where nothing reaches a network. What a stream names in
turn may be on the network too, but is no file of this machine.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer

from videomae.errors import ConfigError, VideoError, one_line
from videomae.video.decoder import Frames
from videomae.video.limits import CONTAINERS, VideoLimits

_SCHEMES = ("rtsp", "http", "https", "udp", "tcp", "rtmp")
# The last three are what the first ones are made of.
_PROTOCOLS = (*_SCHEMES, "rtp", "tls", "crypto")
_FORMATS = (*CONTAINERS, "rtsp", "sdp", "rtp", "hls", "mpjpeg")
_WAIT_SECONDS = 10.0  # for the network to answer, and from one frame to the next
_JUMP_SECONDS = 5.0  # a clock that jumps by more than that was set anew


class LiveVideo(AbstractContextManager["LiveVideo"]):
    """A camera, by its number (Linux), or a stream, by its address: `0`, `rtsp://host/stream`.

    fps: frames a second as the source says, None where it does not. Raises ConfigError for what is
    no address, VideoError for a source that does not answer or holds no video.
    """

    def __init__(self, where: str) -> None:
        self._name = one_line(where)
        guard = {"max_pixels": str(VideoLimits().max_pixels)}
        options = dict(guard)
        if where.isdigit() or re.fullmatch(r"/dev/video\d+", where):
            where = f"/dev/video{where}" if where.isdigit() else where
            if not Path(where).exists():
                raise VideoError(
                    f"camera {self._name}: there is no {where}; `ls /dev/video*` shows the cameras "
                    "of a Linux machine; elsewhere, give the address of a stream"
                )
            kind = "v4l2"
        elif where.partition("://")[0].lower() in _SCHEMES and "://" in where:
            kind = None
            options |= {
                "protocol_whitelist": ",".join(_PROTOCOLS),
                "format_whitelist": ",".join(_FORMATS),
            }
        else:
            raise ConfigError(
                f"{self._name}: is neither the number of a camera nor the address of a stream; "
                f"expected 0 or such, or {'://, '.join(_SCHEMES)}://"
            )
        try:
            self._container: InputContainer = av.open(
                where, "r", format=kind, options=options, timeout=_WAIT_SECONDS
            )
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self._name}: cannot be opened ({error.strerror})") from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoError(f"{self._name}: holds no video")
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.options = guard  # pictures may grow later
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate else None

    def frames(self, every_seconds: float) -> Iterator[tuple[float, Frames]]:
        """One frame (H, W, 3) for each so many seconds as they come, with its time from the first.

        VideoError where the stream breaks off; it ends where the stream ends.
        """
        start, last, ticks = 0.0, None, 0
        try:
            for frame in self._container.decode(self._stream):
                if frame.time is None:
                    continue
                if last is None or not 0 <= frame.time - last <= _JUMP_SECONDS:
                    start = frame.time - ticks * every_seconds
                last = frame.time
                if last - start >= (ticks - 0.01) * every_seconds:
                    ticks = int((last - start) / every_seconds + 0.01) + 1
                    yield last - start, cast(Frames, frame.to_ndarray(format="rgb24"))
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self._name}: broke off ({error.strerror})") from error

    def __exit__(self, *_: object) -> None:
        self._container.close()
