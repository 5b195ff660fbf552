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

import numpy as np
import torch

from reproduction import motion
from reproduction.baselines import copy_loss
from reproduction.motion import MotionSettings
from reproduction.plan import Experiment, Finetuning, Plan, Pretraining
from reproduction.probes import probe
from videomae.commands.timing import about_machine
from videomae.errors import WeightsError
from videomae.hub import read_json, write_json
from videomae.model.modeling import VideoMAEModel
from videomae.recipe import SETTINGS_NAME, to_toml
from videomae.rendering import actions
from videomae.report.record import read_run, thin
from videomae.settings import ActionsSettings, RenderSettings
from videomae.training.checkpoint import checkpoint_paths
from videomae.training.finetune import finetune
from videomae.training.pretrain import pretrain

# One thread each, as two processes then keep two cores busy without waiting for each other; and
# glibc keeps large blocks instead of giving them back at each step, which took a quarter longer.
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
_CURVE_POINTS = 60
_LOOK_SECONDS = 0.5
# Preset micro, 64 px, one thread of an AMD EPYC (Zen 5) in bfloat16; tiny 0.8 of it.
_CLIPS_PER_SECOND = (0.5, 0.75, 0.9), (70, 140, 200)  # by mask ratio
_TUNED_PER_SECOND = 40
_PROBE_SECONDS = 60


# At once, also into a file.
_say = partial(print, flush=True)


@dataclass(frozen=True)
class Study:
    """A plan, and where its files are.

    `folder` holds the rendered clips and the runs; `results_dir` gets `<name>.json` for each
    experiment, and a picture of reconstructions for each pre-training.
    """

    plan: Plan
    folder: Path
    results_dir: Path

    def run(self, *, workers: int = 2, say: Callable[[str], Any] = _say) -> dict[str, str]:
        """Run the experiments that lack results, and return those that failed, with the reason.

        An experiment that starts from a failed one is not run; all others are. An interrupt stops
        the processes at checkpoints. `say` gets a line when an experiment begins, with the hours of
        work that are left.
        """
        waiting, failed = self.missing(), dict[str, str]()
        running: dict[Experiment, subprocess.Popen[bytes]] = {}
        try:
            while waiting or running:
                ready = [each for each in waiting if self.can_start(each)]
                for experiment in ready[: workers - len(running)]:
                    hours = sum(map(seconds_of, waiting)) / 3600
                    say(f"{experiment.name}; left are {len(waiting)} and {hours:.1f} core hours")
                    for clips in experiment.sets(self.plan.scale, self.folder):
                        _render(clips)
                    running[experiment] = self._start(experiment)
                    waiting.remove(experiment)
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
        return failed

    def missing(self) -> list[Experiment]:
        """The experiments without results, and the pre-trainings that these need once more.

        Results travel with a clone, models do not.
        """
        left = {each for each in self.plan.experiments if not self.is_done(each)}
        tuned = [each for each in left if isinstance(each, Finetuning)]
        needed = {
            each.start for each in tuned if (model := self._model_dir(each)) and not model.is_dir()
        }
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
        if isinstance(experiment, Pretraining) or experiment.start is None:
            return True
        model = self._model_dir(experiment)
        return model is not None and model.is_dir() and self.is_done(experiment.start)

    def described(self, experiment: Experiment) -> dict[str, Any]:
        """All that decides the result of an experiment, as JSON has it."""
        values = {"run": type(experiment).__name__.lower(), **dataclasses.asdict(experiment)}
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

    def _model_dir(self, experiment: Finetuning) -> Path | None:
        """The model that a fine-tuning starts from, None for random weights."""
        if experiment.start is None:
            return None
        return self.work_dir(experiment.start) / "model"

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
            output = self.work_dir(experiment)
            settings = experiment.settings(self.plan.scale, self.folder)
            settings = dataclasses.replace(settings, output=output)
            _timed(output, partial(pretrain, settings))
            figures = self.measure(experiment, output)
        else:
            figures = self._finetune(experiment)
        machine = about_machine(torch.device("cpu"))
        write_json(
            self.result_path(experiment),
            {"experiment": self.described(experiment), **figures, "machine": machine},
        )
        if isinstance(experiment, Finetuning):  # its models are not needed again
            shutil.rmtree(self.work_dir(experiment), ignore_errors=True)

    def measure(self, experiment: Pretraining, output: Path) -> dict[str, Any]:
        """The figures of a pre-training that is over, of its kept models, and of random weights."""
        scale, figures = self.plan.scale, _figures(output)
        kept = {int(path.name[-4:]): path for path in output.glob("epoch_*") if path.is_dir()}
        kept[experiment.epochs] = output / "model"
        torch.manual_seed(experiment.seed)
        config = dataclasses.replace(scale.config(experiment.preset), use_mean_pooling=False)
        models = {0: VideoMAEModel(config)}
        models |= {epoch: VideoMAEModel.from_pretrained(kept[epoch]) for epoch in sorted(kept)}
        labelled = scale.labelled_set(self.folder)
        probes = [
            {"clips": epoch * experiment.clips, **probe(model, labelled, scale.dtype)}
            for epoch, model in models.items()
        ]
        picture = max((output / "reconstructions").glob("epoch_*.png"))
        self.results_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, self.result_path(experiment).with_suffix(".png"))
        copied = copy_loss(experiment, scale, experiment.sets(scale, self.folder)[0].output)
        text = self._portable((output / SETTINGS_NAME).read_text(encoding="utf-8"))
        return {**figures, "copy_loss": round(copied, 4), "probes": probes, "settings": text}

    def _finetune(self, experiment: Finetuning) -> dict[str, Any]:
        output = self.work_dir(experiment)
        init = self._model_dir(experiment)
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
        text = self._portable(to_toml(dataclasses.replace(shared, output=output)))
        return {"runs": runs, "settings": text}

    def _portable(self, settings: str) -> str:
        """The text of settings without where this machine keeps the files."""
        return settings.replace(f'"{self.folder}/', '"runs/findings/')


def _render(clips: RenderSettings) -> None:
    if isinstance(clips, MotionSettings):
        motion.render_dataset(clips)
    else:
        assert isinstance(clips, ActionsSettings)
        actions.render_dataset(clips)


def seconds_of(experiment: Experiment) -> float:
    """The rough CPU seconds of an experiment, with its probes."""
    if isinstance(experiment, Finetuning):
        return experiment.epochs * experiment.labels * len(experiment.seeds) / _TUNED_PER_SECOND
    rate = float(np.interp(experiment.mask_ratio, *_CLIPS_PER_SECOND))
    rate *= 0.8 if experiment.preset else 1
    return experiment.clips_seen / rate + _PROBE_SECONDS * (experiment.num_probes + 1)


def _figures(output: Path) -> dict[str, Any]:
    """The loss over the steps, and the cost of a step, from the log of a run.

    CPU time is the cost of a step on a machine that has other work too.
    """
    run = read_run(output)
    assert run.num_steps is not None
    steps, losses = thin(*run.curve("loss"), most=_CURVE_POINTS)
    rows = [json.loads(line) for line in (output / "times.jsonl").read_text().splitlines()]
    cpu_per_step = sum(row["cpu"] for row in rows) / sum(row["steps"] for row in rows)
    return {
        "steps": run.num_steps,
        "cpu_seconds": round(run.num_steps * cpu_per_step, 1),
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
