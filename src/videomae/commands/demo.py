"""`videomae demo`: the shipped models on fresh videos, a minute of training, and a page about it.

Every number on the page is measured while the page is made, but for what the full recipe reached:
that is read from `results.json` beside the classifier, where there is one.
"""

import math
import shlex
import shutil
import sys
import time
import warnings
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from videomae.commands.flags import Demo
from videomae.commands.terminal import Screen, aligned
from videomae.errors import ConfigError, WeightsError
from videomae.hub import find, read_json, write_json, write_text
from videomae.inference.predict import Classification, classify
from videomae.inference.reconstruct import Reconstruction, reconstruct
from videomae.rendering.actions import CLASSES, render_dataset
from videomae.report.html import duration, render
from videomae.report.plots import Curve
from videomae.report.record import read_run
from videomae.settings import ActionsSettings, FinetuneSettings
from videomae.training.finetune import finetune
from videomae.video.decoder import Frames
from videomae.video.reader import probe, read_frames

# How the recipe actions-tiny-pretrain hides, and what else is tried here.
MASK: Literal["tube"] = "tube"
TRAINED_RATIO = 0.9
RATIOS = (0.5, 0.75, TRAINED_RATIO)

_FPS = 16  # of the rendered videos; the model looks at every second frame
# The loss of an even grey: the mean square of 2 x 8 x 8 pixels whose unbiased variance is 1.
_NOTHING = 1 - 1 / 128
_MADE_BY = {"made_by": "videomae demo"}


@dataclass(frozen=True)
class _Reconstructed:
    """One clip with a share hidden, in both renderings, and the mean loss over several clips."""

    ratio: float
    loss: float
    plain: Reconstruction
    paper: Reconstruction


@dataclass(frozen=True)
class _Trained:
    """A live training: how long it took, how its loss went, which share of clips it names right."""

    seconds: float
    curve: Curve
    share_right: float


def demo(
    command: Demo, *, classifier: str = "actions-tiny", autoencoder: str = "actions-tiny-pretrain"
) -> Path:
    """Show what the models do and how they come about: the path of a page to open in a browser.

    Renders `clips` videos that no training has seen, classifies them, reconstructs hidden parts,
    trains classifiers on `train_clips` labelled others for about a minute, and does the first two
    to `video` as well, if one is given. The page, `index.html`, needs no other file and no network.
    Clips and trained models stay in `output` to be played with; another call there does everything
    but the rendering anew. Raises ConfigError for a folder that holds something else, VideoError
    for a video that cannot be read, before any work is done.
    """
    started = time.perf_counter()
    folder, video, count = command.output, command.video, command.clips
    if video is not None:
        probe(video)
    _claim(folder)
    screen = Screen("demo", hidden=True)
    log = screen.error.print

    log(f"1/4 rendering {count} clips to look at, {command.train_clips} to learn from")
    paths = _render(command)
    log(f"2/4 classifying {count} clips, moving and still, with {classifier}")
    answers, num_right_moving, num_right_still = _classify(paths, classifier)
    log(f"3/4 reconstructing hidden parts with {autoencoder}")
    shown, some = paths[CLASSES.index("walk") % count], paths[: len(CLASSES)]
    reconstructed = [_reconstruct(shown, some, model=autoencoder, ratio=r) for r in RATIOS]
    yours = None
    if video is not None:
        best = classify(video, model=classifier, top_k=3)
        yours = best, _reconstruct(video, [video], model=autoencoder, ratio=TRAINED_RATIO)
    log("4/4 training for about a minute")
    trained = _train_all(command, autoencoder)

    num_right = {  # clips named right, by whom; the best known first
        classifier: num_right_moving,
        **{
            f"trained just now, {name}": round(run.share_right * count)
            for name, run in reversed(trained.items())
        },
        f"{classifier}, clips still": num_right_still,
        "guessing": count / len(CLASSES),
    }
    text = render(
        "demo.html",
        fps=_FPS,
        actions=CLASSES,
        classifier=classifier,
        answers=answers,
        frames=_frames,
        num_right=num_right,
        published=_published(classifier),
        autoencoder=autoencoder,
        trained_ratio=TRAINED_RATIO,
        reconstructed=reconstructed,
        loss_of_nothing=_NOTHING,
        train_clips=command.train_clips,
        trained=trained,
        loss_of_guessing=math.log(len(CLASSES)),
        yours=yours,
        folder=folder,
        activate="" if shutil.which("videomae") else str(Path(sys.prefix, "bin", "activate")),
        seconds=time.perf_counter() - started,
    )
    page = folder / "index.html"
    write_text(page, text)
    facts = {f"{name}: clips named right": f"{n:.3g} of {count}" for name, n in num_right.items()}
    for each in reconstructed:
        facts[f"{autoencoder}: loss, {each.ratio:.0%} hidden"] = f"{each.loss:.3f}"
    facts["time"] = duration(time.perf_counter() - started)
    screen.out.print(aligned(facts.items(), justify="right"))
    screen.out.print(f"open {page}", style="bold", soft_wrap=True)
    program = shlex.quote(str(Path(sys.executable).with_name("videomae")))
    screen.out.print(f"your own videos, in a browser: {program} serve", soft_wrap=True)
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
    """Render videos to learn from, and others of other people, whose paths are returned."""
    settings = ActionsSettings(
        command.output / "videos",
        clips=command.train_clips,
        test_clips=command.clips,
        seed=command.seed,  # not 1 or 2, as in the recipes
        fps=_FPS,
        workers=command.workers,
    )
    with Screen("rendering", command.train_clips + command.clips) as screen:
        return render_dataset(settings, on_progress=screen.advance)[command.train_clips :]


