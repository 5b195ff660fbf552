"""Batch jobs on a Ray cluster of this machine, where Ray is installed."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from videomae.data.inputs import list_inputs
from videomae.data.manifest import Video
from videomae.errors import WeightsError
from videomae.footage.batch import read_batch, run_job
from videomae.footage.jobs import Job

ray = pytest.importorskip("ray", reason="ray is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore"),  # of Ray's own
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def rows_of(folder: Path) -> list[dict[str, Any]]:
    order = [("path", "ascending"), ("start_seconds", "ascending")]
    rows: list[dict[str, Any]] = read_batch(folder).table.sort_by(order).to_pylist()
    return rows


@pytest.mark.parametrize("seconds", [None, 0.5])
def test_the_rows_are_those_of_a_job_without_ray(
    seconds: float | None, videos_dir: Path, tmp_path: Path
) -> None:
    job = Job("embed", "actions-tiny", frame_stride=1, fps=32, window_seconds=seconds)
    videos = [*list_inputs(str(videos_dir)), Video("gone.mp4")]
    run_job(videos, tmp_path / "here", job)
    summary = run_job(videos, tmp_path / "there", job, ray="auto")
    assert (summary.num_done, summary.num_bad) == (11, 1)
    here, there = rows_of(tmp_path / "here"), rows_of(tmp_path / "there")
    for one, other in zip(here, there, strict=True):
        features = one.pop("features"), other.pop("features")
        assert one == other
        np.testing.assert_allclose(*features, atol=1e-2)  # bfloat16, in other batches


def test_a_killed_worker_loses_no_answer(videos_dir: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(*_: int) -> None:
        """After the first answer, kill the worker that has the model."""
        for process in psutil.Process(os.getpid()).children(recursive=True) * (not killed):
            with suppress(psutil.Error):  # gone meanwhile
                if "ray::" in (name := " ".join(process.cmdline())) and "_Model" in name:
                    killed.append(process.pid)
                    process.kill()

    videos = list_inputs(str(videos_dir)) * 4
    parts = [Video(v.path, end_seconds=0.5 + k / 100) for k, v in enumerate(videos)]
    job = Job("embed", "actions-tiny", frame_stride=1)
    summary = run_job(parts, tmp_path, job, ray="auto", on_progress=kill_one)
    assert killed
    assert (summary.num_done, summary.num_rows, summary.num_bad) == (40, 40, 0)
    ends = [row["end_seconds"] for row in rows_of(tmp_path)]
    assert len(ends) == 40


def test_what_cannot_run_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"^nothing-like-it does not exist; expected a folder"):
        run_job([Video("a.mp4")], tmp_path, Job("embed", "nothing-like-it"), ray="auto")
