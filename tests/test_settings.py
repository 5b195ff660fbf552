from typing import Any

import pytest

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.settings import FinetuneSettings, PretrainSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing=1.5 must lie in 0 to 1"),
        ({"problem": "regression", "mixup_alpha": 0.8}, "mixup and cutmix mix classes"),
        ({"problem": "regression", "class_weights": "balanced"}, "no meaning for regression"),
        ({"train_only": "heads"}, "train_only='heads' is not one of all, head"),
        ({"crop": "centre"}, "crop='centre' is not one of multi_scale, random_resized"),
        ({"crop_scales": ()}, r"crop_scales=\(\) should be one or more values"),
        ({"crop_scales": (1.0, 1.5)}, "crop_scales=1.5 must be above 0 and at most 1"),
        ({"crop_area": (0.0, 1.0)}, "crop_area=0.0 must be above 0 and at most 1"),
        ({"crop_area": (0.5, 0.2)}, r"crop_area=\(0.5, 0.2\) must be a least and a largest value"),
        ({"crop_ratio": (2.0, 1.0)}, r"crop_ratio=\(2.0, 1.0\) must be a least and a largest"),
        ({"rand_augment_ops": -1}, "rand_augment_ops=-1 must be at least 0"),
        ({"rand_augment_magnitude": 11}, "rand_augment_magnitude=11 must lie in 0 to 10"),
        ({"erase_prob": 1.5}, "erase_prob=1.5 must lie in 0 to 1"),
        ({"mixup_alpha": -1}, "mixup_alpha=-1 must be at least 0"),
        ({"mix_switch_prob": 2}, "mix_switch_prob=2 must lie in 0 to 1"),
        ({"merge_tokens": 8, "parallel": "fsdp"}, "merge_tokens=8 does not go with parallel"),
        ({"merge_tokens": 8, "activation_checkpointing": True}, "merge_tokens=8 does not go with"),
    ],
)
def test_fine_tuning_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinetuneSettings(**values)


def test_peak_lr_is_linear_in_the_batch() -> None:
    # Kinetics-400, ViT-B: 1.5e-4 * 2048 / 256
    assert PretrainSettings(batch_size=2048, lr=1.5e-4).peak_lr == pytest.approx(1.2e-3)


def test_a_short_run_shortens_the_warm_up_of_the_recipe() -> None:
    assert PretrainSettings(epochs=800).num_warmup_epochs == 40
    assert PretrainSettings(epochs=20).num_warmup_epochs == 2
    assert FinetuneSettings(epochs=75).num_warmup_epochs == 5
    assert FinetuneSettings(epochs=75, warmup_epochs=0.0).num_warmup_epochs == 0


def test_sizes_are_those_that_are_named() -> None:
    assert PretrainSettings(num_frames=8).sizes == {"num_frames": 8}
    settings = PretrainSettings(frame_stride="uniform", fps=8)
    assert settings.sizes == {"frame_stride": "uniform", "fps": 8}
    config = VideoMAEConfig.preset("tiny", fps=5, **PretrainSettings(frame_stride="uniform").sizes)
    assert (config.frame_stride, config.fps) == (None, 5)
    assert config.copy(**PretrainSettings(fps="own").sizes).fps is None
    with pytest.raises(ConfigError, match=r"fps=0 must lie in 0\.01 to 1000"):
        PretrainSettings(fps=0)
