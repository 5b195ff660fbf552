"""Mutated videos of all containers, through every entrance that takes a video.

    python -m fuzz.videos --output /tmp/videos                 # 5,000 videos, some 20 minutes
    python -m fuzz.videos --output /tmp/videos --only 1234     # one of them again

A small video is written per kind, and mutated one to eight times: sizes, counts, dimensions and
times in the headers of its container set to other values, its parts left out, repeated, swapped or
taken from another file, bits flipped, bytes overwritten, cut off, repeated. Each is probed; one
clip, single frames and the times are read; what is readable is read where it is damaged; and it is
classified. A video that is read must have what its VideoInfo says: the frames that are read singly
are those of the plain pass.
"""

import functools
import itertools
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fuzz import harness
from fuzz.structures import WALKS, Part, repaired
from tests.made_videos import encode, scene
from videomae.errors import VideoError
from videomae.inference.predict import classify
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.video.limits import CONTAINERS
from videomae.video.reader import VideoReader, probe

_SHORT = {"codec_options": {"g": "8", "bf": "2"}}
_MPEG2 = {"codec": "mpeg2video", **_SHORT}
# container, then how its file is written: several per container where it holds unlike things
SEEDS: list[tuple[str, str, dict[str, Any]]] = [
    ("mov", "x.mp4", _SHORT),
    ("mov", "x.mp4", {**_SHORT, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    ("mov", "x.mp4", {**_SHORT, "times": range(-5, 25)}),  # an edit list
    ("mov", "x.mp4", {"times": [k * k for k in range(30)], "fps": 100}),
    ("mov", "x.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ("mov", "x.mp4", {"codec": "libx265", "codec_options": {"x265-params": "log-level=0"}}),
    ("matroska", "x.mkv", _SHORT),
    ("matroska", "x.mkv", {"codec": "ffv1"}),
    ("matroska", "x.webm", {"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8"}}),
    ("avi", "x.avi", {"codec": "mpeg4", **_SHORT}),
    ("avi", "x.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ("mpegts", "x.ts", _MPEG2),
    ("mpegts", "x.ts", _SHORT),
    ("mpeg", "x.mpg", {**_MPEG2, "format": "mpeg"}),
    ("mpegvideo", "x.m2v", {**_MPEG2, "format": "mpeg2video"}),
    ("flv", "x.flv", _SHORT),
    ("ogg", "x.ogv", {"codec": "libvpx", "format": "ogg"}),
    ("asf", "x.wmv", {"codec": "wmv2", "format": "asf"}),
    ("mxf", "x.mxf", _MPEG2),
    ("dv", "x.dv", {"codec": "dvvideo", "size": (576, 720), "num_frames": 4}),
    ("ivf", "x.ivf", {"codec": "libvpx"}),
    ("gif", "x.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    ("apng", "x.apng", {"codec": "apng", "pix_fmt": "rgb24", "num_frames": 8}),
    ("yuv4mpegpipe", "x.y4m", {"codec": "wrapped_avframe", "num_frames": 8}),
    ("h264", "x.h264", _SHORT),
    ("hevc", "x.hevc", {"codec": "libx265", "codec_options": {"x265-params": "log-level=0"}}),
]
assert {container for container, *_ in SEEDS} == set(CONTAINERS)

# FFmpeg fills what is damaged of these with what it showed before, and marks no frame: what a read
# shows there depends on the frames decoded before it.
_SILENT_CODECS = ("ffv1", "mjpeg")

Seed = tuple[str, str, bytes]  # container, suffix, the file
Mutation = Callable[[random.Random, bytearray, list[Part], bytes], None]


def make_seeds(folder: Path) -> list[Seed]:
    folder.mkdir(parents=True, exist_ok=True)
    seeds = []
    for number, (container, name, arguments) in enumerate(SEEDS):
        height, width = arguments.get("size", (48, 64))
        frames = scene(arguments.get("num_frames", 30), height, width)
        options = {k: v for k, v in arguments.items() if k not in ("size", "num_frames")}
        path = folder / f"{number}{Path(name).suffix}"
        if not path.exists():
            encode(path, frames, **options)
        assert probe(path).num_frames >= 4, path
        seeds.append((container, path.suffix, path.read_bytes()))
    return seeds


# Mutations in place: of the file, whose parts are known, beside another file


def set_number(rng: random.Random, data: bytearray, parts: list[Part], _: bytes) -> None:
    """A number in a header, or behind one that is followed by no pictures."""
    part = rng.choice(parts)
    end = part.body if part.is_media else min(part.end, part.body + 300)
    if end <= part.start:
        return
    place = rng.randrange(part.start, end)
    length = rng.choice([1, 2, 3, 4, 4, 4, 8])
    order: Literal["big", "little"] = rng.choice(["big", "little"])
    most = 2 ** (8 * length)
    old = int.from_bytes(data[place : place + length], order)
    ends = [0, 1, 7, most // 2 - 1, most // 2, most - 1]
    near = [old - 1, old + 1, old // 2, 2 * old, len(data)]
    new = rng.choice([*ends, *near, rng.randrange(most), 2 ** rng.randrange(8 * length)])
    data[place : place + length] = (new % most).to_bytes(length, order)


def set_text(rng: random.Random, data: bytearray, parts: list[Part], _: bytes) -> None:
    """A number that is written in digits, as in the first line of a y4m."""
    head = data[: parts[0].end]
    places = [k for k, byte in enumerate(head[:200]) if 48 <= byte <= 57]
    if places:
        place = rng.choice(places)
        data[place : place + 1] = rng.choice([b"0", b"-1", b"99999", b"4294967296", b"", b":"])


def drop_part(rng: random.Random, data: bytearray, parts: list[Part], _: bytes) -> None:
    part = rng.choice(parts)
    del data[part.start : part.end]


def repeat_part(rng: random.Random, data: bytearray, parts: list[Part], _: bytes) -> None:
    part = rng.choice(parts)
    times = rng.choice([1, 1, 2, 20, 1000])
    content = bytes(data[part.start : part.end])
    data[part.end : part.end] = content * min(times, 2**20 // max(1, len(content)))


def swap_parts(rng: random.Random, data: bytearray, parts: list[Part], _: bytes) -> None:
    first, second = sorted(rng.choices(parts, k=2))
    if first.end <= second.start:
        one, other = bytes(data[first.start : first.end]), bytes(data[second.start : second.end])
        data[second.start : second.end] = one
        data[first.start : first.end] = other


def graft(rng: random.Random, data: bytearray, parts: list[Part], other: bytes) -> None:
    """A stretch of another file in the place of a part, or before it."""
    part, start = rng.choice(parts), rng.randrange(len(other))
    end = part.end if rng.random() < 0.5 else part.start
    data[part.start : end] = other[start : start + rng.choice([8, 100, 5000])]


def splice(rng: random.Random, data: bytearray, _: list[Part], other: bytes) -> None:
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


def flip_bits(rng: random.Random, data: bytearray, _: list[Part], __: bytes) -> None:
    for _number in range(rng.choice([1, 3, 30])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray, _: list[Part], __: bytes) -> None:
    place, length = rng.randrange(len(data)), rng.choice([4, 40, 400])
    length = min(length, len(data) - place)
    kind = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    data[place : place + length] = kind


def cut_off(rng: random.Random, data: bytearray, _: list[Part], __: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def repeat(rng: random.Random, data: bytearray, _: list[Part], __: bytes) -> None:
    start = rng.randrange(len(data))
    content = bytes(data[start : start + rng.choice([8, 200, 4000])])
    data[start:start] = content * rng.choice([1, 1, 50])


MUTATIONS: list[Mutation] = [
    *(set_number, set_number, set_number, set_number, set_text),
    *(drop_part, repeat_part, swap_parts, graft, splice),
    *(flip_bits, overwrite, cut_off, repeat),
]


def make(seeds: list[Seed], rng: random.Random, folder: Path) -> str:
    """Write a mutated video; its name tells how it was made, its kind is the container."""
    container, suffix, content = rng.choice(seeds)
    data, names = bytearray(content), []
    for mutation in rng.choices(MUTATIONS, k=rng.choice([1, 1, 1, 2, 3, 8])):
        parts = list(itertools.islice(WALKS[container](bytes(data)), 100_000))
        if parts and len(data):
            mutation(rng, data, parts, rng.choice(seeds)[2])
            names.append(mutation.__name__)
    fixed = repaired(container, bytes(data)) if rng.random() < 0.7 else bytes(data)
    (folder / f"{'+'.join(names[:4])}{suffix}").write_bytes(fixed)
    return container


def attempt(model: Any, folder: Path) -> str:
    """Take a video by every entrance. Raises VideoError, the first of them, if all refuse it."""
    (path,) = folder.iterdir()
    entrances: list[Callable[[Path], None]] = [
        _probe,
        _read,
        _read_readable,
        functools.partial(_classify, model),
    ]
    refusals, taken = [], []
    for number, entrance in enumerate(entrances):
        try:
            entrance(path)
        except VideoError as error:
            check_words(str(error))
            refusals.append(error)
        else:
            taken.append(number)
    if not taken:
        raise refusals[0]
    return f"by {taken} of {len(entrances)}"


def check_words(text: str) -> None:
    """A refusal is one line, and none of Python's words."""
    assert text.isprintable(), text
    assert not any(word in text for word in ("Traceback", "object at 0x")), text


def _probe(path: Path) -> None:
    info = probe(path)
    assert info.num_frames >= 1
    assert info.height >= 1
    assert info.width >= 1
    for value in (info.fps, info.duration_seconds, info.pixel_aspect):
        assert value is None or (math.isfinite(value) and value > 0), info


def _read(path: Path) -> None:
    """Frames read singly, backwards, are those of one pass, from a path and from bytes."""
    with VideoReader(path) as reader, VideoReader(path.read_bytes()) as other:
        info = reader.info
        times = reader.times()
        if times is not None:
            assert len(times) == info.num_frames
            assert all(before < after for before, after in itertools.pairwise(times)), times
        few = range(min(info.num_frames, 40 if info.height * info.width < 10**6 else 4))
        frames = reader.read(few)
        assert frames.shape == (len(few), info.height, info.width, 3)
        is_silent = info.codec in _SILENT_CODECS
        for index in () if is_silent else (*few[::-7], 0):
            if not np.array_equal(other.read([index])[0], frames[index]):
                raise AssertionError(f"frame {index} read singly is another than in one pass")
        other.read([info.num_frames - 1])


def _read_readable(path: Path) -> None:
    with VideoReader(path, on_damage="use_readable") as reader:
        reader.read([0, reader.info.num_frames - 1])


def _classify(model: Any, path: Path) -> None:
    result = classify(path, model=model)
    assert np.isfinite(result.logits).all()


def main() -> int:
    parser = harness.arguments(__doc__, cases=5000, seconds=120, megabytes=2500)
    options = parser.parse_args()
    seeds = make_seeds(options.output / "seeds")
    model = VideoMAEForVideoClassification.from_pretrained("actions-tiny")
    return harness.campaign(
        functools.partial(make, seeds), functools.partial(attempt, model), options
    )


if __name__ == "__main__":
    sys.exit(main())
