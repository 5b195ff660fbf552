"""The set of people: a picture of all classes, and what frames without their order tell of them.

    python -m benchmarks.actions --sheet docs/images/actions.png   # the picture, a second; or .gif
    python -m benchmarks.actions                                   # the figures, some minutes

A small convolutional network learns the classes from single frames, and is then asked with the
middle frame of each test clip, and with the mean of its answers to 16 frames, in which their order
is lost. Classes come in pairs with the same frames, so that neither can be right in more than half
of the clips but by chance.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae.data.manifest import load_videos
from videomae.rendering.actions import ACTIONS, CLASSES, render_clip, render_dataset
from videomae.report.pictures import film_strip, save_gif, save_picture
from videomae.settings import ActionsSettings, RenderedSplit
from videomae.video.reader import read_frames

FRAMES = tuple(range(1, 32, 2))
# Of a pair of classes, and of people and grounds, for the variety.
_WAYS: tuple[tuple[str, RenderedSplit], ...] = (("forwards", "train"), ("backwards", "test"))


def draw_sheet(seed: int = 14) -> NDArray[np.uint8]:
    """Six frames of every class, the two of a pair beside each other."""
    columns = []
    for way, split in _WAYS:
        rows = {}
        for number, action in enumerate(ACTIONS):
            name = getattr(action, way)
            clip = render_clip(name, seed=(seed, number), split=split, size=96)
            rows[name.replace("_", " ")] = clip[[2, 8, 13, 18, 23, 29]]
        columns.append(film_strip(rows))
    return np.concatenate(columns, axis=1)


def draw_animation(seed: int = 14) -> NDArray[np.uint8]:
    """Every class in motion, (16, H, W, 3): above the ones, below them the others of the pairs."""
    rows = [
        np.concatenate(
            [
                render_clip(getattr(action, way), seed=(seed, number), split=split, size=96)[::2]
                for number, action in enumerate(ACTIONS)
            ],
            axis=2,
        )
        for way, split in _WAYS
    ]
    return np.concatenate(rows, axis=1)


def read_clips(data: Path, split: str) -> tuple[Tensor, Tensor]:
    """Frames (N, 16, 3, 64, 64), uint8, and class numbers (N,)."""
    videos = load_videos(data, split, classes=CLASSES)
    frames = np.stack([read_frames(str(video), FRAMES) for video in videos.items])
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3), torch.tensor(videos.class_numbers())


def make_network() -> nn.Sequential:
    """Four convolutions and a linear map: a frame -> classes."""
    layers: list[nn.Module] = []
    for before, after in ((3, 24), (24, 48), (48, 96), (96, 128)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 16, len(CLASSES)))


def learn_frames(clips: Tensor, labels: Tensor, epochs: int) -> nn.Sequential:
    """Train on one random frame of each clip and step, half of them mirrored."""
    network = make_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(clips) // 50)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(clips)), 50)[: len(clips) // 50]:
            frames = clips[rows, torch.randint(len(FRAMES), rows.shape)].float() / 128 - 1
            if torch.rand(()) < 0.5:
                frames = frames.flip(-1)
            loss = nn.functional.cross_entropy(network(frames), labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def count_right(network: nn.Module, clips: Tensor, labels: Tensor) -> dict[str, float]:
    """Percent of right classes and right pairs, from the middle frame and from all frames."""
    scores = torch.stack([network(clip.float() / 128 - 1).log_softmax(1) for clip in clips])
    names = [{action.forwards, action.backwards} for action in ACTIONS]
    pair = torch.tensor([next(i for i, each in enumerate(names) if c in each) for c in CLASSES])
    found = {}
    for what, answers in (("middle frame", scores[:, 8]), ("all frames", scores.mean(1))):
        guess = answers.argmax(1)
        found[f"{what}: class"] = 100 * (guess == labels).float().mean().item()
        found[f"{what}: pair"] = 100 * (pair[guess] == pair[labels]).float().mean().item()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the sheet, or render a set and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sheet", type=Path, help="only write this picture, .png or .gif")
    parser.add_argument("--data", type=Path, default=Path("runs/actions"))
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=60)
    asked = parser.parse_args(arguments)
    if asked.sheet:
        if asked.sheet.suffix == ".gif":
            save_gif(asked.sheet, draw_animation())
        else:
            save_picture(asked.sheet, draw_sheet())
        return
    render_dataset(ActionsSettings(asked.data, clips=asked.clips, test_clips=600, seed=2))
    torch.manual_seed(0)
    network = learn_frames(*read_clips(asked.data, "train"), asked.epochs)
    for split in ("train", "test"):
        for what, percent in count_right(network, *read_clips(asked.data, split)).items():
            print(f"{split:6} {what:20} {percent:5.1f} %")


if __name__ == "__main__":
    main()
