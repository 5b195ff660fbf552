"""Linear probe and nearest neighbours: what the features of a trained encoder know of classes.

No weight of the encoder changes, so that the figures are those of the features alone. N videos, V
clips of each, M rows to learn from, D features, K classes.
"""

import dataclasses
import functools
import hashlib
import json
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomae.compute.distributed import Machine
from videomae.data.manifest import Videos, load_videos
from videomae.errors import ConfigError, needing
from videomae.evaluation.evaluate import Evaluation, chosen_split, stride_of
from videomae.evaluation.sharding import Progress, compute_videos, list_unreadable
from videomae.hub import atomic_path, write_json
from videomae.model.modeling import (
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VideoMAEPreTrainedModel,
)
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.views import ViewMaker, find_processor
from videomae.settings import LinearProbeSettings
from videomae.version import __version__
from videomae.weights.checkpoint import has_pooled_norm
from videomae.weights.pretrained import load_trained

FEATURES_NAME = "features.npz"

# Of the neighbours' votes: exp(cosine / temperature), as in DINO (Caron et al. 2021, appendix F).
_TEMPERATURE = 0.07
# Strengths of the penalty that are tried, the strongest first: each fit starts from the last.
_L2 = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
_HELD_OUT = 5  # one in so many
_MAX_ITERATIONS = 1000
_LEAST_SHARE = 1e-12  # of a class that only the held-out fifth has

ProbeProgress = Callable[[str, int, int], None]  # (what for, videos done, in all)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the videos of a list: values (N, V, D) float32, NaN for an unreadable one."""

    videos: Videos
    values: Tensor
    bad: dict[int, str]


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
            ("learned from", f"{self.num_train:,} videos"),
            ("tested on", f"{self.knn.num_videos:,} videos"),
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
    new_linear()  # a missing package raises before the work
    machine = machine or Machine.start(settings.device, settings.dtype)
    train_videos, test_videos = load_both(settings)
    model = load_encoder(settings, machine)
    processor = find_processor(settings.model, model.config)
    key = _key(settings, machine, model, processor, train_videos, test_videos)
    found = _read_features(settings.output / FEATURES_NAME, key, train_videos, test_videos)
    reused = all(machine.gather([found is not None]))
    if found is None or not reused:
        plan = (("learning", train_videos, settings.num_clips), ("testing", test_videos, 1))
        found = [
            compute_features(
                settings,
                machine,
                model,
                videos,
                ViewMaker(model.config, processor, num_clips=num_clips),
                functools.partial(on_progress, what) if on_progress else None,
            )
            for what, videos, num_clips in plan
        ]
        if machine.is_main:
            _write_features(settings.output / FEATURES_NAME, key, *found)
    result = probe(*found, num_neighbours=settings.num_neighbours)
    result = dataclasses.replace(result, reused=reused)
    if machine.is_main:
        write_json(settings.output / "results.json", _summary(settings, result))
    machine.wait()
    return result


def load_both(settings: LinearProbeSettings) -> tuple[Videos, Videos]:
    """Load the videos to learn from, and those to test on, in the classes of the first."""
    train = load_videos(settings.data, settings.split)
    data = settings.eval_data or settings.data
    split = chosen_split(data, settings.eval_split)
    if settings.eval_data is None and split in (None, settings.split):
        raise ConfigError(
            f"{data} has no split test or val to be tested on; name another folder with "
            "--eval-data, or a split with --eval-split"
        )
    if len(train) < _HELD_OUT or len(train.classes) < 2:
        raise ConfigError(
            f"{settings.data} has {len(train)} videos of {len(train.classes)} classes to learn "
            f"from; a linear probe needs at least {_HELD_OUT} of 2"
        )
    test = load_videos(data, split, classes=train.classes)
    for videos in (train, test):
        videos.class_numbers()  # wrong labels raise before the work
    return train, test


def load_encoder(settings: LinearProbeSettings, machine: Machine) -> VideoMAEPreTrainedModel:
    """The encoder with its final norm, which fine-tuned checkpoints have behind the mean."""
    kind: type[VideoMAEPreTrainedModel] = VideoMAEModel
    options = stride_of(settings.frame_stride)
    if has_pooled_norm(settings.model):
        kind, options["num_labels"] = VideoMAEForVideoClassification, 0
    with warnings.catch_warnings():
        # The decoder, or the head, is what is meant to be left out.
        warnings.filterwarnings("ignore", ".*unexpected tensors were left out")
        return load_trained(kind, settings.model, dtype=torch.float32, **options).to(machine.device)


def compute_features(
    settings: LinearProbeSettings,
    machine: Machine,
    model: VideoMAEPreTrainedModel,
    videos: Videos,
    maker: ViewMaker,
    on_progress: Progress | None,
) -> Features:
    """The mean over all tokens after the final norm, of evenly spaced clips, centre crops."""
    norm = getattr(model, "fc_norm", None) or nn.Identity()
    values, bad = compute_videos(
        getattr(model, "videomae", model),
        videos,
        maker,
        lambda output: norm(output.last_hidden_state.float().mean(1)),  # (B, D)
        lambda clips: clips,
        shape=(maker.num_views, model.config.hidden_size),
        machine=machine,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        on_progress=on_progress,
    )
    return Features(videos, values, bad)


