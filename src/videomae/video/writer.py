"""Videos written with FFmpeg (PyAV): frames from memory, or another video made small."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.reformatter import VideoReformatter

from videomae.claim import refuse_to_replace
from videomae.errors import ConfigError, VideoError
from videomae.fields import RATES
from videomae.hub import PathLike, atomic_path
from videomae.video.container import VideoBytes
from videomae.video.decoder import Frames, VideoFile
from videomae.video.folder import FrameFolder
from videomae.video.limits import DecodeClock, OnDamage, VideoInfo, VideoLimits
from videomae.video.orientation import Orientation
from videomae.video.reader import open_video, probe

Made = TypeVar("Made")

# Made for reading clips of every fourth frame (docs/data.md). fastdecode leaves out arithmetic
# coding and the smoothing of edges. Always three B-frames in a row to which no other frame refers:
# those not asked for need no decoding.
_FAST = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "bf": "3",
    "b_strategy": "0",
    "b-pyramid": "none",
}


def write_video(
    path: PathLike,
    frames: Frames,
    *,
    fps: float = 30.0,
    crf: int = 18,
    keyframe_distance: int | None = None,
) -> Path:
    """Write frames (T, H, W, 3), uint8 RGB, as an H.264 mp4 that every player opens, atomically.

    fps: frames per second, 0.01 to 1000. crf: 0 (lossless) to 51, smaller is better and larger; 18
    is about invisible. keyframe_distance: a key frame at least every so many frames (x264's own
    choice, at most 250, if None); short distances make seeking cheap. An odd height or width grows
    by one repeated row or column, since players expect one colour per 2 x 2 pixels.

    Raises VideoError for frames of another shape or type, ConfigError for other values.

    >>> write_video("grey.mp4", np.full((16, 64, 64, 3), 128, np.uint8))  # doctest: +SKIP
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise VideoError(
            f"cannot write frames of shape {frames.shape} and type {frames.dtype}; expected a "
            "non-empty (frames, height, width, 3) array of uint8 RGB"
        )
    if (
        fps not in RATES
        or not 0 <= crf <= 51
        or (keyframe_distance is not None and keyframe_distance < 1)
    ):
        raise ConfigError(
            f"cannot write with fps={fps}, crf={crf}, keyframe_distance={keyframe_distance}; "
            f"expected fps from {RATES.least} to {RATES.most}, crf from 0 to 51, "
            "keyframe_distance None or at least 1"
        )
    options = {} if keyframe_distance is None else {"g": str(keyframe_distance)}
    pictures = map(_of_even_size, frames)
    with atomic_path(path) as temporary, _encoding(path):
        _encode(temporary, pictures, fps=fps, options={"crf": str(crf), **options})
    return Path(path)


def resize_video(
    source: PathLike,
    path: PathLike,
    *,
    short_side_px: int,
    keyframe_distance: int = 16,
    crf: int = 23,
    part: range | None = None,
    data: bytes | None = None,
    limits: VideoLimits | None = None,
    on_damage: OnDamage = "refuse",
) -> VideoInfo:
    """Write a video file or folder of images anew as a small H.264 mp4: all its frames, no sound.

    The short side becomes `short_side_px`, the other keeps the shape, both rounded to even; nothing
    is enlarged. Frames are shown at the times they were (a folder's at 25 a second) and turned
    upright; they go through one by one, so that length costs no memory. `part` picks frames by
    number. Of `data`, the bytes of a file, `source` is the name. Others: see `write_video` and, for
    `on_damage`, `VideoReader`.

    Raises VideoError where a frame cannot be read or encoded, or what was written does not hold as
    many frames, and then nothing is left behind; ConfigError for impossible numbers, and where
    `path` is the source.

    >>> resize_video("a.avi", "small/a.mp4", short_side_px=320).width  # doctest: +SKIP
    426
    """
    if short_side_px < 2 or keyframe_distance < 1 or not 0 <= crf <= 51:
        raise ConfigError(
            f"cannot resize with {short_side_px=}, {keyframe_distance=}, {crf=}; expected "
            "at least 2 px, a distance of at least 1 and a crf from 0 to 51"
        )
    source, path, limits = Path(source), Path(path), limits or VideoLimits()
    refuse_to_replace("path", [path], [source])
    with closing(open_video(source, limits, data, on_damage)) as video:
        numbers = range(video.info.num_frames) if part is None else part
        if not numbers or numbers[-1] >= video.info.num_frames or numbers[0] < 0:
            raise VideoError(
                f"{source}: has no frames {numbers.start} to {numbers.stop - 1}; it has "
                f"{video.info.num_frames}"
            )
        with atomic_path(path) as temporary, _encoding(source):
            _encode(
                temporary,
                _small(video, numbers, short_side_px),
                fps=video.info.fps or 25,
                options={"crf": str(crf), "g": str(keyframe_distance), **_FAST},
                times=video.times(numbers) if isinstance(video, VideoFile) else None,
                pixel_aspect=video.info.pixel_aspect,
            )
            written = probe(temporary, limits=VideoLimits(max_frames=limits.max_frames))
            if written.num_frames != len(numbers):
                raise VideoError(
                    f"{source}: {len(numbers)} frames were read, but the resized file has "
                    f"{written.num_frames}; the times of its frames may repeat. Re-encode it: "
                    "ffmpeg -i IN -c:v libx264 -vsync passthrough OUT.mp4"
                )
    return dataclasses.replace(written, path=path, num_gaps=video.info.num_gaps)


