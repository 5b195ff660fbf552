"""The paper's test protocol: several clips and crops of each video, their scores averaged.

Started by torchrun, each process takes its share of the videos, and all know the whole result. The
identity of a video is its row in the list: names may be equal. N videos, V views of each, K
classes.
"""

import dataclasses
import math
import re
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from videomae.claim import claimed
from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.data.manifest import LABEL_SEPARATOR, Videos, has_split, load_videos
from videomae.data.rows import import_pyarrow
from videomae.errors import ConfigError, counted, going_on, keeping
from videomae.evaluation import metrics
from videomae.evaluation.mistakes import write_mistakes
from videomae.evaluation.partial import Partial, answers_key
from videomae.evaluation.sharding import Progress, compute_videos
from videomae.hub import check_writable, write_json
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.views import ViewMaker, find_processor
from videomae.report.card import FIGURE_NAMES, PERCENT
from videomae.report.plots import plot_confusion
from videomae.report.run_page import write_page
from videomae.settings import EvaluateSettings, LinearProbeSettings, Problem
from videomae.weights.pretrained import load_trained

_NUM_CONFUSED = 20


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores that a model gave every video of a list, and how many of them were right.

    scores: (N, K) float32, averaged over the views: shares of the classes, or values; NaN where a
    video could not be read. bad: the reason for each of those, by its row. They count as wrong; a
    regression has nothing to count them with, and leaves them out. damaged: videos that were used
    in part, as was asked for, and in how many places they are damaged.
    """

    problem: Problem
    videos: Videos
    num_clips: int
    num_crops: int
    scores: Tensor
    bad: dict[int, str]
    damaged: dict[str, int] = field(default_factory=dict)

    @property
    def num_videos(self) -> int:
        return len(self.videos)

    @property
    def num_views(self) -> int:
        """Views of each video."""
        return self.num_clips * self.num_crops

    @cached_property
    def labels(self) -> Tensor:
        """The truth: class numbers (N), 0 or 1 for each class (N, K), or values (N)."""
        return true_labels(self.videos, self.problem)

    @cached_property
    def ranks(self) -> Tensor:
        """The number of classes that the model put before the true one (N); 0 is right."""
        return metrics.true_ranks(self.scores, self.labels)

    @cached_property
    def class_scores(self) -> Tensor:
        """In percent (K): accuracy, or average precision; NaN for classes without a video."""
        if self.problem == "multi_label":
            return 100 * metrics.average_precisions(self.scores, self.labels)
        num_classes = self.scores.shape[1]
        hits = self.labels[self.ranks == 0].bincount(minlength=num_classes)
        return 100 * hits.double() / self.labels.bincount(minlength=num_classes)

    @property
    def per_class(self) -> dict[str, float]:
        """The `class_scores` that are numbers, by the name of the class."""
        if self.problem == "regression":
            return {}
        values = self.class_scores.tolist()
        pairs = zip(self.videos.classes, values, strict=True)
        return {name: value for name, value in pairs if not math.isnan(value)}

    @cached_property
    def confusion(self) -> Tensor:
        """The count of videos of each class (row) taken for each (column), if they can be read."""
        readable, num_classes = ~self.scores[:, 0].isnan(), self.scores.shape[1]
        predicted = self.scores[readable].argmax(1)  # the first of equal ones
        pairs = self.labels[readable] * num_classes + predicted
        return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)

    def figures(self) -> dict[str, float]:
        """The few numbers that sum it up, those of classes in percent.

        single_label: top1, top5, mean_class (accuracy). multi_label: mean_ap. regression: mae,
        pearson, spearman, r2.
        """
        if self.problem == "regression":
            return metrics.regression_figures(self.scores[:, 0], self.labels)
        mean = float(self.class_scores.nanmean())
        if self.problem == "multi_label":
            return {"mean_ap": mean}
        top1, top5 = (100 * int((self.ranks < k).sum()) / self.num_videos for k in (1, metrics.TOP))
        return {"top1": top1, "top5": top5, "mean_class": mean}

    @property
    def top1(self) -> float:
        """Videos in percent whose true class has the highest score."""
        return self.figures()["top1"]

    @property
    def score(self) -> float:
        """The one figure that models are compared by, higher is better: top1, mean_ap, -mae."""
        figures = self.figures()
        return -figures["mae"] if self.problem == "regression" else next(iter(figures.values()))

    def rows(self) -> list[tuple[str, str]]:
        """The figures, named and written out, for people."""
        return [
            *(
                (FIGURE_NAMES[key], f"{value:.2f} %" if key in PERCENT else f"{value:.4g}")
                for key, value in self.figures().items()
            ),
            ("videos", f"{self.num_videos:,}"),
            ("views of each", f"{self.num_views} ({self.num_clips} x {self.num_crops})"),
            ("unreadable", f"{len(self.bad):,}"),
            *([("damaged, used in part", f"{len(self.damaged):,}")] if self.damaged else []),
        ]

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.rows()[: len(self.figures())])
        videos, views = counted(self.num_videos, "video"), counted(self.num_views, "view")
        text = f"{figures} on {videos}, {views} each"
        return text + (f"; {len(self.bad)} unreadable" if self.bad else "")

    def write(self, output: Path, *, maker: ViewMaker | None = None, **about: Any) -> None:
        """Write results.json, predictions.parquet and, for classes, confusion.png into a folder.

        With the `maker` of its views, also the worst mistakes as pictures: see `write_mistakes`.
        `about` (model, data, ...) goes into results.json as it is. A file that cannot be written is
        warned of, and the others are.
        """
        output = Path(output)
        predictions = output / "predictions.parquet"
        with going_on(str(predictions)):
            metrics.write_predictions(
                predictions, self.problem, self.videos, self.labels, self.scores, self.bad
            )
        if self.problem == "single_label" and maker is not None:
            with going_on(str(output / "mistakes")):
                write_mistakes(output, self.videos, self.scores, self.labels, maker)
        if self.problem == "single_label":
            picture = output / "confusion.png"
            with going_on(str(picture)):
                plot_confusion(
                    self.confusion.numpy(),
                    self.videos.classes,
                    picture,
                    title=f"top-1 {self.top1:.1f} % of {counted(self.num_videos, 'video')}",
                )
        results = output / "results.json"  # last: what has it has all
        with going_on(str(results)):
            write_json(results, {**about, **self._summary()})

    def _summary(self) -> dict[str, Any]:
        figures = {k: None if math.isnan(v) else round(v, 4) for k, v in self.figures().items()}
        summary: dict[str, Any] = {
            "problem": self.problem,
            **figures,
            "num_videos": self.num_videos,
            "num_clips": self.num_clips,
            "num_crops": self.num_crops,
            "num_unreadable": len(self.bad),
        }
        if self.damaged:
            summary["used_in_part"] = [
                {"path": path, "damaged_places": places} for path, places in self.damaged.items()
            ]
        if self.problem != "regression":
            summary["per_class"] = {name: round(v, 4) for name, v in self.per_class.items()}
        if self.problem == "single_label":
            names, wrong = self.videos.classes, self.confusion.clone().fill_diagonal_(0)
            counts = [(int(wrong[i, j]), i, j) for i, j in wrong.nonzero().tolist()]
            counts.sort(key=lambda each: -each[0])  # equal ones stay in the order of the classes
            summary["most_confused"] = [
                {"label": names[true], "predicted": names[taken], "videos": count}
                for count, true, taken in counts[:_NUM_CONFUSED]
            ]
        items = self.videos.items
        summary["unreadable"] = [
            {"row": row, "path": str(items[row]), "reason": reason}
            for row, reason in self.bad.items()
        ]
        return summary


def evaluate(
    settings: EvaluateSettings,
    *,
    machine: Machine | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a trained model on labelled videos; with `settings.output`, write what came out.

    The numbers of the classes are the model's. Data that names its classes otherwise raises
    ConfigError, but labels that are all numbers below `num_labels` are taken as class numbers. A
    checkpoint without trained head raises WeightsError.
    """
    machine = machine or Machine.start(settings.device, settings.dtype)
    if settings.output is None:
        with keeping(lambda: "nothing is kept without --output"):
            return _evaluate(settings, machine, on_progress)
    check_writable(settings.output)  # before the work, not after it
    import_pyarrow()
    again = "make room; the same command goes on from there"
    with claimed(settings.output, "mistakes", again=again) if machine.is_main else nullcontext():
        return _evaluate(settings, machine, on_progress)


