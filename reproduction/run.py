"""Run the experiments of a plan that have no results yet, in processes of one thread each.

An experiment that was stopped goes on from its checkpoint; a finished one is not run again as long
as its settings stay the same.
"""

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reproduction.baselines import copy_loss
from reproduction.plan import Experiment, Finetuning, Plan, Pretraining
from videomae.commands.timing import about_machine
from videomae.errors import WeightsError
from videomae.evaluation.probe import linear_probe
from videomae.hub import read_json, write_json
from videomae.recipe import to_toml
from videomae.rendering.motion import render_dataset
from videomae.report.record import read_run, thin
from videomae.settings import LinearProbeSettings
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
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Study:
    """A plan, and where its files are.

    `folder` holds the rendered clips and the runs; `results_dir` gets `<name>.json` for each
    experiment, and a picture of reconstructions for each pre-training.
    """

    plan: Plan
    folder: Path
    results_dir: Path

    def run(
        self, *, workers: int = 2, on_progress: Callable[[int, str], None] | None = None
    ) -> dict[str, str]:
        """Run the experiments that lack results, and return those that failed, with the reason.

        An experiment that starts from a failed one is not run; all others are. An interrupt stops
        the processes at checkpoints. `on_progress` gets the work done, in the unit of `work_of` and
        half of it for an experiment that runs, and a description.
        """
        waiting, failed = self.missing(), dict[str, str]()
        running: dict[Experiment, subprocess.Popen[bytes]] = {}

        def report(*also: str) -> None:
            if on_progress:
                left = sum(map(work_of, waiting)) + sum(map(work_of, running)) // 2
                done = len(self.plan.experiments) - len(waiting) - len(running)
                names = ", ".join([*(each.name for each in running), *also])
                on_progress(
                    sum(map(work_of, self.plan.experiments)) - left,
                    f"{done} of {len(self.plan.experiments)} experiments: {names}",
                )

        try:
            while waiting or running:
                ready = [each for each in waiting if self.can_start(each)]
                for experiment in ready[: workers - len(running)]:
                    report(f"clips for {experiment.name}")
                    for clips in self.plan.scale.clips(experiment, self.folder).values():
                        render_dataset(clips)
                    running[experiment] = self._start(experiment)
                    waiting.remove(experiment)
                report()
                if not running:
                    failed |= {each.name: "the one it starts from failed" for each in waiting}
                    break
                time.sleep(_LOOK_SECONDS)
                for experiment, process in list(running.items()):
                    if process.poll() is not None:
                        del running[experiment]
                        if process.returncode:
                            log = self.work_dir(experiment) / "output.txt"
                            failed[experiment.name] = f"exit code {process.returncode}, see {log}"
        finally:
            for process in running.values():  # they save a checkpoint, then stop
                process.terminate()
            for process in running.values():
                process.wait()
        report()
        return failed

    def missing(self) -> list[Experiment]:
        """The experiments without results, and the pre-trainings that these need once more.

        Results travel with a clone, models do not.
        """
        left = {each for each in self.plan.experiments if not self.is_done(each)}
        needed = {each.start for each in left if isinstance(each, Finetuning) and each.start}
        needed = {start for start in needed if not self._model_dir(start).is_dir()}
        return [each for each in self.plan.experiments if each in left | needed]

    def is_done(self, experiment: Experiment) -> bool:
        """Whether there are results of this very experiment, with the settings it has now."""
        try:
            found = read_json(self.result_path(experiment))
        except WeightsError:  # not there
            return False
        return bool(found.get("experiment") == self.described(experiment))

    def can_start(self, experiment: Experiment) -> bool:
        """Whether the pre-training that an experiment starts from is there."""
        start = experiment.start if isinstance(experiment, Finetuning) else None
        return start is None or (self.is_done(start) and self._model_dir(start).is_dir())

    def described(self, experiment: Experiment) -> dict[str, Any]:
        """All that decides the result of an experiment, as JSON has it."""
        values = {"kind": type(experiment).__name__.lower(), **dataclasses.asdict(experiment)}
        text = json.dumps(values | {"scale": dataclasses.asdict(self.plan.scale)})
        found: dict[str, Any] = json.loads(text)
        return found

    def result_path(self, experiment: Experiment) -> Path:
        return self.results_dir / f"{experiment.name}.json"

    def work_dir(self, experiment: Experiment) -> Path:
        """A folder of its own for each name and settings, so that no run continues another."""
        text = json.dumps(self.described(experiment), sort_keys=True)
        name = f"{experiment.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return self.folder / "runs" / name

    def _model_dir(self, start: Pretraining) -> Path:
        return self.work_dir(start) / "model"

    def _start(self, experiment: Experiment) -> "subprocess.Popen[bytes]":
        """Run an experiment in a process of its own, whose output goes into a file."""
        work_dir = self.work_dir(experiment)
        work_dir.mkdir(parents=True, exist_ok=True)
        environment = {**_WORKER_ENVIRONMENT, **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with (work_dir / "output.txt").open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "reproduction.run"],
                stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment,
            )  # fmt: skip
        assert process.stdin
        with process.stdin as pipe:
            pickle.dump((self, experiment), pipe)
        return process

    def run_one(self, experiment: Experiment) -> None:
        """Run one experiment, its clips being there, and write its results."""
        if isinstance(experiment, Pretraining):
            figures = self._pretrain(experiment)
        else:
            figures = self._finetune(experiment)
        machine = about_machine(torch.device("cpu"))
        write_json(
            self.result_path(experiment),
            {"experiment": self.described(experiment), **figures, "machine": machine},
        )
        if isinstance(experiment, Finetuning):  # its models are not needed again
            shutil.rmtree(self.work_dir(experiment), ignore_errors=True)

    def _pretrain(self, experiment: Pretraining) -> dict[str, Any]:
        output = self.work_dir(experiment)
        settings = experiment.settings(self.plan.scale, self.folder)
        settings = dataclasses.replace(settings, output=output)
        _timed(output, partial(pretrain, settings))
        figures = _figures(output)
        steps_per_epoch = figures["steps"] // experiment.epochs
        kept = {int(path.name[-4:]): path for path in output.glob("epoch_*") if path.is_dir()}
        kept[experiment.epochs] = output / "model"
        probes = [
            {"step": epoch * steps_per_epoch, **self._probe(experiment, kept[epoch])}
            for epoch in sorted(kept)
        ]
        picture = max((output / "reconstructions").glob("epoch_*.png"))
        self.results_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, self.result_path(experiment).with_suffix(".png"))
        copied = copy_loss(experiment, self.plan.scale)
        return {
            **figures,
            "copy_loss": None if copied is None else round(copied, 4),
            "probes": probes,
            "settings": to_toml(settings),
        }

    def _probe(self, experiment: Pretraining, model: Path) -> dict[str, float]:
        clips = self.plan.scale.clips(experiment, self.folder)
        settings = LinearProbeSettings(
            data=clips["probe"].output,
            eval_data=clips["test"].output,
            model=str(model),
            frame_stride=experiment.frame_stride,
            output=model / "probe",
            device="cpu",
            dtype="float32",
            num_workers=1,
        )
        result = linear_probe(settings)
        return {"linear": round(result.linear.top1, 2), "knn": round(result.knn.top1, 2)}

    def _finetune(self, experiment: Finetuning) -> dict[str, Any]:
        output = self.work_dir(experiment)
        init = self._model_dir(experiment.start) if experiment.start else None
        shared = experiment.settings(self.plan.scale, self.folder, init=init)
        runs = []
        for seed in experiment.seeds:
            settings = dataclasses.replace(shared, seed=seed, output=output / f"seed-{seed}")
            finished = settings.output / "finished.json"
            if not finished.exists():
                reached = _timed(settings.output, partial(finetune, settings)).figures()
                figures = {"seed": seed, "top1": reached["top1"], "top5": reached["top5"]}
                write_json(finished, figures | _figures(settings.output))
            runs.append(read_json(finished))
        return {"runs": runs, "settings": to_toml(dataclasses.replace(shared, output=output))}


