import dataclasses
import errno
import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from videomae.claim import claimed
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, VideoError, WeightsError
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.processing.views import normalize
from videomae.recipe import load_recipe
from videomae.report.record import read_log, read_run
from videomae.settings import PretrainSettings
from videomae.training.checkpoint import checkpoint_paths
from videomae.training.defaults import decide
from videomae.training.pretrain import draw_masks, dry_run, make_model, pretrain


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
    for name in ("loss.png", "lr.png", "reconstructions/epoch_0003.png"):
        with Image.open(output / name) as picture:
            assert min(picture.size) > 90
    environment = json.loads((output / "environment.json").read_text())
    assert torch.__version__.startswith(environment["torch"])  # without its build
    assert (output / "index.html").is_file()
    assert list((output / "tensorboard").glob("events*"))
    assert {"data_ms", "forward_ms", "backward_ms", "optimizer_ms"} <= set(rows[-1])


def test_the_written_settings_repeat_the_run(settings: PretrainSettings, tmp_path: Path) -> None:
    first = weights_of(pretrain(settings))
    again = load_recipe(settings.output / "settings.toml", PretrainSettings)
    second = weights_of(pretrain(dataclasses.replace(again, output=tmp_path / "again")))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_models_on_the_way_are_kept_where_asked_for(settings: PretrainSettings) -> None:
    last = weights_of(pretrain(dataclasses.replace(settings, keep_every_epochs=1)))
    kept = sorted(settings.output.glob("epoch_*"))
    assert [path.name for path in kept] == ["epoch_0001", "epoch_0002", "epoch_0003"]
    first, *_, third = (weights_of(path) for path in kept)
    assert all(torch.equal(last[name], third[name]) for name in last)
    assert not all(torch.equal(last[name], first[name]) for name in last)
    assert "epochs | 1," in (kept[0] / "README.md").read_text()


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
        return draw_masks(settings, config, size, step)

    with monkeypatch.context() as patch:
        patch.setattr("videomae.training.pretrain.draw_masks", killing)
        with pytest.raises(_KilledError):
            pretrain(broken)
    assert len(checkpoint_paths(broken.output)) == min(killed_at, 2)
    resumed = weights_of(pretrain(dataclasses.replace(broken, resume=True)))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [row["step"] for row in read_log(broken.output)] == [1, 2, 3, 4, 5, 6]


def test_a_signal_saves_before_it_stops(
    settings: PretrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(settings: PretrainSettings, config: VideoMAEConfig, size: int, step: int) -> Any:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw_masks(settings, config, size, step)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr("videomae.training.pretrain.draw_masks", stopping)
        with pytest.raises(KeyboardInterrupt):
            pretrain(settings)
    assert signal.getsignal(signal.SIGTERM) is before
    (saved,) = checkpoint_paths(settings.output)
    assert saved.name in ("step_00000002.pt", "step_00000003.pt")
    pretrain(dataclasses.replace(settings, resume=True))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    settings: PretrainSettings,
) -> None:
    whole = weights_of(pretrain(dataclasses.replace(settings, save_every_steps=5)))
    *_, last = checkpoint_paths(settings.output)
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"step_00000006\.pt is damaged.*; going on from .*05\.pt"):
        resumed = weights_of(pretrain(dataclasses.replace(settings, resume=True)))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_step_without_a_number_is_skipped_and_many_stop_the_run(
    settings: PretrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*clips: Any) -> Any:
        return normalize(*clips) * (float("nan") if next(steps) in bad else 1)

    with monkeypatch.context() as patch:
        patch.setattr("videomae.training.pretrain.normalize", poisoned)
        patch.setattr("videomae.training.pretrain.draw", lambda *_: None)
        steps, bad = itertools.count(), {1, 3}
        pretrain(settings)
        rows = read_log(settings.output)
        assert [row["num_skipped_steps"] for row in rows] == [0, 1, 1, 2, 2, 2]
        assert [row["loss"] is None for row in rows] == [False, True, False, True, False, False]
        steps, bad = itertools.count(), {2, 3}
        strict = dataclasses.replace(
            settings, max_nonfinite_steps=2, output=settings.output / "strict"
        )
        with pytest.raises(ConfigError, match=r"no numbers in 2 steps in a row, to step 4.*\.mp4"):
            pretrain(strict)


