"""What a mere copy earns, by hand and on rendered clips."""

from pathlib import Path

import pytest
import torch

from reproduction.baselines import best_copy, copy_loss
from reproduction.plan import Scale, masked
from videomae.rendering.actions import render_dataset
from videomae.settings import ActionsSettings

SCALE = Scale(image_size=32, num_frames=8, video_frames=16)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "set"
    settings = ActionsSettings(folder, 20, 1, size=32, num_frames=16, workers=1, test_clips=0)
    render_dataset(settings)
    return folder


def test_each_distance_has_a_factor_of_its_own() -> None:
    targets = torch.tensor([1.0, 3.0, 5.0, 5.0]).view(1, 4, 1, 1)
    hidden = torch.tensor([False, True, True, True]).view(1, 4, 1)
    assert best_copy(targets, hidden) == pytest.approx(0)
    assert best_copy(targets, ~hidden) == pytest.approx(0)
    hidden = torch.tensor([[False, True], [True, True], [False, False], [True, False]])
    targets = torch.tensor([[1.0, 4.0], [2.0, 1.0], [9.0, 1.0], [9.0, 2.0]])
    # Of cell 0: 2 from 1 and 9 from 9; of cell 1: 1 from 1, all next to it; 4 from 1, two away.
    factor = (2 + 81 + 1) / (1 + 81 + 1)
    loss = (2 - factor) ** 2 + (9 - 9 * factor) ** 2 + (1 - factor) ** 2
    found = best_copy(targets.view(1, 4, 2, 1), hidden.view(1, 4, 2))
    assert found == pytest.approx(loss / 4, rel=1e-5)


def test_a_still_ground_can_be_copied_and_tubes_leave_nothing_to_copy(clips: Path) -> None:
    rand, tube, frame = (
        copy_loss(masked(mask, 0.75), SCALE, clips) for mask in ("random", "tube", "frame")
    )
    assert rand < 0.7
    assert frame < 0.7
    assert tube > 0.95
    assert copy_loss(masked("random", 0.9), SCALE, clips) > rand
