"""A video file opened with FFmpeg (PyAV), after a look at its bytes.

Files are taken for hostile: we open them and hand FFmpeg their bytes, so that it can open nothing
by itself; the kinds of container are named, and limits are checked before anything is allocated.
"""

import errno
import io
import re
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from videomae.errors import NoVideoError, VideoError
from videomae.video.limits import CONTAINERS, DecodeClock, VideoLimits

# Boxes of an mp4 index, with the few numbers in them that FFmpeg turns into memory.
_INDEX_BOXES = re.compile(
    rb"(?P<stsz>stsz.{4}(?P<bytes_each>.{4})(?P<samples>.{4}))"  # samples, perhaps of one size
    rb"|(?P<trun>trun.(?P<flags>.{3})(?P<run>.{4}))"  # samples of a fragment
    rb"|(?P<stsd>stsd.{16}.{24}(?P<width>.{2})(?P<height>.{2}))"  # the codec of a track
    rb"|(?P<elst>elst.{4}(?P<edits>.{4}))"  # parts of the edit list
    rb"|(?P<cmov>cmov.{4}dcom)",  # a compressed index, which would hide all these
    re.DOTALL,
)
# Streams that FFmpeg makes of a file at most; films have some tens of subtitles and fonts.
_MAX_STREAMS = 256
# Outermost boxes that may be this small on average, from so many on: files that are written frame
# by frame have many, but larger ones.
_MANY_BOXES, _SMALL_BOX_BYTES = 10_000, 64
# Boxes are searched in parts of this size, which overlap by what one match can be long.
_PART_BYTES, _OVERLAP_BYTES = 2**20, 64
# Pictures of no more pixels are decoded in milliseconds.
_QUICK_PIXELS = 2**21
_KNOWN_NOT_MP4 = re.compile(rb"RIFF|\x1aE\xdf\xa3|GIF8|FLV|OggS|\x30\x26\xb2\x75|DKIF|YUV4MPEG2")

# Files that are taken for videos by mistake, and the signs that they begin with.
_KNOWN_HEADS = {
    "a single picture; expected a video, or a folder of pictures, one per frame": (
        rb"\xff\xd8\xff|\x89PNG|BM.{12}|II\*\0|MM\0\*|WEBP|P[1-6]\s|8BPS"
    ),
    "sound without pictures; expected a video": rb"ID3|fLaC|WAVE|\xff[\xe2-\xff]",
    "a playlist, script or markup, which names other files; give the videos themselves": (
        rb"(\xef\xbb\xbf)?\s*(#EXTM3U|ffconcat|\[playlist\]|<|v=0\s)"
    ),
}


# Codecs that videos are met in, and FFmpeg's decoder of each; its own of AV1 needs a GPU.
_USUAL_CODECS = {
    **{name: name for name in ("h264", "hevc", "vp9", "vp8", "mpeg4", "mpeg2video", "prores")},
    **{"av1": "libdav1d", "mjpeg": "mjpeg", "gif": "gif"},
}


def ffmpeg_facts() -> tuple[str, dict[str, bool]]:
    """The release of FFmpeg, and of each usual codec whether it is decoded here."""
    decoded = {}
    for name, decoder in _USUAL_CODECS.items():
        try:
            decoded[name] = av.Codec(decoder, "r").is_decoder
        except ValueError:  # UnknownCodecError
            decoded[name] = False
    return av.ffmpeg_version_info, decoded


