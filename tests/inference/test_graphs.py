import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_files import CONFIG, FACTS, LABELS, WEIGHTS, write_graph
from videomae.commands import cli
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError
from videomae.inference import engines, graphs
from videomae.inference.graphs import automatic, exported_file, open_graph
from videomae.inference.predict import classify, embed
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.video.writer import write_video

HERE: dict[str, Any] = {"dtype": "auto", "device": "cpu"}
ANY: dict[str, Any] = {"engine": "auto", **HERE}
KEPT: dict[str, Any] = {"engine": "onnxruntime", **HERE}


def film(num_frames: int = 9, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights that nobody reads, and the graph that is kept as made of them."""
    monkeypatch.setenv("VIDEOMAE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    config = VideoMAEConfig(**CONFIG)
    config.save_pretrained(folder)
    processor = VideoMAEImageProcessor(size=8, crop_size=8)
    processor.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"weights")
    note(folder, tmp_path / "cache" / "engines" / f"onnxruntime-{'0' * 32}")
    return folder


def note(folder: Path, place: Path, weights: Any = WEIGHTS) -> None:
    write_graph(place / "model.onnx", weights=weights)
    graphs.write_note(
        place,
        folder,
        engine="onnxruntime",
        asked="auto",
        dtype="float32",
        tokens=False,
        config=VideoMAEConfig(**CONFIG),
        processor=VideoMAEImageProcessor(size=8, crop_size=8).to_dict(),
        norm=None,
    )


def test_an_exported_file_says_all_that_it_takes(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "out" / "model.onnx", FACTS)
    for place in (path, path.parent):
        result = classify(film(), model=place)
        processor = VideoMAEImageProcessor(
            size=8, crop_size=8, image_mean=[0.5] * 3, image_std=0.25
        )
        pixels = processor(film()[[2, 5]], return_tensors="np").pixel_values  # 3 apart, centred
        logits = pixels.mean((1, 3, 4)) @ WEIGHTS
        np.testing.assert_allclose(result.logits, logits, rtol=1e-5)
        scores = torch.from_numpy(logits).softmax(-1)[0]
        assert result.labels == tuple(LABELS[k] for k in scores.argsort(descending=True))
        np.testing.assert_allclose(result.scores, sorted(scores.tolist())[::-1], rtol=1e-5)
    several = classify([film(), film(7)], model=path, num_clips=2, num_crops=3, top_k=1)
    assert [each.logits.shape for each in several] == [(6, 2)] * 2


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_scores_are_what_the_labels_of_a_file_mean(tmp_path: Path, activation: str | None) -> None:
    facts = {**FACTS, "output": {"activation": activation}}
    result = classify(film(), model=write_graph(tmp_path / "model.onnx", facts))
    logits = torch.from_numpy(result.logits[0])
    expected = logits if activation is None else logits.sigmoid()
    np.testing.assert_allclose(result.scores, expected.sort(descending=True).values, rtol=1e-6)
    assert result.are_shares == (activation is not None)


def test_features_of_a_file_are_those_that_it_was_exported_for(tmp_path: Path) -> None:
    facts = {**FACTS, "task": "embed", "features": "pooled", "labels": []}
    path = write_graph(tmp_path / "model.onnx", facts)
    assert embed(film(), model=path).features.shape == (2,)
    with pytest.raises(ConfigError, match="features='tokens' is not what this file answers"):
        embed(film(), model=path, features="tokens")
    with pytest.raises(ConfigError, match="answers with features, not with labels; use embed"):
        classify(film(), model=path)
    path = write_graph(tmp_path / "model.onnx", FACTS)
    with pytest.raises(ConfigError, match="features='pooled' is not what this file answers"):
        embed(film(), model=path)


def test_a_file_that_cannot_be_run_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_graph(tmp_path / "model.onnx", FACTS)
    with pytest.raises(ConfigError, match="runs by onnxruntime, on a CPU, and engine='torch'"):
        open_graph(path, **{**ANY, "engine": "torch"})
    with pytest.raises(ConfigError, match="device='cuda' was asked for; leave them out"):
        open_graph(path, **{**ANY, "device": "cuda"})
    with pytest.raises(ConfigError, match="is in float32, and dtype='float16' was asked for"):
        open_graph(path, **{**ANY, "dtype": "float16"})
    write_graph(path, {**FACTS, "resample": "lanczos"})
    with pytest.raises(ConfigError, match="resized by 'lanczos', which only torch can"):
        open_graph(path, **ANY)
    for facts in (None, {}, {**FACTS, "labels": 3}, {**FACTS, "crop": [0, 8]}):
        write_graph(path, facts)
        with pytest.raises(WeightsError, match=r"does not say what it expects .* export the model"):
            open_graph(path, **ANY)
    path.write_bytes(b"junk")
    with pytest.raises(WeightsError, match="cannot be read"):
        open_graph(path, **ANY)
    path.with_suffix(".xml").write_bytes(b"<junk")
    with pytest.raises(WeightsError, match="cannot be read"):
        open_graph(path.with_suffix(".xml"), **ANY)
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'needs onnxruntime; pip install "videomae\[onnx\]"'):
        open_graph(path, **ANY)


def test_answers_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "model.onnx", FACTS, weights=WEIGHTS * np.nan)
    with pytest.raises(WeightsError, match="numbers that are not finite"):
        classify(film(), model=path)


def test_a_folder_of_weights_is_no_exported_file(tmp_path: Path, model: Path) -> None:
    write_graph(model / "model.onnx", FACTS)
    assert exported_file(model) is None
    assert exported_file(tmp_path / "absent.onnx") is None
    assert exported_file("MCG-NJU/videomae-base") is None


def test_what_is_kept_of_a_model_runs_in_its_place(model: Path) -> None:
    graph = open_graph(model, **KEPT)
    assert graph is not None
    assert (graph.config.num_frames, graph.processor.size) == (2, {"shortest_edge": 8})
    assert graph.describe().endswith("float32, without torch")
    told: list[str] = []
    result = classify(film(), model=model, engine="onnxruntime", device="cpu", tell=told.append)
    assert told == [graph.describe()]
    pixels = VideoMAEImageProcessor(size=8, crop_size=8)(film()[[2, 5]], return_tensors="np")
    expected = pixels.pixel_values.mean((1, 3, 4)) @ WEIGHTS
    np.testing.assert_allclose(result.logits, expected, rtol=1e-5)
    assert np.array_equal(classify(film(), model=graph).logits, result.logits)
    assert open_graph(model, **{**KEPT, "dtype": "float32"}) is not None
    assert open_graph(model / "model.safetensors", **KEPT) is not None


@pytest.mark.parametrize(
    "change", ["weights", "config.json", "preprocessor_config.json", "code", "versions", "machine"]
)
def test_whatever_changes_the_answers_makes_it_unknown(
    model: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    if change == "weights":
        (model / "model.safetensors").write_bytes(b"WEIGHTS")  # of the same size
    elif change == "code":
        monkeypatch.setattr(graphs, "code_digest", lambda: "other")
    elif change == "versions":
        monkeypatch.setattr(graphs.runtimes, "version_of", lambda _: "0")
    elif change == "machine":
        monkeypatch.setattr(graphs, "_processor_facts", lambda: ["another processor"])
    else:
        values = json.loads((model / change).read_text())
        (model / change).write_text(json.dumps({**values, "initializer_range": 0.5}))
    assert open_graph(model, **KEPT) is None


def test_torch_is_left_what_is_its_own(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for change in ({"engine": "openvino"}, {"engine": "torch"}, {"engine": "auto"}):
        assert open_graph(model, **{**KEPT, **change}) is None
    for change in ({"device": "cuda"}, {"dtype": "bfloat16"}, {"tokens": True}):
        assert open_graph(model, **{**KEPT, **change}) is None
    monkeypatch.setattr(graphs, "_is_without_gpu", lambda: False)
    assert open_graph(model, **{**KEPT, "device": "auto"}) is None
    monkeypatch.setattr(graphs, "_is_without_gpu", lambda: True)
    assert open_graph(model, **{**KEPT, "device": "auto"}) is not None
    assert open_graph("no-such-model", **KEPT) is None  # whoever loads it says so


def test_a_damaged_note_or_graph_is_left_alone(tmp_path: Path, model: Path) -> None:
    [place] = (tmp_path / "cache" / "engines").iterdir()
    second = place.with_name(f"onnxruntime-{'1' * 32}")
    note(model, second, weights=WEIGHTS * 2)
    os.utime(place, (1, 1))
    newest = open_graph(model, **KEPT)
    assert newest is not None
    ones = np.ones((1, 2, 3, 8, 8), np.float32)
    assert newest(ones).tolist() == [[8, 4]]
    for path in second.glob("note-*"):
        path.write_text("{")
    found = open_graph(model, **KEPT)
    assert found is not None
    assert found(ones).tolist() == [[4, 2]]
    (place / "model.onnx").write_bytes(b"junk")
    assert open_graph(model, **KEPT) is None


def test_auto_takes_a_graph_for_few_views(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_multiplies_bfloat16", lambda: False)
    assert automatic(model, views=16, **HERE) is not None
    assert automatic(model, views=17, **HERE) is None
    monkeypatch.setattr(graphs, "_multiplies_bfloat16", lambda: True)
    assert automatic(model, views=2, **HERE) is not None
    assert automatic(model, views=3, **HERE) is None


def test_the_command_line_takes_what_is_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", film(9, (16, 24)), fps=8)
    monkeypatch.setattr(engines, "load", lambda *_, **__: pytest.fail("torch was asked"))
    words = ["classify", str(tmp_path / "a.mp4"), "--model", str(model), "--device", "cpu"]
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["labels"]
    with pytest.raises(pytest.fail.Exception, match="torch was asked"):
        cli.main([*words, "--engine", "torch"])


@pytest.mark.parametrize("has_norm", [True, False])
def test_answers_are_those_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_norm: bool
) -> None:
    monkeypatch.setenv("VIDEOMAE_CACHE", str(tmp_path / "cache"))
    changes = {"num_hidden_layers": 1, "intermediate_size": 16, "tubelet_size": 1, "patch_size": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = VideoMAEConfig(**{**CONFIG, **changes, "use_mean_pooling": has_norm})
        classifier = VideoMAEForVideoClassification(config)
        torch.nn.init.normal_(classifier.classifier.weight)
        if has_norm:
            torch.nn.init.normal_(classifier.fc_norm.weight)
            torch.nn.init.normal_(classifier.fc_norm.bias)
    classifier.save_pretrained(tmp_path / "model")
    asked: dict[str, Any] = {"model": tmp_path / "model", "dtype": "float32", "device": "cpu"}
    first = embed(film(), engine="onnxruntime", **asked)  # converts
    kept = open_graph(tmp_path / "model", **{**KEPT, "dtype": "float32", "tokens": True})
    assert kept is not None
    assert (kept.norm is not None) == has_norm
    np.testing.assert_allclose(embed(film(), model=kept).features, first.features, atol=1e-6)
    for features in ("pooled", "per_time", "tokens"):
        expected = embed(film(), engine="torch", features=features, **asked).features
        found = embed(film(), model=kept, features=features).features
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
