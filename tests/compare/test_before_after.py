"""An older checkout beside this one: what is started, and what a worker does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import before_after
from benchmarks.compare import worker
from videomae.commands import timing
from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

# Stands in for a worker: one job, and one that it cannot do.
ECHO = """
import os, sys
print('[["count"], {"loader": "no such module"}]', flush=True)
for line in sys.stdin:
    open("done", "a").write(os.environ["PYTHONPATH"] + " " + line)
    print(flush=True)
"""


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of an older commit, and nothing large to make."""
    monkeypatch.setattr(before_after, "make_files", lambda *_: None)
    monkeypatch.setattr(timing, "_SETTLE_SECONDS", 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "older" / "src" / "videomae").mkdir(parents=True)
    return tmp_path / "older"


def test_starts_take_turns_and_what_one_cannot_do_is_left_out(
    older: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[str, str]] = []

    def run(command: list[str], *, env: dict[str, str] | None = None, **_: Any) -> Any:
        if env is not None:
            is_older = env["PYTHONPATH"] == str(older / "src")
            if is_older and "onnxruntime" in command:
                raise subprocess.CalledProcessError(2, command, stderr=b"x\nno such engine\n")
            started.append(("before" if is_older else "now", command[-1]))
        return subprocess.CompletedProcess(command, 0, "abc123\n", "")

    monkeypatch.setattr(before_after.subprocess, "run", run)
    before_after.main(["cold", "--before", str(older), "--repeats", "1", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert started[:2] == [("before", "--help"), ("now", "--help")]
    figures = record["figures"]
    assert set(figures["videomae --help"]) == {"before", "now"}
    assert set(figures["classify, ViT-S, onnxruntime"]) == {"now"}
    assert len(figures) == 9
    assert record["left_out"] == [
        f"classify, {model}, onnxruntime, before: no such engine"
        for model in ("actions-tiny", "ViT-S")
    ]
    assert record["commits"] == {"before": "abc123", "now": "abc123"}
    assert record["clock"] == "wall"


def test_workers_of_both_checkouts_do_each_job_also_beside_busy_processes(
    older: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (older / "echo.py").write_text(ECHO)
    monkeypatch.setattr(before_after, "WORKER", older / "echo.py")
    arguments = ["warm", "--before", str(older), "--repeats", "1", "--busy", "0", "1"]
    before_after.main(arguments)
    *shown, line = capsys.readouterr().out.splitlines()
    figures = json.loads(line)["figures"]
    assert list(figures) == ["count", "count, beside 1 busy loop"]
    assert all(set(found) == {"before", "now"} for found in figures.values())
    assert json.loads(line)["left_out"] == [
        "loader, before: no such module",
        "loader, now: no such module",
    ]
    assert "count, beside 1 busy loop" in shown[1]
    done = (older.parent / "done").read_text().splitlines()
    assert done[:2] == [f"{older}/src count", f"{before_after.ROOT}/src count"]
    assert len(done) == 2 * 2 * 2  # checkouts, loads, and rounds with that which warms up


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cold", "--before", "nowhere"], "nowhere is no checkout: it has no src/videomae"),
        (["warm", "--clock", "cpu"], "--clock cpu sees no work of a running process"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        before_after.main(arguments)
    assert message in capsys.readouterr().err


def test_a_worker_knows_its_jobs_and_why_it_cannot_do_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = render_clip("walk", seed=0, size=48, num_frames=16)
    np.save(tmp_path / "frames.npy", frames)
    write_video(tmp_path / "film.mp4", frames)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "0.mp4", np.resize(frames, (64, *frames.shape[1:])))
    config = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_frames=4, num_labels=3)
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "model")
    able, failed = worker.able_of(tmp_path, tmp_path / "model")
    assert len(able) == 13
    assert failed == {}
    monkeypatch.setattr(sys, "argv", ["worker.py", str(tmp_path), str(tmp_path / "model")])
    (tmp_path / "videos" / "0.mp4").unlink()
    del able["load 1 training clips"]
    monkeypatch.setattr(sys, "stdin", [f"{name}\n" for name in able])
    worker.main()
    first, *answers = capsys.readouterr().out.splitlines()
    assert json.loads(first)[0] == list(able)
    assert "holds no videos" in json.loads(first)[1]["loader"]
    assert answers == [""] * len(able)
