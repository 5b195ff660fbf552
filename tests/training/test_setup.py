from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.masking import tube_mask
from videomae.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.processing import VideoMAEVideoProcessor
from videomae.training.setup import Machine, save_model, updater

TINY = {"image_size": 16, "num_frames": 4, "num_hidden_layers": 2, "use_mean_pooling": False}


@pytest.fixture
def cores() -> object:
    """Two torch threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def one_update(drop_path_rate: float, *, by_hand: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and weights after one step, by the updater or by plain backward."""
    torch.manual_seed(0)
    config = VideoMAEConfig.preset("tiny", **TINY, drop_path_rate=drop_path_rate)
    model = VideoMAEForPreTraining(config).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clips = torch.randn(5, 4, 3, 16, 16)
    mask = tube_mask(config.grid, 0.5, batch_size=5)

    def loss_of(rows: slice) -> Tensor:
        loss: Tensor = model(clips[rows], mask[rows]).loss
        return loss

    if by_hand:
        loss = loss_of(slice(None))
        torch.autograd.backward(loss)
        optimizer.step()
    else:
        machine = Machine.choose("cpu", "float32")
        with updater(machine, model, optimizer, clip_grad=None) as update:
            loss = update(loss_of, 5)
    return loss.detach(), {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.usefixtures("cores")
def test_rows_shared_between_cores_give_the_same_step() -> None:
    loss, weights = one_update(0.0, by_hand=False)
    expected_loss, expected = one_update(0.0, by_hand=True)
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-6)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("cores")
def test_a_model_with_random_layers_repeats_bit_for_bit() -> None:
    weights = [one_update(0.5, by_hand=False)[1] for _ in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.usefixtures("cores")
def test_the_number_of_threads_is_put_back() -> None:
    one_update(0.0, by_hand=False)
    assert torch.get_num_threads() == 2


def _update_of(loss_of: Callable[[slice], Tensor], model: torch.nn.Module) -> Tensor:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    machine = Machine.choose("cpu", "float32")
    with updater(machine, model, optimizer, clip_grad=0.5) as update:  # type: ignore[arg-type]
        return update(loss_of, 1)


def test_clipping_bounds_the_step() -> None:
    model = VideoMAEForVideoClassification(VideoMAEConfig.preset("tiny", **TINY))
    before = model.classifier.weight.detach().clone()
    _update_of(lambda _: 100 * model.classifier.weight.sum(), model)
    assert (model.classifier.weight - before).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    model = VideoMAEForVideoClassification(VideoMAEConfig.preset("tiny", **TINY))
    with pytest.raises(ConfigError, match="the loss became nan; resume from the last checkpoint"):
        _update_of(lambda _: model.classifier.weight.sum() * float("nan"), model)


def test_float16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="training in float16 needs a GPU"):
        Machine.choose("cpu", "float16")


def test_bfloat16_trains_with_float32_weights() -> None:
    machine = Machine.choose("cpu", "bfloat16")
    with machine.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.bfloat16
    assert str(machine) == "cpu in bfloat16"


def test_the_saved_model_comes_with_its_processor(tmp_path: Path) -> None:
    config = VideoMAEConfig.preset("tiny", **{**TINY, "image_size": (16, 24)})
    folder = save_model(VideoMAEForPreTraining(config), tmp_path)
    processor = VideoMAEVideoProcessor.from_pretrained(folder)
    assert dict(processor.crop_size) == {"height": 16, "width": 24}
