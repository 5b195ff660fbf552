"""Text and bytes for every parser written in Python, guided by coverage.

    pip install atheris                                    # wheels for Linux; Python 3.11 to 3.13
    python -m fuzz.parsers --output /tmp/parsers           # one minute each
    python -m fuzz.parsers --output /tmp/parsers lists manifest --minutes 30

A parser may take what it is given, or raise one of our errors (VideoMAEError). Any other exception
is a failure, once for each line that raises it; so is an input of more than 20 seconds or 2 GB.
Inputs that failed are kept in `failures`, and those that reach new code in `corpus/NAME`, where the
next call goes on. To try a file again: `--again FILE NAME`.
"""

import argparse
import contextlib
import functools
import json
import random
import re
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from starlette.testclient import TestClient

try:
    import atheris
except ImportError:
    atheris = None
# A process that fuzzes watches which lines of the package are reached.
is_inside = atheris and "--inside" in sys.argv
with atheris.instrument_imports(["videomae"]) if is_inside else contextlib.nullcontext():
    from videomae.config import VideoMAEConfig
    from videomae.data.checking import Work
    from videomae.data.lists import named, read_names, split_lines, understood
    from videomae.data.manifest import read_manifest
    from videomae.data.sources import read_source
    from videomae.errors import VideoError, VideoMAEError
    from videomae.processing.processors import VideoMAEImageProcessor
    from videomae.recipe import load_recipe
    from videomae.report.record import read_run
    from videomae.serving.app import make_app
    from videomae.serving.service import Metrics
    from videomae.serving.settings import ServeSettings
    from videomae.settings import FinetuneSettings, PrepareSettings, PretrainSettings
    from videomae.video.container import VideoBytes
    from videomae.video.limits import VideoLimits
    from videomae.weights.checkpoint import read_checkpoint

# Takes the input and an empty folder.
Target = Callable[[bytes, Path], object]


def _file(name: str, read: Callable[[Path], object], data: bytes, folder: Path) -> object:
    path = folder / name
    path.write_bytes(data)
    return read(path)


def _lines(data: bytes, _: Path) -> object:
    layouts = ("paths", "v1", "v2-pretrain", "v2-finetune", "mmaction2", "mmaction2-offset")
    text = data[1:].decode("utf-8", "surrogateescape")
    lines = split_lines(text, "x.csv")
    return named(understood(lines, layouts[(data or b"\0")[0] % len(layouts)]))


def _source(data: bytes, folder: Path) -> object:
    suffixes = (".csv", ".txt", ".json", ".npy", ".tar")
    source = folder / f"train{suffixes[(data or b'0')[0] % len(suffixes)]}"
    source.write_bytes(data[1:])
    return read_source(PrepareSettings(source, folder / "out"))


def _names(data: bytes, folder: Path) -> object:
    return _file("x.json" if data[:1] in (b"[", b"{") else "x.txt", read_names, data, folder)


def _container(data: bytes, folder: Path) -> object:
    file = VideoBytes(folder / "x.mp4", VideoLimits(), data)
    file.check_index()
    return file.is_cut_off(), file._why_no_video("no")


def _run(data: bytes, folder: Path) -> object:
    names = ("settings.toml", "log.jsonl", "results.json", "run.json", "mistakes.json")
    for name, part in zip(names, data.split(b"\0"), strict=False):
        (folder / name).write_bytes(part)
    record = read_run(folder)
    return record.title, record.last, record.num_steps, record.loss, record.curve("loss")


def _journal(path: Path) -> object:
    return Work(path, workers=1, on_progress=None)


@functools.cache
def _client() -> Any:
    """A service whose model answers nothing: what is tried is all before it."""
    service = MagicMock(settings=ServeSettings(page=False), metrics=Metrics(), is_stopping=False)
    for name in ("classify", "embed", "reconstruct"):
        getattr(service, name).side_effect = VideoError("no video")
    return TestClient(make_app(service), raise_server_exceptions=True)


def _http(data: bytes, _: Path) -> object:
    head, _gap, body = data.partition(b"\n")
    kind = head.decode("latin-1").strip("\r\0")
    kind = re.sub(r"[^\x20-\x7e]", "", kind) or "multipart/form-data; boundary=x"
    paths = ("classify", "embed", "reconstruct")
    answer = _client().post(
        f"/v1/{paths[len(body) % 3]}", content=body, headers={"content-type": kind}
    )
    assert 400 <= answer.status_code < 500, answer.text
    assert set(json.loads(answer.content)) == {"title", "status", "detail"}
    return answer


_FORM = (
    b"multipart/form-data; boundary=x\n--x\r\n"
    b'Content-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nabc\r\n--x\r\n'
    b'Content-Disposition: form-data; name="top_k"\r\n\r\n3\r\n--x--\r\n'
)
_INDEX = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2\0\0\0\x54moov\0\0\0\x18stsz\0\0\0\0\0\0\0\0\0\0\0\2"
_MANIFEST = b"path,label,split,start_seconds,end_seconds\nx.mp4,a|b,train,1,2.5\n"
_KINETICS = b"label,youtube_id,time_start,time_end,split\na,b,0,1,train\n"
_SSV2 = b'[{"id": "1", "template": "Holding [something]"}, {"id": "2"}]'


def _header(fields: object) -> bytes:
    text = json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