def annotate_video(
    source: PathLike,
    path: PathLike,
    draw: Callable[[float, Frames], Frames],
    *,
    fps: float | None = None,
    on_damage: OnDamage = "refuse",
) -> Path:
    """Write a video anew with something drawn on each frame, its sound copied as it is; atomically.

    `draw` takes the seconds from the first frame and the frame (H, W, 3), upright, and returns one
    of any size that is the same for all. Frames go through one by one and are shown at the times
    they were, those of a folder of images at `fps` a second. `path` ends in .mp4 or .mkv; sound
    that does not go into an mp4 is left out with a warning. Raises VideoError as `VideoReader`
    does, ConfigError where `path` is the source.
    """
    limits, suffix = VideoLimits(), Path(path).suffix.lower()
    if suffix not in (".mp4", ".mkv"):
        raise ConfigError(f"{path}: name a file that ends in .mp4 or .mkv")
    refuse_to_replace("path", [path], [source])
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))
        stack.enter_context(_encoding(source))
        video = stack.enter_context(closing(open_video(Path(source), limits, None, on_damage)))
        numbers = range(video.info.num_frames)
        rate, times, sound = video.info.fps or fps or 25, None, None
        if isinstance(video, VideoFile):
            times = video.times(numbers)
            file = stack.enter_context(closing(VideoBytes(Path(source), limits)))
            sound = _Sound(stack.enter_context(file.open()), file.clock)
        shown = [float(t * times[1]) for t in times[0]] if times else [k / rate for k in numbers]

        def drawn() -> Iterator[av.VideoFrame]:
            pictures = _each_in_time(video.clock, video.frames(numbers))
            for seconds, frame in zip(shown, pictures, strict=True):
                yield _of_even_size(draw(seconds, frame))

        _encode(
            temporary,
            drawn(),
            fps=rate,
            options={"crf": "20", "preset": "veryfast"},
            times=times,
            pixel_aspect=video.info.pixel_aspect,
            sound=sound,
            kind={".mp4": "mp4", ".mkv": "matroska"}[suffix],
        )
    return Path(path)


class _Sound:
    """The first sound of a file, copied packet by packet beside pictures that begin at 0 s."""

    def __init__(self, source: InputContainer, clock: DecodeClock) -> None:
        first = source.streams.video[0]
        self._clock = clock
        self._start_seconds = float((first.start_time or 0) * (first.time_base or 0))
        self._stream = next(iter(source.streams.audio), None)
        self._packets = iter(source.demux(self._stream) if self._stream else ())

    def join(self, container: OutputContainer) -> None:
        """Give a file its stream for the sound, before anything is written to it."""
        if self._stream is None:
            return
        if self._stream.codec_context.name in container.supported_codecs:
            self._copy = container.add_stream_from_template(self._stream)
            return
        warnings.warn(
            f"sound of the kind {self._stream.codec_context.name} does not go into an mp4 and is "
            "left out; name an .mkv to keep it",
            stacklevel=4,
        )
        self._packets = iter(())

    def copy(self, container: OutputContainer, until_seconds: float) -> None:
        """Write the packets up to the first that is heard later."""
        for packet in self._packets:
            self._clock.restart()
            if packet.pts is None or packet.time_base is None:
                continue  # PyAV's own last packet
            packet.pts -= round(self._start_seconds / packet.time_base)
            packet.dts = packet.pts
            packet.stream = self._copy
            seconds = packet.pts * packet.time_base
            # What comes before 0 in a file that begins there is not heard, but what follows is
            # decoded with it.
            if packet.pts >= 0 or not self._start_seconds:
                container.mux(packet)
            if seconds > until_seconds:
                return


