"""Faults at every place of a run and in every state of its folder, and what is left of it.

    python -m fuzz.fault_matrix --table             # all, and the table of docs/reliability.md
    python -m fuzz.fault_matrix --only "best/ SIGKILL"   # the cases that have these words

Each case is a small run in a process of its own that meets its fault at the place, and then the
same command once more, with `--resume` where it has it. What is there at the end is compared with
an undisturbed run: the list of files, models, the last checkpoint and predictions bit for bit, logs
and results by all but times. Linux; processes are forked from one that has imported everything.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import json
import os
import pickle
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import videomae.data.prepare
import videomae.evaluation.evaluate
import videomae.rendering.actions
import videomae.rendering.clips
import videomae.training.checkpoint
import videomae.training.finetune
import videomae.training.log
import videomae.training.loop
import videomae.training.pretrain
from videomae.commands import cli, runs, videos
from videomae.hub import atomic_path
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
NOBODY = 65534  # so that a folder without the right to write is one, even where root runs this
STRUCK = "struck"  # a file that says that the fault came
FAULTS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGINT twice", "disk full", "read-only")
SMALL = """
preset=tiny image_size=16 num_frames=4 frame_stride=2 batch_size=4 epochs=3 lr=0.1 device=cpu
dtype=float32 tracker=none log_every_steps=1 max_bad_fraction=0.2 seed=1
""".split()  # noqa: SIM905
COMMANDS = {
    "pretrain": [
        *("pretrain", "data={data}", "output={output}", *SMALL, "mask_ratio=0.5"),
        *("save_every_steps=3", "keep_every_epochs=1", "draw_every_epochs=1"),
    ],
    "finetune": [
        *("finetune", "data={data}", "output={output}", *SMALL, "eval_every_epochs=1"),
        *("save_every_steps=2", "drop_path_rate=0.2", "ema_decay=0.9", "mixup_alpha=0.8"),
    ],
    "evaluate": [
        *("evaluate", "--model", "{model}", "--data", "{data}", "--output", "{output}"),
        *("--batch-size", "2", "--device", "cpu", "--dtype", "float32", "--num-workers", "1"),
    ],
    "prepare": ["prepare", "{data}", "--output", "{output}", "--resize-short", "16"],
    "actions": [
        *("actions", "{output}", "--clips", "8", "--test-clips", "0"),
        *("--size", "16", "--workers", "1"),
    ],
}


@dataclass(frozen=True)
class Place:
    """A function before whose call number `count` the fault comes; `again` in a resumed run.

    by_writer: only the first of several processes comes there.
    """

    owner: Any
    name: str
    count: int = 1
    again: int = 1
    by_writer: bool = False
    fits: Callable[..., bool] = lambda *_, **__: True


def _named(name: str) -> Callable[..., bool]:
    return lambda *arguments, **_: any(getattr(a, "name", None) == name for a in arguments)


TRAINING = {
    "before the first step": Place(videomae.training.loop, "open_output"),
    "in a step": Place(videomae.training.loop, "clip_gradients", 4, 2),
    "in a checkpoint": Place(torch, "save", 2, 1, by_writer=True),
    "epoch's end": Place(videomae.training.pretrain, "draw", 2, 2),
    "final save": Place(VideoMAEImageProcessor, "save_pretrained", 1, 1, True, _named("model")),
}
PLACES = {
    "pretrain": TRAINING,
    "finetune": TRAINING
    | {
        "epoch's end": Place(videomae.training.finetune, "evaluate_model", 2, 2),
        "best/": Place(VideoMAEImageProcessor, "save_pretrained", 1, 1, True, _named("best")),
        "results": Place(videomae.evaluation.evaluate, "write_mistakes", by_writer=True),
    },
    "evaluate": {
        "in the videos": Place(videomae.evaluation.sharding, "views_of", 5),
        "results": Place(videomae.evaluation.evaluate, "write_mistakes", by_writer=True),
    },
    "prepare": {
        "in the videos": Place(videomae.data.checking, "open_video", 5),
        "small videos": Place(videomae.data.prepare, "resize_video", 5),
        "results": Place(videomae.data.prepare, "write_manifest"),
    },
    "actions": {"in the videos": Place(videomae.rendering.clips, "write_video", 4)},
}


@dataclass(frozen=True)
class Case:
    job: str
    place: str
    fault: str
    state: str = "fresh"
    processes: int = 1

    @property
    def struck(self) -> int:
        """The process that the fault meets: the first one, which writes, or the last."""
        writes = self.fault in ("disk full", "read-only") or PLACES[self.job][self.place].by_writer
        return 0 if writes else self.processes - 1

    def __str__(self) -> str:
        return f"{self.job} {self.place} {self.fault} {self.state} x{self.processes}"


def cases() -> list[Case]:
    return [
        Case(job, place, fault, state, processes)
        for job, places in PLACES.items()
        for place, fault in itertools.product(places, FAULTS)
        for state, processes in (("fresh", 1), ("resumed", 1), ("fresh", 2))
        if job in ("pretrain", "finetune") or (state, processes) == ("fresh", 1)
    ]


def strike(fault: str, output: Path, main: threading.Thread) -> None:
    """Let the fault happen, in the process itself."""
    if fault == "disk full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    elif fault == "read-only":
        for folder in [output, *(path for path in output.rglob("*") if path.is_dir())]:
            folder.chmod(0o555)
    elif fault == "SIGINT twice":
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(20):  # a second press ends this, where the first one has not
            threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(1)
    else:
        os.kill(os.getpid(), getattr(signal, fault))
        if threading.current_thread() is not main:
            time.sleep(0.5)  # the main thread answers


def lay(case: Case, output: Path) -> None:
    """Make the function at the place of a case strike when its time comes."""
    place, calls, main = PLACES[case.job][case.place], itertools.count(1), threading.main_thread()
    real = getattr(place.owner, place.name)
    number = place.again if case.state == "resumed" else place.count

    def struck(*arguments: Any, **named: Any) -> Any:
        if not place.fits(*arguments) or next(calls) != number:
            return real(*arguments, **named)
        (output.parent / STRUCK).touch()
        if place.name == "save" and case.fault not in ("disk full", "read-only"):
            whole = io.BytesIO()
            real(arguments[0], whole)
            arguments[1].write(whole.getvalue()[: whole.tell() // 2])
            arguments[1].flush()
            strike(case.fault, output, main)
            arguments[1].seek(0)
            arguments[1].truncate()
        else:
            strike(case.fault, output, main)
        return real(*arguments, **named)

    setattr(place.owner, place.name, struck)


def run(
    words: Sequence[str], log: Path, case: Case | None, output: Path, processes: int
) -> list[int]:
    """The exit codes of a command, run by forked processes; where one dies, so do the others."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    children = []
    reading, writing = os.pipe()  # and no file, which could not be written when the disk is full
    os.set_blocking(reading, False)
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            mine = case if case is not None and rank == case.struck else None
            _child(words, log, mine, output, rank, processes, port)
        children.append(child)
    os.close(writing)
    codes: dict[int, int] = {}
    until, said = time.monotonic() + 120, b""
    while len(codes) < len(children):
        with contextlib.suppress(BlockingIOError):
            said += os.read(reading, 1 << 20)
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
                if codes[child]:  # as torchrun does
                    until = min(until, time.monotonic() + 5)
        if time.monotonic() > until:
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(BlockingIOError):
        said += os.read(reading, 1 << 20)
    os.close(reading)
    log.write_bytes(said)
    return [codes[child] for child in children]