class VideoBytes:
    """A video file, or its `data`, as FFmpeg gets it: no name or folder, read on the clock."""

    name = "video"  # so that the content alone tells FFmpeg what it is

    def __init__(self, path: Path, limits: VideoLimits, data: bytes | None = None) -> None:
        self._path, self._limits, self.clock = path, limits, DecodeClock(path, limits)
        # The decoder's guard acts before it allocates. It counts padding too, hence the room.
        self._guard = {"max_pixels": str(2 * limits.max_pixels + 2**16)}
        try:
            self._raw = io.FileIO(path, "rb") if data is None else io.BytesIO(data)
        except OSError as error:
            raise VideoError(f"{path}: cannot be opened ({error.strerror})") from error
        self._num_pixels = 0  # of the pictures that FFmpeg decodes to open the file, once known
        self.size = self.seek(0, io.SEEK_END)
        self.seek(max(0, self.size - 64))
        self._tail = self.read(64)
        self.seek(0)
        self._head = self.read(64)
        self.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        self.clock.check()
        try:
            return self._raw.read(size)
        except OSError as error:
            raise VideoError(f"{self._path}: cannot be read ({error.strerror})") from error

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._raw.seek(offset, whence)
        except (OSError, ValueError):  # before the beginning, as damaged files have it
            return -1  # which FFmpeg takes for a failure

    def tell(self) -> int:
        return self._raw.tell()

    def close(self) -> None:
        self._raw.close()

    def check_streams(self) -> int:
        """Raise VideoError where the streams are too many or too large; return their pixels.

        0 is few: an mp4 of two tracks need not be looked at. To find out about a stream, FFmpeg
        decodes up to some ten pictures of each when it opens a file. This opens the file without
        decoders, so that nothing is allocated for pictures.
        """
        if self.check_index():
            return 0
        container = self._open({"codec_whitelist": "none"})
        try:
            pictures = [stream.codec_context for stream in container.streams.video]
        finally:
            container.close()
        pixels = [codec.width * codec.height for codec in pictures if codec]
        self._limits.check(self._path, max_pixels=max(pixels, default=0))
        # of unknown size: some kinds of stream tell it with their first picture
        total = sum(each or self._limits.max_pixels for each in pixels[1:]) + sum(pixels[:1])
        if total > 2 * self._limits.max_pixels:
            raise VideoError(
                f"{self._path}: has {len(pixels)} video streams of together up to {total:,} pixels "
                f"a frame, above twice the limit of {self._limits.max_pixels:,}; keep one: "
                "ffmpeg -i IN -map 0:v:0 -c copy OUT.mkv"
            )
        self._num_pixels = total
        return total

    def open(self) -> InputContainer:
        """Open the file from its beginning; NoVideoError says what it is instead of a video."""
        is_slow = self._num_pixels > _QUICK_PIXELS
        return _interruptible(lambda: self._open({})) if is_slow else self._open({})

    def _open(self, options: dict[str, str]) -> InputContainer:
        self.seek(0)
        try:
            return av.open(
                self,
                "r",
                options={
                    **options,
                    "max_streams": str(_MAX_STREAMS),
                    "format_whitelist": ",".join(CONTAINERS),
                    "protocol_whitelist": "none",
                    "enable_drefs": "0",  # tracks of a mov whose pictures lie in another file
                    "use_absolute_path": "0",
                    **self._guard,
                },
                metadata_errors="replace",  # titles are in any encoding
                io_open=self._refuse_to_open,
                timeout=(self.clock.seconds_left(), None),
            )
        except av.FFmpegError as error:
            self.clock.check()
            if error.errno == errno.ENOMEM:
                raise VideoError(
                    f"{self._path}: has more than {_MAX_STREAMS} streams, or needs more memory "
                    "than there is; keep the video: ffmpeg -i IN -map 0:v:0 -c copy OUT.mkv"
                ) from error
            why = self._why_no_video(error.strerror)
            raise NoVideoError(f"{self._path}: {why}") from error

    def _refuse_to_open(self, url: str, _flags: int, _options: dict[str, str]) -> Any:
        raise VideoError(f"{self._path}: refers to another file or address ({url}); refused")

    def video_stream(self, container: InputContainer) -> VideoStream:
        """The first stream of moving pictures, ready to be decoded; the others are not read."""
        pictures = container.streams.video
        videos = [
            stream
            for stream in pictures
            if not stream.disposition & Disposition.attached_pic and stream.codec_context
        ]
        if not videos:
            kinds = {stream.type for stream in container.streams if stream not in pictures}
            found = [*sorted(kinds), *(["a cover picture"] if pictures else [])]
            raise VideoError(
                f"{self._path}: 0 frames are readable; expected a video stream, got "
                f"{' and '.join(found) or 'none at all'}. Either it is no video, or its beginning "
                "is damaged or cut off"
            )
        for stream in container.streams:
            if stream is not videos[0]:
                stream.discard = Discard.all
        codec = videos[0].codec_context
        self._limits.check(self._path, max_pixels=codec.width * codec.height)
        codec.options = dict(self._guard)
        # One thread: loaders read many files at once, and two threads read one no faster.
        codec.thread_count = 1
        return videos[0]

    def is_cut_off(self) -> bool:
        """Whether the file is shorter than its first bytes promise, or a GIF without its end mark.

        FFmpeg takes the end of such a file for the end of the video. It notices itself where an
        mp4 is cut off; an MPEG transport stream has no end.
        """
        if self._head.startswith(b"GIF8"):
            return not self._tail.rstrip(b"\0").endswith(b";")
        return self.size < _promised_bytes(self._head)

    def _why_no_video(self, error: object) -> str:
        """Say why FFmpeg, with its own `error`, opens no video: what the file is by its bytes."""
        head = self._head
        if not self.size:
            return "is empty (0 bytes); get the file anew"
        if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20] & 2:
            return (
                "is an animated WebP, which FFmpeg does not decode; save it as an animated PNG: "
                """python -c "from PIL import Image; Image.open('IN.webp').save('OUT.png', """
                """save_all=True)\""""
            )
        for kind, signs in _KNOWN_HEADS.items():
            if re.match(signs, head[8:] if head[:4] == b"RIFF" else head, re.DOTALL):
                return f"is {kind}"
        whole = any(
            kind == b"moov" and start + size <= self.size for kind, start, size in self._boxes()
        )
        if head[4:8] == b"ftyp" and not whole:
            return (
                "is an mp4 without its whole index (moov), which comes last in many: it was cut "
                "off, or its recording never ended. 0 frames are readable; get the file anew"
            )
        return (
            f"cannot be opened as a video ({error}), 0 frames are readable. Either its beginning "
            f"is damaged, or it is of none of the kinds that are read: {' '.join(CONTAINERS)}"
        )

    def check_index(self) -> bool:
        """Raise VideoError for an mp4 index of a few bytes that stands for millions of samples.

        Returns whether this is an mp4 of one or two tracks whose pictures are not large. FFmpeg
        builds the whole index when it opens a file, some 24 bytes for each sample, before anything
        can be counted: 6 kB could take 4 GB of memory.
        """
        if _KNOWN_NOT_MP4.match(self._head):
            return False
        tracks = pixels = 0
        samples = edits = sample_bytes = 0
        number = int.from_bytes  # big-endian
        # twice: old QuickTime sound counts one byte a sample and stores about half of it
        room = 2 * self.size
        for kind, start, size in self._boxes():
            if kind == b"mdat" or not kind.isascii() or not kind.decode().isprintable():
                continue
            for found in self._matches(kind, start, min(start + size, self.size)):
                if found["stsz"]:
                    count = number(found["samples"])
                    samples = max(samples, count)
                    # 0 bytes each: not all alike, their sizes follow
                    sample_bytes = max(sample_bytes, number(found["bytes_each"]) * count)
                elif found["trun"] and not number(found["flags"]) & 0xF00:  # no bytes per sample
                    samples += number(found["run"])
                elif found["stsd"]:
                    tracks += 1  # of sound they are a rate, and 0
                    pixels = max(pixels, number(found["width"]) * number(found["height"]))
                elif found["elst"]:
                    edits = max(edits, number(found["edits"]))
                elif found["cmov"]:
                    raise VideoError(
                        f"{self._path}: its index is compressed, so that its size cannot be "
                        "checked; rewrite it: ffmpeg -i IN -c copy OUT.mp4"
                    )
        if max(sample_bytes, samples) > room:
            raise VideoError(
                f"{self._path}: is damaged or hostile; its index promises {samples:,} samples, "
                f"more than the {self.size:,} bytes of the file can hold"
            )
        max_frames = self._limits.max_frames
        if edits > 1 and edits * samples > 16 * max_frames:
            raise VideoError(
                f"{self._path}: its edit list has {edits:,} parts of up to {samples:,} samples, "
                f"more than 16 times the limit of {max_frames:,} frames; if you trust the "
                f"file, raise it: limits=VideoLimits(max_frames={edits * samples // 16 + 1})"
            )
        return 0 < tracks <= 2 and pixels <= _QUICK_PIXELS

    def _boxes(self) -> Iterator[tuple[bytes, int, int]]:
        """The kind, place and size of the outermost boxes of an mp4."""
        start = count = 0
        while start + 8 <= self.size:
            self.seek(start)
            size, kind, long_size = struct.unpack(">I4sQ", self.read(16).ljust(16, b"\0"))
            if size == 1:
                size = long_size
            elif size == 0:
                size = self.size - start  # the last box, to the end of the file
            if size < 8:
                break
            yield kind, start, size
            start, count = start + size, count + 1
            if count > _MANY_BOXES and start < count * _SMALL_BOX_BYTES:
                raise VideoError(
                    f"{self._path}: is damaged or hostile; it begins with {count:,} boxes of "
                    f"{start // count} bytes on average. Rewrite it: ffmpeg -i IN -c copy OUT.mp4"
                )
        self.seek(0)

    def _matches(self, kind: bytes, start: int, end: int) -> Iterator[re.Match[bytes]]:
        """What _INDEX_BOXES finds in a box, of which a part at a time is in memory."""
        self.seek(start + 8)
        # room left free, in which FFmpeg looks for an index only where it begins as one
        if kind in (b"free", b"skip", b"wide") and not re.search(b"mvhd|cmov", self.read(16)):
            return
        for place in range(start, end, _PART_BYTES):
            self.seek(place)
            part = self.read(min(_PART_BYTES + _OVERLAP_BYTES, end - place))
            for found in _INDEX_BOXES.finditer(part):
                if found.start() < _PART_BYTES:
                    yield found


