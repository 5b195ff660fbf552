"""What is measured beside transformers and others, on the smallest of models."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.compare import baselines
from benchmarks.compare import run as compare
from benchmarks.compare.run import exponent, main
from videomae.commands import bench
from videomae.commands.flags import Bench
from videomae.compute import devices
from videomae.config import VideoMAEConfig
from videomae.inference import engines
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

SMALL = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_frames=4, num_labels=3)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Compare with the small model: the line of JSON."""
    VideoMAEForVideoClassification(SMALL).save_pretrained(tmp_path / "model")
    write_video(tmp_path / "a.mp4", render_clip("throw", seed=0, size=64, num_frames=80))
    # Processes of their own cost seconds each, and are tested by themselves.
    monkeypatch.setattr(compare, "peak_of", lambda *_: 5_000_000)
    monkeypatch.setattr(engines, "ENGINES", ("auto", "torch"))
    monkeypatch.setattr(devices, "best_dtype", lambda _: torch.float32)

    def run(what: str, *flags: object) -> dict[str, Any]:
        words = [what, "--model", tmp_path / "model", "--repeats", 1, "--threads", 1]
        words += ["--device", "cpu", "--video", tmp_path / "a.mp4", *flags]
        main([str(word) for word in words])
        *shown, line = capsys.readouterr().out.strip().splitlines()
        record: dict[str, Any] = json.loads(line)
        return record | {"shown": "\n".join(shown)}

    return run


def test_forward_has_the_model_of_transformers_with_each_attention(
    run: Any, tmp_path: Path
) -> None:
    record = run("forward", "--batch-sizes", 1, 2, "--output", tmp_path / "out")
    figures = record["figures"]
    names = {"eager", "sdpa", "transformers eager", "transformers sdpa", "torch float32"}
    assert set(figures["batch 2"]) == names | {"transformers by openvino float32"}
    assert "compared: batch 2\n  eager                            1.00x\n" in record["shown"]
    assert "  videomae                         5,000,000" in record["shown"]
    assert (tmp_path / "out" / "forward.svg").is_file()
    assert figures["peak_bytes"] == dict.fromkeys(("videomae", "transformers"), 5_000_000)
    assert figures["deviation"]["transformers sdpa"]["largest_error"] < 1e-4
    assert figures["deviation"]["transformers by openvino float32"]["largest_error"] < 1e-4


def test_train_has_three_models(run: Any) -> None:
    figures = run("train")["figures"]
    peaks = {"peak_bytes, pretrain", "peak_bytes, finetune"}
    assert set(figures) == {"pretrain", "finetune"} | peaks
    for found in figures.values():
        assert set(found) == {"videomae", "transformers", "plain"}


def test_decode_and_process_compare_all_that_is_there(run: Any, tmp_path: Path) -> None:
    record = run("decode")
    missing = {note.split()[0] for note in record["left_out"]}
    measured = set(record["figures"][str(tmp_path / "a.mp4")])
    assert measured | missing == {"videomae", "decord", "torchcodec"}
    for found in run("process")["figures"].values():
        assert {"videomae image", "videomae video", "transformers video"} <= set(found)


def test_all_is_measured_beside_busy_cores_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loops: list[Any] = []
    start = compare.subprocess.Popen

    def started(_: list[str]) -> Any:
        loops.append(start([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        return loops[-1]

    monkeypatch.setattr(compare.subprocess, "Popen", started)
    name = run("decode")["figures"].popitem()[0]
    assert loops == []
    figures = run("decode", "--busy", 0, 1, 2)["figures"]
    assert list(figures) == [
        name,
        f"{name}, beside 1 busy loop",
        f"{name}, beside 2 busy loops",
    ]
    assert len(loops) == 3
    assert all(loop.poll() is not None for loop in loops)


def test_end_to_end_has_the_reader_of_transformers(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(bench.subprocess, "run", lambda words, **_: started.append(words))
    figures = run("end-to-end", "--files", 9)["figures"]
    assert len(figures) == 3
    assert all(set(found) == {"videomae torch", "transformers"} for found in figures.values())
    assert len(started) == 4  # two kinds, a round to warm up and one that counts
    assert started[1][1].endswith("transformers_reader.py")


def test_what_is_not_installed_is_said_and_left_out(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.compare.run.is_there", lambda _: False)
    record = run("forward", "--batch-sizes", 1)
    assert "transformers is not installed" in record["left_out"]
    assert set(record["figures"]["batch 1"]) == {"eager", "sdpa", "torch float32"}
    assert set(run("train")["figures"]["pretrain"]) == {"videomae", "plain"}
    assert set(run("process")["figures"]["tensor T C H W"]) == {"videomae image", "videomae video"}
    record = run("decode")
    assert record["left_out"] == ["decord is not installed", "torchcodec is not installed"]


def test_scaling_fits_an_exponent_and_draws_it(run: Any, tmp_path: Path) -> None:
    record = run("scaling", "--json", "--output", tmp_path / "out")
    assert record["shown"] == ""
    figures = record["figures"]
    assert set(figures["peak_bytes, frames"]) == set(figures["frames"]) == {"8", "16", "32", "64"}
    assert figures["exponents, frames"]["memory"] == pytest.approx(0, abs=1e-9)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "bench.json",
        "frames.svg",
        "height.svg",
    }


def test_an_exponent_is_the_slope_of_the_logarithms() -> None:
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert exponent([8, 16, 32, 64], [5, 5, 5, 5]) == pytest.approx(0)


def test_rendered_clips_stand_in_for_a_video(tmp_path: Path) -> None:
    session = bench.Session(Bench(model="tiny"), tmp_path)
    session.config = SMALL
    clips = compare.real_clips(session, 3)
    assert clips.shape == (3, 4, 3, 32, 32)
    assert not torch.equal(clips[0], clips[1])


def test_films_are_made_with_and_without_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert baselines.film_scene(34, 48).shape == (132, 34, 48, 3)
    monkeypatch.setattr(baselines, "film", lambda: None)
    assert baselines.film_scene(34, 48).shape == (40, 34, 48, 3)