def _child(
    words: Sequence[str],
    log: Path,
    case: Case | None,
    output: Path,
    rank: int,
    world: int,
    port: int,
) -> None:
    """In a process of its own: run a command as the program does, and end."""
    code = 99
    try:
        sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
        torch.set_num_threads(1)  # here: its threads do not bear to be forked
        if os.getuid() == 0 and case is not None and case.fault == "read-only":
            os.setuid(NOBODY)
        if world > 1:
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            os.environ |= {key: str(value) for key, value in numbers.items()}
            os.environ["MASTER_ADDR"] = "127.0.0.1"
        if case is not None:
            lay(case, output)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = cli._as_program(list(words))
        if log.name.startswith("whole"):
            log.with_suffix(".modules").write_text("\n".join(sys.modules))
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def contents(output: Path) -> dict[str, Any]:
    """`_contents`, by a process of its own: torch does not bear to be used and then forked."""
    kept = output.with_name(f"{output.name}.contents")
    child = os.fork()
    if child == 0:
        kept.write_bytes(pickle.dumps(_contents(output)))
        os._exit(0)
    os.waitpid(child, 0)
    found: dict[str, Any] = pickle.loads(kept.read_bytes())
    return found


def _contents(output: Path) -> dict[str, Any]:
    """The files of a folder, with all of them that does not depend on the time or the path."""
    found: dict[str, Any] = {}
    # A stop leaves a checkpoint of its own among the last few.
    early = set(videomae.training.checkpoint.checkpoint_paths(output)[:-1])
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if path.is_dir() or path in early:
            continue
        if path.suffix in (".html", ".png", ".md", ".jpg") or path.name == "environment.json":
            found[name] = path.stat().st_size > 0
        elif path.name == "log.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            timed = ("seconds", "share", "_ms", "clips_per_second")
            found[name] = [{k: v for k, v in row.items() if not k.endswith(timed)} for row in rows]
        elif path.suffix == ".pt":
            found[name] = _flat(torch.load(path, weights_only=True))
        elif path.suffix in (".toml", ".json", ".csv"):
            found[name] = path.read_text().replace(str(output), "OUTPUT")
        elif path.name == "done.jsonl":
            found[name] = sorted(path.read_text().replace(str(output), "OUTPUT").split())
        else:
            found[name] = path.read_bytes()
    return found