def _evaluate(
    settings: EvaluateSettings, machine: Machine, on_progress: Progress | None
) -> Evaluation:
    model = load_trained(
        VideoMAEForVideoClassification,
        settings.model,
        dtype=torch.float32,  # products run in the machine's
        **sampling_of(settings),
    ).to(machine.device)
    model.set_merge_tokens(settings.merge_tokens)
    processor = find_processor(settings.model, model.config)
    views: dict[str, Any] = {
        "num_clips": settings.num_clips,
        "num_crops": settings.num_crops,
        "on_damage": settings.on_damage,
    }
    maker = ViewMaker(model.config, processor, **views)
    videos, partial = load_labelled(settings, model), None
    if settings.output is not None:
        key = answers_key(model, maker, machine, videos, early_exit=settings.early_exit)
        partial = Partial(settings.output, "predictions", key)
    with keeping(lambda: str(partial)) if partial else nullcontext():
        evaluation = evaluate_model(
            model,
            videos,
            maker,
            machine=machine,
            batch_size=settings.batch_size,
            num_workers=settings.num_workers,
            on_progress=on_progress,
            partial=partial,
            early_exit=settings.early_exit,
        )
        if partial is not None and machine.is_main:
            evaluation.write(
                partial.folder,
                maker=maker,
                model=settings.model,
                data=str(settings.data),
                split=chosen_split(settings.data, settings.split),
                frame_stride=model.config.frame_stride or "uniform",
                fps=model.config.fps or "own",
                **({"merge_tokens": settings.merge_tokens} if settings.merge_tokens else {}),
                **({"early_exit": settings.early_exit} if settings.early_exit else {}),
            )
            with going_on(str(partial.folder / "index.html")):
                write_page(partial.folder)
            partial.remove()
    machine.wait()
    return evaluation


