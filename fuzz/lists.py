"""Mutated manifests, lists, annotations, recipes and shards: read, or refused in a sentence.

    python -m fuzz.lists                                # 2,000 cases from seed 0
    python -m fuzz.lists --cases 1 --first 137          # one case again, with what it printed

Each case is a folder with three good videos and a source that says things about them, changed in
one to three places, and a command that reads it in a process of its own, with limits on time and
memory. What counts is how it ends:

- read: exit code 0. Files may have been left out, each with its reason.
- explained: another exit code, and a sentence on stderr.
- other: a traceback, a crash, a hang, over the memory; a file outside of the output, or a control
  character on the way to the terminal.

A case follows from its seed and number alone. Runs on Linux.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from videomae.commands import cli
from videomae.data import prepare as _loaded_before_the_fork  # noqa: F401
from videomae.data.manifest import load_videos
from videomae.errors import VideoMAEError
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

SECONDS, BYTES = 30, 4 << 30
NUM_VIDEOS = 3
DEEP = 200_000

# Words in place of others: numbers that are none or too many, paths that lead out, signs that move
# a cursor, names that a system keeps for itself, and what a list's own syntax is made of.
HOSTILE = [
    *("9" * 5000, "-" + "9" * 5000, "1e999", "nan", "-1", "999999", "999998|3", "1_0", "0x10", "²"),
    *("１２", "1.5", "9" * 30, "-9223372036854775809", "18446744073709551616", "1e308", ""),
    *(
        "../../X",
        "/abs/X",
        "..",
        ".",
        "C:\\X",
        "\\\\host\\X",
        "CON",
        "nul.mp4",
        "a" * 300,
        "x" * 5000,
    ),
    *(
        "a/" * 3000,
        "\x1b[2J\x1b[1;1H",
        "\x9b2J",
        "a\rb",
        "gpj.\u202e4pm",
        "\0",
        "\u2028",
        "{}",
        "%s",
    ),
    *('"', '"a\nb"', ",", "|", "||", "\t", "[" * DEEP, '{"a":' * DEEP, "é", "网球", "~", "$HOME"),
    *("http://127.0.0.1:9/x.mp4", "file:///etc/hostname", "s3://b/x.mp4", "zip::file:///x.zip"),
]
WRONG: list[Any] = [
    None,
    True,
    -1,
    1.5,
    1e308,
    10**400,
    "x",
    "",
    [],
    {},
    ["a"],
    {"a": []},
    [[]],
    "\x1b[2J",
]

Files = dict[str, bytes]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Bytes changed in one to three places: words, lines, single bytes, the end."""
    for _ in range(draw.randint(1, 3)):
        words = [found.span() for found in re.finditer(rb"[^\s,:\"\[\]{}=]+", data)]
        lines = data.split(b"\n")
        place = draw.randrange(len(data) + 1)
        match draw.choice(["word", "word", "word", "line", "byte", "cut", "insert", "twice"]):
            case "word" if words:
                start, end = draw.choice(words)
                data = data[:start] + hostile(draw) + data[end:]
            case "line":
                lines[draw.randrange(len(lines))] = hostile(draw)
                data = b"\n".join(lines)
            case "twice":
                data = b"\n".join([*lines, draw.choice(lines), draw.choice(lines)])
            case "byte":
                data = data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
            case "cut":
                data = data[:place]
            case _:
                data = data[:place] + hostile(draw) + data[place:]
    return data


def hostile(draw: random.Random) -> bytes:
    return draw.choice(HOSTILE).encode() if draw.random() < 0.9 else draw.randbytes(20)


def mutated_json(value: object, draw: random.Random) -> bytes:
    """JSON with one value of another type, or changed as text."""
    if draw.random() < 0.5:
        return mutated(json.dumps(value).encode(), draw)
    places: list[tuple[object, object]] = []

    def walk(part: object) -> None:
        items = (
            part.items()
            if isinstance(part, dict)
            else enumerate(part)
            if isinstance(part, list)
            else ()
        )
        for key, inside in items:
            places.append((part, key))
            walk(inside)

    walk(value)
    part, key = draw.choice(places)
    part[key] = draw.choice([*WRONG, *HOSTILE])  # type: ignore[index]
    return json.dumps(value).encode()


# Each kind: the files of a source, and the arguments of the command that reads them.