def _flat(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _flat(inside) for key, inside in value.items() if key != "output"}
    return [_flat(inside) for inside in value] if isinstance(value, list | tuple) else value


def wrong(case: Case, first: list[int], second: list[int], logs: list[str], same: list[str]) -> str:
    """What is not as promised, or nothing."""
    fine = {0, 130} | ({-9} if case.fault == "SIGKILL" else set())
    fine |= {-15} if case.fault == "SIGTERM" else set()
    struck = first[case.struck]
    if case.fault in ("disk full", "read-only"):
        fine = {0, 1}
    faults = [
        f"exit {struck}" if struck not in fine else "",
        f"then exit {second}" if any(second) else "",
        "traceback" if "Traceback" in logs[0] and case.processes == 1 else "",
        "traceback after" if "Traceback" in logs[1] else "",
        f"differs: {', '.join(same[:5])}" if same else "",
    ]
    if case.fault in ("disk full", "read-only") and struck == 1:
        lines = [line for line in logs[0].splitlines() if "cannot write to" in line]
        faults.append("" if lines else "no sentence")
    return "; ".join(filter(None, faults))


def try_case(
    case: Case, base: Path, expected: dict[str, Any], values: dict[str, str]
) -> tuple[str, int]:
    """What is wrong with a case, or nothing, and the exit code of the process that was struck."""
    folder = base / str(case).replace(" ", "-").replace("/", "").replace("'", "")
    output = folder / "out"
    folder.mkdir()
    folder.chmod(0o777)
    words = [word.format(output=output, **values) for word in COMMANDS[case.job]]
    again = [*words, "--resume"] if case.job in ("pretrain", "finetune") else words
    logs = [folder / name for name in ("before.txt", "struck.txt", "after.txt")]
    if case.state == "resumed":
        early = Case(case.job, "in a step", "SIGKILL")
        run(words, logs[0], early, output, 1)
        (folder / STRUCK).unlink()
        if os.getuid() == 0 and case.fault == "read-only":
            for path in [output, *output.rglob("*")]:
                os.chown(path, NOBODY, -1)
    start = again if case.state == "resumed" else words
    first = run(start, logs[1], case, output, case.processes)
    if output.exists():
        for path in [output, *output.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
    second = run(again, logs[2], None, output, case.processes)
    texts = [path.read_text() if path.exists() else "" for path in logs[1:]]
    found = contents(output)
    different = [
        name
        for name in sorted(found.keys() | expected.keys())
        if name not in found or name not in expected or found[name] != expected[name]
    ]
    reason = wrong(case, first, second, texts, different)
    if not (folder / STRUCK).exists():
        reason = "the place was not reached"
    if not reason:
        shutil.rmtree(folder)
    return reason, first[case.struck]


def try_all(
    chosen: Sequence[Case],
    base: Path,
    expected: dict[tuple[str, int], dict[str, Any]],
    values: dict[str, str],
    workers: int,
) -> dict[Case, tuple[str, int]]:
    """What `try_case` says of each case, by so many processes at once."""
    children = []
    for number in range(workers):
        child = os.fork()
        children.append(child)
        if child == 0:
            results = {}
            for case in chosen[number::workers]:
                tried = try_case(case, base, expected[case.job, case.processes], values)
                results[str(case)] = tried
                if tried[0]:
                    print(f"{case}: {tried[0]}", flush=True)
                (base / f"results-{number}.json").write_text(json.dumps(results))
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    found: dict[str, tuple[str, int]] = {}
    for number in range(workers):
        found |= json.loads((base / f"results-{number}.json").read_text())
    return {case: found.get(str(case), ("not tried", 0)) for case in chosen}


def _short_page(output: Path) -> None:
    """In the place of a page with charts, which takes most of the time of so small a run."""
    with atomic_path(output / "index.html") as temporary:
        temporary.write_text("page")


def _no_chart(_: Any, __: Any, path: Path, **___: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("chart")


def make_data(folder: Path) -> None:
    """Eight videos to learn from and a file that is none, and five to test on."""
    for split, index in [("train", i) for i in range(8)] + [("val", i) for i in range(5)]:
        motion = ("throw", "walk")[index % 2]
        path = folder / split / motion / f"{index}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, render_clip(motion, seed=index, size=24, num_frames=8), fps=8)
    (folder / "train" / "throw" / "bad.mp4").write_bytes(b"not a video")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="words that the name of a case has, all of them")
    parser.add_argument("--output", type=Path, help="folder that stays, with what went wrong")
    parser.add_argument("--workers", type=int, default=2, help="cases at once")
    parser.add_argument("--table", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args(argv)
    for owner, name, short in (
        (videomae.training.log, "write_page", _short_page),
        (videomae.evaluation.evaluate, "write_page", _short_page),
        (videomae.evaluation.evaluate, "plot_confusion", _no_chart),
    ):
        setattr(owner, name, short)
    base = options.output or Path(tempfile.mkdtemp(prefix="faults-"))
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o777)
    began = time.monotonic()
    chosen = [c for c in cases() if all(word in str(c) for word in options.only.split())]
    child = os.fork()
    if child == 0:  # this process itself must start no thread of torch's
        make_data(base / "data")
        os._exit(0)
    os.waitpid(child, 0)
    values = {"data": str(base / "data"), "model": str(base / "whole-finetune-1" / "model")}
    expected: dict[tuple[str, int], dict[str, Any]] = {}
    needed = sorted({(c.job, c.processes) for c in chosen} | {("finetune", 1)})
    for job, processes in sorted(needed, key=lambda pair: pair != ("finetune", 1)):
        output = base / f"whole-{job}-{processes}"
        words = [word.format(output=output, **values) for word in COMMANDS[job]]
        codes = run(words, base / f"{output.name}.txt", None, output, processes)
        assert codes == [0] * processes, (base / f"{output.name}.txt").read_text()
        # What a command imports on its way: a fork then starts at once, and may run as nobody.
        for name in (base / f"{output.name}.modules").read_text().split():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        expected[job, processes] = contents(output)
    results = try_all(chosen, base, expected, values, min(options.workers, len(chosen)))
    counted = Counter(bool(reason) for reason, _ in results.values())
    minutes = (time.monotonic() - began) / 60
    print(f"{counted[False]} of {len(results)} as promised, in {minutes:.1f} minutes; see {base}")
    if options.table:
        write_table(results)
    return 1 if counted[True] else 0


def rows(results: dict[Case, tuple[str, int]]) -> Iterator[str]:
    """The table: a row per job, place and state, a column per fault."""
    yield f"| command | killed or refused | state | {' | '.join(FAULTS)} |"
    yield "|" + "---|" * (3 + len(FAULTS))
    groups: dict[tuple[str, str, str], dict[str, str]] = {}
    for case, (reason, code) in results.items():
        state = case.state if case.processes == 1 else f"{case.processes} processes"
        groups.setdefault((case.job, case.place, state), {})[case.fault] = reason or f"{code}, same"
    for key, found in groups.items():
        yield f"| {' | '.join(key)} | {' | '.join(found.get(f, '') for f in FAULTS)} |"


def write_table(results: dict[Case, tuple[str, int]]) -> None:
    """Put the table in the place of the one on the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split("<!-- table -->\n", 1)
    after = rest.split("<!-- end of table -->", 1)[1]
    table = "\n".join(rows(results))
    text = f"{before}<!-- table -->\n\n{table}\n\n<!-- end of table -->{after}"
    PAGE.write_text(text, encoding="utf-8")


# So that a fork has everything.
_READY = (runs, videos)

if __name__ == "__main__":
    sys.exit(main())
