from typing import Any

import pytest

from videomae.errors import ConfigError
from videomae.settings import FinetuneSettings, PretrainSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing=1.5 must lie in 0 to 1"),
        ({"problem": "regression", "mixup_alpha": 0.8}, "mixup and cutmix mix classes"),
        ({"problem": "regression", "class_weights": "balanced"}, "no meaning for regression"),
        ({"train_only": "heads"}, "train_only='heads' is not one of all, head"),
    ],
)
def test_fine_tuning_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinetuneSettings(**values)


def test_peak_lr_is_linear_in_the_batch() -> None:
    # Kinetics-400, ViT-B: 1.5e-4 * 2048 / 256
    assert PretrainSettings(batch_size=2048).peak_lr == pytest.approx(1.2e-3)


def test_a_short_run_shortens_the_warm_up_of_the_recipe() -> None:
    assert PretrainSettings(epochs=800).num_warmup_epochs == 40
    assert PretrainSettings(epochs=20).num_warmup_epochs == 2
    assert FinetuneSettings(epochs=75).num_warmup_epochs == 5
    assert FinetuneSettings(epochs=75, warmup_epochs=0.0).num_warmup_epochs == 0


@pytest.mark.parametrize(("stride", "expected"), [(None, {}), (2, 2), ("uniform", None)])
def test_sizes_are_those_that_are_named(stride: object, expected: object) -> None:
    settings = PretrainSettings(frame_stride=stride, num_frames=8)  # type: ignore[arg-type]
    sizes = {"num_frames": 8} if stride is None else {"num_frames": 8, "frame_stride": expected}
    assert settings.sizes == sizes
