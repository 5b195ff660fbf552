"""Every frame of generated videos read singly, in clips and at random, against one plain decode.

    python -m fuzz.decode_oracle                  # all files, some minutes
    python -m fuzz.decode_oracle --only joined    # those with this in their names
    python -m fuzz.decode_oracle --keep FOLDER    # keep the files

Over all containers that are read and all codecs that FFmpeg here can write into them: groups of
pictures of every kind, rates that vary, times that are shifted, repeated, missing or wrong, edit
lists, fragments, joined, cut and damaged files. Every picture differs from all others. A file may
be refused with a sentence; a frame that is read has to be that of a plain decode from beginning
to end, bit by bit. Where that lacks pictures that packets promise, without an error, a number is
the place in time among all packets. A damaged file is read with on_damage="use_readable" against
one read of all its frames in order. The exit code is 1 if any frame was another.
"""

import argparse
import contextlib
import multiprocessing
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.made_videos import copy, encode, scene, with_edits
from videomae.errors import VideoError
from videomae.video.orientation import Orientation
from videomae.video.reader import VideoReader

NUM_FRAMES = 40
Change = Callable[[list[Any]], list[Any]]


@dataclass(frozen=True)
class Case:
    """A file to be made. damaged: read what is readable, of a file whose whole is `intact`."""

    name: str
    make: Callable[[Path], Path]
    damaged: bool = False


@dataclass
class Result:
    """What came of a file: frames it has, frames read, those that were others, why refused."""

    name: str
    num_frames: int = 0
    num_read: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: str = ""


# What is asked of each file


def check(case: Case, folder: Path) -> Result:
    """Make the file of a case and compare all reads of it with a plain decode."""
    result = Result(case.name)
    path = case.make(folder)
    on_damage: Any = "use_readable" if case.damaged else "refuse"

    def opened() -> VideoReader:
        return VideoReader(path, on_damage=on_damage)

    try:
        with opened() as reader:
            count = reader.info.num_frames
            expected = dict(enumerate(reader.read(range(count)))) if case.damaged else plain(path)
    except (VideoError, av.FFmpegError) as error:
        result.refused = str(error)
        return result
    result.num_frames = len(expected)
    if count != len(expected):
        result.refused = f"counted {count}, a plain decode shows {len(expected)}"
        expected = by_time(path)

    def compare(reader: VideoReader, indices: Sequence[int]) -> None:
        try:
            frames = reader.read(indices)
        except VideoError as error:
            result.refused = result.refused or str(error)
            return
        result.num_read += len(indices)
        for index, frame in zip(indices, frames, strict=True):
            if index not in expected or not np.array_equal(frame, expected[index]):
                result.wrong.append(f"{index} of {describe(indices)}")

    choose = random.Random(0)
    orders = [[index] for index in range(count)]
    orders += [list(range(start, count, stride)) for stride in (2, 3, 4, 7) for start in (0, 1)]
    orders += [choose.choices(range(count), k=6) for _ in range(8)]
    for indices in orders:
        with contextlib.suppress(VideoError), opened() as reader:
            compare(reader, indices)
    choose.shuffle(orders)
    with contextlib.suppress(VideoError), opened() as reader:
        for indices in orders:
            compare(reader, indices)
    return result


def plain(path: Path) -> dict[int, np.ndarray]:
    """What a plain decode from beginning to end shows, upright."""
    return dict(enumerate(pictures(path).values()))


def by_time(path: Path) -> dict[int, np.ndarray]:
    """The same by their places among all packets, of a file where some show no picture."""
    with av.open(str(path)) as container:
        packets: Any = [packet for packet in container.demux(video=0) if packet.size]
        times = sorted(packet.pts for packet in packets)
    shown = pictures(path)
    return {number: shown[time] for number, time in enumerate(times) if time in shown}