# name -> what it calls, and inputs to begin with
TARGETS: dict[str, tuple[Target, list[bytes]]] = {
    "lines": (_lines, [b"1a b.mp4 0\nc.mp4 1\n", b'2"x y" 1 58\n', b"4x::y.mp4 0 5 3\n"]),
    "lists": (
        _source,
        [b"1a/x.mp4 3\nb y.mp4 0", b"2" + _SSV2, b"0" + _KINETICS, b"0" + _MANIFEST],
    ),
    "manifest": (
        functools.partial(_file, "manifest.csv", read_manifest),
        [_MANIFEST, b"path,first_frame,num_frames,offset,num_bytes\nx,0,5,,\n"],
    ),
    "names": (
        _names,
        [b"1 Apply\n2 Archery\n", b'{"a": "0", "b": 1}', b'["a", "b"]'],
    ),
    "recipe": (
        functools.partial(_file, "x.toml", lambda path: load_recipe(path, PretrainSettings)),
        [b'lr = 1e-3\nmask = "tube"\nepochs = 3\n[about]\nx = 1\n'],
    ),
    "finetune recipe": (
        functools.partial(_file, "x.toml", lambda path: load_recipe(path, FinetuneSettings)),
        [b'lr = 1e-3\nmixup_alpha = 0.8\nbetas = [0.9, 0.95]\nfps = "own"\n'],
    ),
    "config": (
        functools.partial(_file, "config.json", VideoMAEConfig.from_json_file),
        [b'{"hidden_size": 192, "image_size": 64, "id2label": {"0": "a"}, "num_frames": 16}'],
    ),
    "processor": (
        functools.partial(_file, "preprocessor_config.json", VideoMAEImageProcessor.from_json_file),
        [b'{"size": {"shortest_edge": 64}, "image_mean": [0.5, 0.5, 0.5], "resample": 2}'],
    ),
    "weights": (
        functools.partial(_file, "model.safetensors", read_checkpoint),
        [_header({"norm.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})],
    ),
    "weights index": (
        functools.partial(_file, "model.safetensors.index.json", read_checkpoint),
        [b'{"metadata": {}, "weight_map": {"norm.weight": "model-1.safetensors"}}'],
    ),
    "journal": (
        functools.partial(_file, "journal.jsonl", _journal),
        [b'["a.mp4", [1, 2], {"x": 1}]\n'],
    ),
    "run": (
        _run,
        [b'epochs = 1\0{"step": 1, "loss": 2.0, "lr": 0.1}\n\0{"score": 1, "per_class": {"a": 1}}'],
    ),
    "container": (_container, [_INDEX, b"GIF89a;", b"RIFF\0\0\0\0AVI ", b"\x1aE\xdf\xa3\x80"]),
    "http": (_http, [_FORM, b"application/x-www-form-urlencoded\nfile=a&top_k=2"]),
}


def once(target: Target, data: bytes) -> str | None:
    """Try one input: None if it was taken or refused as it should, else where it failed."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        try:
            target(data, Path(folder))
        except VideoMAEError:
            pass
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
    return None


_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # so that no disk is worn


def fuzz(name: str, output: Path, seconds: int, seed: int) -> None:
    """Try one parser for so many seconds; does not return."""
    target, examples = TARGETS[name]
    corpus, failures = output / "corpus" / name, output / "failures"
    for folder in (corpus, failures):
        folder.mkdir(parents=True, exist_ok=True)
    for number, example in enumerate(examples):
        (corpus / f"example{number}").write_bytes(example)
    seen: set[str] = set()

    def one_input(data: bytes) -> None:
        failure = once(target, data)
        if failure and failure not in seen:
            seen.add(failure)
            kept = failures / f"{name} {random.Random(failure).randrange(10**9)}"
            kept.write_bytes(data)
            print(f"FAILED {failure}: {kept}", file=sys.stderr, flush=True)

    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"]
    places = [f"-artifact_prefix={failures}/{name} ", f"-seed={seed}", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *places], one_input)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"all, or some of: {', '.join(TARGETS)}")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1, help="for each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", type=Path, help="try this input, and show its traceback")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or list(TARGETS)
    if options.again:
        with tempfile.TemporaryDirectory() as folder:
            print(TARGETS[names[0]][0](options.again.read_bytes(), Path(folder)))
        return 0
    if atheris is None:
        parser.error("needs atheris: pip install atheris")
    seconds = round(60 * options.minutes)
    if options.inside:
        fuzz(names[0], options.output, seconds, options.seed)
    print("| parser | inputs | places reached | failures |\n| --- | ---: | ---: | ---: |")
    failed = 0
    for name in names:
        limits = ["--minutes", str(options.minutes), "--seed", str(options.seed)]
        command = [sys.executable, "-m", "fuzz.parsers", name, "--inside", *limits]
        result = subprocess.run(
            [*command, "--output", options.output],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = result.stderr
        failures = re.findall("^(?:FAILED|==.*ERROR:) .*", said, re.MULTILINE)
        inputs = [*re.findall(r"^#(\d+)", said, re.MULTILINE), "0"]
        reached = re.findall(r"cov: (\d+)", said)[-1:] or ["0"]
        failed += len(failures)
        counts = f"{max(map(int, inputs)):,} | {reached[0]} | {len(failures)}"
        print(f"| {name} | {counts} |", flush=True)
        for failure in failures:
            print(failure, file=sys.stderr)
        if result.returncode and not failures:
            print(said[-2000:], file=sys.stderr)
            failed += 1
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