def _classify(paths: list[Path], model: str) -> tuple[list[Classification], int, int]:
    """Name the clips, and count the right answers for them and for the same held still."""
    moving = classify(iter(paths), model=model, top_k=3)
    # Clips that repeat their middle frame: the same look.
    still = (frames[[len(frames) // 2] * len(frames)] for frames in map(_frames, paths))
    every = chain(moving, classify(still, model=model))
    answers, is_right = [], []
    with Screen("classifying", 2 * len(paths)) as screen:
        for path, answer in zip([*paths, *paths], every, strict=True):
            answers.append(answer)
            is_right.append(answer.labels[0] == path.parent.name)
            screen.advance(len(answers), 2 * len(paths))
    count = len(paths)
    return answers[:count], sum(is_right[:count]), sum(is_right[count:])


def _frames(path: Path) -> Frames:
    return read_frames(path, range(probe(path).num_frames))


def _reconstruct(shown: Path, some: list[Path], *, model: str, ratio: float) -> _Reconstructed:
    """Hide a share of a clip and reconstruct it; the loss is the mean over `some` clips."""
    how: Any = {"model": model, "mask": MASK, "mask_ratio": ratio}
    plain = reconstruct(shown, **how)
    paper = reconstruct([shown, *some], rendering="paper", **how)
    loss = sum(each.loss for each in paper[1:]) / len(some)
    return _Reconstructed(ratio, loss, plain, paper[0])


def _train_all(command: Demo, autoencoder: str) -> dict[str, _Trained]:
    """Train classifiers from the autoencoder on few labels: its head alone, and all its layers."""
    settings = FinetuneSettings(
        data=command.output / "videos",
        output=command.output / "runs" / "head",
        init=autoencoder,
        train_only="head",
    )
    whole = replace(
        settings,
        output=command.output / "runs" / "finetune",
        train_only="all",
        epochs=command.finetune_epochs,
        log_every_steps=5,
    )
    return {"its head alone": _train(settings), "all its layers": _train(whole)}


def _train(settings: FinetuneSettings) -> _Trained:
    """Train in place of the run of an earlier demo."""
    shutil.rmtree(settings.output, ignore_errors=True)
    started = time.perf_counter()
    with warnings.catch_warnings():
        # To give a pre-training checkpoint a new head is what is meant here.
        warnings.filterwarnings("ignore", ".*a pre-training checkpoint")
        evaluation = finetune(settings)
    assert evaluation is not None
    curve = read_run(settings.output).curve("loss")
    return _Trained(time.perf_counter() - started, curve, evaluation.top1 / 100)


def _published(classifier: str) -> dict[str, Any]:
    """What the full recipe reached; empty where it is not known."""
    try:
        path = find(classifier, "results.json")
        return read_json(path) if path else {}
    except WeightsError:
        return {}
