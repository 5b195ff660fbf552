"""What `videomae bench` prints and writes, on the smallest of models; no time is looked at."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.compare import models, peers, timing
from benchmarks.compare import run as app
from benchmarks.compare.timing import Timing, child_seconds, exponent, interleaved, stopwatch
from videomae.commands import cli
from videomae.config import VideoMAEConfig
from videomae.data.motion import render_clip
from videomae.errors import ConfigError
from videomae.inference import engines
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.video.reader import probe, read_frames, write_video

CPU = torch.device("cpu")
SMALL = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_frames=4, num_labels=3)
Bench = Callable[..., dict[str, Any]]


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
def bench(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    """Run one on the small model: the line of JSON, and what stood above it under "shown"."""
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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The models that `peers.training_step` makes, in turn."""
    models: list[torch.nn.Module] = []
    build = peers._trained_by

    def remembered(*arguments: Any) -> Any:
        model, loss = build(*arguments)
        models.append(model)
        return model, loss

    monkeypatch.setattr(peers, "_trained_by", remembered)
    return models


def test_a_timing_is_the_median_between_quartiles() -> None:
    assert Timing.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Timing(3.0, 2.0, 4.0)
    assert timing.in_ms(Timing(0.1, 0.09, 0.13)) == "100.0 ±20.0"
    assert timing.ratio(Timing.of([3.0]), Timing.of([2.0])) == "1.50x"


def test_runs_take_turns_and_the_first_round_does_not_count() -> None:
    clock = iter(range(100))
    order: list[str] = []

    def phases() -> Iterator[str]:
        order.append("b")
        yield "first"
        yield "second"

    runs: dict[str, Any] = {"a": lambda: order.append("a"), "b": phases}
    found = interleaved(runs, lambda: float(next(clock)), repeats=2)
    assert order == ["a", "b"] * 3
    assert found["a"] == {"total": Timing(1, 1, 1)}
    assert found["b"]["second"].median == 1
    assert found["b"]["total"].median == 3


def test_an_exponent_is_the_slope_of_the_logarithms() -> None:
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert exponent([8, 16, 32, 64], [5, 5, 5, 5]) == pytest.approx(0)


def test_the_cpu_clock_sees_children_and_no_gpu() -> None:
    with pytest.raises(ConfigError, match="clock='cpu' sees no work of cuda; use clock='wall'"):
        stopwatch("cpu", torch.device("cuda"))
    assert stopwatch("cpu", CPU)() >= 0
    assert child_seconds("cpu", lambda: None) == 0
    assert child_seconds("wall", lambda: None) >= 0


