"""Runs of several processes, and runs that are killed."""

import dataclasses
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.model.modeling import VideoMAEForPreTraining
from videomae.report.record import read_log
from videomae.settings import PretrainSettings
from videomae.training.pretrain import pretrain

SMALL = """
data={data} preset=tiny image_size=16 num_frames=4 frame_stride=2 batch_size=4 mask_ratio=0.5
log_every_steps=1 device=cpu dtype=float32 lr=0.1 tracker=none
"""
# Losses in the log have six digits: equal ones may be rounded to neighbours.
ROUNDED = 1.5e-5


def run(output: Path, *arguments: str, data: Path, processes: int = 1) -> list[float]:
    """The losses of `videomae pretrain`, by torchrun where it takes several processes."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["videomae", "pretrain", f"output={output}", *SMALL.format(data=data).split()]
    done = subprocess.run(
        [*command, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [row["loss"] for row in read_log(output)]


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return VideoMAEForPreTraining.from_pretrained(output / "model").state_dict()


@pytest.mark.slow
def test_processes_share_a_run_without_changing_it(videos_dir: Path, tmp_path: Path) -> None:
    settings = ("epochs=4", "num_repeats=2")
    alone = run(tmp_path / "alone", *settings, data=videos_dir)
    assert len(alone) == 8
    pair = run(tmp_path / "pair", *settings, "accumulate=2", data=videos_dir, processes=2)
    assert pair == pytest.approx(alone, abs=ROUNDED)
    expected, got = weights_of(tmp_path / "alone"), weights_of(tmp_path / "pair")
    for name, weight in got.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-4, rtol=1e-4)
    if not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("this PyTorch splits a model (FSDP2) over GPUs alone")
    # Split over two processes to step 4 of 8, then taken up by one.
    begun = run(
        tmp_path / "split", "epochs=4", "num_repeats=2", "parallel=fsdp", "save_every_steps=4",
        data=videos_dir, processes=2,
    )  # fmt: skip
    assert begun == pytest.approx(alone, abs=ROUNDED)
    (tmp_path / "split" / "checkpoints" / "step_00000008.pt").unlink()
    finished = run(tmp_path / "split", *settings, "--resume", data=videos_dir)
    assert finished == pytest.approx(alone, abs=ROUNDED)


SPLIT = """
import sys
from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEForPreTraining
model = VideoMAEForPreTraining(VideoMAEConfig.preset("tiny", num_hidden_layers=1))
machine = Machine.start("cpu", sys.argv[1], parallel="fsdp")
network = machine.place(model)
held = sum(parameter.to_local().numel() for parameter in network.parameters())
assert held < 0.6 * model.num_parameters(), (held, model.num_parameters())
machine.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fsdp_leaves_each_process_a_share_of_the_weights(dtype: str, tmp_path: Path) -> None:
    (tmp_path / "split.py").write_text(SPLIT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, str(tmp_path / "split.py"), dtype], check=True, timeout=300)


@pytest.mark.slow
def test_a_run_killed_at_ten_random_steps_ends_with_the_same_weights(
    videos_dir: Path, tmp_path: Path, small: dict[str, Any]
) -> None:
    settings = PretrainSettings(
        data=videos_dir, output=tmp_path / "whole", epochs=30, mask_ratio=0.5, lr=0.1,
        save_every_steps=2, tracker="none", **small,
    )  # fmt: skip
    pretrain(settings)
    killed = dataclasses.replace(settings, output=tmp_path / "killed", resume=True)
    forks = multiprocessing.get_context("forkserver")  # starts at once, the imports being done
    forks.set_forkserver_preload(["videomae.training.pretrain"])
    for step in sorted(random.Random(0).sample(range(2, 60), 10)):
        process = forks.Process(target=pretrain, args=(killed,))
        process.start()
        while len(read_log(killed.output)) < step and process.is_alive():
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    pretrain(killed)
    assert [row["step"] for row in read_log(killed.output)] == list(range(1, 61))
    whole, resumed = weights_of(settings.output), weights_of(killed.output)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    losses = [[row["loss"] for row in read_log(s.output)] for s in (settings, killed)]
    assert losses[0] == losses[1]
