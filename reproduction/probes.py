"""What frozen features know: of classes, and of where the joints of a body are.

Both read the mean token of each slice. The mean over a whole clip would be all but blind to the
order of time, which alone tells the classes of people apart.

Letters: N clips, S slices of time, D features, J joints.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from videomae.compute.distributed import Machine
from videomae.data.manifest import Videos, load_videos
from videomae.evaluation.classifiers import choose_l2, class_shares, fit_linear
from videomae.evaluation.sharding import compute_videos
from videomae.model.modeling import VideoMAEModel
from videomae.processing.views import ViewMaker, find_processor
from videomae.rendering.actions import plan_clip
from videomae.settings import ActionsSettings, RenderedSplit

Floats = NDArray[np.float64]

HAND = "hand_l"
# Moved most by actions; measured from the middle of the hips, they say how a body is bent.
LIMBS = ("hand_l", "hand_r", "foot_l", "foot_r")
_HIPS = "hips"
_PENALTIES = np.logspace(-1, 5, 7)
_FOLDS = 5


def probe(model: VideoMAEModel, labelled: ActionsSettings, dtype: str) -> dict[str, float]:
    """Figures of an encoder on a set of people with split test: `linear`, `hand` and `limbs`.

    linear: top-1 in percent of a logistic regression from the mean tokens of the slices, one after
    the other (N, S x D). hand: R2 of a ridge regression from the mean token of a slice to where the
    left hand is in the picture. limbs: the same for hands and feet as seen from the hips. All are
    of people that nothing was fitted to; R2 is 0 for one who always answers the mean, and less for
    worse answers.
    """
    train, test = (load_videos(labelled.output, split) for split in ("train", "test"))
    features, new = (slice_means(model, videos, dtype) for videos in (train, test))
    frames = model.config.num_frames
    spots, wanted = (
        np.stack(
            [
                joint_places(path, labelled, num_slices=features.shape[1], num_frames=frames)
                for path in (Path(video.path) for video in videos.items)
            ]
        )
        for videos in (train, test)
    )  # (N, S, J, 2), the hips last
    rows, new_rows = (each.flatten(0, 1).double().numpy() for each in (features, new))
    clips = np.repeat(np.arange(len(features)), features.shape[1])

    def r2(known: Floats, wanted: Floats) -> float:
        """R2 over all columns together; of the last two axes."""
        flat, flat_wanted = (each.reshape(-1, each.shape[-2] * 2) for each in (known, wanted))
        found = fit_ridge(rows, flat, clips).predict(new_rows)
        around = flat_wanted - flat_wanted.mean(0)
        return 1 - float(((found - flat_wanted) ** 2).sum() / (around**2).sum())

    hand = LIMBS.index(HAND)
    return {
        "linear": round(_top1(features.flatten(1), new.flatten(1), train, test), 2),
        "hand": round(r2(spots[:, :, [hand]], wanted[:, :, [hand]]), 4),
        "limbs": round(
            r2(*(each[:, :, :-1] - each[:, :, -1:] for each in (spots, wanted))), 4
        ),
    }  # fmt: skip


def slice_means(model: VideoMAEModel, videos: Videos, dtype: str) -> torch.Tensor:
    """The mean token of each slice of the centred clip of each video, (N, S, D)."""
    config, machine = model.config, Machine.start("cpu", dtype)
    num_slices, width = config.grid.frames, config.hidden_size

    def means(output: Any) -> torch.Tensor:
        tokens: torch.Tensor = output.last_hidden_state.float()  # (B, S x cells, D)
        return tokens.view(len(tokens), num_slices, -1, width).mean(2).flatten(1)

    maker = ViewMaker(config, find_processor(None, config))
    values, bad = compute_videos(
        model, videos, maker, means, lambda views: views[0], shape=(num_slices * width,),
        machine=machine, batch_size=32, num_workers=1,
    )  # fmt: skip
    assert not bad, bad
    return values.view(-1, num_slices, width)


def joint_places(
    path: Path, settings: ActionsSettings, *, num_slices: int, num_frames: int
) -> Floats:
    """Where limbs and hips are in each slice of the centred clip, (S, J, 2) in picture widths.

    The mean over the frames of a slice, from the plan that the clip was drawn from. The clip takes
    every second frame of the video, from its first.
    """
    split: RenderedSplit = "test" if path.parts[-3] == "test" else "train"
    seed = (settings.seed, int(split == "test"), int(path.stem))
    take = plan_clip(path.parent.name, seed=seed, split=split)
    steps = np.rint(np.linspace(0, len(take.shake) - 1, settings.num_frames)).astype(int)
    at = np.stack([take.view.pixels(take.joints[name])[steps] for name in (*LIMBS, _HIPS)], axis=1)
    at = at - take.shake[steps, None]  # (T, J, 2)
    at = (at[::-1] if take.reverse else at)[: 2 * num_frames : 2]
    slices: Floats = at.reshape(num_slices, -1, *at.shape[1:]).mean(1)
    return slices


def fit_ridge(rows: Floats, targets: Floats, clips: NDArray[np.int64]) -> Any:
    """Ridge regression on standardised features, the penalty chosen on clips left out."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": _PENALTIES},
        cv=GroupKFold(_FOLDS),
        scoring="r2",
    )
    return search.fit(rows, targets, groups=clips)


def _top1(features: torch.Tensor, new: torch.Tensor, train: Videos, test: Videos) -> float:
    labels, wanted = (torch.tensor(videos.class_numbers()) for videos in (train, test))
    _, l2 = choose_l2(features, labels, torch.arange(len(labels)), len(train.classes))
    shares = class_shares(fit_linear(features, labels, l2=l2), new, len(train.classes))
    return 100 * float((shares.argmax(1) == wanted).double().mean())
