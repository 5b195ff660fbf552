"""The baselines do the same work as we do: the same weights, frames, logits, targets."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.compare import baselines, transformers_reader
from videomae.config import VideoMAEConfig
from videomae.inference.predict import classify
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.views import find_processor
from videomae.rendering.actions import render_clip
from videomae.video.reader import read_frames
from videomae.video.writer import write_video

CPU = torch.device("cpu")
SMALL = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_frames=4, num_labels=3)
TO_TRAIN: dict[str, baselines.Make] = {
    "videomae": baselines.ours_to_train,
    "transformers": baselines.transformers_to_train,
    "plain": baselines.PlainModel,
}


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
@pytest.mark.parametrize("who", ["transformers", "plain"])
def test_a_training_step_moves_the_weights(who: str, task: str) -> None:
    made: list[torch.nn.Module] = []

    def remembered(config: VideoMAEConfig, task: str) -> torch.nn.Module:
        made.append(TO_TRAIN[who](config, task))
        return made[0]

    step = baselines.train_job(remembered, task, CPU, torch.float32, SMALL)
    before = [parameter.detach().clone() for parameter in made[0].parameters()]
    step()
    assert all(not torch.equal(a, b) for a, b in zip(before, made[0].parameters(), strict=True))


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_all_train_equally_large_models(task: str) -> None:
    models = [make(SMALL, task) for make in TO_TRAIN.values()]
    sizes = [sum(p.numel() for p in model.parameters()) for model in models]
    # The plain one has biases of keys, and one norm more or less.
    assert max(sizes) < 1.01 * min(sizes)


def test_plain_pre_training_computes_the_loss_that_ours_does() -> None:
    """Predictions of zero are compared with the same targets: the mean square of hidden pixels."""
    pixels = torch.randn(2, 4, 3, 32, 32)
    mask = torch.zeros(2, SMALL.grid.num_tokens, dtype=torch.bool)
    mask[:, ::2] = True
    losses = []
    for who, head in (("videomae", "decoder.head"), ("plain", "to_pixels")):
        model = TO_TRAIN[who](SMALL, "pretrain")
        for parameter in model.get_submodule(head).parameters():
            torch.nn.init.zeros_(parameter)
        losses.append(model(pixels, bool_masked_pos=mask, return_dict=True).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_model_of_transformers_gives_the_same_logits() -> None:
    model = VideoMAEForVideoClassification(SMALL).eval()
    torch.nn.init.normal_(model.classifier.weight)
    pixels = torch.randn(1, 4, 3, 32, 32)
    with torch.inference_mode():
        ours = model(pixels, return_dict=True).logits
        for attention in ("eager", "sdpa"):
            theirs = baselines.transformers_model(model, attention)
            assert theirs.config._attn_implementation == attention
            torch.testing.assert_close(theirs(pixels).logits, ours, atol=1e-5, rtol=0)


def test_a_forward_job_gives_the_logits_of_one_clip() -> None:
    logits: Any = baselines.transformers_forward_job(CPU, torch.float32, SMALL)()
    assert logits.shape == (1, 3)


@pytest.mark.slow
def test_the_reader_of_transformers_reads_the_frames_that_we_do(tmp_path: Path) -> None:
    """The same weights on the same file: the same labels, so that the same work is compared."""
    model, film = VideoMAEForVideoClassification(SMALL), tmp_path / "a.mp4"
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path / "model")
    find_processor(None, SMALL).save_pretrained(tmp_path / "model")
    write_video(film, render_clip("throw", seed=0, size=64, num_frames=80))
    ours = classify(film, model=tmp_path / "model", engine="torch")
    theirs = transformers_reader.reader(tmp_path / "model", 4)(film)
    assert tuple(theirs[:3]) == ours.labels[:3]
    command = [sys.executable, transformers_reader.__file__, tmp_path / "model", "4", film]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(theirs)


@pytest.mark.parametrize("package", ["decord", "torchcodec"])
def test_every_decoder_gives_the_frames_asked_for(package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    film, indices = tmp_path / "a.mp4", [3, 7, 30]
    write_video(film, render_clip("throw", seed=0, size=64, num_frames=80))
    frames = getattr(baselines, f"by_{package}")(film, indices)
    exact = read_frames(film, indices).astype(int)
    assert np.abs(frames.astype(int) - exact).mean() < 4
