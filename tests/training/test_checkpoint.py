import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.processing.views import find_processor
from videomae.recipe import SETTINGS_NAME, write_recipe
from videomae.settings import PretrainSettings
from videomae.training.checkpoint import (
    check_begun,
    check_room,
    checkpoint_bytes,
    checkpoint_paths,
    load_checkpoint,
    run_processor,
    save_checkpoint,
    save_model,
)
from videomae.training.optim import make_ema


def test_the_saved_model_comes_with_its_processor_and_card(tmp_path: Path) -> None:
    config = VideoMAEConfig.preset(
        "tiny", image_size=(16, 24), num_frames=4, num_hidden_layers=2, use_mean_pooling=False
    )
    model = VideoMAEForPreTraining(config).train()
    machine = Machine.start("cpu", "float32")
    chosen = run_processor(PretrainSettings(), config)
    folder = save_model(model, chosen, machine, tmp_path / "model", "# What it is\n")
    assert find_processor(folder, config) == chosen
    processor = VideoMAEVideoProcessor.from_pretrained(folder)
    assert processor.size == processor.crop_size == {"height": 16, "width": 24}
    assert processor.do_convert_rgb
    assert (folder / "README.md").read_text() == "# What it is\n"
    saved = VideoMAEForPreTraining.from_pretrained(folder).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert model.training  # goes on as it was


def test_a_run_goes_on_with_the_processor_of_its_start(tmp_path: Path) -> None:
    stored = VideoMAEImageProcessor(size=20, crop_size=16, image_mean=0.5, resample="bicubic")
    stored.save_pretrained(tmp_path)
    settings = PretrainSettings(init=str(tmp_path))
    assert run_processor(settings, VideoMAEConfig.preset("tiny", image_size=16)) == stored
    wide = run_processor(settings, VideoMAEConfig.preset("tiny", image_size=(16, 32)))
    assert wide.size == wide.crop_size == {"height": 16, "width": 32}
    assert (wide.image_mean, wide.resample) == (0.5, stored.resample)


# Checkpoints


class Run:
    """A network of a few numbers, trained for a step and saved, twice."""

    def __init__(self, output: Path) -> None:
        self.settings = PretrainSettings(output=output, keep_checkpoints=2)
        self.network = nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.network.parameters())
        for step in (1, 2):
            self.network(torch.ones(1, 3)).sum().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.save(step)
        self.first, self.last = checkpoint_paths(output)

    def save(self, step: int) -> None:
        machine = Machine.start("cpu", "float32")
        save_checkpoint(self.settings, machine, self.network, self.optimizer, None, step, {})

    def load(self) -> int:
        network = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(network.parameters())
        return load_checkpoint(self.settings, network, optimizer, None)[0]


