"""What `videomae bench` prints and writes, on the smallest of models; no time is looked at."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from videomae.commands import bench, cli
from videomae.commands.bench import Session, train_inputs, train_step
from videomae.commands.flags import Bench
from videomae.compute import devices
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.inference import engines
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.rendering.actions import render_clip
from videomae.video.reader import probe
from videomae.video.writer import write_video

CPU = torch.device("cpu")
SMALL = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_frames=4, num_labels=3)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a small model and a video."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VideoMAEForVideoClassification(SMALL)
        torch.nn.init.normal_(model.classifier.weight)
        model.save_pretrained(tmp_path / "model")
    write_video(tmp_path / "a.mp4", render_clip("throw", seed=0, size=64, num_frames=80))
    return tmp_path


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Bench the small model: the line of JSON, and what stood above it under "shown"."""

    def run(what: str, *flags: object) -> dict[str, Any]:
        words = ["bench", what, "--model", place / "model", "--repeats", 1, "--threads", 1]
        words += ["--device", "cpu", "--video", place / "a.mp4", *flags]
        assert cli.main([str(word) for word in words]) == 0
        *shown, line = capsys.readouterr().out.strip().splitlines()
        record: dict[str, Any] = json.loads(line)
        return record | {"shown": "\n".join(shown)}

    return run


def session(folder: Path, **asked: Any) -> Session:
    made = Session(Bench(**{"model": "tiny", **asked}), folder)
    made.config = SMALL
    return made


def test_forward_has_every_engine_and_names_those_left_out(
    run: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = engines.load

    def torch_alone(model: Any, *, engine: str, **options: Any) -> engines.Engine:
        if engine != "torch":
            raise ConfigError(f"needs {engine}; pip install {engine}")
        return load(model, engine=engine, **options)

    monkeypatch.setattr(engines, "load", torch_alone)
    monkeypatch.setattr(engines, "ENGINES", ("auto", "torch", "onnx"))
    monkeypatch.setattr(devices, "best_dtype", lambda _: torch.bfloat16)
    record = run("forward", "--batch-sizes", 1, 2, "--output", place / "out")
    assert set(record["figures"]) == {"batch 1", "batch 2"}
    assert set(record["figures"]["batch 2"]) == {"torch float32", "torch bfloat16"}
    assert set(record["figures"]["batch 2"]["torch float32"]) == {"median", "low", "high"}
    assert record["left_out"] == [
        "onnx float32: needs onnx; pip install onnx",
        "onnx bfloat16: needs onnx; pip install onnx",
        "openvino int8: needs openvino; pip install openvino",
    ]
    assert re.search(r"forward: batch 2\n  torch float32 +[\d,.]+ ms  [\d,.]+ to", record["shown"])
    assert "auto would take torch in bfloat16" in record["shown"]
    assert "left out: onnx float32: needs onnx" in record["shown"]
    stored = json.loads((place / "out" / "bench.json").read_text())
    assert stored == {key: value for key, value in record.items() if key != "shown"}


def test_train_has_a_step_of_each_kind(run: Any) -> None:
    figures = run("train")["figures"]
    assert set(figures) == {"pretrain", "finetune"}
    assert all(set(found) == {"videomae"} for found in figures.values())


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_a_step_moves_the_weights(task: str) -> None:
    model = bench.KINDS[task](SMALL.copy(use_mean_pooling=task == "finetune"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    train_step(model, torch.float32)(train_inputs(SMALL, task, CPU))
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_forward_job_gives_the_logits_of_one_clip() -> None:
    logits: Any = bench.forward_job(CPU, torch.float32, SMALL)()
    assert logits.shape == (1, 3)


def test_decode_and_process_measure_ours_alone(run: Any, place: Path) -> None:
    figures = run("decode")["figures"]
    assert set(figures) == {str(place / "a.mp4")}
    assert set(figures[str(place / "a.mp4")]) == {"videomae"}
    figures = run("process")["figures"]
    assert len(figures) == 5
    for found in figures.values():
        assert set(found) == {"videomae image", "videomae video"}


def test_end_to_end_goes_from_files_and_from_the_start_of_a_process(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(bench.subprocess, "run", lambda words, **_: started.append(words))
    figures = run("end-to-end", "--files", 9)["figures"]
    assert set(figures) == {
        "one file, the model loaded",
        "one file, from the start of a process",
        "9 short files",
    }
    assert all(set(found) == {"videomae torch"} for found in figures.values())
    assert len(started) == 2  # a round to warm up, and one that counts
    assert started[0][:4] == [sys.executable, "-m", "videomae", "classify"]
    on_gpu = session(tmp_path)
    on_gpu.device = torch.device("cuda")
    with pytest.raises(ConfigError, match="runs on a CPU so far; pass --device cpu"):
        next(bench.end_to_end(on_gpu))


def test_scaling_goes_over_frames_and_sizes(run: Any) -> None:
    figures = run("scaling")["figures"]
    assert {axis: list(rows) for axis, rows in figures.items()} == {
        "frames": ["8", "16", "32", "64"],
        "height and width, px": ["16", "24", "32", "48"],
    }


def test_json_alone_is_one_line_and_the_threads_are_put_back(run: Any) -> None:
    before = torch.get_num_threads()
    record = run("decode", "--json", "--clock", "cpu")
    assert record["shown"] == ""
    assert record["clock"] == "cpu"
    assert record["machine"]["threads"] == 1
    assert torch.get_num_threads() == before


def test_films_play_a_scene_to_and_fro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FILMS", {"small": (34, 48)})
    film = session(tmp_path).film("small")
    assert film == session(tmp_path).film("small")
    info = probe(film)
    assert (info.num_frames, info.height, info.width) == (250, 34, 48)


def test_an_output_is_checked_before_the_work_and_figures_are_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file; name another one"):
        bench.bench(Bench("decode", output=tmp_path / "file" / "out"), {"decode": pytest.fail})
    monkeypatch.setattr(bench, "write_json", Mock(side_effect=OSError("full")))
    with pytest.raises(OSError, match="full"):
        bench.bench(Bench("decode", output=tmp_path, json=True), {"decode": lambda _: iter(())})
    assert json.loads(capsys.readouterr().out)["bench"] == "decode"


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="repeats=0 must be at least 1"):
        bench.bench(Bench("decode", repeats=0))
    with pytest.raises(ConfigError, match=r"batch_sizes=\(\) should be one or more"):
        bench.bench(Bench("forward", batch_sizes=()))