def _promised_bytes(head: bytes) -> int:
    """Length of a whole file by its first bytes; 0 where they do not say."""
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        return 0 if size >= 2**32 - 8 else 8 + size  # all ones: was written to a pipe
    if head[:4] == b"\x1aE\xdf\xa3":  # the EBML header, then one segment that holds all else
        header_bytes, start = _ebml_size(head, 4)
        segment = start + header_bytes
        if head[segment : segment + 4] == b"\x18S\x80g":
            size, start = _ebml_size(head, segment + 4)
            return start + size if size else 0
    return 0


def _ebml_size(data: bytes, start: int) -> tuple[int, int]:
    """An EBML length (0 if unknown) and where it ends; leading zero bits tell its own length."""
    first = data[start] if start < len(data) else 0
    length = 9 - first.bit_length()
    bits = 7 * length
    size = int.from_bytes(data[start : start + length]) % (1 << bits)
    return (0 if size == (1 << bits) - 1 else size), start + length


def _interruptible(make: Callable[[], InputContainer]) -> InputContainer:
    """Call `make` so that Ctrl-C is heard at once.

    In the main thread it would wait for FFmpeg, and be lost if FFmpeg called `read` meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        return make()
    made: Future[InputContainer] = Future()

    def run() -> None:
        try:
            made.set_result(make())
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return made.result()
