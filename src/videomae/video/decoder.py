"""One video file decoded with FFmpeg (PyAV): which frames it shows, when, and those asked for."""

import itertools
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.container import VideoBytes
from videomae.video.index import read_index
from videomae.video.limits import DECODE_MEMORY, OnDamage, VideoInfo, VideoLimits
from videomae.video.orientation import Orientation

Frames = NDArray[np.uint8]  # (T, H, W, 3) RGB

# Of frames that had to be decoded to be counted, so many bytes are kept for the read that follows.
_KEPT_BYTES = 64 * 2**20
# Pictures that take next to nothing to store take time to decode: refuse more of them than this in
# a byte of the file, with so many bytes granted. A still scene of 8K has some 20,000.
_PIXELS_PER_BYTE, _GRANTED_BYTES = 200_000, 2**17
# Decode on to a later key frame, rather than seek to it, where it is no further away than this.
_SEEK_COST_FRAMES = 4
# A transport stream marks the packets at a gap in its numbers. Where a key frame comes so soon
# after, as in files that were joined, all that is left can be decoded.
_PACKETS_TO_KEY = 2
# Give up on a file that cannot even be taken apart into packets in so many places.
_MAX_GAPS = 1000
_HDR = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic


class _LostError(Exception):
    """The decoder did not show the frame that the packets promised."""