def test_unreadable_videos_are_listed_or_stop_the_run(
    settings: PretrainSettings, tmp_path: Path
) -> None:
    shutil.copytree(settings.data, tmp_path / "v")
    (tmp_path / "v" / "throw" / "bad.mp4").write_bytes(b"not a video")
    few = dataclasses.replace(settings, data=tmp_path / "v", max_bad_fraction=0.1, batch_size=11)
    pretrain(few)
    listed = json.loads((few.output / "bad_videos.json").read_text())
    assert list(listed) == [str(tmp_path / "v" / "throw" / "bad.mp4")]
    assert read_log(few.output)[-1]["num_bad_videos"] == 1
    strict = dataclasses.replace(few, output=tmp_path / "strict", max_bad_fraction=0.05)
    with pytest.raises(VideoError, match=r"1 of 11 videos cannot be read.*bad\.mp4"):
        pretrain(strict)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, and all that is in them."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, videos_dir: Path, small: dict[str, Any]
) -> PretrainSettings:
    """The settings of a run that is finished; to be copied, not changed."""
    output = tmp_path_factory.mktemp("finished") / "run"
    settings = PretrainSettings(
        data=videos_dir, output=output, epochs=3, mask_ratio=0.5, lr=0.1, **small
    )
    pretrain(settings)
    return settings