def probe(train: Features, test: Features, *, num_neighbours: int = 20) -> ProbeResult:
    """Learn classes from some features and test on others; the same answer each time."""
    kept = [row for row in range(len(train.videos)) if row not in train.bad]
    if len(kept) < _HELD_OUT:
        reasons = "; ".join(list(train.bad.values())[:5])
        raise ConfigError(
            f"{len(train.bad)} of {len(train.videos)} videos to learn from cannot be read, and the "
            f"others are less than {_HELD_OUT}: {reasons}"
        )
    num_clips = train.values.shape[1]
    rows = train.values[kept].flatten(0, 1)  # (M, D)
    labels = torch.tensor(train.videos.class_numbers())[kept].repeat_interleave(num_clips)  # (M)
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


def fit_neighbours(features: Tensor, labels: Tensor, num_neighbours: int) -> Any:
    """Features (M, D) and their class numbers (M) as a classifier by the votes of the nearest.

    Near is a large cosine, and a vote weighs exp(cosine / 0.07).
    """
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(
        min(num_neighbours, len(labels)),
        metric="cosine",  # as a distance: 1 - cosine
        weights=lambda distances: np.exp(-distances / _TEMPERATURE),
    ).fit(features.double().numpy(), labels.numpy())


def new_linear() -> Any:
    """A pipeline of scikit-learn: standardised features, then multinomial logistic regression."""
    with needing("a linear probe"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    regression = LogisticRegression(tol=1e-6, max_iter=_MAX_ITERATIONS, warm_start=True)
    return make_pipeline(StandardScaler(), regression)


def fit_linear(features: Tensor, labels: Tensor, *, l2: float, linear: Any = None) -> Any:
    """Fit a linear map on features (M, D) to class numbers (M), and return it.

    The minimum of the mean cross entropy + l2 / 2 * sum of squared weights, the bias being free,
    found by L-BFGS in float64. `linear`: a fitted one to go on from; by default it starts anew.
    """
    linear = new_linear() if linear is None else linear
    if len(labels.bincount().nonzero()) == 2:
        l2 /= 2  # its one column of weights is the difference of two, which have half the penalty
    linear.set_params(logisticregression__C=1 / (l2 * len(labels)))
    return linear.fit(features.double().numpy(), labels.numpy())


def class_shares(classifier: Any, features: Tensor, num_classes: int) -> Tensor:
    """Shares of all classes: (N, D) -> (N, K) float64; 0 for one that was not learned from.

    A row of NaN, which is a video that could not be read, stays one.
    """
    readable = ~features[:, 0].isnan()
    shares = torch.full((len(features), num_classes), torch.nan, dtype=torch.float64)
    if readable.any():
        found = np.zeros((int(readable.sum()), num_classes))
        found[:, classifier.classes_] = classifier.predict_proba(
            features[readable].double().numpy()
        )
        shares[readable] = torch.from_numpy(found)
    return shares


def choose_l2(
    features: Tensor, labels: Tensor, videos: Tensor, num_classes: int
) -> tuple[list[tuple[float, float]], float]:
    """The penalty with the lowest cross entropy on a fifth of the videos, learned from the others.

    Returns ([(l2, accuracy in percent on the fifth), ...], the best l2). Accuracy does not choose:
    on a few hundred videos it goes up and down from one penalty to the next. All clips of a video
    (its number in `videos` (M)) are on the same side, and each class keeps its share.
    """
    held = torch.isin(videos, torch.tensor(_held_out(labels, videos)))
    linear, tried, losses = None, [], []
    for l2 in _L2:
        linear = fit_linear(features[~held], labels[~held], l2=l2, linear=linear)
        shares, wanted = class_shares(linear, features[held], num_classes), labels[held]
        tried.append((l2, 100 * float((shares.argmax(1) == wanted).double().mean())))
        losses.append((float(F.nll_loss(shares.clamp(min=_LEAST_SHARE).log(), wanted)), l2))
    return tried, min(losses)[1]


def _held_out(labels: Tensor, videos: Tensor) -> list[int]:
    """The numbers of a fifth of the videos, evenly from all classes, the same ones each time."""
    of_video = dict(zip(videos.tolist(), labels.tolist(), strict=True))
    order = sorted(of_video)
    random.Random("held out").shuffle(order)
    order.sort(key=lambda video: of_video[video])
    return order[::_HELD_OUT]


def _key(
    settings: LinearProbeSettings,
    machine: Machine,
    model: VideoMAEPreTrainedModel,
    processor: VideoMAEImageProcessor,
    *lists: Videos,
) -> str:
    """A digest of all that features depend on: model, precision, pixels, clips, videos."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    described = {
        "version": __version__,
        "config": model.config.to_dict(),
        "processor": processor.to_dict(),
        "dtype": str(machine.dtype),
        "num_clips": settings.num_clips,
        "videos": [[str(video) for video in videos.items] for videos in lists],
    }
    digest.update(json.dumps(described, default=str).encode())
    return digest.hexdigest()


def _write_features(path: Path, key: str, *sets: Features) -> None:
    arrays: dict[str, Any] = {"key": np.array(key)}
    for name, part in zip(("train", "test"), sets, strict=True):
        arrays[name] = part.values.numpy()
        arrays[f"{name}_paths"] = np.array([str(video) for video in part.videos.items])
        arrays[f"{name}_labels"] = np.array([video.label for video in part.videos.items])
        arrays[f"{name}_bad"] = np.array(json.dumps(part.bad))
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def _read_features(path: Path, key: str, train: Videos, test: Videos) -> list[Features] | None:
    """Features written for the same key; None where others lie there, or none."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            return [
                Features(
                    videos,
                    torch.from_numpy(arrays[name]),
                    {int(row): why for row, why in json.loads(str(arrays[f"{name}_bad"])).items()},
                )
                for name, videos in (("train", train), ("test", test))
            ]
    except (OSError, ValueError, KeyError):
        return None  # none, or damaged: they are computed again


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