def pictures(path: Path) -> dict[Any, np.ndarray]:
    """What a plain decode shows, upright, by the times of the pictures, or else their numbers."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    orientation = Orientation.of(frames[0])
    times = [frame.pts for frame in frames]
    names = times if len(set(times)) == len(times) else range(len(times))
    stored: list[Any] = [frame.to_ndarray(format="rgb24") for frame in frames]
    images = [orientation.apply(each) for each in stored]
    return dict(zip(names, images, strict=True))


def describe(indices: Sequence[int]) -> str:
    return f"[{', '.join(map(str, indices[:6]))}{', ...' if len(indices) > 6 else ''}]"


# Every codec in every container

# What FFmpeg writes, by its names: container, then codecs. All are tried, few are usual.
WRITTEN = {
    "mp4": "libx264 libx265 libsvtav1 libvpx-vp9 mpeg1video mpeg2video mpeg4 mjpeg "
    "jpeg2000 png ffv1",
    "mov": "libx264 libx265 mpeg1video mpeg2video mpeg4 msmpeg4 h263 mjpeg jpeg2000 png gif "
    "magicyuv prores_ks prores dnxhd cfhd dvvideo qtrle rpza cinepak svq1 v210 v410 tiff targa",
    "3gp": "libx264 mpeg4 h263",
    "ismv": "libx264 libx265 mpeg4",
    "matroska": "libx264 libx265 libsvtav1 libvpx libvpx-vp9 mpeg1video mpeg2video mpeg4 msmpeg4 "
    "mjpeg jpeg2000 ffv1 prores_ks snow rawvideo",
    "webm": "libsvtav1 libvpx libvpx-vp9",
    "avi": "libx264 libsvtav1 libvpx libvpx-vp9 mpeg1video mpeg2video mpeg4 msmpeg4v2 msmpeg4 wmv1 "
    "wmv2 flv h263 h263p mjpeg ljpeg jpegls jpeg2000 png ffv1 huffyuv ffvhuff utvideo magicyuv "
    "cfhd dvvideo rpza cinepak svq1 msvideo1 flashsv snow asv1 asv2 rawvideo v210 v410 targa",
    "mpegts": "libx264 libx265 mpeg1video mpeg2video mpeg4",
    "mpeg": "libx264 libx265 mpeg1video mpeg2video mpeg4 h263p",
    "vob": "mpeg2video",
    "mpeg1video": "mpeg1video",
    "mpeg2video": "mpeg2video",
    "flv": "libx264 libx265 libsvtav1 libvpx-vp9 flv flashsv flashsv2",
    "ogg": "libvpx",
    "asf": "libx264 mpeg4 msmpeg4v2 msmpeg4 wmv1 wmv2 h263 mjpeg ffv1 rawvideo",
    "mxf": "libx264 mpeg2video jpeg2000 ffv1 prores_ks dnxhd dvvideo",
    "dv": "dvvideo",
    "ivf": "libsvtav1 libvpx libvpx-vp9",
    "gif": "gif",
    "apng": "apng",
    "yuv4mpegpipe": "wrapped_avframe",
    "h264": "libx264",
    "hevc": "libx265",
}
# Encoders whose pictures have to be of certain sizes (height, width), or that need options.
SIZES = {"dvvideo": (576, 720), "dnxhd": (720, 1280), "h263": (144, 176)}
B_FRAMES = {"g": "12", "bf": "3"}
OPTIONS = {
    "libx264": B_FRAMES,
    "libx265": {"x265-params": "log-level=0:keyint=12:bframes=3"},
    "mpeg1video": B_FRAMES,
    "mpeg2video": B_FRAMES,
    "mpeg4": B_FRAMES,
    "libsvtav1": {"preset": "11", "g": "12"},
    "libvpx-vp9": {"cpu-used": "8", "g": "12", "auto-alt-ref": "1", "lag-in-frames": "12"},
    "libvpx": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "12"},
    "dnxhd": {"b": "60M"},
}


def encoded(folder: Path, codec: str, format: str, name: str = "x", **arguments: Any) -> Path:
    """The scene as a codec writes it; a key frame every 12, B-frames where it has any."""
    height, width = SIZES.get(codec, (48, 64))
    formats = [each.name for each in av.Codec(codec, "w").video_formats or []]
    wanted = ["yuv420p", "yuvj420p", "yuv422p", "rgb24", "bgr24", *formats]
    pix_fmt = next(each for each in wanted if each in formats or not formats)
    frames = scene(NUM_FRAMES if height < 200 else 14, height, width)
    options = {"strict": "experimental", **OPTIONS.get(codec, {"g": "12"})}
    defaults: dict[str, Any] = {"pix_fmt": pix_fmt, "codec_options": options}
    return encode(folder / name, frames, codec=codec, format=format, **(defaults | arguments))


def combinations() -> Iterator[Case]:
    for format, codecs in WRITTEN.items():
        for codec in codecs.split():
            yield Case(f"{format} {codec}", partial(encoded, codec=codec, format=format))


# Groups of pictures, times and pictures of every kind

GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "h264 closed": ("libx264", {"x264-params": "keyint=12:bframes=3:b-pyramid=strict"}),
    "h264 open": ("libx264", {"x264-params": "keyint=12:bframes=3:open-gop=1"}),
    "h264 deep": ("libx264", {"x264-params": "keyint=20:bframes=8:b-adapt=0:b-pyramid=normal"}),
    "h264 refresh": ("libx264", {"x264-params": "keyint=12:intra-refresh=1"}),
    "h264 one key": ("libx264", {"x264-params": "keyint=1000:bframes=3:scenecut=0"}),
    "h264 plain": ("libx264", {"x264-params": "keyint=12:bframes=0"}),
    "h264 interlaced": ("libx264", {"x264-params": "keyint=12:bframes=3:tff=1"}),
    "hevc closed": ("libx265", {"x265-params": "log-level=0:keyint=12:bframes=4:open-gop=0"}),
    "hevc open": ("libx265", {"x265-params": "log-level=0:keyint=12:bframes=4:open-gop=1"}),
    "mpeg2 open": ("mpeg2video", B_FRAMES),
    "mpeg2 closed": ("mpeg2video", {"flags": "+cgop", "sc_threshold": "1000000000", **B_FRAMES}),
    "mpeg2 interlaced": ("mpeg2video", {"flags": "+ildct+ilme", **B_FRAMES}),
    "mpeg4": ("mpeg4", B_FRAMES),
}


def groups() -> Iterator[Case]:
    for kind, (codec, options) in GROUPS.items():
        for format in ("mp4", "matroska", "mpegts", "avi", "flv"):
            if codec not in WRITTEN[format].split():
                continue
            make = partial(encoded, codec=codec, format=format, codec_options=options)
            yield Case(f"{format}, {kind}", make)


def shapes() -> Iterator[Case]:
    """Rates that vary, times before zero and late, fragments, turned and odd pictures."""
    h264 = partial(encoded, codec="libx264", format="mp4")
    squares = [k * k for k in range(NUM_FRAMES)]
    for format in ("mp4", "matroska", "flv"):
        write = partial(encoded, codec="libx264", format=format, fps=100)
        yield Case(f"{format}, variable rate", partial(write, times=squares))
        yield Case(f"{format}, late start", partial(write, times=range(500, 500 + NUM_FRAMES)))
        yield Case(f"{format}, negative times", partial(write, times=range(-10, NUM_FRAMES - 10)))
    for flags in (
        "frag_keyframe+empty_moov",
        "frag_every_frame+empty_moov",
        "faststart",
        "dash",
        "negative_cts_offsets",
        "cmaf+negative_cts_offsets",
    ):
        yield Case(f"mp4, {flags}", partial(h264, container_options={"movflags": f"+{flags}"}))
    for degrees in (90, 180, 270):
        turn = partial(rotate, degrees=degrees)
        yield Case(f"mp4, rotated by {degrees}", partial(h264, prepare=turn))
    for pix_fmt in ("yuv444p", "yuv422p10le", "gray"):
        yield Case(f"mp4, {pix_fmt}", partial(h264, pix_fmt=pix_fmt))
    yield Case(
        "webm, alpha", partial(encoded, codec="libvpx-vp9", format="webm", pix_fmt="yuva420p")
    )
    for size in ((33, 47), (17, 130)):
        make = partial(odd, size=size)
        yield Case(f"matroska, {size[1]} x {size[0]}", make)
    edits = {
        "a part": [(800, 400)],
        "a middle cut out": [(400, 0), (400, 1000)],
        "the end first": [(400, 1000), (400, 0)],
        "a part twice": [(400, 400), (400, 400)],
    }
    for kind, parts in edits.items():
        for group in ("h264 closed", "h264 open", "h264 plain", "hevc open", "mpeg4"):
            yield Case(
                f"mp4, edit list of {kind}, {group}", partial(edited, group=group, edits=parts)
            )


def rotate(stream: Any, degrees: int) -> None:
    stream.set_display_rotation(-degrees)


def odd(folder: Path, size: tuple[int, int]) -> Path:
    frames = scene(NUM_FRAMES, *size)
    return encode(folder / "x.mkv", frames, codec="libvpx-vp9", codec_options={"cpu-used": "8"})


def grouped(folder: Path, group: str, format: str, name: str = "x") -> Path:
    codec, options = GROUPS[group]
    return encoded(folder, codec, format, name, codec_options=options)


def edited(folder: Path, group: str, edits: list[tuple[int, int]]) -> Path:
    return with_edits(grouped(folder, group, "mp4"), edits)


# Times and marks of key frames that are not those of the pictures


def as_decoded(packets: list[Any], part: Callable[[int], bool] = lambda _: True) -> list[Any]:
    """Show pictures in the order of decoding, in the whole file or the thirds named."""
    times = sorted(packet.pts for packet in packets)
    for number, packet in enumerate(packets):
        if part(3 * number // len(packets)):
            packet.pts = times[number]
    return packets


def one_time(packets: list[Any]) -> list[Any]:
    """As `as_decoded`, where decoding and showing have the same time."""
    for packet in as_decoded(packets):
        packet.dts = packet.pts
    return packets


def middle_as_decoded(packets: list[Any]) -> list[Any]:
    return as_decoded(packets, lambda third: third == 1)


def end_as_decoded(packets: list[Any]) -> list[Any]:
    return as_decoded(packets, lambda third: third == 2)


def all_keys(packets: list[Any]) -> list[Any]:
    for packet in packets:
        packet.is_keyframe = True
    return packets


def one_key(packets: list[Any]) -> list[Any]:
    for packet in packets[1:]:
        packet.is_keyframe = False
    return packets


def false_keys(packets: list[Any]) -> list[Any]:
    for packet in packets[5::7]:
        packet.is_keyframe = True
    return packets


def jump(packets: list[Any]) -> list[Any]:
    """Hours go by in the middle."""
    ahead = 10_000 * (packets[1].dts - packets[0].dts)
    for packet in packets[len(packets) // 2 :]:
        packet.pts += ahead
        packet.dts += ahead
    return packets


def doubled(packets: list[Any]) -> list[Any]:
    """Two pictures have one time."""
    packets[20].pts = packets[21].pts
    return packets


def shifted(packets: list[Any]) -> list[Any]:
    """All pictures but those of the first group are shown a little later than their places."""
    for packet in packets[14:]:
        packet.pts += (packets[1].dts - packets[0].dts) // 3
    return packets


def second_key_on(packets: list[Any]) -> list[Any]:
    """Begin at the second key frame, as a cut without decoding does."""
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    return packets[keys[1] if len(keys) > 1 else 0 :]


def second_half_first(packets: list[Any]) -> list[Any]:
    """The halves of a file, from a key frame on, change places; times go on."""
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    middle = keys[len(keys) // 2]
    times = [(packet.pts, packet.dts) for packet in packets]
    moved = packets[middle:] + packets[:middle]
    late, start = times[middle][1] - times[0][1], times[0][1]
    length = times[-1][1] - start + times[1][1] - start
    for packet in moved[: len(packets) - middle]:
        packet.pts, packet.dts = packet.pts - late, packet.dts - late
    for packet in moved[len(packets) - middle :]:
        packet.pts, packet.dts = packet.pts + length - late, packet.dts + length - late
    return moved


def middle_left_out(packets: list[Any]) -> list[Any]:
    """From one key frame to the next, all packets are gone."""
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    return packets[: keys[1]] + packets[keys[2] :] if len(keys) > 2 else packets


CHANGES = (
    as_decoded, one_time, middle_as_decoded, end_as_decoded, all_keys, one_key, false_keys, jump,
    doubled, shifted, second_key_on, second_half_first, middle_left_out,
)  # fmt: skip


def changed() -> Iterator[Case]:
    for kind in (
        "h264 closed",
        "h264 open",
        "h264 plain",
        "h264 refresh",
        "hevc closed",
        "hevc open",
        "mpeg2 open",
        "mpeg2 closed",
        "mpeg4",
    ):
        for format in ("mp4", "matroska"):
            for change in CHANGES:
                make = partial(rewritten, group=kind, format=format, change=change)
                yield Case(f"{format}, {change.__name__}, {kind}", make)
    for kind, format in (("mpeg4", "avi"), ("h264 closed", "flv"), ("h264 open", "mpegts")):
        for change in CHANGES:
            make = partial(rewritten, group=kind, format=format, change=change)
            yield Case(f"{format}, {change.__name__}, {kind}", make)


def rewritten(folder: Path, group: str, format: str, change: Change) -> Path:
    source = grouped(folder, group, "mp4", "source")  # which knows all times
    return copy(source, folder / "x", change, format=format)


# The index of an mp4 without one of its tables, or with other numbers in it


def without_table(folder: Path, group: str, table: bytes) -> Path:
    path = grouped(folder, group, "mp4")
    path.write_bytes(path.read_bytes().replace(table, b"free"))
    return path


def tables() -> Iterator[Case]:
    # ctts: when pictures are shown, else as decoded; stss: which are key frames, else all
    for table in (b"ctts", b"stss", b"edts"):
        for group in GROUPS:
            make = partial(without_table, group=group, table=table)
            yield Case(f"mp4 without {table.decode()}, {group}", make)
    for codec in ("qtrle", "rpza", "cinepak", "svq1", "msmpeg4", "h263"):
        yield Case(f"mov without stss, {codec}", partial(mov_without_keys, codec=codec))
    for first in (1, 0):
        yield Case(
            f"mp4, fragments {first + 1} to {first + 2} swapped in time",
            partial(back_in_time, first=first),
        )


def mov_without_keys(folder: Path, codec: str) -> Path:
    path = encoded(folder, codec, "mov")
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    return path


def back_in_time(folder: Path, first: int) -> Path:
    """Two fragments of an mp4 change their times."""
    flags = {"movflags": "+frag_keyframe+empty_moov"}
    path = encoded(folder, "libx264", "mp4", container_options=flags)
    data = bytearray(path.read_bytes())
    places, at = [], data.find(b"tfdt")
    while at >= 0:
        places.append(slice(at + 8, at + 16))
        at = data.find(b"tfdt", at + 4)
    data[places[first]], data[places[first + 1]] = data[places[first + 1]], data[places[first]]
    path.write_bytes(data)
    return path


# Joined files, and AVI files whose B-frames lie in the packet of another picture


def joined() -> Iterator[Case]:
    open_ts = [(group, "mpegts") for group in ("h264 open", "hevc open", "mpeg2 open")]
    closed_ts = [(group, "mpegts") for group in ("h264 closed", "mpeg4")]
    raw = [("h264 open", "h264"), ("hevc open", "hevc"), ("mpeg2 open", "mpeg2video")]
    others = [("mpeg2 open", "mpeg"), ("h264 closed", "flv")]
    for group, format in (*open_ts, *closed_ts, *raw, *others):
        for times in (2, 3):
            make = partial(repeated, group=group, format=format, times=times)
            yield Case(f"{format}, joined {times} times, {group}", make)
    yield Case("avi, packed B-frames", partial(packed, codec="mpeg4"))
    yield Case("mp4, pictures without content", empty_pictures)


def repeated(folder: Path, group: str, format: str, times: int) -> Path:
    path = grouped(folder, group, format)
    path.write_bytes(path.read_bytes() * times)
    return path


NOTHING = b"\0\0\1\xb6" + bytes([0b01010000, 0b01011111])  # a VOP of MPEG-4 that shows nothing new


def packed(folder: Path, codec: str) -> Path:
    """As DivX wrote: a B-frame in the packet of the picture before, a packet of nothing after."""

    def pack(packets: list[Any]) -> list[Any]:
        made = []
        step = packets[1].dts - packets[0].dts
        ahead: bytes | None = None
        for number, packet in enumerate(packets):
            data = bytes(packet)
            following = bytes(packets[number + 1]) if number + 1 < len(packets) else b""
            if ahead is not None:  # this one lies in the packet before
                data, ahead = NOTHING, None
            elif is_b_frame(following):
                data, ahead = data + following, following
            if not number:
                data = data.replace(b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p\0\0\1\xb6", 1)
            new = av.Packet(data)
            new.pts = new.dts = number * step
            new.time_base, new.is_keyframe = packet.time_base, packet.is_keyframe
            made.append(new)
        return made

    source = encoded(folder, codec, "avi", "source", codec_options={"g": "12", "bf": "1"})
    return copy(source, folder / "x", pack, format="avi")


def is_b_frame(data: bytes) -> bool:
    start = data.find(b"\0\0\1\xb6")
    return start >= 0 and data[start + 4] >> 6 == 2


def empty_pictures(folder: Path) -> Path:
    """Packets of MPEG-4 that show no picture, in a container whose packets are counted."""

    def empty(packets: list[Any]) -> list[Any]:
        made = []
        for number, packet in enumerate(packets):
            new = av.Packet(NOTHING if number % 10 == 5 else bytes(packet))
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe = packet.is_keyframe
            made.append(new)
        return made

    source = encoded(folder, "mpeg4", "mp4", "source", codec_options={"g": "10", "bf": "0"})
    return copy(source, folder / "x", empty, format="mp4")


# Damaged files


def damaged() -> Iterator[Case]:
    kinds = {
        "mp4": "libx264 libx265 mpeg4",
        "matroska": "libx264",
        "webm": "libvpx-vp9 libsvtav1",
        "avi": "mpeg4 mjpeg",
        "mpegts": "libx264 mpeg2video",
        "mpeg": "mpeg2video",
        "flv": "libx264",
        "asf": "wmv2",
        "gif": "gif",
    }
    for format, codec in [(each, codec) for each in kinds for codec in kinds[each].split()]:
        for how in (noise, cut_off, holes):
            make = partial(how, codec=codec, format=format)
            yield Case(f"{format} {codec}, {how.__name__}", make, damaged=True)


def noise(folder: Path, codec: str, format: str) -> Path:
    """A tenth of the file, in the middle, is noise."""
    path = encoded(folder, codec, format)
    data = bytearray(path.read_bytes())
    start, size = len(data) // 2, len(data) // 10
    data[start : start + size] = random.Random(0).randbytes(size)
    path.write_bytes(data)
    return path


def cut_off(folder: Path, codec: str, format: str) -> Path:
    path = encoded(folder, codec, format)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    return path


def holes(folder: Path, codec: str, format: str) -> Path:
    """Zeros, 100 bytes long, in places all over the second half."""
    path = encoded(folder, codec, format)
    data = bytearray(path.read_bytes())
    for start in range(len(data) // 2, len(data) - 1000, 1500):
        data[start : start + 100] = bytes(100)
    path.write_bytes(data)
    return path


def cases() -> list[Case]:
    kinds = (combinations, groups, shapes, changed, tables, joined, damaged)
    return [case for kind in kinds for case in kind()]


def _made(case: Case, keep: Path | None) -> Result:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if keep is None else keep / re.sub(r"[^a-z0-9]+", "_", case.name)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return check(case, folder)
        except (av.FFmpegError, ValueError) as error:
            return Result(case.name, refused=f"cannot be written here: {error}")


def main() -> int:
    description, _, _ = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", default="", help="files with this in their names")
    parser.add_argument("--keep", type=Path, help="a folder that the files are kept in")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    av.logging.set_level(av.logging.FATAL)
    chosen = [case for case in cases() if options.only in case.name]
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes) as pool:
        results = list(pool.imap(partial(_made, keep=options.keep), chosen))
    width = max(len(result.name) for result in results)
    print(f"{'file':{width}}  frames    read  wrong")
    for result in results:
        note = result.refused or "; ".join(result.wrong[:3])
        counts = f"{result.num_frames:6}  {result.num_read:6}  {len(result.wrong):5}"
        print(f"{result.name:{width}}  {counts}  {note[:200]}".rstrip())
    wrong = sum(len(result.wrong) for result in results)
    num_read = sum(result.num_read for result in results)
    print(
        f"{len(results):,} files, {sum(bool(each.refused) for each in results):,} of them refused, "
        f"at least in part; {sum(each.num_frames for each in results):,} frames, read "
        f"{num_read:,} times; {wrong:,} reads gave another frame, of "
        f"{sum(bool(each.wrong) for each in results):,} files"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
