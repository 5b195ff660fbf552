"""Linear probe and nearest neighbours: what the features of a trained encoder know of classes.

No weight of the encoder changes, so that the figures are those of the features alone. N videos, V
clips of each, M rows to learn from, D features, K classes.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videomae.claim import claimed
from videomae.compute.distributed import Machine
from videomae.data.manifest import Videos, load_videos
from videomae.errors import ConfigError, counted, keeping
from videomae.evaluation.classifiers import (
    HELD_OUT,
    check_two_classes,
    choose_l2,
    class_shares,
    fit_linear,
    fit_neighbours,
    new_linear,
)
from videomae.evaluation.evaluate import Evaluation, chosen_split, sampling_of
from videomae.evaluation.features import (
    FEATURES_NAME,
    Features,
    compute_features,
    stored_or_computed,
)
from videomae.evaluation.partial import Partial, answers_key
from videomae.evaluation.sharding import list_unreadable
from videomae.hub import check_writable, write_json
from videomae.model.modeling import (
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VideoMAEPreTrainedModel,
)
from videomae.processing.views import ViewMaker, find_processor
from videomae.settings import LinearProbeSettings
from videomae.weights.checkpoint import has_pooled_norm
from videomae.weights.pretrained import load_trained

ProbeProgress = Callable[[str, int, int], None]  # (what for, videos done, in all)


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The figures of a linear probe and of nearest neighbours.

    knn, linear: of the videos that were tested. l2: the penalty that was chosen; tried: each one
    with its accuracy in percent on the held-out fifth. num_train: videos learned from. unreadable:
    the reason for each video of either set that could not be read. reused: the features lay in the
    output folder.
    """

    knn: Evaluation
    linear: Evaluation
    l2: float
    tried: list[tuple[float, float]]
    num_train: int
    unreadable: list[str]
    reused: bool = False

    def rows(self) -> list[tuple[str, str]]:
        """The figures, named and written out, for people."""
        return [
            ("k-NN top-1", f"{self.knn.top1:.2f} %"),
            ("linear probe top-1", f"{self.linear.top1:.2f} %"),
            ("linear probe top-5", f"{self.linear.figures()['top5']:.2f} %"),
            ("L2 penalty", f"{self.l2:g}"),
            ("learned from", counted(self.num_train, "video")),
            ("tested on", counted(self.knn.num_videos, "video")),
            ("unreadable", f"{len(self.unreadable):,}"),
        ]


def linear_probe(
    settings: LinearProbeSettings,
    *,
    machine: Machine | None = None,
    on_progress: ProbeProgress | None = None,
) -> ProbeResult:
    """Take the features of two sets of videos, learn classes from the one, test on the other.

    Writes results.json and features.npz into `settings.output`; a second run with the same model
    and videos takes the features from there. Unreadable videos are left out of what is learned
    from, and count as wrong in what is tested on. Raises ConfigError where there are fewer than
    five videos or two classes to learn from, or nothing to test on.
    """
    check_writable(settings.output)  # before the work
    new_linear()  # a missing package raises before the work
    machine = machine or Machine.start(settings.device, settings.dtype)
    train_videos, test_videos = load_both(settings)
    model = load_encoder(settings, machine)
    processor = find_processor(settings.model, model.config)
    makers = [
        ViewMaker(model.config, processor, num_clips=n, on_damage=settings.on_damage)
        for n in (settings.num_clips, 1)
    ]
    lists = (train_videos, test_videos)
    key = answers_key(model, makers[0], machine, *lists)
    norm = getattr(model, "fc_norm", None) or nn.Identity()

    def compute(partials: list[Partial]) -> list[Features]:
        return [
            compute_features(
                getattr(model, "videomae", model),
                videos,
                maker,
                # the mean over all tokens after the final norm
                lambda output: norm(output.last_hidden_state.float().mean(1)),  # (B, D)
                machine=machine,
                batch_size=settings.batch_size,
                num_workers=settings.num_workers,
                on_progress=functools.partial(on_progress, what) if on_progress else None,
                partial=partial,
            )
            for what, videos, maker, partial in zip(
                ("learning", "testing"), lists, makers, partials, strict=True
            )
        ]

    path, again = settings.output / FEATURES_NAME, "make room; the same command goes on from there"
    with claimed(settings.output, again=again) if machine.is_main else nullcontext():
        found, reused = stored_or_computed(path, key, lists, machine, compute)
        with keeping(lambda: f"the features are kept in {path}; the same command takes them"):
            result = probe(*found, num_neighbours=settings.num_neighbours)
        result = dataclasses.replace(result, reused=reused)
        if machine.is_main:
            write_json(settings.output / "results.json", _summary(settings, result))
    machine.wait()
    return result


