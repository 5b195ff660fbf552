"""Cases made from a seed, each tried in a process of its own with limits on time and memory.

A case follows from the seed and its number alone, so that one that failed can be made again. What
came of each is a line of `results.jsonl` in the output folder: a campaign that was stopped goes on
where it was. The files of a case that failed are kept in `failures/NUMBER` beside it, with what its
process has printed: for a crash or a hang, where each thread was.

    read        the case was taken
    explained   one of our errors was raised (VideoMAEError)
    other       any other exception, also MemoryError
    crash       a signal ended the process
    hang        the limit of wall-clock time ended it

The table's seconds are those of CPU time, which do not depend on what else the machine does.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.errors import VideoMAEError

OUTCOMES = ("read", "explained", "other", "crash", "hang")
FAILURES = ("other", "crash", "hang")

# Writes the files of a case into a folder; gives the kind of the case, a row of the table.
Make = Callable[[random.Random, Path], str]
# Tries what lies in the folder; what it returns is "read", and noted.
Try = Callable[[Path], Any]


@dataclass
class _Running:
    """A case in its process."""

    number: int
    kind: str
    folder: Path
    pid: int
    exit: int  # a file descriptor that can be read once the process has ended
    answer: Path
    start: float


def arguments(description: str, *, cases: int, seconds: float, megabytes: int) -> Any:
    """A parser of the options of every campaign, with its own defaults; others can be added."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of results and failures")
    parser.add_argument("--cases", type=int, default=cases)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=seconds, help="wall clock of one case")
    parser.add_argument(
        "--megabytes", type=int, default=megabytes, help="memory a case may take beyond the start"
    )
    parser.add_argument("--minutes", type=float, help="start no case after these")
    parser.add_argument("--only", type=int, help="make and try this case alone, in this process")
    return parser


def campaign(make: Make, attempt: Try, options: Any) -> int:
    """Try all cases that have no result yet, print the table; 1 if any has failed, else 0."""
    output: Path = options.output
    (output / "failures").mkdir(parents=True, exist_ok=True)
    if options.only is not None:
        folder = output / "only"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        print(folder, make(_generator(options, options.only), folder))
        print(attempt(folder))
        return 0
    results_path = output / "results.jsonl"
    done = _read_results(results_path)
    left = [number for number in range(options.cases) if number not in done]
    end = time.monotonic() + 60 * (options.minutes or 1e9)
    running: list[_Running] = []
    with tempfile.TemporaryDirectory() as scratch, results_path.open("a") as results:
        while running or (left and time.monotonic() < end):
            while left and len(running) < options.processes and time.monotonic() < end:
                number = left.pop(0)
                folder = Path(scratch, str(number))
                folder.mkdir()
                kind = make(_generator(options, number), folder)
                running.append(_start(number, kind, folder, attempt, options))
            first_end = min(case.start for case in running) + options.seconds
            wait = max(0.0, first_end - time.monotonic())
            ended, _, _ = select.select([case.exit for case in running], [], [], wait)
            latest = time.monotonic() - options.seconds
            for case in [each for each in running if each.exit in ended or each.start <= latest]:
                running.remove(case)
                found = _end(case, is_late=case.exit not in ended)
                results.write(json.dumps(found) + "\n")
                results.flush()
                done[case.number] = found
                if found["outcome"] in FAILURES:
                    kept = output / "failures" / str(case.number)
                    shutil.copytree(case.folder, kept, dirs_exist_ok=True)
                    shutil.copy(case.folder.with_suffix(".txt"), kept / "said.txt")
                    print(f"{kept}: {found['outcome']}: {found['text'][-300:]}", file=sys.stderr)
                shutil.rmtree(case.folder)
                case.folder.with_suffix(".txt").unlink()
    print(table(list(done.values())))
    return int(any(found["outcome"] in FAILURES for found in done.values()))


def table(results: list[dict[str, Any]]) -> str:
    """The outcomes by kind of case, in Markdown, with the most time and memory that one took."""
    rows = [["kind", "cases", *OUTCOMES, "most CPU s", "most MB"]]
    kinds = sorted({found["kind"] for found in results})
    for kind in [*kinds, "all"]:
        mine = [found for found in results if kind in (found["kind"], "all")]
        counts = Counter(found["outcome"] for found in mine)
        rows.append(
            [kind, f"{len(mine):,}", *(f"{counts[outcome]:,}" for outcome in OUTCOMES)]
            + [f"{max((found[name] for found in mine), default=0):,.1f}" for name in _MOST]
        )
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


_MOST = ("seconds", "megabytes")


def _generator(options: Any, number: int) -> random.Random:
    return random.Random(f"{options.seed} {number}")


def _read_results(path: Path) -> dict[int, dict[str, Any]]:
    if not path.exists():
        return {}
    lines = path.read_text().splitlines()
    return {found["number"]: found for found in map(json.loads, lines)}


def _start(number: int, kind: str, folder: Path, attempt: Try, options: Any) -> _Running:
    """Fork a process for a case: all is imported already, and its memory begins with ours."""
    answer = folder.with_suffix(".json")
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)  # so that processes of its own end with it
            with folder.with_suffix(".txt").open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            faulthandler.enable()  # where all threads are, when a signal ends it
            room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit = room + options.megabytes * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            answer.write_text(json.dumps(_outcome(attempt, folder)))
            code = 0
        finally:
            os._exit(code)
    return _Running(number, kind, folder, pid, os.pidfd_open(pid), answer, time.monotonic())


def _outcome(attempt: Try, folder: Path) -> tuple[str, str]:
    try:
        return "read", str(attempt(folder))
    except VideoMAEError as error:
        return "explained", f"{type(error).__name__}: {error}"
    except BaseException:
        return "other", traceback.format_exc(limit=-4)


def _end(case: _Running, *, is_late: bool) -> dict[str, Any]:
    """What came of a case whose process has ended, or is ended here."""
    if is_late:
        os.kill(case.pid, signal.SIGABRT)
        select.select([case.exit], [], [], 5)  # while it writes down where it is
        os.kill(case.pid, signal.SIGKILL)
    _, status, used = os.wait4(case.pid, 0)
    seconds = used.ru_utime + used.ru_stime
    os.close(case.exit)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(case.pid, signal.SIGKILL)  # what it has left behind
    outcome, text = "crash", f"status {os.waitstatus_to_exitcode(status)}"
    if is_late:
        outcome, text = "hang", f"ended after {time.monotonic() - case.start:.0f} s"
    elif status == 0:
        outcome, text = json.loads(case.answer.read_text())
    case.answer.unlink(missing_ok=True)
    return {
        "number": case.number,
        "kind": case.kind,
        "outcome": outcome,
        "text": text,
        "seconds": round(seconds, 2),
        "megabytes": round(used.ru_maxrss / 1024, 1),
    }
