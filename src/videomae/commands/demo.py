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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from videomae.data.motion import MOTIONS, render_dataset
from videomae.errors import ConfigError, WeightsError
from videomae.hub import PathLike, atomic_path, fetch, read_json, write_json
from videomae.inference.predict import Classification, Reconstruction, classify, reconstruct
from videomae.report import html
from videomae.report.html import Curve
from videomae.report.record import read_log
from videomae.settings import FinetuneSettings, MotionSettings, PretrainSettings
from videomae.training.finetune import finetune
from videomae.training.pretrain import pretrain
from videomae.video.reader import Frames, probe, read_frames

# How the recipe motion-tiny-pretrain hides, and what else is tried here.
MASK: Literal["random"] = "random"
TRAINED_RATIO = 0.75
RATIOS = (0.5, 0.75, 0.9)

_FPS = 16  # of the rendered videos; the model looks at every second frame
# The loss of an even grey: the mean square of 2 x 8 x 8 pixels whose unbiased variance is 1.
_NOTHING = 1 - 1 / 128
_MADE_BY = {"made_by": "videomae demo"}


@dataclass(frozen=True)
class _Painted:
    """One clip with a share hidden, in both renderings, and the mean loss over several clips."""

    ratio: float
    loss: float
    plain: Reconstruction
    paper: Reconstruction


@dataclass(frozen=True)
class _Run:
    """A live training: how long it took, how its loss went, and what came out."""

    seconds: float
    curve: Curve
    num_right: int = 0


@dataclass(frozen=True)
class _Found:
    """Everything that the page tells."""

    folder: Path
    classifier: str
    autoencoder: str
    paths: list[Path]
    predictions: list[Classification]
    num_right: int
    num_frozen_right: int
    painted: list[_Painted]
    train_clips: int
    pretraining: _Run
    painted_live: _Painted
    finetunings: dict[str, _Run]
    video: tuple[Classification, _Painted] | None


def demo(
    output_dir: PathLike = "demo",
    *,
    video: PathLike | None = None,
    classifier: str = "motion-tiny",
    autoencoder: str = "motion-tiny-pretrain",
    clips: int = 48,
    train_clips: int = 240,
    pretrain_epochs: int = 10,
    finetune_epochs: int = 6,
    seed: int = 11,
    workers: int | None = None,
) -> Path:
    """Show what the models do and how they come about: the path of a page to open in a browser.

    Renders `clips` videos that no training has seen, classifies them, reconstructs hidden parts,
    trains for about a minute on `train_clips` others, and does the first two to `video` as well,
    if one is given. The page, `index.html`, needs no other file and no network. Clips and trained
    models stay in `output_dir` to be played with; another call there does everything but the
    rendering anew. Raises ConfigError for a folder that holds something else, VideoError for a
    video that cannot be read, before any work is done.

    ```python
    demo("demo", video="holiday.mp4")  # demo/index.html
    ```
    """
    started = time.perf_counter()
    folder = Path(output_dir)
    if video is not None:
        probe(video)
    _claim(folder)
    console = Console(stderr=True, markup=False, highlight=False)

    console.print(f"1/4 rendering {clips} clips to look at, {train_clips} to learn from")
    with _bar(console, "rendering", clips + train_clips) as advance:
        # Not the seeds 1, 2 and 7 of the recipes.
        looked_at = MotionSettings(folder / "clips", clips, seed, fps=_FPS, workers=workers)
        learned_from = replace(
            looked_at, output=folder / "training", clips=train_clips, seed=seed + 1
        )
        render_dataset(learned_from, on_progress=lambda *_: advance())
        paths = render_dataset(looked_at, on_progress=lambda *_: advance())

    console.print(f"2/4 classifying {clips} clips, moving and frozen, with {classifier}")
    with _bar(console, "classifying", 2 * clips) as advance:
        predictions, num_frozen_right = [], 0
        for prediction in classify(iter(paths), model=classifier, top_k=3):
            predictions.append(prediction)
            advance()
        still = (_frozen(path) for path in paths)
        for path, prediction in zip(paths, classify(still, model=classifier), strict=True):
            num_frozen_right += prediction.labels[0] == path.parent.name
            advance()

    console.print(f"3/4 painting hidden parts with {autoencoder}")
    shown, some = paths[MOTIONS.index("turn_left") % clips], paths[: len(MOTIONS)]
    painted = [_paint(shown, some, model=autoencoder, ratio=ratio) for ratio in RATIOS]
    about_video = None
    if video is not None:
        painted_video = _paint(Path(video), [Path(video)], model=autoencoder, ratio=TRAINED_RATIO)
        about_video = classify(Path(video), model=classifier, top_k=3), painted_video

    console.print("4/4 training for about a minute")
    pretraining = _pretrain(folder, epochs=pretrain_epochs)
    live = str(folder / "runs" / "pretrain" / "model")
    starts = {"the live pre-training": live, autoencoder: autoencoder}
    finetunings = {
        name: _finetune(folder, init, number=number, epochs=finetune_epochs, num_clips=clips)
        for number, (name, init) in enumerate(starts.items(), start=1)
    }
    found = _Found(
        folder=folder,
        classifier=classifier,
        autoencoder=autoencoder,
        paths=paths,
        predictions=predictions,
        num_right=sum(map(_is_right, predictions)),
        num_frozen_right=num_frozen_right,
        painted=painted,
        train_clips=train_clips,
        pretraining=pretraining,
        painted_live=_paint(shown, some, model=live, ratio=TRAINED_RATIO),
        finetunings=finetunings,
        video=about_video,
    )
    page = folder / "index.html"
    with atomic_path(page) as temporary:
        temporary.write_text(_page(found, time.perf_counter() - started), encoding="utf-8")
    _print_summary(found, page, time.perf_counter() - started)
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