class VideoFile:
    """One video file: knows when each frame is shown, and decodes forward from key frames."""

    def __init__(
        self, path: Path, limits: VideoLimits, data: bytes | None, on_damage: OnDamage
    ) -> None:
        self._path, self._limits = path, limits
        self._leaves_out = on_damage == "use_readable"
        self._num_gaps = 0
        self._reformatter = VideoReformatter()
        # When each frame is shown, ascending, and at which of those times decoding can start.
        # No times: frames are told apart by counting them from the beginning.
        self._times: list[int] = []
        self._key_times: list[int] = []
        self._wanted: set[int] = set()  # the times asked for, empty is all; and their last
        self._last = -(2**63)
        self._passed: set[int] = set()  # the times of packets that may have been left out
        self._shown_times: list[int | None] = []  # the times of frames that were decoded to count
        self._frames: Iterator[av.VideoFrame] = iter(())  # what the decoder shows next
        self._position = 0  # number of the first of them
        self._sought = False  # whether that one must be a key frame
        self._kept: list[av.VideoFrame] = []  # the first frames, if they had to be decoded to count
        self._file = VideoBytes(path, limits, data)
        self.clock = self._file.clock
        self._give_back: Callable[[], object] = lambda: None
        try:
            num_pixels = self._file.check_streams()
            if num_pixels:
                self._give_back = DECODE_MEMORY.take(self, num_pixels, limits, self.clock)
            self._start_at_beginning()
            if not num_pixels:  # few, if the index told the truth
                codec = self._stream.codec_context
                num_pixels = codec.width * codec.height
                self._give_back = DECODE_MEMORY.take(self, num_pixels, limits, self.clock)
            self.info = self._survey()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        # What is under way refers back to this: without it, memory comes free at once, and not when
        # the garbage collector comes by, which knows nothing of what FFmpeg holds.
        self._frames = iter(())
        self._kept.clear()
        if hasattr(self, "_container"):
            self._container.close()
        self._file.close()
        self._give_back()

    def frames(self, wanted: Sequence[int]) -> Iterator[Frames]:
        """The frames of ascending numbers, upright RGB (H, W, 3)."""
        return map(self._rgb, self.pictures(wanted))

    def pictures(self, wanted: Sequence[int]) -> Iterator[av.VideoFrame]:
        """The frames of ascending numbers as they are stored, not turned."""
        done = 0
        try:
            for frame in self._find(wanted):
                yield frame
                done += 1
        except (_LostError, av.FFmpegError):
            if self._leaves_out:
                raise self._damaged(done, self.info.num_frames) from None
            # Either decoding could not begin where the file said, or the file is damaged. A decode
            # from the beginning tells, and is what frame numbers are defined by.
            index = self._times, self._key_times
            num_frames, intact = self._count_by_decoding()
            if not intact or num_frames != self.info.num_frames:
                # numbers stay what they were: other frames may be readable by them
                (self._times, self._key_times), self._kept = index, []
                self._position = self.info.num_frames
                raise self._damaged(num_frames, self.info.num_frames) from None
            self._start_at_beginning()
            yield from self._find(wanted[done:])

    def times(self, wanted: Sequence[int]) -> tuple[list[int], Fraction] | None:
        """When frames are shown, from the first on, and the seconds in a unit; None if unknown."""
        unit, first = self._stream.time_base, wanted[0]
        if not self._times or not unit:
            return None
        return [self._times[index] - self._times[first] for index in wanted], unit

    def seconds(self) -> list[float] | None:
        """Seconds from the first frame to each; None where the file does not say."""
        unit = float(self._stream.time_base or 0)
        return [(time - self._rising_times[0]) * unit for time in self._rising_times] or None

    # Opening

    def _start_at_beginning(self) -> None:
        # Opening anew, as a seek to the beginning is not exact in every container.
        if hasattr(self, "_container"):
            self._container.close()
        self._container: InputContainer = self._file.open()
        self._stream = self._file.video_stream(self._container)
        self._start(self._container.demux(self._stream), 0)

    # Surveying: how many frames, and when

    def _survey(self) -> VideoInfo:
        stream = self._stream
        unit = stream.time_base or Fraction(1, av.time_base)
        seconds = float(stream.duration * unit) if stream.duration else None
        if seconds is None and self._container.duration:
            seconds = self._container.duration / av.time_base
        self._limits.check(self._path, max_duration_seconds=seconds, max_frames=stream.frames)
        codec_name, promised = stream.codec_context.codec.canonical_name, stream.frames
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
        whole = self._read_times() and not self._file.is_cut_off()
        if whole and not self._leaves_out and self._shows_first_frame():
            num_frames = len(self._times)
        else:
            num_frames, intact = self._count_by_decoding()
            # what is missing of an AVI may be no more than the index behind its frames
            all_there = self._container.format.name == "avi" and num_frames == promised
            whole = intact and (whole or all_there)
            if not num_frames or not (whole or self._leaves_out):
                raise self._damaged(num_frames, promised)
            if not whole:
                self._num_gaps = max(self._num_gaps, 1)
        fps, seconds = self._rate(num_frames, seconds)
        self._limits.check(self._path, max_duration_seconds=seconds)
        height, width = self.orientation.turned(self._stored_size)
        return VideoInfo(
            path=self._path,
            num_frames=num_frames,
            fps=fps,
            duration_seconds=seconds,
            height=height,
            width=width,
            codec=codec_name,
            rotation_degrees=self.orientation.rotation_degrees,
            pixel_aspect=float(1 / aspect if self.orientation.transposed else aspect),
            hdr=_HDR.get(self._color_trc, ""),
            num_gaps=self._num_gaps,
        )

    def _rate(self, num_frames: int, seconds: float | None) -> tuple[float | None, float | None]:
        """Frames per second, and seconds in all: of a header that frames contradict, theirs."""
        times = self._times or self._shown_times
        timed = [time for time in times if time is not None]
        # raw streams have no times, and a rate of FFmpeg's own invention: their codec may know one
        rates = [self._stream.average_rate, self._stream.guessed_rate]
        rate = next(filter(None, rates if timed else reversed(rates)), None)
        fps = float(rate) if rate else None
        rising = timed == list(times) and all(a < b for a, b in pairwise(timed))
        self._rising_times = timed if rising else []
        if rising and num_frames > 1 and not self._num_gaps:
            first_to_last = float((timed[-1] - timed[0]) * (self._stream.time_base or 0))
            mean_fps = (num_frames - 1) / first_to_last
            if fps is None or abs(fps / mean_fps - 1) > 0.01:  # else the header is the more exact
                fps = mean_fps
            return fps, first_to_last + 1 / fps
        return fps, num_frames / fps if fps else seconds

    def _read_times(self) -> bool:
        """Learn from the packets when frames are shown; return whether all packets are there."""

        def count(num_packets: int) -> None:
            self.clock.check()
            self._limits.check(self._path, max_frames=num_packets)

        whole, shown = read_index(self._container, self._stream, count)
        self._times = sorted(time for time, _ in shown)
        self._key_times = [time for time, is_key in shown if is_key]
        self._number: dict[int | None, int] = {t: k for k, t in enumerate(self._times)}
        return whole

    def _shows_first_frame(self) -> bool:
        """Decode one frame, for its size; return whether that went well, and times are known."""
        if not self._times:
            return False
        self._position = len(self._times)  # all packets are behind us
        self._approach(0)
        try:
            first = next(self._frames)
        except (StopIteration, _LostError, av.FFmpegError):
            return False
        if self._number.get(first.pts) != 0:
            return False  # such as pictures before the first key frame, which need more than it
        self._learn_shape(first)
        self._frames = itertools.chain([first], self._frames)
        return True

    def _count_by_decoding(self) -> tuple[int, bool]:
        """Count the frames up to the first damage; return whether there was none."""
        self._times, self._key_times, self._wanted, self._kept = [], [], set(), []
        self._shown_times = []
        self._start_at_beginning()
        kept_bytes = 0
        try:
            for frame in self._frames:
                self.clock.check()
                if frame.is_corrupt:
                    return self._position, False
                if self._position == 0:
                    self._learn_shape(frame)
                self._check_size(frame)
                self._shown_times.append(frame.pts)
                self._position += 1
                self._limits.check(self._path, max_frames=self._position)
                self._check_effort(self._position * frame.height * frame.width)
                kept_bytes += sum(plane.buffer_size for plane in frame.planes)
                if kept_bytes <= _KEPT_BYTES:
                    self._kept.append(frame)
        except (_LostError, av.FFmpegError):
            return self._position, False
        return self._position, True

    def _check_effort(self, num_pixels: int) -> None:
        num_bytes = max(self._file.size, _GRANTED_BYTES)
        if num_pixels > _PIXELS_PER_BYTE * num_bytes:
            raise VideoError(
                f"{self._path}: is damaged or hostile; its {self._file.size:,} bytes hold more "
                f"than {num_pixels:,} pixels. If you trust the file, re-encode it: "
                "ffmpeg -i IN -c:v libx264 OUT.mp4"
            )

    def _damaged(self, num_readable: int, num_promised: int) -> VideoError:
        of = f" of {num_promised}" if num_promised > num_readable else ""
        return VideoError(
            f"{self._path}: is damaged or cut off; frames readable from its beginning on: "
            f"{num_readable}{of}. Get the file anew, re-encode what is left (ffmpeg -i IN -c:v "
            "libx264 OUT.mp4), or use the frames that can be decoded: on_damage='use_readable'"
        )

    # Decoding

    def _find(self, wanted: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Yield the frames of these ascending numbers; _LostError where one does not come."""
        if self._times and wanted:
            if self._position < len(self._times) and self._times[self._position] <= self._last:
                self._position = len(self._times)  # the last read was given up on its way
            self._wanted, self._last = {self._times[k] for k in wanted}, self._times[wanted[-1]]
        for index in wanted:
            frame = self._kept[index] if index < len(self._kept) else self._decode_on_to(index)
            self._check_size(frame)
            yield frame

    def _check_size(self, frame: av.VideoFrame) -> None:
        if (frame.height, frame.width) != self._stored_size:
            raise VideoError(
                f"{self._path}: its frames change size, from {self._stored_size[1]} x "
                f"{self._stored_size[0]} to {frame.width} x {frame.height} px (width x "
                "height); re-encode it at one size: ffmpeg -i IN -c:v libx264 OUT.mp4"
            )

    def _decode_on_to(self, index: int) -> av.VideoFrame:
        """The frame of this number; _LostError where it does not come, or not in order."""
        self._approach(index)
        for frame in self._frames:
            self.clock.check()
            number, sought = self._number_of(frame), self._sought
            if sought and number < self._position:
                continue  # shown before the key frame decoding began at: incomplete
            # Some files call every picture a key frame; decoding from a false one gives mush.
            if not self._follows(number) or (sought and not frame.key_frame):
                raise _LostError
            self._sought = False
            self._position = number + 1
            if frame.is_corrupt or number > index:
                raise _LostError
            if number == index:
                if sought and self._stream.codec_context.has_b_frames:
                    self._look_ahead()
                return frame
        raise _LostError

    def _number_of(self, frame: av.VideoFrame) -> int:
        return self._number.get(frame.pts, -1) if self._times else self._position

    def _follows(self, number: int) -> bool:
        """Whether the frame of this number is due, but for those that were left out on purpose.

        Files whose times are not those of their pictures, such as the order of decoding in place of
        that of showing, are found out here.
        """
        skipped = range(self._position, number)
        return number >= self._position and all(self._times[k] in self._passed for k in skipped)

    def _look_ahead(self) -> None:
        """Decode the frame after a key frame that was sought; _LostError if it is not the next.

        The pictures between a key frame and the one before it cannot be decoded from it, so they
        do not come. If their times are wrong, the number of the key frame is, too.
        """
        frame = next(self._frames, None)
        if not self._follows(len(self._times) if frame is None else self._number_of(frame)):
            raise _LostError
        if frame is not None:
            self._frames = itertools.chain([frame], self._frames)

    def _approach(self, index: int) -> None:
        """Make the decoder stand at or before a frame, as near as is worth while."""
        ahead = self._position <= index
        key = bisect_right(self._key_times, self._times[index]) - 1 if self._times else -1
        if key < 0:
            if not ahead:
                self._start_at_beginning()
            return
        key_time = self._key_times[key]
        gain = bisect_left(self._times, key_time) - self._position
        if ahead and gain <= _SEEK_COST_FRAMES:
            return
        try:
            self._container.seek(key_time, stream=self._stream)
            packets = self._container.demux(self._stream)
            first = next(packets)
        except av.FFmpegError:
            first = None
        if first is None or first.is_discard or first.pts is None or first.pts > key_time:
            self._key_times = []  # this file cannot be sought in
            self._start_at_beginning()
        else:
            self._start(itertools.chain([first], packets), bisect_left(self._times, first.pts))
            self._sought = True

    def _start(self, packets: Iterable["av.Packet[Any]"], position: int) -> None:
        self._frames, self._position, self._sought = self._decode(packets), position, False

    def _decode(self, packets: Iterable["av.Packet[Any]"]) -> Iterator[av.VideoFrame]:
        """The frames up to the first damage, or what is readable: on from the next key frame."""
        codec, begins_anew, self._num_gaps = self._stream.codec_context, False, 0
        self._passed, latest = set(), -(2**63)
        while self._num_gaps < _MAX_GAPS:
            num_packets, left = 0, True
            try:
                for packet in self._checked(packets):
                    self.clock.check()
                    num_packets += 1
                    if begins_anew and packet.size and not packet.is_keyframe:
                        continue
                    begins_anew = False
                    time = packet.pts
                    if self._wanted and time is not None:
                        # Pictures that are neither asked for nor referred to by others need no
                        # decoding, if they are shown before one that came before: in the order of
                        # showing, nothing would tell whether that is the order of the packets. Past
                        # the last one asked for nothing is left out: the next read may want it.
                        idle = time < min(self._last, latest) and time not in self._wanted
                        codec.skip_frame = "NONREF" if idle else "DEFAULT"
                        latest = max(latest, time)
                        if idle:
                            self._passed.add(time)
                    for frame in packet.decode():
                        if frame.is_corrupt and self._leaves_out:
                            left = False  # what was decoded before it is shown after it
                            raise _LostError
                        yield frame
                return
            except (_LostError, av.FFmpegError) as error:
                rest = codec.decode(None)  # from before the damage
                if not self._leaves_out:
                    yield from rest
                    raise
                self._num_gaps, begins_anew = self._num_gaps + 1, True
                yield from (frame for frame in rest if left and not frame.is_corrupt)
                codec.flush_buffers()
                if not num_packets and isinstance(error, av.FFmpegError):
                    return  # there are no more packets
                packets = self._container.demux(self._stream)

    def _checked(self, packets: Iterable["av.Packet[Any]"]) -> Iterator["av.Packet[Any]"]:
        """The packets up to one that is damaged, and there _LostError."""
        ahead: deque[av.Packet[Any]] = deque()
        packets = iter(packets)
        while True:
            try:
                packet = ahead.popleft() if ahead else next(packets, None)
            except IndexError:  # PyAV does not know streams that begin behind damage
                raise _LostError from None
            if packet is None:
                return
            if packet.is_corrupt:
                if self._container.format.name != "mpegts":
                    raise _LostError
                ahead.extend(itertools.islice(packets, _PACKETS_TO_KEY - len(ahead)))
                if not any(each.is_keyframe and each.size for each in ahead):
                    raise _LostError
            yield packet

    def _learn_shape(self, first: av.VideoFrame) -> None:
        self.orientation = Orientation.of(first)
        self._stored_size, self._color_trc = (first.height, first.width), first.color_trc

    def _rgb(self, frame: av.VideoFrame) -> Frames:
        # By one reformatter for all frames, as a new one each time costs 2 ms.
        picture = self._reformatter.reformat(frame, format="rgb24", threads=1)
        return self.orientation.apply(cast(Frames, picture.to_ndarray()))
