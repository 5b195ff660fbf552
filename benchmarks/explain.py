"""Whether heat maps of `videomae explain` lie on what moves, in clips whose class is a movement.

    OMP_NUM_THREADS=1 python -m benchmarks.explain objects    # some minutes each
    OMP_NUM_THREADS=1 python -m benchmarks.explain actions

A small classifier is trained from `actions-tiny` at 48 x 48 pixels: of four directions in which an
object slides over a ground that stands still, or of three things that people do. Then clips that it
has not seen (other people and grounds) are explained, each by its true label. A tubelet moves if
more than a tenth of its pixels change by more than 24 of 255 from one frame to the next. Printed
are the share of the heat above 0 that lies on tubelets that move; the share of tubelets that move,
which is what heat spread at random would have; how many clips have more than that; and how often
the hottest tubelet is one that moves.
"""

import argparse
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from videomae.inference.explain import Explanation, Method, explain
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.views import ViewMaker, find_processor
from videomae.rendering import actions, motion
from videomae.settings import RenderedSplit
from videomae.video.decoder import Frames

SIZE, BATCH, TESTED, EXPLAINED = 48, 16, 60, 24
STEPS = {"objects": 48, "actions": 80}
LABELS = {
    "objects": ("slide_down", "sit_down", "stand_up", "stand_up"),
    "actions": ("throw", "walk", "windmill_forwards"),
}
METHODS: tuple[Method, ...] = ("occlusion", "attention")


def render(kind: str, number: int, *, test: bool) -> tuple[Frames, int]:
    """A clip and the number of its class; the classes take turns."""
    seed, index = divmod(number, len(LABELS[kind]))
    name = LABELS[kind][index]
    if kind == "objects":
        return motion.render_clip(name, seed=[seed, test], size=SIZE, domain="object"), index
    split: RenderedSplit = "test" if test else "train"
    return actions.render_clip(name, seed=seed, split=split, size=SIZE), index


def train(kind: str) -> VideoMAEForVideoClassification:
    """A classifier that has seen each of its clips once; prints how good it is on others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the head is new
        model = VideoMAEForVideoClassification.from_pretrained(
            "actions-tiny",
            image_size=SIZE,
            id2label=dict(enumerate(LABELS[kind])),
            ignore_mismatched_sizes=True,
        )
    maker = ViewMaker(model.config, find_processor(None, model.config))

    def batch(numbers: range, *, test: bool) -> tuple[Tensor, Tensor]:
        clips, labels = zip(*(render(kind, n, test=test) for n in numbers), strict=True)
        return torch.cat([maker(clip) for clip in clips]), torch.tensor(labels)

    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 5e-4, total_steps=STEPS[kind], pct_start=0.1
    )
    model.train()
    for step in range(STEPS[kind]):
        clips, labels = batch(range(step * BATCH, (step + 1) * BATCH), test=False)
        loss = F.cross_entropy(model(clips).logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    model.eval()
    clips, labels = batch(range(TESTED), test=True)
    with torch.inference_mode():
        right = (model(clips).logits.argmax(-1) == labels).float().mean()
    print(f"{kind}: {right:.0%} of {TESTED} other clips are labelled rightly", flush=True)
    return model


def moves(found: Explanation) -> NDArray[np.bool_]:
    """The tubelets (f, h, w) that move."""
    frames = found.frames.astype(int)
    after = np.concatenate([frames[1:], frames[-2:-1]])  # the last beside the one before it
    changed = np.abs(after - frames).max(-1) > 24  # (T, H, W)
    f, h, w = found.heat.shape
    cells = changed.reshape(f, len(frames) // f, h, SIZE // h, w, SIZE // w)
    share: NDArray[np.float64] = cells.mean((1, 3, 5))
    return share > 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=LABELS)
    kind = parser.parse_args().kind
    torch.manual_seed(0)
    model = train(kind)
    print("method     heat that moves  chance  more than chance  hottest moves")
    for method in METHODS:
        rows = []
        for number in range(1000, 1000 + EXPLAINED):
            clip, index = render(kind, number, test=True)
            found = explain(clip, model=model, label=LABELS[kind][index], method=method)
            moving, heat = moves(found), found.heat.clip(0)
            share, chance = heat[moving].sum() / heat.sum(), moving.mean()
            rows.append((share, chance, share > chance, moving[found.hottest]))
        heat_share, chance, more, hottest = np.mean(np.array(rows, float), axis=0)
        print(f"{method:10} {heat_share:15.0%} {chance:7.0%} {more:17.0%} {hottest:14.0%}")


if __name__ == "__main__":
    main()
