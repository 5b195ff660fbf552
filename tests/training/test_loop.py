import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Video, Videos
from videomae.masking import tube_mask
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.report.record import read_log
from videomae.settings import TrainSettings
from videomae.training.checkpoint import checkpoint_paths
from videomae.training.data import Batch, ClipSource
from videomae.training.loop import Training

CONFIG = VideoMAEConfig.preset(
    "tiny", image_size=16, num_frames=4, num_hidden_layers=2, use_mean_pooling=False
)
CLIPS = torch.randn(6, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
MASK = tube_mask(CONFIG.grid, 0.5, batch_size=6, generator=torch.Generator().manual_seed(2))
Loss = Callable[[Any, list[int]], Tensor]


def batch(count: int, first: int = 0, bad: dict[int, str] | None = None) -> Batch:
    rows = tuple(range(first, first + count)) or (0,)
    clips = torch.zeros(len(rows), 4, 3, 16, 16, dtype=torch.uint8)
    return Batch(0, clips, rows, rows, tuple(range(len(rows))), count, 6, bad or {})


def pretraining_loss(network: nn.Module, rows: list[int]) -> Tensor:
    loss: Tensor = network(CLIPS[rows], MASK[rows]).loss
    return loss


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    return TrainSettings(
        output=tmp_path, epochs=1, batch_size=6, warmup_epochs=0, lr=0.1 * 256 / 6, tracker="none",
        max_bad_fraction=1, log_every_steps=1,
    )  # fmt: skip


@pytest.fixture
def one_step(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The log's line of a run of one step of SGD over given parts, and the weights after it."""

    def run(
        parts: list[Batch],
        loss: Loss = pretraining_loss,
        machine: Machine | None = None,
        **changes: Any,
    ) -> Any:
        def given(*_: Any, **__: Any) -> Iterator[Batch]:
            yield from parts

        def make_sgd(_: TrainSettings, model: nn.Module, __: float) -> torch.optim.Optimizer:
            return torch.optim.SGD([{"params": model.parameters(), "lr_scale": 1.0}])

        monkeypatch.setattr("videomae.training.loop.train_batches", given)
        monkeypatch.setattr("videomae.training.loop.make_optimizer", make_sgd)
        asked = dataclasses.replace(settings, accumulate=len(parts), **changes)
        torch.manual_seed(0)
        model = VideoMAEForPreTraining(CONFIG).train()
        source = ClipSource(Videos((Video("x"),) * 6), CONFIG, asked)
        machine = machine or Machine.start("cpu", "float32")

        def batch_loss(network: nn.Module, part: Batch) -> Tensor:
            return loss(network, list(part.index))

        (end,) = Training(asked, model, source, machine, batch_loss, title="x").epochs()
        assert (end.epoch, end.step, end.model) == (1, 1, model)
        return read_log(settings.output)[-1], model.state_dict()

    return run


def by_hand(count: int) -> tuple[float, dict[str, Tensor]]:
    """The same step by plain backward over the first clips."""
    torch.manual_seed(0)
    model = VideoMAEForPreTraining(CONFIG).train()
    loss = pretraining_loss(model, list(range(count)))
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return loss.item(), model.state_dict()


@pytest.mark.parametrize(
    "parts",
    [
        [batch(6)],
        [batch(3), batch(3, 3)],
        [batch(1), batch(0), batch(5, 1)],
        [batch(4, bad={4: "gone", 5: "gone"})],
        [batch(3, bad={4: "gone"}), batch(1, 3)],
    ],
    ids=["whole", "two parts", "an empty part", "two unreadable", "both"],
)
def test_parts_and_gaps_give_the_step_over_all_clips_there_are(
    parts: list[Batch], one_step: Any
) -> None:
    row, weights = one_step(parts)
    loss, expected = by_hand(sum(part.num_clips for part in parts))
    assert row["loss"] == pytest.approx(loss, abs=1e-5)
    assert row["num_skipped_steps"] == 0
    assert row["num_bad_videos"] == sum(len(part.bad) for part in parts)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=1e-5)


def test_a_step_without_clips_changes_nothing(one_step: Any) -> None:
    row, weights = one_step([batch(0, bad={0: "gone"})])
    torch.manual_seed(0)
    before = VideoMAEForPreTraining(CONFIG).state_dict()
    assert (row["loss"], row["num_skipped_steps"], row["num_bad_videos"]) == (None, 0, 1)
    assert all(torch.equal(weights[name], before[name]) for name in before)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_changes_nothing(scale: float, one_step: Any) -> None:
    row, weights = one_step(
        [batch(6)], lambda network, rows: scale * pretraining_loss(network, rows)
    )
    torch.manual_seed(0)
    before = VideoMAEForPreTraining(CONFIG).state_dict()
    assert (row["loss"], row["grad_norm"], row["num_skipped_steps"]) == (None, None, 1)
    assert all(torch.equal(weights[name], before[name]) for name in before)


def test_a_gradient_that_is_no_number_changes_nothing(one_step: Any) -> None:
    def steep(network: nn.Module, _: list[int]) -> Tensor:
        return sum((p.abs() * 0).sqrt().sum() for p in network.parameters())  # type: ignore[return-value]

    row, weights = one_step([batch(6)], steep)
    assert (row["loss"], row["num_skipped_steps"]) == (None, 1)
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_float16_scales_the_loss_and_leaves_out_overflow(
    one_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Machine(torch.device("cpu"), torch.float16)  # which a run is not given on a CPU
    row, weights = one_step([batch(6)], machine=half)
    loss, expected = by_hand(6)
    assert row["loss"] == pytest.approx(loss, abs=1e-3)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-3, rtol=0)

    def huge(network: nn.Module, rows: list[int]) -> Tensor:
        return 1e35 * pretraining_loss(network, rows)

    row, weights = one_step([batch(6)], huge, machine=half)
    torch.manual_seed(0)
    before = VideoMAEForPreTraining(CONFIG).state_dict()
    assert all(torch.equal(weights[name], before[name]) for name in before)
    assert row["num_skipped_steps"] == 0  # the scale is lowered, as is meant

    def steep(network: nn.Module, _: list[int]) -> Tensor:
        return sum((p.abs() * 0).sqrt().sum() for p in network.parameters())  # type: ignore[return-value]

    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    monkeypatch.setattr(Machine, "grad_scaler", lambda _: scaler)
    row, weights = one_step([batch(6)], steep, machine=half)
    assert row["num_skipped_steps"] == 1  # lowered to nothing, and still no number


def test_the_time_of_each_kind_of_work_is_logged(one_step: Any, settings: TrainSettings) -> None:
    row, _ = one_step([batch(3), batch(3, 3)])
    names = ("data_ms", "forward_ms", "backward_ms", "optimizer_ms")
    assert sum(row[name] for name in names) < 1000 * row["seconds"] + 100
    assert all(row[name] > 0 for name in names)
    assert [path.name for path in checkpoint_paths(settings.output)] == ["step_00000001.pt"]