def load_both(settings: LinearProbeSettings) -> tuple[Videos, Videos]:
    """Load the videos to learn from, and those to test on, in the classes of the first."""
    train = load_videos(settings.data, settings.split, allow_addresses=settings.allow_addresses)
    data = settings.eval_data or settings.data
    split = chosen_split(data, settings.eval_split)
    if settings.eval_data is None and split in (None, settings.split):
        raise ConfigError(
            f"{data} has no split test or val to be tested on; name another folder with "
            "--eval-data, or a split with --eval-split"
        )
    if len(train) < HELD_OUT or len(train.classes) < 2:
        raise ConfigError(
            f"{settings.data} has {len(train)} videos of {len(train.classes)} classes to learn "
            f"from; a linear probe needs at least {HELD_OUT} of 2"
        )
    test = load_videos(data, split, classes=train.classes, allow_addresses=settings.allow_addresses)
    for videos in (train, test):
        videos.class_numbers()  # wrong labels raise before the work
    return train, test


def load_encoder(settings: LinearProbeSettings, machine: Machine) -> VideoMAEPreTrainedModel:
    """The encoder with its final norm, which fine-tuned checkpoints have behind the mean."""
    kind: type[VideoMAEPreTrainedModel] = VideoMAEModel
    options = sampling_of(settings)
    if has_pooled_norm(settings.model):
        kind, options["num_labels"] = VideoMAEForVideoClassification, 0
    with warnings.catch_warnings():
        # The decoder, or the head, is what is meant to be left out.
        warnings.filterwarnings("ignore", ".*unexpected tensors were left out")
        return load_trained(kind, settings.model, dtype=torch.float32, **options).to(machine.device)


def probe(train: Features, test: Features, *, num_neighbours: int = 20) -> ProbeResult:
    """Learn classes from some features and test on others; the same answer each time."""
    kept = [row for row in range(len(train.videos)) if row not in train.bad]
    if len(kept) < HELD_OUT:
        reasons = "; ".join(list(train.bad.values())[:5])
        raise ConfigError(
            f"{len(train.bad)} of {len(train.videos)} videos to learn from cannot be read, and the "
            f"others are less than {HELD_OUT}: {reasons}"
        )
    num_clips = train.values.shape[1]
    rows = train.values[kept].flatten(0, 1)  # (M, D)
    labels = torch.tensor(train.videos.class_numbers())[kept].repeat_interleave(num_clips)  # (M)
    check_two_classes(labels)
    videos = torch.tensor(kept).repeat_interleave(num_clips)  # (M), their numbers
    tried, l2 = choose_l2(rows, labels, videos, len(train.videos.classes))

    def test_on(classifier: Any) -> Evaluation:
        scores = class_shares(classifier, test.values[:, 0], len(train.videos.classes)).float()
        return Evaluation("single_label", test.videos, 1, 1, scores, test.bad)

    return ProbeResult(
        knn=test_on(fit_neighbours(rows, labels, num_neighbours)),
        linear=test_on(fit_linear(rows, labels, l2=l2)),
        l2=l2,
        tried=tried,
        num_train=len(kept),
        unreadable=[
            line for part in (train, test) for line in list_unreadable(part.videos, part.bad)
        ],
    )


def _summary(settings: LinearProbeSettings, result: ProbeResult) -> dict[str, Any]:
    names = ("model", "data", "split", "eval_data", "eval_split", "num_clips", "num_neighbours")
    given = {name: getattr(settings, name) for name in names}
    return {
        **{name: str(value) if isinstance(value, Path) else value for name, value in given.items()},
        "knn": {name: round(value, 4) for name, value in result.knn.figures().items()},
        "linear": {name: round(value, 4) for name, value in result.linear.figures().items()},
        "l2": result.l2,
        "held_out_top1": {f"{l2:g}": round(value, 4) for l2, value in result.tried},
        "num_train": result.num_train,
        "num_test": result.knn.num_videos,
        "unreadable": result.unreadable,
    }
