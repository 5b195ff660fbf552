"""Small videos of known content for the tests: every picture carries its own number."""

import random
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def scene(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Moving slopes below, and on top eight bars, white or black, that spell the frame number."""
    rows, columns = np.indices((height, width))
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[..., 0] = (2 * rows + 3 * number) % 256
        frame[..., 1] = (2 * columns + 5 * number) % 256
        frame[..., 2] = (rows + columns + 7 * number) % 256
        for bit in range(8):
            bar = slice(bit * width // 8, (bit + 1) * width // 8)
            frame[: height // 3, bar] = 235 if number >> bit & 1 else 20
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that pictures of `scene` carry, read back through lossy coding."""
    height, width = frames.shape[1:3]
    centres = frames[:, height // 6, [(2 * bit + 1) * width // 16 for bit in range(8)]]
    bits = centres.mean(axis=-1) > 128
    return [int(sum(1 << bit for bit in range(8) if row[bit])) for row in bits]


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    format: str | None = None,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    prepare: Callable[[Any], None] = lambda _stream: None,
) -> Path:
    """Write frames with any codec and container; `times` are in units of 1 / fps."""
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=codec_options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        prepare(stream)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image).reformat(format=pix_fmt)
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copy(
    path: Path,
    to: Path,
    change: Callable[[list[Any]], list[Any]],
    *,
    format: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write the packets of a video to another file, after a change to the list of them."""
    with (
        av.open(str(path)) as source,
        av.open(str(to), "w", format=format, options=container_options or {}) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        for packet in change(packets):
            packet.stream = stream
            container.mux(packet)
    return to


def repeat_stream(source: Path, to: Path, count: int, *, format: str = "mp4") -> Path:
    """Write the video of a file several times over, as so many streams of another."""
    with av.open(str(source)) as one, av.open(str(to), "w", format=format) as container:
        video = one.streams.video[0]
        streams = [container.add_stream_from_template(video) for _ in range(count)]
        for packet in list(one.demux(video)):
            for stream in streams if packet.size else []:
                new = av.Packet(bytes(packet))
                new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
                new.is_keyframe, new.stream = packet.is_keyframe, stream
                container.mux(new)
    return to


def with_edits(path: Path, edits: list[tuple[int, int]]) -> Path:
    """Replace the edit list of an mp4 whose index comes last: (duration, start) in milliseconds."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        per_second = int(1 / container.streams.video[0].time_base)
    entries = b"".join(
        struct.pack(">IiI", ms, start * per_second // 1000, 1 << 16) for ms, start in edits
    )
    at = data.index(b"elst")
    old_size = struct.unpack(">I", data[at - 4 : at])[0]
    data[at + 8 : at - 4 + old_size] = struct.pack(">I", len(edits)) + entries
    grown = 16 + len(entries) - old_size
    for box in (b"elst", b"edts", b"trak", b"moov"):
        at = data.index(box)
        data[at - 4 : at] = struct.pack(">I", struct.unpack(">I", data[at - 4 : at])[0] + grown)
    path.write_bytes(data)
    return path


def full_decode(path: Path) -> np.ndarray:
    """What a plain decode from beginning to end shows."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def join(folder: Path, *parts: np.ndarray) -> Path:
    """A program stream of several videos one after another, which may differ in size."""
    path = folder / "joined.mpg"
    files = [
        encode(folder / f"{k}.mpg", part, codec="mpeg2video", format="mpeg")
        for k, part in enumerate(parts)
    ]
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    return path


def damage(path: Path, number: int) -> Path:
    """Fill one packet of a file, but for its first bytes, with noise."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    position, size = packets[number]
    data[position + 8 : position + size] = random.Random(0).randbytes(size - 8)
    path.write_bytes(data)
    return path


def num_packets(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


# name -> (file name, arguments of encode): each kind of file that numbers frames in its own way
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "b-frames": ("x.mp4", {"codec_options": {"g": "12", "bf": "3", "b-pyramid": "strict"}}),
    "no-b-frames": ("x.mp4", {"codec_options": {"g": "12", "bf": "0"}}),
    "open-groups": ("x.mkv", {"codec_options": {"x264-params": "open-gop=1:keyint=10"}}),
    "intra-refresh": ("x.mp4", {"codec_options": {"x264-params": "intra-refresh=1:keyint=20"}}),
    "vfr-mp4": ("x.mp4", {"fps": 100, "times": [k * k for k in range(60)]}),
    "vfr-mkv": ("x.mkv", {"fps": 100, "times": [k * k for k in range(60)]}),
    "edit-list": ("x.mp4", {"times": range(-10, 50), "codec_options": {"g": "15"}}),
    "late-start": ("x.mp4", {"times": range(100, 160), "codec_options": {"g": "15"}}),
    "fragmented": (
        "x.mp4",
        {
            "container_options": {"movflags": "frag_keyframe+empty_moov"},
            "codec_options": {"g": "12"},
        },
    ),
    "mpeg4-mp4": ("x.mp4", {"codec": "mpeg4", "codec_options": {"bf": "2", "g": "12"}}),
    "mpeg4-avi": ("x.avi", {"codec": "mpeg4", "codec_options": {"bf": "2", "g": "12"}}),
    "mjpeg-avi": ("x.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "vp9": ("x.webm", {"codec": "libvpx-vp9", "codec_options": {"g": "20", "cpu-used": "8"}}),
    "vp8": ("x.webm", {"codec": "libvpx", "codec_options": {"g": "20", "b": "100k"}}),
    "transport-stream": ("x.ts", {"codec": "mpeg2video", "codec_options": {"bf": "2", "g": "12"}}),
    "program-stream": (
        "x.mpg",
        {"codec": "mpeg1video", "format": "mpeg", "codec_options": {"bf": "2", "g": "12"}},
    ),
    "wmv": ("x.wmv", {"codec": "wmv2", "format": "asf"}),
    "flv": ("x.flv", {"codec_options": {"bf": "2", "g": "12"}}),
    "gif": ("x.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
}


def make(kind: str, folder: Path, num_frames: int = 60) -> Path:
    """The file of one of KINDS, holding `scene(num_frames)`."""
    name, arguments = KINDS[kind]
    return encode(folder / name, scene(num_frames), **arguments)
