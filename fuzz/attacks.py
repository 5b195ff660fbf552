"""Small files and texts that once cost much, or did more than they should: what each costs now.

    python -m fuzz.attacks --output /tmp/attacks
    PYTHONPATH=OLD/src:. python -m fuzz.attacks --output /tmp/attacks    # of another version

Each is made, and given to its entrance in a process of its own. Prints what came of it, the
seconds of CPU time and the most memory; a process ends after a minute of CPU time, or at 8 GB.
"""

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from tests.made_videos import encode, repeat_stream, scene
from videomae import VideoMAEConfig, VideoMAEForVideoClassification
from videomae.data.sources import read_source
from videomae.errors import VideoMAEError
from videomae.settings import PrepareSettings
from videomae.video import reader

_MOST_SECONDS, _MOST_BYTES = 60, 8 * 2**30
_EMPTY_BOX = struct.pack(">I4s", 8, b"free")
_FTYP = b"\0\0\0\x18ftypisom\0\0\2\0isommp42"


def empty_boxes(folder: Path) -> None:
    (folder / "x.mp4").write_bytes(_FTYP + _EMPTY_BOX * 3_000_000)


def boxes_behind(folder: Path) -> None:
    path = encode(folder / "x.mp4", scene(60))
    path.write_bytes(path.read_bytes() + _EMPTY_BOX * 1_000_000)


def free_box(folder: Path) -> None:
    with (folder / "x.mp4").open("wb") as file:
        file.write(_FTYP + struct.pack(">I4s", 1_500_000_000, b"free"))
        file.truncate(1_500_000_024)


def frames_of_a_gif(folder: Path) -> None:
    size = struct.pack("<HH", 5900, 5900)
    frame = b"\x21\xf9\4\0\1\0\0\0\x2c\0\0\0\0" + size + b"\0\2\2\x4c\1\0"
    head = b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff"
    (folder / "x.gif").write_bytes(head + frame * 20_000 + b";")


def tracks(folder: Path, count: int, height: int, width: int) -> None:
    frames = np.zeros((4, height, width, 3), np.uint8)
    source = encode(folder.parent / "one.mp4", frames, codec_options={"preset": "ultrafast"})
    repeat_stream(source, folder / "x.mp4", count)


def dict_in_itself(folder: Path) -> None:
    state: dict[str, object] = {}
    state["model"] = state
    torch.save(state, folder / "x.pth")


def many_layers(folder: Path) -> None:
    names = ["patch_embed.proj.weight", "blocks.999999999.norm1.weight", "blocks.0.norm1.weight"]
    shapes: list[tuple[int, ...]] = [(8, 3, 2, 4, 4), (8,), (8,)]
    pairs = zip(names, shapes, strict=True)
    torch.save({name: torch.zeros(shape) for name, shape in pairs}, folder / "x.pth")


def vast_config(folder: Path) -> None:
    config = VideoMAEConfig.preset("tiny", image_size=16, num_frames=4)
    VideoMAEForVideoClassification(config).save_pretrained(folder)
    path = folder / "config.json"
    size = f'"hidden_size": {config.hidden_size},'
    assert size in path.read_text()
    path.write_text(path.read_text().replace(size, '"hidden_size": 960000000,'))


def deep_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"id2label": ' + "[" * 100_000 + "]" * 100_000 + "}")


def long_number(folder: Path) -> None:
    (folder / "train.csv").write_text(f"a.mp4 {'9' * 5000}\nb.mp4 1\n")


def class_number(folder: Path) -> None:
    with tarfile.open(folder / "x.tar", "w") as tar:
        for name, data in (("a.mp4", b"x"), ("a.cls", b"999999"), ("b.json", b"[" * 100_000)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


def probe(folder: Path) -> object:
    return f"{reader.probe(next(folder.iterdir())).num_frames} frames"


def weights(folder: Path) -> object:
    place = folder if (folder / "config.json").exists() else next(folder.iterdir())
    return type(VideoMAEForVideoClassification.from_pretrained(place)).__name__


def config(folder: Path) -> object:
    return type(VideoMAEConfig.from_pretrained(folder)).__name__


def listed(folder: Path) -> object:
    found = read_source(PrepareSettings(next(folder.iterdir()), folder / "out"))
    return f"{len(found.items)} videos, {len(found.classes):,} classes"


Attack = tuple[Callable[[Path], None], Callable[[Path], object]]
ATTACKS: dict[str, Attack] = {
    "mp4 of 3 million empty boxes": (empty_boxes, probe),
    "mp4 with a million empty boxes behind": (boxes_behind, probe),
    "mp4 with a sparse free box of 1.5 GB": (free_box, probe),
    "GIF of 20,000 frames of 35 megapixels": (frames_of_a_gif, probe),
    "mp4 of 900 tracks": (lambda folder: tracks(folder, 900, 48, 64), probe),
    "mp4 of 40 tracks of 8K": (lambda folder: tracks(folder, 40, 4320, 8192), probe),
    ".pth that holds itself": (dict_in_itself, weights),
    ".pth with layer 999,999,999": (many_layers, weights),
    "config.json of 960,000,000 features": (vast_config, weights),
    "config.json nested 100,000 deep": (deep_json, config),
    "list with a class number of 5,000 digits": (long_number, listed),
    "shard with class 999,999 and deep JSON": (class_number, listed),
}


def attempt(name: str, folder: Path) -> str:
    try:
        return str(ATTACKS[name][1](folder))
    except VideoMAEError as error:
        return f"refused: {' '.join(str(error).replace(str(folder), '').split())[:70]}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:40]}"


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", default="", help="those with this word in their name")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    output: Path = options.output
    if options.one:
        print(json.dumps(attempt(options.one, output)))
        return 0
    print("| attack | bytes | what came of it | CPU s | MB |\n| --- | ---: | --- | ---: | ---: |")
    for number, (name, (make, _)) in enumerate(ATTACKS.items()):
        if options.only not in name:
            continue
        folder = output / str(number) / "given"
        if not folder.exists():
            folder.mkdir(parents=True)
            make(folder)
        num_bytes = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        command = [sys.executable, "-m", "fuzz.attacks", "--one", name, "--output", str(folder)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=limit
        )
        _, status, used = os.wait4(process.pid, 0)
        assert process.stdout is not None
        said = process.stdout.read().decode()
        text = json.loads(said) if said else f"ended by signal {os.WTERMSIG(status)}"
        figures = f"{used.ru_utime + used.ru_stime:,.1f} | {used.ru_maxrss / 1024:,.0f}"
        print(f"| {name} | {num_bytes:,} | {text} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