@pytest.fixture
def saved_run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def flip_a_bit_of_a_tensor(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        record = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
        value = archive.read(record)
    content = path.read_bytes()
    place = content.index(value, record.header_offset)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def rewrite(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda path: torch.save(change(torch.load(path)), path)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped bit": (flip_a_bit_of_a_tensor, r"2\.pt is damaged: it is not what was .*CRC-32"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-200]), r"2\.pt is damaged"),
    "empty": (lambda path: path.write_bytes(b""), r"2\.pt is damaged"),
    "lost keys": (
        rewrite(lambda state: {"step": 2, "model": state["model"]}),
        r"2\.pt is no checkpoint .* is settings, optimizer\.state\.bias\.exp_avg",
    ),
    "a lost tensor": (
        rewrite(lambda state: state | {"model": {"weight": torch.ones(2, 3)}}),
        r"2\.pt is no checkpoint .* is model\.bias",
    ),
    "another shape": (
        rewrite(lambda state: state | {"model": {**state["model"], "bias": torch.ones(3)}}),
        r"2\.pt is no checkpoint .* is model\.bias",
    ),
    "another dict": (
        rewrite(lambda state: state["model"]),
        r"2\.pt is no checkpoint .* is step, settings, bias, model\.bias, ",
    ),
    "no step": (
        rewrite(lambda state: state | {"step": "2"}),
        r"2\.pt is no checkpoint .* is step",
    ),
    "a dict in itself": (
        rewrite(lambda state: state["model"].update(model=state["model"]) or state),
        r"2\.pt cannot be read: maximum recursion depth",
    ),
    "a list": (rewrite(lambda state: list(state)), r"2\.pt is no checkpoint of this run"),
    "a pickle of something else": (rewrite(lambda _: Path("x")), r"2\.pt cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_cannot_be_used_gives_way_to_the_one_before(saved_run: Run, kind: str) -> None:
    damage, reason = DAMAGE[kind]
    damage(saved_run.last)
    with pytest.warns(UserWarning, match=reason + r".*; going on from .*step_00000001\.pt"):
        assert saved_run.load() == 1
    damage(saved_run.first)
    advice = "none is left to go on from: begin in another --output, .* or remove .*checkpoints"
    with (
        pytest.warns(UserWarning, match="going on from"),
        pytest.raises(WeightsError, match=f"{reason}.*; .*step_00000001.*; {advice}"),
    ):
        saved_run.load()


def test_each_bit_of_a_checkpoint_counts(saved_run: Run) -> None:
    """Flipped, it is noticed, or changes nothing that is loaded."""
    content = saved_run.last.read_bytes()
    state = torch.load(saved_run.last)
    saved_run.first.unlink()
    with zipfile.ZipFile(saved_run.last) as archive:
        ends = {record.header_offset + 4 for record in archive.infolist()}
    for place in {*range(0, len(content), 97), *ends}:
        flipped = bytes([content[place] ^ 16])
        saved_run.last.write_bytes(content[:place] + flipped + content[place + 1 :])
        try:
            assert saved_run.load() == 2
            found = torch.load(saved_run.last)
            assert found["settings"] == state["settings"]
            assert all(
                torch.equal(found["model"][key], state["model"][key]) for key in state["model"]
            )
        except WeightsError:
            pass


def test_running_means_are_part_of_a_checkpoint(saved_run: Run) -> None:
    network, last = saved_run.network, checkpoint_paths(saved_run.settings.output)[-1]
    ema, optimizer = make_ema(network, 0.9), torch.optim.AdamW(network.parameters())
    with (
        pytest.warns(UserWarning, match=rf"{last.name} .* is ema\.bias, ema\.weight; going on"),
        pytest.raises(WeightsError, match=r"is ema\.bias, ema\.weight; none is left"),
    ):
        load_checkpoint(saved_run.settings, network, optimizer, ema)


def test_a_damaged_checkpoint_does_not_crowd_out_a_good_one(saved_run: Run) -> None:
    saved_run.settings = dataclasses.replace(saved_run.settings, keep_checkpoints=1)
    saved_run.last.rename(saved_run.last.with_name("step_00000009.pt"))
    saved_run.save(5)
    assert [path.name for path in checkpoint_paths(saved_run.settings.output)] == [
        *("step_00000005.pt", "step_00000009.pt")
    ]


def test_other_settings_are_refused(saved_run: Run) -> None:
    asked = dataclasses.replace(saved_run.settings, seed=5, lr=0.5, log_every_steps=7)
    saved_run.settings = asked
    refused = r"cannot resume .*: lr was 0\.0, is 0\.5; seed was 0, is 5; use the first"
    with pytest.raises(ConfigError, match=refused):
        saved_run.load()


def test_a_run_that_no_longer_learns_goes_on_with_another_lr(saved_run: Run) -> None:
    saved_run.settings = dataclasses.replace(saved_run.settings, lr=0.5, clip_grad=1.0)
    with pytest.warns(UserWarning, match=r"clip_grad was None, is 1\.0; lr was 0\.0, is 0\.5$"):
        assert saved_run.load() == 2


def test_a_run_without_checkpoints_begins_anew_with_its_own_settings_alone(tmp_path: Path) -> None:
    settings = PretrainSettings(output=tmp_path, init="some", seed=5)
    write_recipe(settings, tmp_path / SETTINGS_NAME)
    check_begun(dataclasses.replace(settings, num_workers=3))
    for change, found in (({"seed": 6}, "seed was 5, is 6"), ({"init": None}, "init was 'some'")):
        with pytest.raises(ConfigError, match=rf"cannot resume .*: {found}"):
            check_begun(dataclasses.replace(settings, **change))


def test_checkpoints_that_are_there_take_no_more_room(
    saved_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = saved_run.last.stat().st_size
    monkeypatch.setattr("videomae.training.checkpoint.free_bytes", lambda _: each)
    check_room(saved_run.settings, each)  # for the one that is written before the oldest goes
    saved_run.first.unlink()
    with pytest.raises(ConfigError, match=r"need 0 MB and .* has 0 MB free; make room"):
        check_room(saved_run.settings, each)


def test_running_means_make_a_checkpoint_larger(saved_run: Run) -> None:
    network = saved_run.network
    assert checkpoint_bytes(network, None) == 8 * 4 * 3
    assert checkpoint_bytes(network, make_ema(network, 0.9)) == 8 * 4 * 4


def test_a_run_of_an_earlier_version_goes_on_where_later_settings_have_their_defaults(
    saved_run: Run,
) -> None:
    def without(state: dict[str, Any]) -> dict[str, Any]:
        del state["settings"]["on_damage"]
        return state

    rewrite(without)(saved_run.last)
    assert saved_run.load() == 2
    saved_run.settings = dataclasses.replace(saved_run.settings, on_damage="use_readable")
    with pytest.raises(ConfigError, match="on_damage was 'refuse', is 'use_readable'"):
        saved_run.load()
