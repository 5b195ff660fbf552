"""What `videomae bench` prints and writes, on the smallest of models; no time is looked at."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.commands import bench, cli, timing
from videomae.commands.bench import Session, our_model, step_job
from videomae.commands.flags import Bench
from videomae.compute import devices
from videomae.config import VideoMAEConfig
from videomae.data.motion import render_clip
from videomae.errors import ConfigError
from videomae.inference import engines
from videomae.model.modeling import VideoMAEForVideoClassification
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
    write_video(tmp_path / "a.mp4", render_clip("sway", seed=0, size=64, num_frames=80))
    return tmp_path


@pytest.fixture
def run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Bench the small model: the line of JSON, and what stood above it under "shown"."""
    # Processes of their own cost seconds each, and are tested by themselves.
    monkeypatch.setattr(timing, "peak_of", lambda *_, **__: 5_000_000)

    def run(what: str, *flags: object) -> dict[str, Any]:
        words = ["bench", what, "--model", place / "model", "--repeats", 1, "--threads", 1]
        words += ["--device", "cpu", "--video", place / "a.mp4", *flags]
        assert cli.main([str(word) for word in words]) == 0
        *shown, line = capsys.readouterr().out.strip().splitlines()
        record: dict[str, Any] = json.loads(line)
        return record | {"shown": "\n".join(shown)}

    return run


def session(folder: Path, **asked: Any) -> Session:
    made = Session(Bench(**{"model": "tiny", **asked}), folder, lambda _: None)
    made.config = SMALL
    return made


def test_forward_has_every_engine_and_deviations(
    run: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = engines.load

    def without_onnx(model: Any, *, engine: str, **options: Any) -> engines.Engine:
        if engine == "onnx":
            raise ConfigError("needs onnx; pip install onnx")
        return load(model, engine=engine, **options)

    monkeypatch.setattr(engines, "load", without_onnx)
    monkeypatch.setattr(engines, "ENGINES", ("auto", "torch", "onnx"))
    monkeypatch.setattr(devices, "best_dtype", lambda _: torch.bfloat16)
    record = run("forward", "--batch-sizes", 1, 2, "--output", place / "out")
    names = {"eager", "sdpa", "torch bfloat16"}
    assert set(record["figures"]) == {"batch 1", "batch 2", "deviation", "peak_bytes"}
    assert record["figures"]["peak_bytes"] == {"videomae": 5_000_000}
    assert set(record["figures"]["batch 2"]) == names
    deviation = record["figures"]["deviation"]
    assert deviation["sdpa"]["largest_error"] < 1e-4
    assert 0 < deviation["torch bfloat16"]["largest_error"] < 1
    assert "forward: batch 2" in record["shown"]
    assert "onnx float32: needs onnx; pip install onnx" in record["left_out"]
    assert "auto would take torch in bfloat16" in record["shown"]
    assert "left out: onnx float32: needs onnx" in record["shown"]
    assert (place / "out" / "forward.svg").is_file()
    stored = json.loads((place / "out" / "bench.json").read_text())
    assert stored == {key: value for key, value in record.items() if key != "shown"}


def test_train_splits_the_step_and_measures_the_memory(run: Any) -> None:
    figures = run("train")["figures"]
    assert set(figures) == {"pretrain", "finetune"}
    for found in figures.values():
        assert set(found) == {"videomae"}
        assert set(found["videomae"]) == {"forward", "backward", "optimiser", "total", "peak_bytes"}
        assert found["videomae"]["peak_bytes"] == 5_000_000


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_a_step_has_three_phases_and_moves_the_weights(task: bench.Task) -> None:
    made: list[torch.nn.Module] = []

    def remembered(task: bench.Task, config: VideoMAEConfig) -> Any:
        model, loss = our_model(task, config)
        made.append(model)
        return model, loss

    step: Any = step_job(remembered, task, CPU, torch.float32, SMALL)
    before = [parameter.detach().clone() for parameter in made[0].parameters()]
    assert list(step()) == ["forward", "backward", "optimiser"]
    moved = [not torch.equal(a, b) for a, b in zip(before, made[0].parameters(), strict=True)]
    assert all(moved)


def test_a_forward_job_gives_the_logits_of_one_clip() -> None:
    logits: Any = bench.forward_job(CPU, torch.float32, SMALL)()
    assert logits.shape == (1, 3)


def test_decode_and_process_measure_ours_alone(run: Any, place: Path) -> None:
    figures = run("decode")["figures"]
    assert set(figures) == {str(place / "a.mp4")}
    assert set(figures[str(place / "a.mp4")]) == {"videomae"}
    figures = run("process")["figures"]
    assert len(figures) == 4
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
        bench.end_to_end(on_gpu)


def test_scaling_fits_an_exponent_and_draws_it(run: Any, place: Path) -> None:
    record = run("scaling", "--output", place / "out")
    figures = record["figures"]
    assert set(figures) == {"frames", "height and width, px"}
    assert set(figures["frames"]) == {"8", "16", "32", "64", "exponents"}
    assert figures["frames"]["exponents"]["memory"] == pytest.approx(0, abs=1e-9)
    assert "exponents" in record["shown"]
    assert {path.name for path in (place / "out").iterdir()} == {
        "bench.json",
        "frames.svg",
        "height.svg",
    }


def test_json_alone_is_one_line_and_the_threads_are_put_back(run: Any) -> None:
    before = torch.get_num_threads()
    record = run("decode", "--json", "--clock", "cpu")
    assert record["shown"] == ""
    assert record["clock"] == "cpu"
    assert record["machine"]["threads"] == 1
    assert torch.get_num_threads() == before


def test_rendered_clips_stand_in_for_a_video(tmp_path: Path) -> None:
    clips = session(tmp_path).clips(3)
    assert clips.shape == (3, 4, 3, 32, 32)
    assert not torch.equal(clips[0], clips[1])


def test_films_play_a_scene_to_and_fro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FILMS", {"small": (34, 48)})
    info = probe(session(tmp_path).film("small"))
    assert (info.num_frames, info.height, info.width) == (250, 34, 48)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="repeats=0, files=32"):
        bench.bench(Bench("decode", repeats=0))
    with pytest.raises(ConfigError, match="all must be at least 1"):
        bench.bench(Bench("forward", batch_sizes=()))