@contextmanager
def _encoding(name: PathLike) -> Iterator[None]:
    """Make VideoError of what the encoder refuses; what the disk refuses stays an OSError."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise VideoError(
            f"{name}: cannot be encoded as H.264 ({error.strerror}), which holds frames of at most "
            "16,384 px a side; crop or scale it"
        ) from error


def _encode(
    path: Path,
    pictures: Iterable[av.VideoFrame],
    *,
    fps: float,
    options: dict[str, str],
    times: tuple[list[int], Fraction] | None = None,
    pixel_aspect: float = 1.0,
    sound: _Sound | None = None,
    kind: str = "mp4",
) -> None:
    """Write pictures of one size as H.264, into an mp4; the same bytes on every machine.

    times: when each is shown, and the seconds in one unit of that; None is evenly, by `fps`.
    pixel_aspect: width by height of a pixel, which players make up for. sound goes beside them, and
    kind is FFmpeg's name of the container.
    """
    rate = Fraction(fps).limit_denominator(1001)  # exact for 30000/1001 and its like
    shown, unit = times or (itertools.count(), 1 / rate)
    # x264's output depends on the number of threads, and on the processor unless that is ruled out:
    # its AVX-512 code even reads memory that nobody wrote.
    options = {**options, "x264-params": "cpu-independent=1"}
    # The index goes first: the file plays while it loads, and a part of it can still be read.
    flags = {"movflags": "+faststart"} if kind == "mp4" else {}
    with av.open(str(path), "w", format=kind, options=flags) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        codec = stream.codec_context
        if sound:
            sound.join(container)
        for picture, time in zip(pictures, shown, strict=False):
            if not codec.is_open:
                codec.width, codec.height, codec.pix_fmt = picture.width, picture.height, "yuv420p"
                codec.thread_count, codec.time_base = 1, unit
                if pixel_aspect != 1:
                    codec.sample_aspect_ratio = Fraction(pixel_aspect).limit_denominator(255)
                # Colours are stored as they were, so the file must name them as it did.
                codec.colorspace, codec.color_range = picture.colorspace, picture.color_range
                codec.color_primaries, codec.color_trc = picture.color_primaries, picture.color_trc
            picture.pts, picture.time_base = time, unit
            picture.pict_type = 0  # else x264 would take over the choice of key frames
            if sound:
                sound.copy(container, float(time * unit))
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound:
            sound.copy(container, math.inf)


def _each_in_time(clock: DecodeClock, pictures: Iterable[Made]) -> Iterator[Made]:
    """The pictures, with the limit of seconds for each of them, however many there are."""
    clock.restart()
    for picture in pictures:
        yield picture
        clock.restart()  # what was done with it does not count


def _of_even_size(frame: Frames) -> av.VideoFrame:
    """A picture of a frame (H, W, 3), its odd sides grown by one pixel."""
    growth = ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0))
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(frame, growth, mode="edge")))


def resized_size(height: int, width: int, short_side_px: int) -> tuple[int, int]:
    """The even (height, width) of a frame made small, never larger than it was but for rounding.

    >>> resized_size(720, 1280, 320), resized_size(240, 321, 320)
    ((320, 568), (240, 320))
    """
    scale = min(short_side_px / min(height, width), 1)
    return max(int(height * scale / 2) * 2, 2), max(int(width * scale / 2) * 2, 2)


def _small(
    video: VideoFile | FrameFolder, numbers: range, short_side_px: int
) -> Iterator[av.VideoFrame]:
    """The frames of these numbers made small, as yuv420p, upright."""
    if isinstance(video, VideoFile):
        turn, pictures = video.orientation, video.pictures(numbers)
    else:
        turn, pictures = Orientation(), map(av.VideoFrame.from_ndarray, video.frames(numbers))
    size = turn.turned(resized_size(video.info.height, video.info.width, short_side_px))
    reformatter = VideoReformatter()
    for picture in _each_in_time(video.clock, pictures):
        small = reformatter.reformat(
            picture, *size[::-1], "yuv420p", interpolation="BICUBIC", threads=1
        )
        yield small if turn == Orientation() else _turned(small, turn)


def _turned(frame: av.VideoFrame, turn: Orientation) -> av.VideoFrame:
    """A yuv420p frame turned plane by plane: luma (H, W), then two of colour (H/2, W/2)."""
    high, wide = frame.height, frame.width
    flat = frame.to_ndarray()  # (3 H / 2, W)
    planes = [flat[:high], *flat[high:].reshape(2, high // 2, wide // 2)]
    turned = np.concatenate([turn.apply(plane).ravel() for plane in planes])
    height, width = turn.turned((high, wide))
    upright = av.VideoFrame.from_ndarray(turned.reshape(height * 3 // 2, width), format="yuv420p")
    upright.colorspace, upright.color_range = frame.colorspace, frame.color_range
    return upright
