"""Runs what a plan still lacks: processes of one thread each, a small JSON per finished point.

A point that was stopped goes on from its checkpoint; a finished one is not run again as long as its
settings stay the same.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.compare.timing import about_machine
from reproduction.baselines import copy_loss
from reproduction.plan import Finetuning, Plan, Point, Pretraining
from videomae.data.motion import render_dataset
from videomae.errors import VideoMAEError, WeightsError
from videomae.evaluation.probe import linear_probe
from videomae.hub import read_json, write_json
from videomae.report.record import read_run, thin
from videomae.settings import LinearProbeSettings, MotionSettings, to_toml
from videomae.training.checkpoint import checkpoint_paths
from videomae.training.finetune import finetune
from videomae.training.pretrain import pretrain

# One thread each, as two processes then keep two cores busy without waiting for each other; and
# glibc keeps large blocks instead of giving them back at each step: 0.58 s in place of 0.81 s.
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
_CURVE_POINTS = 60
_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Progress:
    """How far a plan is. work: what points cost, in clips, of which those that run count as half
    done; running: what is at work, in words.
    """

    points: int
    points_done: int
    work: int
    work_done: int
    running: tuple[str, ...]


def run_plan(
    plan: Plan,
    *,
    folder: Path,
    results_dir: Path,
    workers: int = 2,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, str]:
    """Run the points that `results_dir` lacks, and return those that failed, with the reason.

    `folder` holds the rendered clips and the runs, `results_dir` gets `<name>.json` for each point
    and a picture of reconstructions for each pre-training. What starts from a failed point is not
    run; all others are. Ctrl-C and SIGTERM stop at checkpoints. Starts fresh interpreters, so a
    script calls this under `if __name__ == "__main__"`.
    """
    waiting = missing(plan, folder, results_dir)
    failed: dict[str, str] = {}
    running: dict[Point, Any] = {}
    work = sum(map(work_of, plan.points))

    def tell(*also: str) -> None:
        if on_progress:
            left = [*waiting, *running]
            done = work - sum(map(work_of, waiting)) - sum(map(work_of, running)) // 2
            names = (*(point.name for point in running), *also)
            on_progress(Progress(len(plan.points), len(plan.points) - len(left), work, done, names))

    with _environment(_WORKER_ENVIRONMENT), _sigterm_as_interrupt():
        try:
            while waiting or running:
                ready = [point for point in waiting if _is_ready(plan, point, folder, results_dir)]
                for point in ready[: workers - len(running)]:
                    tell(f"clips for {point.name}")
                    render(plan, point, folder)
                    target = get_context("spawn").Process(
                        target=_work, args=(plan, point, folder, results_dir), name=point.name
                    )
                    target.start()
                    running[point] = target
                    waiting.remove(point)
                tell()
                if not running:  # the others start from points that failed
                    failed |= {point.name: "what it starts from failed" for point in waiting}
                    break
                next(iter(running.values())).join(_LOOK_SECONDS / len(running))
                for point, process in list(running.items()):
                    if process.exitcode is not None:
                        del running[point]
                        if process.exitcode:
                            log = _work_dir(plan, point, folder) / "output.txt"
                            failed[point.name] = f"exit code {process.exitcode}, see {log}"
        finally:
            for process in running.values():  # they save a checkpoint, then stop
                process.terminate()
            for process in running.values():
                process.join()
    tell()
    return failed


def work_of(point: Point) -> int:
    """What a point costs, roughly, in clips of a fine-tuning; half as much when pre-training."""
    if isinstance(point, Pretraining):
        return point.epochs * point.clips * point.num_repeats // 2
    return point.epochs * point.labels * len(point.seeds)


def missing(plan: Plan, folder: Path, results_dir: Path) -> list[Point]:
    """The points without results, and the finished pre-trainings that they need and that are gone.

    Figures travel with a clone, models do not.
    """
    left = {point for point in plan.points if not is_done(plan, point, results_dir)}
    needed = {point.start for point in left if isinstance(point, Finetuning)}
    return [
        point
        for point in plan.points
        if point in left or (point in needed and not _has_model(plan, point, folder))
    ]


def is_done(plan: Plan, point: Point, results_dir: Path) -> bool:
    """Whether the results hold this very point, with the settings it has now."""
    try:
        found = read_json(results_dir / f"{point.name}.json")
    except WeightsError:  # not there
        return False
    return bool(found.get("point") == described(plan, point))


def described(plan: Plan, point: Point) -> dict[str, Any]:
    """All that decides the outcome of a point, as JSON has it."""
    values = {"kind": type(point).__name__.lower(), **dataclasses.asdict(point)}
    text = json.dumps(values | {"scale": dataclasses.asdict(plan.scale)})
    found: dict[str, Any] = json.loads(text)
    return found


def render(plan: Plan, point: Point, folder: Path, *, workers: int = 2) -> None:
    """Make the clips that a point reads, where they are not there yet."""
    for clips in Plan((point,), plan.scale).clips():
        render_dataset(
            MotionSettings(
                folder / "data" / clips.name,
                clips=clips.count,
                seed=clips.seed,
                size=clips.size,
                num_frames=plan.scale.video_frames,
                domain=clips.domain,
                workers=workers,
            )
        )


def run_point(plan: Plan, point: Point, folder: Path, results_dir: Path) -> None:
    """Run one point, its clips being there, and write its results."""
    work_dir = _work_dir(plan, point, folder)
    if isinstance(point, Pretraining):
        figures = _run_pretraining(plan, point, folder, work_dir, results_dir)
    else:
        figures = _run_finetuning(plan, point, folder, work_dir)
    write_json(
        results_dir / f"{point.name}.json",
        {"point": described(plan, point), **figures, "machine": about_machine(torch.device("cpu"))},
    )
    if isinstance(point, Finetuning):
        shutil.rmtree(work_dir, ignore_errors=True)  # the models are not needed again


def _run_pretraining(
    plan: Plan, point: Pretraining, folder: Path, work_dir: Path, results_dir: Path
) -> dict[str, Any]:
    settings = dataclasses.replace(point.settings(plan.scale, folder), output=work_dir)
    _timed(work_dir, partial(pretrain, settings))
    shutil.rmtree(work_dir / "probes", ignore_errors=True)
    figures = _figures(work_dir)
    steps_per_epoch = figures["steps"] // point.epochs
    kept = {int(path.name[-4:]): path for path in work_dir.glob("epoch_*") if path.is_dir()}
    kept[point.epochs] = work_dir / "model"
    probes = [
        {"step": epoch * steps_per_epoch, **_probe(plan, point, folder, kept[epoch])}
        for epoch in sorted(kept)
    ]
    picture = max((work_dir / "reconstructions").glob("epoch_*.png"))
    results_dir.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture, results_dir / f"{point.name}.png")
    copied = copy_loss(point, plan.scale)
    return {
        **figures,
        "copy_loss": None if copied is None else round(copied, 4),
        "probes": probes,
        "settings": to_toml(settings),
    }


def _probe(plan: Plan, point: Pretraining, folder: Path, model: Path) -> dict[str, float]:
    scale, data = plan.scale, folder / "data"
    settings = LinearProbeSettings(
        data=data / scale.probed(point).name,
        eval_data=data / scale.tested(point).name,
        model=str(model),
        frame_stride=point.frame_stride,
        output=model / "probe",
        device="cpu",
        dtype="float32",
        num_workers=1,
    )
    result = linear_probe(settings)
    return {"linear": round(result.linear.top1, 2), "knn": round(result.knn.top1, 2)}


def _run_finetuning(plan: Plan, point: Finetuning, folder: Path, work_dir: Path) -> dict[str, Any]:
    init = None
    if point.start is not None:
        init = _work_dir(plan, point.start, folder) / "model"
    shared = point.settings(plan.scale, folder, init=init)
    runs = []
    for seed in point.seeds:
        output = work_dir / f"seed-{seed}"
        finished = output / "finished.json"
        if not finished.exists():
            settings = dataclasses.replace(shared, seed=seed, output=output)
            evaluation = _timed(output, partial(finetune, settings))
            assert evaluation is not None
            figures = {"seed": seed, "top1": evaluation.top1, "top5": evaluation.top5}
            write_json(finished, figures | _figures(output))
        runs.append(read_json(finished))
    return {"runs": runs, "settings": to_toml(dataclasses.replace(shared, output=work_dir))}


def _figures(output: Path) -> dict[str, Any]:
    """What the log of a run says: the loss over the steps, and what a step costs.

    CPU time is what a step costs on a machine that has other work too; clips per second are what
    was seen on the clock, the median over the run.
    """
    run = read_run(output)
    assert run.num_steps is not None
    steps, losses = thin(*run.curve("loss"), most=_CURVE_POINTS)
    rows = [json.loads(line) for line in (output / "times.jsonl").read_text().splitlines()]
    return {
        "steps": run.num_steps,
        "cpu_seconds": round(
            run.num_steps * sum(row["cpu"] for row in rows) / sum(row["steps"] for row in rows), 1
        ),
        "clips_per_second": round(run.recent("clips_per_second") or 0.0, 1),
        "curve": {
            "step": [round(step) for step in steps],
            "loss": [round(loss, 4) for loss in losses],
        },
    }


def _timed(output: Path, run: Callable[[], Any]) -> Any:
    """Run, and note how many steps took how much CPU time, also where the run is stopped."""
    first, cpu = _last_step(output), time.process_time()
    try:
        return run()
    finally:
        done = _last_step(output) - first
        if done:
            with (output / "times.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"steps": done, "cpu": time.process_time() - cpu}) + "\n")


def _last_step(output: Path) -> int:
    return max((int(path.stem.split("_")[1]) for path in checkpoint_paths(output)), default=0)


def _is_ready(plan: Plan, point: Point, folder: Path, results_dir: Path) -> bool:
    """Whether what a point starts from is there."""
    if isinstance(point, Pretraining) or point.start is None:
        return True
    return is_done(plan, point.start, results_dir) and _has_model(plan, point.start, folder)


def _has_model(plan: Plan, point: Point, folder: Path) -> bool:
    return (_work_dir(plan, point, folder) / "model").is_dir()


def _work_dir(plan: Plan, point: Point, folder: Path) -> Path:
    """A folder of its own for each name and settings, so that no run goes on from another's."""
    text = json.dumps(described(plan, point), sort_keys=True)
    return folder / "runs" / f"{point.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _work(plan: Plan, point: Point, folder: Path, results_dir: Path) -> None:
    """What a process of its own does: one point, all that it says going into a file."""
    work_dir = _work_dir(plan, point, folder)
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / "output.txt").open("a", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        torch.set_num_threads(1)
        try:
            run_point(plan, point, folder, results_dir)
        except KeyboardInterrupt:
            sys.exit(130)
        except (VideoMAEError, OSError, ValueError, RuntimeError, AssertionError):
            traceback.print_exc()
            sys.exit(1)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started meanwhile; those that are set stay."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does: no process goes on by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