def work_of(experiment: Experiment) -> int:
    """The rough cost of an experiment in clips, of which one costs half in pre-training."""
    if isinstance(experiment, Pretraining):
        return experiment.epochs * experiment.clips * experiment.num_repeats // 2
    return experiment.epochs * experiment.labels * len(experiment.seeds)


def _figures(output: Path) -> dict[str, Any]:
    """The loss over the steps, and the cost of a step, from the log of a run.

    CPU time is the cost of a step on a machine that has other work too; clips per second are by the
    clock, the median over the run.
    """
    run = read_run(output)
    assert run.num_steps is not None
    steps, losses = thin(*run.curve("loss"), most=_CURVE_POINTS)
    rows = [json.loads(line) for line in (output / "times.jsonl").read_text().splitlines()]
    cpu_per_step = sum(row["cpu"] for row in rows) / sum(row["steps"] for row in rows)
    return {
        "steps": run.num_steps,
        "cpu_seconds": round(run.num_steps * cpu_per_step, 1),
        "clips_per_second": round(run.recent("clips_per_second") or 0.0, 1),
        "curve": {
            "step": [round(step) for step in steps],
            "loss": [round(loss, 4) for loss in losses],
        },
    }


def _timed(output: Path, run: Callable[[], Any]) -> Any:
    """Run, and note how many steps took how much CPU time, also where the run is stopped."""

    def last_step() -> int:
        return max((int(path.stem.split("_")[1]) for path in checkpoint_paths(output)), default=0)

    first, cpu = last_step(), time.process_time()
    try:
        return run()
    finally:
        done = last_step() - first
        if done:
            with (output / "times.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"steps": done, "cpu": time.process_time() - cpu}) + "\n")


if __name__ == "__main__":  # the process of one experiment, see `Study.run`
    study, experiment = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(1)
    study.run_one(experiment)