def hold(num_bytes: int) -> Callable[[], torch.Tensor]:
    """A run that needs so many bytes, for a process of its own."""
    return lambda: torch.ones(num_bytes // 4)


@pytest.mark.slow
def test_peak_memory_is_what_came_on_top_of_the_imports() -> None:
    peak = timing.peak_of(hold, (200_000_000,), warm_up=(4,), device=CPU)
    assert 195e6 <= peak < 260e6  # and not the hundreds of MB that torch itself takes


def test_peak_memory_does_not_hang_on_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    there = timing.peak_bytes()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError))
    assert timing.peak_bytes() >= there * 0.9
    assert timing._processor_name()


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
@pytest.mark.parametrize("who", ["videomae model", "transformers", "plain"])
def test_a_training_step_has_three_phases_and_moves_the_weights(
    who: peers.Trainer, task: peers.Task, made: list[torch.nn.Module]
) -> None:
    step: Any = peers.training_step(who, task, SMALL, 2, CPU, torch.float32)
    before = [parameter.detach().clone() for parameter in made[0].parameters()]
    assert list(step()) == ["forward", "backward", "optimiser"]
    moved = [not torch.equal(a, b) for a, b in zip(before, made[0].parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_a_step_of_the_commands_moves_the_weights_as_a_plain_loop_does(
    task: peers.Task, made: list[torch.nn.Module]
) -> None:
    peers.training_step("videomae", task, SMALL, 2, CPU, torch.float32)()
    step: Any = peers.training_step("videomae model", task, SMALL, 2, CPU, torch.float32)
    assert len(list(step())) == 3
    for ours, theirs in zip(made[0].parameters(), made[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize("who", ["videomae", "transformers"])
def test_a_forward_run_gives_the_logits_of_one_clip(who: Any) -> None:
    assert peers.forward_run(who, SMALL, CPU, torch.float32)().shape == (1, 3)


def test_all_three_train_equally_large_models() -> None:
    for task in ("pretrain", "finetune"):
        sizes = {
            who: sum(p.numel() for p in peers._trained_by(who, task, SMALL)[0].parameters())
            for who in ("videomae", "transformers", "plain")
        }
        # The plain one has biases of keys, and one norm more or less.
        assert max(sizes.values()) < 1.01 * min(sizes.values())


def test_plain_pre_training_computes_the_loss_that_ours_does() -> None:
    """Predictions of zero are compared with the same targets: the mean square of hidden pixels."""
    pixels = torch.randn(2, 4, 3, 32, 32)
    mask = torch.zeros(2, SMALL.grid.num_tokens, dtype=torch.bool)
    mask[:, ::2] = True
    losses = []
    for who, head in (("videomae", "decoder.head"), ("plain", "paint")):
        model, loss = peers._trained_by(who, "pretrain", SMALL)  # type: ignore[arg-type]
        for parameter in model.get_submodule(head).parameters():
            torch.nn.init.zeros_(parameter)
        losses.append(loss(pixels, mask).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_twin_of_transformers_gives_the_same_logits() -> None:
    model = VideoMAEForVideoClassification(SMALL).eval()
    torch.nn.init.normal_(model.classifier.weight)
    pixels = torch.randn(1, 4, 3, 32, 32)
    with torch.inference_mode():
        ours = model(pixels, return_dict=True).logits
        for attention in ("eager", "sdpa"):
            twin = peers.transformers_twin(model, attention)
            assert twin.config._attn_implementation == attention
            torch.testing.assert_close(twin(pixels).logits, ours, atol=1e-5, rtol=0)


def test_the_peer_reads_the_frames_that_we_do(place: Path) -> None:
    """The same weights on the same file: the same labels, so that the same work is compared."""
    from videomae.inference.predict import classify
    from videomae.processing.views import find_processor

    find_processor(None, SMALL).save_pretrained(place / "model")
    ours = classify(place / "a.mp4", model=place / "model", engine="torch")
    theirs = peers.transformers_reader(str(place / "model"), SMALL.frame_stride or 4)
    assert tuple(theirs(place / "a.mp4")[:3]) == ours.labels[:3]
    compile(peers.READER_SCRIPT, "script", "exec")


def test_every_decoder_gives_the_frames_asked_for(place: Path) -> None:
    indices = [3, 7, 30]
    exact = read_frames(place / "a.mp4", indices).astype(int)
    for name, decode in peers.decoders().items():
        frames = decode(place / "a.mp4", indices)
        assert np.abs(frames.astype(int) - exact).mean() < 4, name


def test_films_are_made_with_and_without_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peers.swing(np.arange(3, dtype=np.uint8), 8).tolist() == [0, 1, 2, 2, 1, 0, 0, 1]
    monkeypatch.setattr(peers, "film_file", lambda: None)
    info = probe(app.make_film(tmp_path / "a.mp4", 34, 48, 50))
    assert (info.num_frames, info.height, info.width) == (50, 34, 48)


def test_forward_has_the_published_table_every_engine_and_deviations(
    bench: Bench, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = engines.load

    def without_onnx(model: Any, *, engine: str, **options: Any) -> engines.Engine:
        if engine == "onnx":
            raise ConfigError("needs onnx; pip install onnx")
        return load(model, engine=engine, **options)

    monkeypatch.setattr(engines, "load", without_onnx)
    monkeypatch.setattr(engines, "ENGINES", ("auto", "torch", "onnx"))
    monkeypatch.setattr(engines, "best_dtype", lambda _: torch.bfloat16)
    record = bench("forward", "--batch-sizes", 1, 2, "--output", place / "out")
    names = {"eager", "sdpa", "transformers eager", "transformers sdpa", "torch bfloat16"}
    names |= {f"transformers by openvino {dtype}" for dtype in ("float32", "bfloat16")}
    assert set(record["figures"]) == {"batch 1", "batch 2", "deviation", "peak_bytes"}
    assert record["figures"]["peak_bytes"] == dict.fromkeys(("videomae", "transformers"), 5_000_000)
    assert set(record["figures"]["batch 2"]) == names
    deviation = record["figures"]["deviation"]
    assert deviation["transformers sdpa"]["largest_error"] < 1e-4
    assert deviation["transformers by openvino float32"]["largest_error"] < 1e-4
    assert 0 < deviation["torch bfloat16"]["largest_error"] < 1
    assert "transformers / ours, sdpa" in record["shown"]
    assert "onnx float32: needs onnx; pip install onnx" in record["left_out"]
    assert (place / "out" / "forward.svg").is_file()
    stored = json.loads((place / "out" / "bench.json").read_text())
    assert stored == {key: value for key, value in record.items() if key != "shown"}


def test_what_is_not_installed_is_said_and_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "is_there", lambda _: False)
    monkeypatch.setattr(engines, "ENGINES", ("auto", "torch"))
    monkeypatch.setattr(engines, "best_dtype", lambda _: torch.float32)
    missing = "transformers is not installed"
    record = bench("forward", "--batch-sizes", 1)
    assert record["left_out"] == [missing]
    assert f"left out: {missing}" in record["shown"]
    assert set(record["figures"]["batch 1"]) == {"eager", "sdpa"}
    assert set(bench("train")["figures"]["pretrain"]) == {"videomae model", "plain"}
    assert set(bench("process")["figures"]["tensor T C H W"]) == {
        "videomae image",
        "videomae video",
    }
    record = bench("decode")
    assert sorted(record["left_out"]) == ["decord is not installed", "torchcodec is not installed"]


def test_train_splits_the_step_and_tells_the_memory(bench: Bench) -> None:
    figures = bench("train")["figures"]
    assert set(figures) == {"pretrain", "finetune"}
    assert set(figures["pretrain"]["videomae"]) == {"total", "peak_bytes"}
    for who in ("videomae model", "transformers", "plain"):
        found = figures["pretrain"][who]
        assert set(found) == {"forward", "backward", "optimiser", "total", "peak_bytes"}
        assert found["peak_bytes"] == 5_000_000


def test_decode_and_process_compare_all_that_is_there(bench: Bench, place: Path) -> None:
    figures = bench("decode")["figures"]
    assert set(figures[str(place / "a.mp4")]) == set(peers.decoders())
    figures = bench("process")["figures"]
    assert len(figures) == 4
    for found in figures.values():
        assert {"videomae image", "videomae video", "transformers video"} <= set(found)


def test_end_to_end_goes_from_files_and_from_the_start_of_a_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(app.subprocess, "run", lambda words, **_: started.append(words))
    figures = bench("end-to-end", "--files", 9)["figures"]
    assert set(figures) == {
        "one file, the model loaded",
        "one file, from the start of a process",
        "9 short files",
    }
    assert all("transformers" in found for found in figures.values())
    assert len(started) == 4  # two kinds, a round to warm up and one that counts
    assert started[0][:4] == [sys.executable, "-m", "videomae", "classify"]
    assert started[1][1:3] == ["-c", peers.READER_SCRIPT]
    with pytest.raises(ConfigError, match="runs on a CPU so far; pass --device cpu"):
        app._end_to_end(_asked(device=torch.device("cuda")))


def test_scaling_fits_an_exponent_and_draws_it(bench: Bench, place: Path) -> None:
    record = bench("scaling", "--output", place / "out")
    figures = record["figures"]
    assert set(figures) == {"frames", "height and width, px"}
    assert set(figures["frames"]) == {"8", "16", "32", "64", "exponents"}
    assert figures["frames"]["exponents"]["memory"] == pytest.approx(0, abs=1e-9)
    assert "time ~ x^" in record["shown"]
    assert {path.name for path in (place / "out").iterdir()} == {
        "bench.json",
        "frames.svg",
        "height.svg",
    }


def test_json_alone_is_one_line_and_the_threads_are_put_back(bench: Bench) -> None:
    before = torch.get_num_threads()
    record = bench("decode", "--json", "--clock", "cpu")
    assert record["shown"] == ""
    assert record["clock"] == "cpu"
    assert record["machine"]["threads"] == 1
    assert {"processor", "cores", "torch", "videomae", "python"} <= set(record["machine"])
    assert torch.get_num_threads() == before


def test_rendered_clips_stand_in_for_a_video(tmp_path: Path) -> None:
    clips = _asked(folder=tmp_path).clips(3)
    assert clips.shape == (3, 4, 3, 32, 32)
    assert not torch.equal(clips[0], clips[1])


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no bench 'forwards'; did you mean 'forward'"):
        app.bench("forwards")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="repeats=0, files=32"):
        app.bench("decode", repeats=0)
    with pytest.raises(ConfigError, match="all must be at least 1"):
        app.bench("forward", batch_sizes=())


def _asked(**changes: Any) -> models.Asked:
    values: dict[str, Any] = {
        "model": "tiny",
        "config": SMALL,
        "device": CPU,
        "dtype": torch.float32,
        "batch_sizes": (1,),
        "repeats": 1,
        "clock": "wall",
        "video": None,
        "files": 1,
        "folder": Path(),
        "tell": lambda _: None,
    }
    return models.Asked(**values | changes)