def problem_of(config: VideoMAEConfig) -> Problem:
    """The problem that a classifier was trained on: one class each if its config names none."""
    problem = config.problem_type or "single_label"
    return cast(Problem, problem.removesuffix("_classification"))


def sampling_of(settings: EvaluateSettings | LinearProbeSettings) -> dict[str, Any]:
    """What the settings say of the choice of frames, as fields of a config."""
    chosen = {"frame_stride": settings.frame_stride, "fps": settings.fps}
    return {name: value for name, value in chosen.items() if value is not None}


def chosen_split(data: Path, split: str | None) -> str | None:
    """The split that is asked for, else test, else val, else None, which is all videos."""
    return split or next((name for name in ("test", "val") if has_split(data, name)), None)


def load_labelled(settings: EvaluateSettings, model: VideoMAEForVideoClassification) -> Videos:
    """The videos to evaluate on, in the model's classes; see `evaluate`."""
    split = chosen_split(settings.data, settings.split)
    videos = load_videos(settings.data, split, allow_addresses=settings.allow_addresses)
    if problem_of(model.config) == "regression":
        return videos
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    numbered = by_class_number(videos, names)
    if numbered is not None:
        return numbered
    nameless = names == [f"LABEL_{number}" for number in range(len(names))]
    if nameless and len(videos.classes) == len(names):
        warnings.warn(
            f"{settings.model} has no names for its {len(names)} classes; they are taken to be "
            f"those of {settings.data} in their order, {', '.join(videos.classes[:3])}, ...",
            stacklevel=3,
        )
        return videos
    return load_videos(
        settings.data, split, classes=names, allow_addresses=settings.allow_addresses
    )


