"""`videomae demo`: the shipped models on fresh videos, a minute of training, and a page about it.

Every number on the page is measured while the page is made, but for what the full recipe reached:
that is read from `results.json` beside the classifier, where there is one.
"""

import math
import shutil
import sys
import time
import warnings
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Column, Table

from videomae.commands.flags import Demo
from videomae.commands.terminal import Screen
from videomae.data.motion import MOTIONS, render_dataset
from videomae.errors import ConfigError, WeightsError
from videomae.hub import atomic_path, find, read_json, write_json
from videomae.inference.predict import Classification, Reconstruction, classify, reconstruct
from videomae.report.html import duration, render
from videomae.report.plots import Curve
from videomae.report.record import read_run
from videomae.settings import FinetuneSettings, MotionSettings, PretrainSettings
from videomae.training.finetune import finetune
from videomae.training.pretrain import pretrain
from videomae.video.decoder import Frames
from videomae.video.reader import probe, read_frames

# How the recipe motion-tiny-pretrain hides, and what else is tried here.
MASK: Literal["random"] = "random"
TRAINED_RATIO = 0.75
RATIOS = (0.5, TRAINED_RATIO, 0.9)

_FPS = 16  # of the rendered videos; the model looks at every second frame
# The loss of an even grey: the mean square of 2 x 8 x 8 pixels whose unbiased variance is 1.
_NOTHING = 1 - 1 / 128
_MADE_BY = {"made_by": "videomae demo"}


@dataclass(frozen=True)
class _Named:
    """A clip with the best guesses for its motion, in words, the first one first."""

    path: Path
    scores: dict[str, float]

    @property
    def truth(self) -> str:
        return _words(self.path.parent.name)

    @property
    def is_right(self) -> bool:
        return next(iter(self.scores)) == self.truth

    def row(self) -> tuple[str, ...]:
        """File, best guess, its score, and a word where it is wrong."""
        guess, score = next(iter(self.scores.items()))
        return str(self.path), guess, f"{score:.1%}", "" if self.is_right else "wrong"

    def frames(self) -> Frames:
        return read_frames(self.path, range(probe(self.path).num_frames))


@dataclass(frozen=True)
class _Reconstructed:
    """One clip with a share hidden, in both renderings, and the mean loss over several clips."""

    ratio: float
    loss: float
    plain: Reconstruction
    paper: Reconstruction


@dataclass(frozen=True)
class _Trained:
    """A live training: how long it took, how its loss went, and how many clips it names right."""

    seconds: float
    curve: Curve
    num_right: int = 0