def manifest(draw: random.Random) -> tuple[Files, list[str]]:
    rows = ["path,label,split,start_seconds,end_seconds,group"]
    rows += [
        f"videos/{k}.mp4,class{k % 2},{('train', 'val')[k % 2]},0,0.3,g{k}"
        for k in range(NUM_VIDEOS)
    ]
    more = draw.choice([[], ["--shards"], ["--group", "column:group"], ["--resize-short", "16"]])
    return {"manifest.csv": mutated("\n".join(rows).encode(), draw)}, ["manifest.csv", *more]


def manifest_labels(draw: random.Random) -> tuple[Files, list[str]]:
    rows = [f"videos/{k}.mp4,class{k % 2}" for k in range(NUM_VIDEOS)]
    files = {"manifest.csv": "\n".join(["path,label", *rows]).encode()}
    return files | {"labels.txt": mutated(b"class0\nclass1\n", draw)}, ["manifest.csv"]


def training(draw: random.Random) -> tuple[Files, list[str]]:
    files, _ = draw.choice([manifest, manifest_labels])(draw)
    return files, ["load"]


def plain_list(draw: random.Random) -> tuple[Files, list[str]]:
    number = draw.randint(0, 3)
    text = "".join(f"videos/{k}.mp4{' 1' * number}\n" for k in range(NUM_VIDEOS))
    layouts = [
        "auto",
        "auto",
        "v1",
        "v2-pretrain",
        "v2-finetune",
        "mmaction2",
        "mmaction2-offset",
        "paths",
    ]
    files = {"train.txt": mutated(text.encode(), draw)}
    return files, ["train.txt", "--layout", draw.choice(layouts), *draw.choice([[], ["--shards"]])]


def frames(draw: random.Random) -> tuple[Files, list[str]]:
    text = draw.choice(["frames 1 4\nframes 2 2\n", "frames 4 0\nframes 4 1\n", "frames 1 3 0\n"])
    layouts = ["auto", "v2-pretrain", "v2-finetune", "mmaction2", "mmaction2-offset"]
    return {"train.txt": mutated(text.encode(), draw)}, [
        "train.txt",
        "--layout",
        draw.choice(layouts),
    ]


def names(draw: random.Random) -> tuple[Files, list[str]]:
    files = {"train.csv": "".join(f"videos/{k}.mp4 {k % 2}\n" for k in range(NUM_VIDEOS)).encode()}
    if draw.random() < 0.5:
        files["names.json"] = mutated_json({"run": 0, "walk": 1}, draw)
    else:
        files["names.txt"] = mutated(draw.choice([b"run\nwalk\n", b"1 run\n2 walk\n"]), draw)
    return files, [
        "train.csv",
        "--labels",
        next(name for name in files if name.startswith("names")),
    ]


def kinetics(draw: random.Random) -> tuple[Files, list[str]]:
    rows = ["label,youtube_id,time_start,time_end,split"]
    rows += [f"class{k % 2},v{k},0,10,train" for k in range(NUM_VIDEOS)]
    return {"k/train.csv": mutated("\n".join(rows).encode(), draw)}, ["k", "--root", "named"]


def ssv2(draw: random.Random) -> tuple[Files, list[str]]:
    rows = [{"id": str(k), "template": f"Doing [thing] {k % 2}"} for k in range(NUM_VIDEOS)]
    named: object = {"Doing thing 0": "0", "Doing thing 1": "1"}
    files = {"s/train.json": json.dumps(rows).encode(), "s/labels.json": json.dumps(named).encode()}
    change = draw.choice(["s/train.json", "s/labels.json"])
    files[change] = mutated_json(rows if "train" in change else named, draw)
    return files, ["s", "--root", "videos", "--layout", "ssv2"]


def ucf101(draw: random.Random) -> tuple[Files, list[str]]:
    rows = [f"class{k % 2}/{k}.mp4" for k in range(NUM_VIDEOS)]
    files = {
        "u/classInd.txt": b"1 class0\n2 class1\n",
        "u/trainlist01.txt": "".join(f"{row} 1\n" for row in rows[:2]).encode(),
        "u/testlist01.txt": "".join(f"{row}\n" for row in rows[2:]).encode(),
    }
    change = draw.choice(sorted(files))
    return files | {change: mutated(files[change], draw)}, ["u", "--root", "videos"]


