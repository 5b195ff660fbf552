from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.masking import tube_mask
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.training.data import Batch
from videomae.training.step import StepResult, Timer, stepper

TINY: dict[str, Any] = {
    "image_size": 16,
    "num_frames": 4,
    "num_hidden_layers": 2,
    "use_mean_pooling": False,
}


@pytest.fixture
def _cores() -> Iterator[None]:
    """Two torch threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def batch(count: int, first: int = 0, bad: dict[int, str] | None = None) -> Batch:
    rows = tuple(range(first, first + count))
    clips = torch.zeros(count, 4, 3, 16, 16, dtype=torch.uint8)
    return Batch(0, clips, rows, rows, tuple(range(count)), bad or {})


def one_step(drop_path_rate: float, parts: list[Batch], **options: Any) -> tuple[StepResult, Any]:
    """The result of one step of SGD over clips of noise, and the weights after it."""
    torch.manual_seed(0)
    config = VideoMAEConfig.preset("tiny", **TINY, drop_path_rate=drop_path_rate)
    model = VideoMAEForPreTraining(config).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clips = torch.randn(6, 4, 3, 16, 16)
    mask = tube_mask(config.grid, 0.5, batch_size=6)

    def batch_loss(network: nn.Module, part: Batch, rows: slice) -> Tensor:
        chosen = list(part.index[rows])
        loss: Tensor = network(clips[chosen], mask[chosen]).loss
        return loss

    machine = Machine.start("cpu", "float32")
    network, moved = machine.place(model, optimizer)
    settings = {"clip_grad": None, "num_parts": len(parts), "clips_per_step": 6, "timer": Timer()}
    with stepper(machine, model, network, moved, batch_loss, **(settings | options)) as step:  # type: ignore[arg-type]
        result = step(iter(parts), lambda: False)
    return result, {name: value.clone() for name, value in model.state_dict().items()}


def by_hand(count: int) -> tuple[float, dict[str, Tensor]]:
    """The same step by plain backward over the first clips."""
    torch.manual_seed(0)
    config = VideoMAEConfig.preset("tiny", **TINY)
    model = VideoMAEForPreTraining(config).train()
    clips = torch.randn(6, 4, 3, 16, 16)
    mask = tube_mask(config.grid, 0.5, batch_size=6)
    loss = model(clips[:count], mask[:count]).loss
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return loss.item(), model.state_dict()


@pytest.mark.usefixtures("_cores")
@pytest.mark.parametrize(
    "parts",
    [
        [batch(6)],
        [batch(3), batch(3, 3)],
        [batch(1), batch(0), batch(5, 1)],
        [batch(4, bad={4: "", 5: ""})],
        [batch(3, bad={4: ""}), batch(1, 3)],
    ],
    ids=["whole", "two parts", "an empty part", "two unreadable", "both"],
)
def test_parts_cores_and_gaps_give_the_step_over_all_clips_there_are(parts: list[Batch]) -> None:
    count = sum(len(part.pixels) for part in parts)
    result, weights = one_step(0.0, parts)
    loss, expected = by_hand(count)
    assert result.loss == pytest.approx(loss, abs=1e-6)
    assert (result.num_clips, result.skipped, result.index) == (count, False, tuple(range(count)))
    assert result.bad == {key: "" for part in parts for key in part.bad}
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("_cores")
def test_a_model_with_random_layers_repeats_bit_for_bit() -> None:
    weights = [one_step(0.5, [batch(6)])[1] for _ in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.usefixtures("_cores")
@pytest.mark.parametrize(
    ("count", "width", "threads"),
    [(6, 64, {1}), (1, 64, {2}), (6, 384, {2})],
    ids=["a core each", "fewer clips than cores", "a wide model"],
)
def test_no_core_is_left_idle(
    count: int, width: int, threads: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where clips are not dealt out to the cores, all of them compute each product."""
    seen = set()
    forward = VideoMAEForPreTraining.forward

    def counted(*given: Any, **named: Any) -> Any:
        seen.add(torch.get_num_threads())
        return forward(*given, **named)

    monkeypatch.setattr(VideoMAEForPreTraining, "forward", counted)
    monkeypatch.setitem(TINY, "hidden_size", width)
    one_step(0.0, [batch(count)])
    assert seen == threads


@pytest.mark.usefixtures("_cores")
def test_the_number_of_threads_is_put_back() -> None:
    one_step(0.0, [batch(6)])
    assert torch.get_num_threads() == 2


def test_a_step_without_clips_changes_nothing() -> None:
    result, weights = one_step(0.0, [batch(0, bad={0: "gone"})])
    torch.manual_seed(0)
    before = VideoMAEForPreTraining(VideoMAEConfig.preset("tiny", **TINY)).state_dict()
    assert (result.num_clips, result.skipped, result.bad) == (0, False, {0: "gone"})
    assert all(torch.equal(weights[name], before[name]) for name in before)


def classifier_step(loss_scale: float, **options: Any) -> tuple[StepResult, Tensor, Tensor]:
    model = VideoMAEForVideoClassification(VideoMAEConfig.preset("tiny", **TINY))
    optimizer = torch.optim.SGD(model.classifier.parameters(), lr=1.0)
    model.videomae.requires_grad_(False)
    before = model.classifier.weight.detach().clone()
    machine = Machine.start("cpu", "float32")

    def batch_loss(network: Any, _part: Batch, _rows: slice) -> Tensor:
        loss: Tensor = loss_scale * sum(p.sum() for p in network.classifier.parameters())
        return loss

    settings = {"clip_grad": None, "num_parts": 1, "clips_per_step": 1, "timer": Timer()}
    with stepper(machine, model, model, optimizer, batch_loss, **(settings | options)) as step:  # type: ignore[arg-type]
        result = step([batch(1)], lambda: True)
    return result, before, model.classifier.weight.detach()


def test_clipping_bounds_the_step() -> None:
    result, before, after = classifier_step(100.0, clip_grad=0.5)
    assert result.stop
    assert result.grad_norm > 100
    assert (after - before).norm().item() == pytest.approx(0.5, rel=1e-2)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_changes_nothing(scale: float) -> None:
    result, before, after = classifier_step(scale)
    assert result.skipped
    assert torch.equal(before, after)


def test_the_timer_starts_again_when_it_is_read() -> None:
    timer = Timer()
    with timer("data"), timer("forward", 0.5):
        pass
    assert set(timer.take()) == {"data", "forward"}
    assert timer.take() == {}