@contextmanager
def _bar(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar that goes when the work is done; gives what moves it by one."""
    columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _frozen(path: Path) -> Frames:
    """A clip that repeats its middle frame: the same look without the motion."""
    num_frames = probe(path).num_frames
    return read_frames(path, [num_frames // 2]).repeat(num_frames, axis=0)


def _is_right(prediction: Classification) -> bool:
    assert prediction.path is not None
    return prediction.labels[0] == prediction.path.parent.name


def _paint(shown: Path, some: list[Path], *, model: str, ratio: float) -> _Painted:
    """Hide a share of a clip and reconstruct it; the loss is the mean over `some` clips."""
    how: Any = {"model": model, "mask": MASK, "mask_ratio": ratio}
    plain = reconstruct(shown, **how)
    paper = reconstruct([shown, *some], rendering="paper", **how)
    return _Painted(ratio, sum(each.loss for each in paper[1:]) / len(some), plain, paper[0])


def _pretrain(folder: Path, *, epochs: int) -> _Run:
    """The shipped recipe with fewer clips, epochs and clips per step."""
    output = folder / "runs" / "pretrain"
    shutil.rmtree(output, ignore_errors=True)  # an earlier demo's
    started = time.perf_counter()
    settings = PretrainSettings(
        data=folder / "training",
        output=output,
        preset="tiny",
        mask=MASK,
        mask_ratio=TRAINED_RATIO,
        epochs=epochs,
        batch_size=32,
        lr=1.2e-2,  # at its peak 1.5e-3, as in the recipe
        crop_scales=(1.0, 0.875, 0.75),
        log_every_steps=4,
    )
    pretrain(settings)
    return _Run(time.perf_counter() - started, _curve(output))


def _finetune(folder: Path, init: str, *, number: int, epochs: int, num_clips: int) -> _Run:
    output = folder / "runs" / f"finetune_{number}"
    shutil.rmtree(output, ignore_errors=True)
    started = time.perf_counter()
    settings = FinetuneSettings(
        data=folder / "training",
        eval_data=folder / "clips",
        output=output,
        init=init,
        epochs=epochs,
        batch_size=16,
        lr=1.6e-2,  # at its peak 1e-3, as in the recipe
        warmup_epochs=min(1, epochs),
        layer_decay=0.85,
        crop_scales=(1.0, 0.875, 0.75),
        log_every_steps=5,
    )
    with warnings.catch_warnings():
        # To give a pre-training checkpoint a new head is what is meant here.
        warnings.filterwarnings("ignore", ".*a pre-training checkpoint")
        evaluation = finetune(settings)
    assert evaluation is not None  # for there is eval_data
    num_right = round(evaluation.top1 / 100 * num_clips)
    return _Run(time.perf_counter() - started, _curve(output), num_right)


def _curve(run: Path) -> Curve:
    rows = [row for row in read_log(run) if "loss" in row]
    return [row["step"] for row in rows], [row["loss"] for row in rows]


def _published(classifier: str) -> str:
    """What the full recipe reached, in a sentence; empty where no figures come with the model."""
    try:
        path = fetch(classifier, "results.json", required=False)
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


def _print_summary(found: _Found, page: Path, seconds: float) -> None:
    count = len(found.paths)
    rows = Table("", Column(justify="right"), box=None, show_header=False, padding=(0, 3, 0, 0))
    for name, num_right in _accuracies(found).items():
        rows.add_row(f"{name}: clips named right", f"{num_right:.3g} of {count}")
    for each in found.painted:
        rows.add_row(f"{found.autoencoder}: loss, {each.ratio:.0%} hidden", f"{each.loss:.3f}")
    rows.add_row("time", _duration(seconds))
    console = Console(markup=False, highlight=False)
    console.print(rows)
    console.print(f"open {page}", style="bold", soft_wrap=True)


def _accuracies(found: _Found) -> dict[str, float]:
    """Clips named right, by whom; the best known first."""
    return {
        found.classifier: found.num_right,
        **{
            f"fine-tuned just now from {name}": run.num_right
            for name, run in reversed(found.finetunings.items())
        },
        f"{found.classifier}, clips frozen": found.num_frozen_right,
        "guessing": len(found.paths) / len(MOTIONS),
    }


def _duration(seconds: float) -> str:
    """
    >>> _duration(151.2)
    '2 min 31 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _page(found: _Found, seconds: float) -> str:
    sections = (
        _section_clips(found),
        _section_painting(found),
        _section_training(found),
        _section_video(found),
        _section_next(found),
        f"<footer>Made by <code>videomae demo</code> in {_duration(seconds)}.</footer>",
    )
    return html.document("videomae: masked autoencoders for video, at work", sections)


def _section_clips(found: _Found) -> str:
    count = len(found.paths)
    cards = "".join(_card(prediction) for prediction in found.predictions[: len(MOTIONS)])
    rows = [
        (str(p.path), _words(p.labels[0]), f"{p.scores[0]:.1%}", "" if _is_right(p) else "wrong")
        for p in found.predictions
    ]
    return f"""
<header>
<h1>A small model that sees motion</h1>
<p class="lead"><b>{escape(found.classifier)}</b> names the motion of videos it has never seen:
{found.num_right} of {count} right. No single frame gives the answer away.</p>
</header>
<section aria-label="Predictions">
<div class="cards">{cards}</div>
<p>The first clip of each motion, not the best. Frozen at their middle frames, the same {count}
clips leave the model with {found.num_frozen_right} right answers; guessing gives
{count / len(MOTIONS):.3g}.</p>
<details><summary>All {count} predictions</summary>
{html.table(("file", "prediction", "score", "verdict"), rows)}</details>
</section>
"""


def _card(prediction: Classification) -> str:
    """One clip with its best guesses."""
    assert prediction.path is not None
    truth = _words(prediction.path.parent.name)
    frames = read_frames(prediction.path, range(probe(prediction.path).num_frames))
    wrong = "" if _is_right(prediction) else f'<p class="wrong">in truth: {escape(truth)}</p>'
    return (
        f"<figure>{html.animation(frames, f'A textured scene in motion: {truth}', fps=_FPS)}"
        f"<figcaption>{_guesses(prediction)}{wrong}</figcaption></figure>"
    )


def _guesses(prediction: Classification) -> str:
    pairs = zip(prediction.labels, prediction.scores, strict=True)
    return html.score_list({_words(label): score for label, score in pairs})


def _words(label: str) -> str:
    return label.replace("_", " ")


def _section_painting(found: _Found) -> str:
    rows = []
    for each in found.painted:
        how = "as in its training"
        if each.ratio != TRAINED_RATIO:
            how = f"{'harder' if each.ratio > TRAINED_RATIO else 'easier'} than in its training"
        title = f"{each.ratio:.0%} hidden <small>{how}; loss {each.loss:.2f}</small>"
        rows.append(f"<h3>{title}</h3>{_painting(each)}")
    return f"""
<section>
<h2>Painting what is hidden</h2>
<p><b>{escape(found.autoencoder)}</b> learned from clips without labels. It saw them with
{TRAINED_RATIO:.0%} hidden at random, and had to predict what it could not see. To know what was
where, it had to follow the motion.</p>
{"".join(rows)}
<p class="note">The model predicts patterns without brightness and contrast.
<b>Reconstructed</b> guesses both from visible neighbours and looks at no hidden pixel.
<b>As in papers</b> takes both from the hidden pixels themselves: that <b>leaks the answer</b> and
flatters the model. The loss is the mean over one clip of each motion; to predict nothing at all
costs {_NOTHING:.2f}.</p>
</section>
"""


def _painting(painted: _Painted) -> str:
    """A row of animations: as it is, as the model sees it, as it paints it, twice."""
    hidden = f"{painted.ratio:.0%} hidden"
    panels = {
        "Original": painted.plain.original,
        hidden.capitalize(): painted.plain.masked,
        "Reconstructed": painted.plain.reconstructed,
        "As in papers (leaks)": painted.paper.reconstructed,
    }
    rows = {name: (frames, f"{name}, {hidden}") for name, frames in panels.items()}
    return html.animation_row(rows, fps=_FPS / 2)


def _section_training(found: _Found) -> str:
    live, full = found.painted_live, next(p for p in found.painted if p.ratio == TRAINED_RATIO)
    run, name, count = found.pretraining, found.autoencoder, len(found.paths)
    hidden = f"{TRAINED_RATIO:.0%} hidden"
    panels = {
        "Original": (full.plain.original, "The original"),
        hidden: (full.plain.masked, f"The same, {hidden}"),
        "Trained just now": (live.plain.reconstructed, "Painted by the model trained just now"),
        name: (full.plain.reconstructed, f"Painted by {name}"),
    }
    total = _duration(run.seconds + sum(each.seconds for each in found.finetunings.values()))
    pretraining = html.chart(
        {"trained just now": run.curve},
        what="Pre-training: loss over steps",
        marks={"predicting nothing": _NOTHING, name: full.loss},
    )
    finetuning = html.chart(
        {f"from {start}": each.curve for start, each in found.finetunings.items()},
        what="Fine-tuning: loss over steps",
        marks={"guessing": math.log(len(MOTIONS))},
    )
    return f"""
<section>
<h2>Training, live</h2>
<p>This computer has just trained for {total} on {found.train_clips} clips:
{_duration(run.seconds)} of pre-training without labels, then a little fine-tuning with them, once
from there and once from {escape(name)}. A minute is too short to learn much: pre-training
first learns to answer nothing in particular, and its loss falls on only after hundreds of steps
more.</p>
<div class="charts">{pretraining}{finetuning}</div>
<h3>What each paints <small>loss {live.loss:.2f} trained just now, {full.loss:.2f} for
{escape(name)}</small></h3>
{html.animation_row(panels, fps=_FPS / 2)}
<h3>What each names right <small>of the {count} clips above</small></h3>
{html.score_table({who: right / count for who, right in _accuracies(found).items()})}
<p class="note">{escape(_published(found.classifier))}</p>
</section>
"""


def _section_video(found: _Found) -> str:
    if found.video is None:
        return ""
    prediction, painted = found.video
    assert prediction.path is not None
    return f"""
<section>
<h2>Your video</h2>
<p><code>{escape(prediction.path.name)}</code> as the model gets it: {len(painted.plain.original)}
small frames from its middle. It was trained on drawn scenes and knows {len(MOTIONS)} motions, so
take this as a curiosity.</p>
{_painting(painted)}
<div class="narrow">{_guesses(prediction)}</div>
</section>
"""


def _section_next(found: _Found) -> str:
    lines = next_commands(found.folder)
    if shutil.which("videomae") is None:
        activate = shlex.quote(str(Path(sys.prefix, "bin", "activate")))
        lines = ["# let this shell find videomae", f". {activate}", *lines]
    return f"""
<section>
<h2>What to try next</h2>
<pre><code>{escape(chr(10).join(lines))}</code></pre>
<p class="note">The clips and the models trained here lie in
<code>{escape(str(found.folder))}</code>. <code>videomae --help</code> lists all commands.</p>
</section>
"""


def next_commands(folder: Path) -> list[str]:
    """Lines for a shell that work after the demo; `#` begins a remark."""
    clips, runs = shlex.quote(str(folder / "clips")), shlex.quote(str(folder / "runs"))
    return [
        "# one line of JSON per video",
        f"videomae classify {clips} --json",
        "# hide three quarters of some clips and paint them",
        f"videomae reconstruct {clips}/bob --mask {MASK} --mask-ratio {TRAINED_RATIO} --format gif",
        "# the model that was fine-tuned here",
        f"videomae classify {clips} --model {runs}/finetune_2/model",
        "# a larger data set, and the whole pre-training: about half an hour on two cores",
        "videomae motion data/unlabelled --clips 3000 --seed 1",
        "videomae pretrain --data data/unlabelled --output runs/pretrain --preset tiny"
        f" --mask {MASK} --mask-ratio {TRAINED_RATIO} --epochs 100 --warmup-epochs 8 --lr 6e-3",
        "# a published model on your own video (fetched once; its weights are CC BY-NC)",
        "videomae classify YOUR.mp4 --model MCG-NJU/videomae-base-finetuned-kinetics",
    ]