def hmdb51(draw: random.Random) -> tuple[Files, list[str]]:
    text = "".join(f"{k}.mp4 {k % 3}\n" for k in range(NUM_VIDEOS)).encode()
    return {"h/run_test_split1.txt": mutated(text, draw)}, ["h", "--root", "videos"]


def npy(draw: random.Random) -> tuple[Files, list[str]]:
    file = io.BytesIO()
    np.save(file, np.array([f"videos/{k}.mp4 {k}" for k in range(NUM_VIDEOS)]))
    return {"train.npy": mutated(file.getvalue(), draw)}, ["train.npy"]


def shards(draw: random.Random) -> tuple[Files, list[str]]:
    """Tars with a sidecar that is wrong, a header that is, or bytes that are."""
    file = io.BytesIO()
    broken = draw.randrange(NUM_VIDEOS)
    with tarfile.open(fileobj=file, mode="w") as tar:
        for k in range(NUM_VIDEOS):
            texts = {
                "cls": str(k % 2).encode(),
                "json": b'{"label": 1, "path": "x"}',
                "txt": b"run",
            }
            kind = draw.choice(sorted(texts))
            text = texts[kind] if k != broken else mutated(texts[kind], draw)
            if k == broken and draw.random() < 0.3:
                text = hostile(draw)
            name = f"{k}" if k != broken or draw.random() < 0.7 else draw.choice(HOSTILE)
            for suffix, data in (("mp4", VIDEOS[k]), (kind, text)):
                member = tarfile.TarInfo(f"{name}.{suffix}"[:5000].replace("\0", ""))
                member.size = len(data)
                with contextlib.suppress(ValueError, UnicodeError):  # no name for a tar
                    tar.addfile(member, io.BytesIO(data))
    tars = bytearray(file.getvalue())
    if draw.random() < 0.3:
        for _ in range(draw.randint(1, 4)):
            tars[draw.randrange(len(tars))] = draw.randrange(256)
    return {"t/train-0.tar": bytes(tars)}, ["t", *draw.choice([[], ["--shards"]])]


def again(draw: random.Random) -> tuple[Files, list[str]]:
    """What an earlier call left behind, changed by a crash or a hand."""
    return {}, ["again", draw.choice(["done.jsonl", "report.json", "manifest.csv", "labels.txt"])]


def recipe(draw: random.Random) -> tuple[Files, list[str]]:
    text = (
        'data = "data"\nlr = 1e-3\nepochs = 3\ncrop_scales = [1.0, 0.5]\nflip = true\ninit = "x"\n'
    )
    if draw.random() < 0.5:
        return {"r.toml": mutated((text + '[about]\ndata = "K400"\n').encode(), draw)}, ["recipe"]
    lines = [f"{key} = {json.dumps(value)}" for key, value in tomllib.loads(text).items()]
    number = draw.randrange(len(lines))
    wrong = json.dumps(draw.choice([*WRONG[1:], *HOSTILE])).replace('"a": ', "a = ")
    lines[number] = lines[number].split("=")[0] + "= " + wrong
    return {"r.toml": "\n".join(lines).encode()}, ["recipe"]


KINDS: dict[str, Callable[[random.Random], tuple[Files, list[str]]]] = {
    **{"manifest": manifest, "labels of a manifest": manifest_labels, "training": training},
    **{"plain list": plain_list, "frames": frames, "names of classes": names, "kinetics": kinetics},
    **{"ssv2": ssv2, "ucf101": ucf101, "hmdb51": hmdb51, "npy": npy, "shards": shards},
    **{"earlier call": again, "recipe": recipe},
}
VIDEOS: list[bytes] = []


def make_videos(folder: Path) -> None:
    """Three videos under the names that the sources give them, and a folder of frames."""
    from PIL import Image

    for k in range(NUM_VIDEOS):
        path = folder / "videos" / f"{k}.mp4"
        write_video(path, render_clip("throw", seed=k, size=16, num_frames=4), fps=8)
        VIDEOS.append(path.read_bytes())
        for other in (
            f"named/v{k}_000000_000010.mp4",
            f"videos/class{k % 2}/{k}.mp4",
            f"videos/run/{k}.mp4",
        ):
            (folder / other).parent.mkdir(parents=True, exist_ok=True)
            (folder / other).write_bytes(path.read_bytes())
    (folder / "frames").mkdir()
    for k in range(1, 5):
        Image.new("RGB", (16, 16)).save(folder / "frames" / f"img_{k:05d}.jpg")