def demo(
    command: Demo, *, classifier: str = "motion-tiny", autoencoder: str = "motion-tiny-pretrain"
) -> Path:
    """Show what the models do and how they come about: the path of a page to open in a browser.

    Renders `clips` videos that no training has seen, classifies them, reconstructs hidden parts,
    trains for about a minute on `train_clips` others, and does the first two to `video` as well,
    if one is given. The page, `index.html`, needs no other file and no network. Clips and trained
    models stay in `output` to be played with; another call there does everything but the
    rendering anew. Raises ConfigError for a folder that holds something else, VideoError for a
    video that cannot be read, before any work is done.

    ```python
    demo(Demo(Path("demo"), video=Path("holiday.mp4")))  # demo/index.html
    ```
    """
    started = time.perf_counter()
    folder, video, count = command.output, command.video, command.clips
    if video is not None:
        probe(video)
    _claim(folder)
    log = Console(stderr=True, markup=False, highlight=False).print

    log(f"1/4 rendering {count} clips to look at, {command.train_clips} to learn from")
    paths = _render(command)
    log(f"2/4 classifying {count} clips, moving and still, with {classifier}")
    named, num_still_right = _classify(paths, classifier)
    log(f"3/4 reconstructing hidden parts with {autoencoder}")
    shown, some = paths[MOTIONS.index("turn_left") % count], paths[: len(MOTIONS)]
    reconstructed = [_reconstruct(shown, some, model=autoencoder, ratio=r) for r in RATIOS]
    yours = None
    if video is not None:
        best = _named(video, classify(video, model=classifier, top_k=3))
        yours = best, _reconstruct(video, [video], model=autoencoder, ratio=TRAINED_RATIO)
    log("4/4 training for about a minute")
    pretrained = _pretrain(command)
    live = str(folder / "runs" / "pretrain" / "model")
    finetuned = {
        "the live pre-training": _finetune(command, live, number=1),
        autoencoder: _finetune(command, autoencoder, number=2),
    }

    num_right = {  # clips named right, by whom; the best known first
        classifier: float(sum(each.is_right for each in named)),
        **{f"fine-tuned just now from {k}": v.num_right for k, v in reversed(finetuned.items())},
        f"{classifier}, clips still": num_still_right,
        "guessing": count / len(MOTIONS),
    }
    text = render(
        "demo.html",
        title="videomae: masked autoencoders for video, at work",
        fps=_FPS,
        motions=MOTIONS,
        mask=MASK,
        classifier=classifier,
        named=named,
        num_right=num_right,
        num_still_right=num_still_right,
        rows=[each.row() for each in named],
        shares_right={who: number / count for who, number in num_right.items()},
        published=_published(classifier),
        autoencoder=autoencoder,
        trained_ratio=TRAINED_RATIO,
        reconstructed=reconstructed,
        loss_of_nothing=_NOTHING,
        train_clips=command.train_clips,
        pretrained=pretrained,
        finetuning_curves={f"from {name}": run.curve for name, run in finetuned.items()},
        training_seconds=sum(run.seconds for run in (pretrained, *finetuned.values())),
        live=_reconstruct(shown, some, model=live, ratio=TRAINED_RATIO),
        loss_of_guessing=math.log(len(MOTIONS)),
        yours=yours,
        folder=str(folder),
        activate="" if shutil.which("videomae") else str(Path(sys.prefix, "bin", "activate")),
        seconds=time.perf_counter() - started,
    )
    page = folder / "index.html"
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    facts = {f"{name}: clips named right": f"{n:.3g} of {count}" for name, n in num_right.items()}
    for each in reconstructed:
        facts[f"{autoencoder}: loss, {each.ratio:.0%} hidden"] = f"{each.loss:.3f}"
    _print_summary(facts | {"time": duration(time.perf_counter() - started)}, page)
    return page


def _claim(folder: Path) -> None:
    """Make the folder ours, or check that it is: nothing but our own is ever overwritten."""
    record = folder / "demo.json"
    if record.is_file() and read_json(record) == _MADE_BY:
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is there already and was not made by the demo; name a new or empty folder"
        )
    write_json(record, _MADE_BY)


def _render(command: Demo) -> list[Path]:
    """Render the clips to look at, which are returned, and those to learn from."""
    # Not the seeds 1, 2 and 7 of the recipes.
    training = "training", command.train_clips, command.seed + 1
    paths = []
    for name, clips, seed in (training, ("clips", command.clips, command.seed)):
        settings = MotionSettings(
            command.output / name, clips, seed, fps=_FPS, workers=command.workers
        )
        with Screen("rendering", clips) as screen:
            paths = render_dataset(settings, on_progress=screen.advance)
    return paths


def _classify(paths: list[Path], model: str) -> tuple[list[_Named], int]:
    """Name the clips, and count the right answers for the same clips without their motion."""
    moving = classify(iter(paths), model=model, top_k=3)
    still = classify((_still(path) for path in paths), model=model)
    answers = []
    with Screen("classifying", 2 * len(paths)) as screen:
        for path, answer in zip([*paths, *paths], chain(moving, still), strict=True):
            answers.append(_named(path, answer))
            screen.advance(len(answers), 2 * len(paths))
    return answers[: len(paths)], sum(each.is_right for each in answers[len(paths) :])


