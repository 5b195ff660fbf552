"""Nothing but the random layers of a model draws from the global generators."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videomae.compute.distributed import step_seed
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.training.finetune import finetune
from videomae.training.loop import StepEnd, Training
from videomae.training.pretrain import pretrain

ALL_AUGMENTATIONS = {
    "rand_augment_ops": 2, "erase_prob": 1.0, "mixup_alpha": 0.8, "cutmix_alpha": 1.0,
    "num_repeats": 2, "flip": True, "crop": "random_resized", "label_smoothing": 0.1,
}  # fmt: skip


def states() -> dict[str, bytes]:
    """The state of each global generator."""
    _, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.asarray(keys).tobytes() + repr(rest).encode(),
        "random": repr(random.getstate()).encode(),
    }


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Looks at the generators around each step of a run; for each step, whether torch's moved."""
    drew: list[bool] = []
    left: dict[Training, dict[str, bytes]] = {}
    real = Training._step

    def step(training: Training, number: int, *rest: Any) -> StepEnd:
        before = states()
        # log, page, pictures, checkpoint and evaluation lie between two steps
        assert before == left.get(training, before), (
            f"drawn between steps {number} and {number + 1}"
        )
        end = real(training, number, *rest)
        after = states()
        assert {**after, "torch": b""} == {**before, "torch": b""}, f"drawn in step {number + 1}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(training.settings.seed, number, 0))
            drew.append(after["torch"] != states()["torch"])
        left[training] = after
        return end

    monkeypatch.setattr(Training, "_step", step)
    return drew


def test_pretraining_draws_nothing(
    videos_dir: Path, tmp_path: Path, small: dict[str, Any], watched: list[bool]
) -> None:
    settings = PretrainSettings(
        data=videos_dir, output=tmp_path / "run", epochs=2, mask_ratio=0.5, lr=0.1, num_repeats=2,
        flip=True, save_every_steps=1, keep_every_epochs=1, draw_every_epochs=1,
        tracker="none",        **small,
    )  # fmt: skip
    before = states()
    pretrain(settings)
    assert watched == [False] * 4
    assert {**states(), "torch": b""} == {**before, "torch": b""}  # torch's makes the weights


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return VideoMAEForVideoClassification.from_pretrained(output / "model").state_dict()


def test_finetuning_draws_for_its_random_layers_alone(
    videos_dir: Path, tmp_path: Path, small: dict[str, Any], watched: list[bool]
) -> None:
    def run(name: str, **changes: Any) -> list[bool]:
        watched.clear()
        settings = FinetuneSettings(
            data=videos_dir, output=tmp_path / name, eval_data=videos_dir, epochs=2, lr=0.1,
            save_every_steps=1, eval_every_epochs=1, tracker="none",
            **{**small, **ALL_AUGMENTATIONS, **changes},
        )  # fmt: skip
        finetune(settings)
        return list(watched)

    assert run("plain", drop_path_rate=0.0, classifier_dropout=0.0) == [False] * 4
    first = run("first", drop_path_rate=0.5, num_workers=1)
    assert first == [True] * 4
    run("second", drop_path_rate=0.5, num_workers=3)
    one, other = (weights_of(tmp_path / name) for name in ("first", "second"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    (tmp_path / "second" / "checkpoints" / "step_00000004.pt").unlink()
    run("second", drop_path_rate=0.5, resume=True)
    other = weights_of(tmp_path / "second")
    assert all(torch.equal(one[name], other[name]) for name in one)