def act(arguments: list[str], draw: random.Random) -> int:
    """Run one command in the case's folder: its exit code."""
    if arguments == ["load"]:
        try:
            videos = load_videos("manifest.csv", None)
            videos.class_numbers()
            return 0
        except (VideoMAEError, OSError) as error:
            print("videomae:", ascii(str(error)), file=sys.stderr)
            return 1
    if arguments == ["recipe"]:
        if code := cli.main(["recipes", "r.toml"]):
            return code
        try:
            cli.parse([draw.choice(["pretrain", "finetune"]), "--recipe", "r.toml"])
            return 0
        except (VideoMAEError, OSError) as error:
            print("videomae:", ascii(str(error)), file=sys.stderr)
            return 1
    if arguments[0] == "again":
        prepared = ["prepare", "videos", "--folders", "*", "--output", "out", "--workers", "1"]
        cli.main(prepared)
        path = Path("out", arguments[1])
        path.write_bytes(mutated(path.read_bytes(), draw))
        return cli.main(prepared)
    return cli.main(["prepare", *arguments, "--output", "out", "--workers", "1"])


def run_case(seed: int, number: int, made: Path, folder: Path) -> tuple[str, str, float, int, str]:
    """Its kind, how it ended, seconds, peak bytes, and what it printed."""
    draw = random.Random(f"{seed} {number}")
    kind = list(KINDS)[number % len(KINDS)]
    shutil.copytree(made, folder / "case")
    files, arguments = KINDS[kind](draw)
    for name, data in files.items():
        path = folder / "case" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    before = around(folder)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(folder, arguments, draw)
    _, status, used = os.wait4(child, 0)
    seconds = time.monotonic() - start
    printed = (folder / "printed").read_text("utf-8", "surrogateescape")
    code = os.waitstatus_to_exitcode(status)
    ending = "read" if code == 0 else "explained" if code in (1, 2) else "other: "
    if code == -signal.SIGALRM:
        ending += "hang"
    elif code < 0:
        ending += f"signal {-code}"
    elif code == 99:
        ending += printed.strip().splitlines()[-1].split(":")[0]
    elif "Traceback" in printed:
        ending = "other: a printed traceback"
    elif code and "videomae:" not in printed and "╭" not in printed:
        ending = "other: no sentence"
    elif found := re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", printed):
        ending = f"other: {found[0]!a} printed"
    elif around(folder) - before:
        ending = f"other: wrote {min(around(folder) - before)}"
    return kind, ending, seconds, used.ru_maxrss * 1024, printed


def around(folder: Path) -> set[tuple[str, int]]:
    """The files beside the output, with their times of change."""
    out = folder / "case" / "out"
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(out))
    return {(str(path), path.stat().st_mtime_ns) for path in found if path.name != "printed"}


def _child(folder: Path, arguments: list[str], draw: random.Random) -> None:
    code = 99
    try:
        os.chdir(folder / "case")
        out = os.open(folder / "printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        code = act(arguments, draw)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    endings: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    slowest, largest = (0.0, 0), (0, 0)
    with tempfile.TemporaryDirectory() as top:
        made = Path(top, "made")
        make_videos(made)
        for number in range(asked.first, asked.first + asked.cases):
            with tempfile.TemporaryDirectory(dir=top) as folder:
                kind, ending, seconds, size, printed = run_case(
                    asked.seed, number, made, Path(folder)
                )
            endings[kind][ending.split(":")[0]] += 1
            slowest, largest = max(slowest, (seconds, number)), max(largest, (size, number))
            if ending.startswith("other"):
                where = [line.strip() for line in printed.splitlines() if "videomae/" in line][-1:]
                print(f"case {number} ({kind}): {ending} {''.join(where)}", flush=True)
            if asked.cases == 1:
                print(ending, printed, sep="\n")
    columns = ("read", "explained", "other")
    print(f"{'':22}", *(f"{name:>10}" for name in columns))
    total: Counter[str] = sum(endings.values(), Counter())
    for kind, found in [*endings.items(), ("all", total)]:
        print(f"{kind:22}", *(f"{found[name]:>10,}" for name in columns))
    print(
        f"slowest {slowest[0]:.1f} s (case {slowest[1]}), "
        f"peak {largest[0] / 1e6:,.0f} MB (case {largest[1]})"
    )
    return 1 if total["other"] else 0


if __name__ == "__main__":
    sys.exit(main())