def _named(path: Path, prediction: Classification) -> _Named:
    pairs = zip(prediction.labels, prediction.scores, strict=True)
    return _Named(path, {_words(label): score for label, score in pairs})


def _words(label: str) -> str:
    return label.replace("_", " ")


def _still(path: Path) -> Frames:
    """A clip that repeats its middle frame: the same look without the motion."""
    num_frames = probe(path).num_frames
    return read_frames(path, [num_frames // 2]).repeat(num_frames, axis=0)


def _reconstruct(shown: Path, some: list[Path], *, model: str, ratio: float) -> _Reconstructed:
    """Hide a share of a clip and reconstruct it; the loss is the mean over `some` clips."""
    how: Any = {"model": model, "mask": MASK, "mask_ratio": ratio}
    plain = reconstruct(shown, **how)
    paper = reconstruct([shown, *some], rendering="paper", **how)
    loss = sum(each.loss for each in paper[1:]) / len(some)
    return _Reconstructed(ratio, loss, plain, paper[0])


def _pretrain(command: Demo) -> _Trained:
    """Run the shipped recipe with fewer clips, epochs and clips per step."""
    settings = PretrainSettings(
        data=command.output / "training",
        output=command.output / "runs" / "pretrain",
        preset="tiny",
        mask=MASK,
        mask_ratio=TRAINED_RATIO,
        epochs=command.pretrain_epochs,
        batch_size=32,
        lr=1.2e-2,  # at its peak 1.5e-3, as in the recipe
        crop_scales=(1.0, 0.875, 0.75),
        log_every_steps=4,
    )
    started = _make_room(settings.output)
    pretrain(settings)
    return _Trained(time.perf_counter() - started, read_run(settings.output).curve("loss"))


def _finetune(command: Demo, init: str, *, number: int) -> _Trained:
    settings = FinetuneSettings(
        data=command.output / "training",
        eval_data=command.output / "clips",
        output=command.output / "runs" / f"finetune_{number}",
        init=init,
        epochs=command.finetune_epochs,
        batch_size=16,
        lr=1.6e-2,  # at its peak 1e-3, as in the recipe
        warmup_epochs=min(1, command.finetune_epochs),
        layer_decay=0.85,
        crop_scales=(1.0, 0.875, 0.75),
        log_every_steps=5,
    )
    started = _make_room(settings.output)
    with warnings.catch_warnings():
        # To give a pre-training checkpoint a new head is what is meant here.
        warnings.filterwarnings("ignore", ".*a pre-training checkpoint")
        evaluation = finetune(settings)
    assert evaluation is not None  # for there is eval_data
    num_right = round(evaluation.top1 / 100 * command.clips)
    curve = read_run(settings.output).curve("loss")
    return _Trained(time.perf_counter() - started, curve, num_right)


def _make_room(output: Path) -> float:
    """Remove the run of an earlier demo; the time at which the new one starts."""
    shutil.rmtree(output, ignore_errors=True)
    return time.perf_counter()


def _published(classifier: str) -> str:
    """The score that the full recipe reached, in a sentence; empty where no figures are known."""
    try:
        path = find(classifier, "results.json")
        figures = read_json(path) if path else {}
    except WeightsError:
        return ""
    if not {"top1", "num_videos"} <= figures.keys():
        return ""
    text = f"The full recipe reached {figures['top1']:.1f} % on {figures['num_videos']} other clips"
    if scratch := figures.get("scratch_top1"):
        mean = sum(scratch) / len(scratch)
        text += f", and {mean:.1f} % without pre-training (mean of {len(scratch)} seeds)"
    return f"{text}."


def _print_summary(facts: dict[str, str], page: Path) -> None:
    rows = Table("", Column(justify="right"), box=None, show_header=False, padding=(0, 3, 0, 0))
    for row in facts.items():
        rows.add_row(*row)
    console = Console(markup=False, highlight=False)
    console.print(rows)
    console.print(f"open {page}", style="bold", soft_wrap=True)