def by_class_number(videos: Videos, names: list[str]) -> Videos | None:
    """The videos with the model's names in place of class numbers, as published lists have them.

    None where any label is a name, or no number below `len(names)`: "1" may well be a name.
    """
    used = {part for video in videos.items for part in video.label.split(LABEL_SEPARATOR)} - {""}
    numbers = {text: int(text) for text in used if re.fullmatch(r"[0-9]{1,9}", text)}
    name_of = {text: names[number] for text, number in numbers.items() if number < len(names)}
    if not used or used & set(names) or used - set(name_of):
        return None

    def named(label: str) -> str:
        return LABEL_SEPARATOR.join(name_of[x] for x in label.split(LABEL_SEPARATOR) if x)

    items = (dataclasses.replace(video, label=named(video.label)) for video in videos.items)
    return Videos(tuple(items), tuple(names))


def evaluate_model(
    model: VideoMAEForVideoClassification,
    videos: Videos,
    maker: ViewMaker,
    *,
    machine: Machine,
    batch_size: int = 32,
    num_workers: int | None = None,
    on_progress: Progress | None = None,
    partial: Partial | None = None,
    early_exit: int = 0,
) -> Evaluation:
    """Evaluate a loaded model, leaving it in the mode it was in. Every video counts once.

    Averaged over the views of `maker` are softmax (single_label), sigmoid (multi_label) or the
    plain outputs (regression), as in `classify`. `videos.classes` are the model's, in its order.
    All processes take part and get the same answer. `early_exit`: a video whose first so many
    views name the same class is judged by these alone.

    Raises ConfigError where classes and outputs differ in number, or a label is none of them, and
    for `early_exit` where a video has not one class.
    """
    problem, num_outputs = problem_of(model.config), model.config.num_labels
    expected = 1 if problem == "regression" else len(videos.classes)
    if num_outputs != expected:
        raise ConfigError(
            f"the model has {num_outputs} outputs and {problem} on these videos needs {expected}; "
            "use the model that was trained for them"
        )
    if early_exit and problem != "single_label":
        raise ConfigError(
            f"early_exit={early_exit} asks whether views name the same class, and {problem} has "
            "not one class for a video; leave it out"
        )
    true_labels(videos, problem)  # wrong ones raise before the work
    if problem != "single_label":
        metrics.import_torchmetrics()

    def answer_of(output: Any) -> Tensor:
        logits: Tensor = output.logits.float()
        if problem == "regression":
            return logits
        return logits.softmax(-1) if problem == "single_label" else logits.sigmoid()

    scores, bad = compute_videos(
        model,
        videos,
        maker,
        answer_of,
        lambda views: views.mean(0),
        shape=(num_outputs,),
        machine=machine,
        batch_size=batch_size,
        num_workers=num_workers,
        on_progress=on_progress,
        partial=partial,
        early_exit=early_exit,
    )
    damaged = dict(machine.gather(maker.damaged.items()))
    return Evaluation(problem, videos, maker.num_clips, maker.num_crops, scores, bad, damaged)


def true_labels(videos: Videos, problem: Problem) -> Tensor:
    """Class numbers (N), 0 or 1 for each class (N, K), or values (N), as the problem has them.

    Raises ConfigError for a label that is no class, or no number.
    """
    if problem == "regression":
        return torch.tensor(videos.values(), dtype=torch.float64)
    if problem == "single_label":
        return torch.tensor(videos.class_numbers())
    targets = torch.zeros(len(videos), len(videos.classes), dtype=torch.long)
    for row, numbers in enumerate(videos.class_sets()):
        targets[row, list(numbers)] = 1
    return targets
