"""Whether heat maps of `videomae explain` lie on what moves, in clips whose class is a movement.

    OMP_NUM_THREADS=1 python -m benchmarks.explain    # some minutes

Clips of people whom the shipped model has not seen, before other grounds, are explained, each by
its true label. A tubelet moves if more than a tenth of its pixels change by more than 24 of 255
from one frame to the next. Printed are the share of the heat above 0 that lies on tubelets that
move; the share of tubelets that move, which is what heat spread at random would have; how many
clips have more than that; and how often the hottest tubelet is one that moves.
"""

import numpy as np
from numpy.typing import NDArray

from videomae.inference.explain import Explanation, Method, explain
from videomae.rendering.actions import CLASSES, render_clip

EXPLAINED = 40
METHODS: tuple[Method, ...] = ("occlusion", "attention")


def moves(found: Explanation) -> NDArray[np.bool_]:
    """The tubelets (f, h, w) that move."""
    frames = found.frames.astype(int)
    after = np.concatenate([frames[1:], frames[-2:-1]])  # the last beside the one before it
    changed = np.abs(after - frames).max(-1) > 24  # (T, H, W)
    f, h, w = found.heat.shape
    size = frames.shape[1]
    cells = changed.reshape(f, len(frames) // f, h, size // h, w, size // w)
    share: NDArray[np.float64] = cells.mean((1, 3, 5))
    return share > 0.1


def main() -> None:
    print("method     heat that moves  chance  more than chance  hottest moves")
    for method in METHODS:
        rows = []
        for number in range(EXPLAINED):
            name = CLASSES[number % len(CLASSES)]
            clip = render_clip(name, seed=(1000, number), split="test")
            found = explain(clip, label=name, method=method)
            moving, heat = moves(found), found.heat.clip(0)
            share, chance = heat[moving].sum() / heat.sum(), moving.mean()
            rows.append((share, chance, share > chance, moving[found.hottest]))
        heat_share, chance, more, hottest = np.mean(np.array(rows, float), axis=0)
        print(f"{method:10} {heat_share:15.0%} {chance:7.0%} {more:17.0%} {hottest:14.0%}")


if __name__ == "__main__":
    main()
