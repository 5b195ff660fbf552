import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError
from videomae.modeling import VideoMAEForPreTraining
from videomae.training.pretrain import draw_mask, make_model, pretrain
from videomae.training.report import read_log
from videomae.training.settings import PretrainSettings, load_recipe


@pytest.fixture
def settings(videos_dir: Path, tmp_path: Path, small: dict[str, Any]) -> PretrainSettings:
    return PretrainSettings(
        data=videos_dir, output=tmp_path / "run", epochs=3, mask_ratio=0.5, lr=0.1, **small
    )


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return VideoMAEForPreTraining.from_pretrained(folder).state_dict()


def test_a_run_leaves_all_that_is_promised(settings: PretrainSettings) -> None:
    folder = pretrain(settings)
    output = settings.output
    assert folder == output / "model"
    model = VideoMAEForPreTraining.from_pretrained(folder)
    assert model.config.num_frames == 4
    assert model.config.norm_pix_loss
    assert not model.config.use_mean_pooling  # the encoder ends in its norm
    rows = read_log(output)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0]["lr"] == 0  # warm-up begins at 0
    assert all(row["num_bad_videos"] == 0 for row in rows)
    for name in ("curve.png", "reconstructions/epoch_0003.png"):
        with Image.open(output / name) as picture:
            assert min(picture.size) > 90
    assert json.loads((output / "environment.json").read_text())["torch"] == torch.__version__


def test_the_written_settings_repeat_the_run(settings: PretrainSettings, tmp_path: Path) -> None:
    first = weights_of(pretrain(settings))
    again = load_recipe(settings.output / "settings.toml", PretrainSettings)
    second = weights_of(pretrain(dataclasses.replace(again, output=tmp_path / "again")))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_falls(settings: PretrainSettings) -> None:
    pretrain(dataclasses.replace(settings, epochs=20))
    losses = [row["loss"] for row in read_log(settings.output)]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_at", [1, 3, 4])
def test_a_resumed_run_ends_with_the_same_weights(
    settings: PretrainSettings,
    tmp_path: Path,
    killed_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = weights_of(pretrain(settings))
    broken = dataclasses.replace(settings, output=tmp_path / "broken", save_every_steps=1)

    def killing(settings: PretrainSettings, config: VideoMAEConfig, size: int, step: int) -> Any:
        if step == killed_at:
            raise _KilledError
        return draw_mask(settings, config, size, step)

    with monkeypatch.context() as patch:
        patch.setattr("videomae.training.pretrain.draw_mask", killing)
        with pytest.raises(_KilledError):
            pretrain(broken)
    resumed = weights_of(pretrain(dataclasses.replace(broken, resume=True)))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [row["step"] for row in read_log(broken.output)] == [1, 2, 3, 4, 5, 6]


def test_a_signal_saves_before_it_stops(
    settings: PretrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(settings: PretrainSettings, config: VideoMAEConfig, size: int, step: int) -> Any:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw_mask(settings, config, size, step)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr("videomae.training.pretrain.draw_mask", stopping)
        with pytest.raises(KeyboardInterrupt):
            pretrain(settings)
    assert signal.getsignal(signal.SIGTERM) is before
    saved = torch.load(settings.output / "checkpoint.pt", weights_only=True)
    assert saved["step"] in (2, 3)
    pretrain(dataclasses.replace(settings, resume=True))


def test_resuming_with_other_settings_is_refused(settings: PretrainSettings) -> None:
    pretrain(settings)
    changed = dataclasses.replace(settings, resume=True, mask_ratio=0.9, batch_size=5)
    with pytest.raises(
        ConfigError, match=r"batch_size was 4, is 5; mask_ratio was 0\.5, is 0\.9; use the first"
    ):
        pretrain(changed)


def test_resuming_nothing_says_so(settings: PretrainSettings) -> None:
    with pytest.raises(WeightsError, match="nothing to resume"):
        pretrain(dataclasses.replace(settings, resume=True))


def test_a_finished_run_is_not_overwritten(settings: PretrainSettings) -> None:
    pretrain(settings)
    with pytest.raises(ConfigError, match="holds a run already; pass --resume"):
        pretrain(settings)


def test_an_output_that_cannot_be_written_fails_at_once(
    settings: PretrainSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to the output folder"):
        pretrain(dataclasses.replace(settings, output=tmp_path / "file" / "run"))


def test_a_run_can_start_from_other_weights(settings: PretrainSettings) -> None:
    folder = pretrain(settings)
    start = make_model(dataclasses.replace(settings, init=str(folder)))
    expected = weights_of(folder)
    assert all(torch.equal(start.state_dict()[name], expected[name]) for name in expected)
    assert next(start.parameters()).dtype == torch.float32


def test_masks_follow_from_seed_and_step(settings: PretrainSettings) -> None:
    config = VideoMAEConfig.preset("tiny")
    one = draw_mask(settings, config, 4, step=7)
    assert torch.equal(one, draw_mask(settings, config, 4, step=7))
    assert not torch.equal(one, draw_mask(settings, config, 4, step=8))
    other = dataclasses.replace(settings, seed=1)
    assert not torch.equal(one, draw_mask(other, config, 4, step=7))