def resumed(finished: PretrainSettings, output: Path, **changes: Any) -> PretrainSettings:
    """The settings to go on with a copy of the finished run."""
    shutil.copytree(finished.output, output)
    return dataclasses.replace(finished, **{"output": output, "resume": True, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": False}, "holds a run already; pass --resume"),
        (
            {"mask_ratio": 0.9, "batch_size": 5},
            r"batch_size was 4, is 5; mask_ratio was 0\.5, is 0\.9; use the first",
        ),
        ({"accumulate": 3}, "batch_size=4 cannot be split evenly over 1 processes in 3 parts"),
        ({"tracker": "wandb"}, "tracker='wandb' is not installed"),
        ({"data": Path("nowhere")}, "data nowhere does not exist"),
        ({"init": "./nowhere.pth"}, "nowhere.pth does not exist"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used"),
    ],
)
def test_a_refusal_changes_nothing(
    finished: PretrainSettings, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    asked = resumed(finished, tmp_path / "run", **changes)
    before = bytes_of(tmp_path)
    with pytest.raises((ConfigError, WeightsError), match=message):
        pretrain(asked)
    assert bytes_of(tmp_path) == before
    if asked.resume:  # nor does a new run begin
        with pytest.raises((ConfigError, WeightsError)):
            pretrain(dataclasses.replace(asked, output=tmp_path / "new", mask_ratio=7.0))
        assert not (tmp_path / "new").exists()


def test_a_run_without_a_whole_checkpoint_is_left_as_it_is(
    finished: PretrainSettings, tmp_path: Path
) -> None:
    asked = resumed(finished, tmp_path / "run")
    for path in checkpoint_paths(asked.output):
        path.write_bytes(b"")
    before = bytes_of(tmp_path)
    with pytest.raises(WeightsError, match=r"is damaged: .*; none is left to go on from"):
        pretrain(asked)
    assert bytes_of(tmp_path) == before


def test_a_finished_run_stays_as_it_is(
    finished: PretrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = resumed(finished, tmp_path / "run")
    before = bytes_of(tmp_path)
    assert pretrain(asked) == asked.output / "model"
    assert bytes_of(tmp_path) == before
    assert f"{asked.output} is finished and stays as it is; to train on" in capsys.readouterr().err


def test_a_run_that_was_killed_before_its_model_was_saved_saves_it(
    finished: PretrainSettings, tmp_path: Path
) -> None:
    asked = resumed(finished, tmp_path / "run")
    shutil.rmtree(asked.output / "model")
    again, first = weights_of(pretrain(asked)), weights_of(finished.output / "model")
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_two_runs_in_one_folder_are_refused_from_the_first_moment(
    settings: PretrainSettings,
) -> None:
    output = settings.output
    with claimed(output, again=""):
        for resume in (False, True):
            with pytest.raises(ConfigError, match=rf"in use by process {os.getpid()} on"):
                pretrain(dataclasses.replace(settings, resume=resume))
        assert [path.name for path in output.iterdir()] == [".lock"]
    (output / "checkpoints").mkdir(parents=True)
    (output / "checkpoints" / "step_00000001.pt").touch()  # of a run without a report yet
    with pytest.raises(ConfigError, match="holds a run already"):
        pretrain(settings)


def test_files_that_a_killed_run_left_unfinished_are_removed_and_not_counted(
    finished: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resumed(finished, tmp_path / "run")
    left = [".log.0123abcd.jsonl", "checkpoints/.step_00000006.0123abcd.pt", "model/.c.01234567.x"]
    for name in left:
        (asked.output / name).touch()

    def usage(_: Any) -> Any:
        assert not any((asked.output / name).exists() for name in left)
        return SimpleNamespace(free=1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    pretrain(asked)
    assert not list(asked.output.rglob(".*"))


def test_a_disk_that_fills_up_is_a_sentence_with_the_way_back(
    settings: PretrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        message = (
            rf"cannot write to {settings.output}: No space left on device; make room, then go on "
            rf"with videomae pretrain --output {settings.output} --resume"
        )
        with pytest.raises(ConfigError, match=message):
            pretrain(settings)
    assert not list(settings.output.rglob(".*"))
    pretrain(dataclasses.replace(settings, resume=True))


def test_resuming_nothing_begins(
    settings: PretrainSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(dataclasses.replace(settings, resume=True))
    assert "nothing to resume in" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_known_at_once(
    settings: PretrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "videomae.training.checkpoint.shutil.disk_usage", lambda _: SimpleNamespace(free=10**6)
    )
    with pytest.raises(ConfigError, match=r"this run need \d+ MB and .* has 1 MB free"):
        pretrain(settings)
    assert not settings.output.exists()


def test_a_finished_run_needs_no_room_and_has_no_step_to_try(
    settings: PretrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(settings)
    again = dataclasses.replace(settings, resume=True)
    monkeypatch.setattr(
        "videomae.training.checkpoint.shutil.disk_usage", lambda _: SimpleNamespace(free=0)
    )
    pretrain(again)
    with pytest.raises(ConfigError, match="is finished: there is no step to try"):
        dry_run(again)


def test_a_step_keeps_its_clips_when_a_run_goes_on(settings: PretrainSettings) -> None:
    few = dataclasses.replace(settings, batch_size=12, epochs=2)  # of 10 videos
    pretrain(few)
    with pytest.raises(ConfigError, match="a step had 10 clips and has 9 now; use the videos"):
        pretrain(dataclasses.replace(few, accumulate=3, resume=True))


def test_a_decoder_may_have_any_width(settings: PretrainSettings) -> None:
    for width, heads in ((64, 1), (128, 2), (200, 2), (7, 1)):
        config = make_model(dataclasses.replace(settings, decoder_width=width)).config
        assert config.decoder_num_attention_heads == heads


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
    settings = decide(settings, 10, config)
    one, nothing = draw_masks(settings, config, 4, step=7)
    assert nothing is None
    assert torch.equal(one, draw_masks(settings, config, 4, step=7)[0])
    assert not torch.equal(one, draw_masks(settings, config, 4, step=8)[0])
    other = dataclasses.replace(settings, seed=1)
    assert not torch.equal(one, draw_masks(other, config, 4, step=7)[0])


def test_dual_masking_hides_half_of_the_decoder_too(settings: PretrainSettings) -> None:
    config = VideoMAEConfig.preset("tiny")
    settings = decide(settings, 10, config)
    dual = dataclasses.replace(settings, decoder_mask_ratio=0.5)
    hidden, undecoded = draw_masks(dual, config, 4, step=7)
    assert undecoded is not None
    assert undecoded.float().mean() == 0.5
    assert torch.equal(hidden, draw_masks(settings, config, 4, step=7)[0])
    pretrain(dual)
    assert read_log(dual.output)[-1]["loss"] > 0


def test_the_decoder_has_the_depth_and_width_that_are_asked_for(settings: PretrainSettings) -> None:
    model = make_model(dataclasses.replace(settings, decoder_depth=3, decoder_width=128))
    assert len(model.decoder.decoder_layers) == 3
    config = model.config
    assert (config.decoder_hidden_size, config.decoder_num_attention_heads) == (128, 2)
    assert config.decoder_intermediate_size == 512


def test_saving_memory_and_compiling_change_no_number(
    settings: PretrainSettings, tmp_path: Path
) -> None:
    pretrain(settings)
    losses = [row["loss"] for row in read_log(settings.output)]
    thrifty = dataclasses.replace(
        settings, output=tmp_path / "thrifty", activation_checkpointing=True, accumulate=2
    )
    pretrain(thrifty)
    assert [row["loss"] for row in read_log(thrifty.output)] == pytest.approx(losses, abs=1e-5)


def test_videos_to_learn_from_need_no_classes(settings: PretrainSettings, tmp_path: Path) -> None:
    # beside each other and in a folder: no answer to what the classes are
    shutil.copytree(settings.data / "throw", tmp_path / "v")
    shutil.copytree(settings.data / "walk", tmp_path / "v" / "more")
    pretrain(dataclasses.replace(settings, data=tmp_path / "v", epochs=1))
    assert read_run(settings.output).facts["num_videos"] == 10
