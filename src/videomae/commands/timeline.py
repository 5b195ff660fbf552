"""The command that says what happens when, in long videos and live ones."""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.bar import Bar

from videomae.claim import refuse_to_replace
from videomae.commands.answers import check_output, mirrored, warn_if_unlike_rendered
from videomae.commands.model_flags import Timeline as TimelineCommand
from videomae.commands.terminal import (
    Screen,
    file_table,
    names_file,
    path_width,
    score_bar,
    stopped_by_sigterm,
)
from videomae.errors import ConfigError, VideoError, as_text, complain, say, to_json
from videomae.footage.segments import SegmentRules
from videomae.footage.timeline import NOVELTY_RULES, Gathered, Scored, Timeline, scored_windows
from videomae.footage.windows import live_windows
from videomae.inference.engines import Engine
from videomae.inference.predict import mean_scores, ready_model
from videomae.processing.views import ViewMaker
from videomae.report.plots import clock
from videomae.video.live import LiveVideo

_SUFFIXES = (".json", ".csv", ".scores.csv", ".vtt", ".png")  # what a folder gets of each video


def timeline(command: TimelineCommand) -> int:
    """Show the segments of each video, and write them; what is done is kept if it is broken off."""
    if command.camera:
        _check_live(command)
    files = [Path("live")] if command.camera else command.videos()
    places, films = _places(files, command.output), _films(files, command.annotate)
    rules = _rules(command)
    if not (command.novelty or command.camera):
        warn_if_unlike_rendered(command.model, files[0])
    ready, processor = ready_model(
        command.model,
        None,
        complain if sys.stderr.isatty() else None,
        tokens=command.novelty,
        engine=command.engine,
        dtype=command.dtype,
        device=command.device,
    )
    maker = ViewMaker(
        ready.config,
        processor,
        command.frame_stride,
        command.num_clips,
        command.num_crops,
        command.fps,
        command.on_damage,
    )
    labels = None if command.novelty else ready.config.id2label or {}
    if command.camera:
        return _watch(command, ready, maker, rules, places[files[0]])
    scored = partial(
        scored_windows,
        ready=ready,
        maker=maker,
        features=command.novelty,
        window_seconds=_number(command.window_seconds),
        hop_seconds=_number(command.hop_seconds),
        batch_size=command.batch_size,
    )
    failed, interrupted, width = 0, False, path_width(files)
    with stopped_by_sigterm(), Screen("", as_json=command.json) as screen:

        def draw(found: Timeline, path: Path) -> None:
            total = round(found.windows[-1].end_seconds)
            found.annotate(
                path,
                films[path],
                progress=lambda seconds: screen.update("drawing", int(seconds), total),
                fps=maker.rate,
                on_damage=command.on_damage,
            )

        for path in files:
            gathered, reason = Gathered(), ""
            try:
                for row in scored(path):
                    gathered.add(row)
                    screen.update(as_text(path.name), row.window.index + 1, row.window.count)
            except VideoError as error:
                reason = str(error)
            except KeyboardInterrupt:
                interrupted, reason = True, f"{path}: interrupted"
            try:
                found = gathered.timeline(path, labels, rules) if gathered.windows else None
            except VideoError as error:
                found, reason = None, reason or f"{path}: {error}"
            if reason:
                failed += 1
                kept = clock(found.windows[-1].end_seconds) if found else ""
                screen.complain(f"{reason}; the first {kept} are kept" if kept else reason)
            if found is not None:
                for place in places[path]:
                    found.save(place, top_k=command.top_k)
                if command.json:
                    say(to_json(found.record(top_k=command.top_k)))
                else:
                    screen.out.print(file_table(path, _shown(found), width, (8, 14)))
                if path in films and not reason:
                    try:
                        draw(found, path)
                    except VideoError as error:  # the files that follow are to be done, too
                        failed += 1
                        screen.complain(str(error))
            elif command.json:
                say(to_json({"path": str(path), "error": reason}))
            if interrupted:
                return 130
    if failed and len(files) > 1:
        complain(f"{failed} of {len(files)} videos could not be read whole")
    return 1 if failed else 0


def _check_live(command: TimelineCommand) -> None:
    """ConfigError for what does not go with a camera."""
    for name in ("files", "novelty", "annotate"):
        if getattr(command, name):
            what = "a file" if name == "files" else f"--{name}"
            raise ConfigError(f"--camera {command.camera} does not go with {what}; leave one out")
    if command.num_clips > 1 or command.window_seconds != "clip":
        raise ConfigError(
            f"--camera {command.camera} shows the newest clip again and again; leave out "
            "--num-clips and --window-seconds"
        )


def _watch(
    command: TimelineCommand,
    ready: Engine,
    maker: ViewMaker,
    rules: SegmentRules,
    places: list[Path],
) -> int:
    """Show the labels of a live video as they come, until it ends or is left; then write files."""
    labels, gathered = ready.config.id2label or {}, Gathered()
    reason = ""
    try:
        with stopped_by_sigterm(), LiveVideo(command.camera) as video:
            rate = maker.rate or video.fps
            if rate is None or maker.stride is None:
                raise ConfigError(
                    f"--camera {command.camera}: frames of a clip are to be so many apart; give "
                    "--fps (it names no rate) and a number as --frame-stride"
                )
            every = maker.stride / rate
            hop = _number(command.hop_seconds)
            hop = every * maker.config.num_frames / 2 if hop is None else hop
            for window, views in live_windows(video.frames(every), maker, hop_seconds=hop):
                scores = mean_scores(ready(views), ready.config)
                delay = time.monotonic() - window.arrived
                newest, scored = Gathered(), Scored(window, scores, None)
                newest.add(scored)
                if places:
                    gathered.add(scored)
                [now] = newest.timeline(None, labels).record(top_k=command.top_k)["windows"]
                late = {"delay_seconds": round(delay, 3), "num_skipped": window.num_skipped}
                if command.json:
                    say(to_json(now | late))
                else:
                    best = f"{now['labels'][0]:16} {now['scores'][0]:.2f}"
                    skipped = f", {window.num_skipped} skipped" if window.num_skipped else ""
                    at = clock(window.end_seconds, tenths=True)
                    say(f"{at:>9}  {best}  {delay:.2f} s late{skipped}")
    except VideoError as error:
        reason = str(error)
    except KeyboardInterrupt:  # Ctrl-C or SIGTERM, which is how a camera is left
        pass
    for place in places if gathered.windows else []:
        gathered.timeline(None, labels, rules).save(place, top_k=command.top_k)
    return complain(reason) if reason else 0


def _places(files: Sequence[Path], output: Path | None) -> dict[Path, list[Path]]:
    """The files to write about each video."""
    if output is None:
        return {path: [] for path in files}
    is_file, known = names_file(output), (*_SUFFIXES, ".svg")
    if is_file and not output.name.lower().endswith(known):
        raise ConfigError(f"--output {output}: name a file {', '.join(known)}, or a folder")
    _check_place("--output", output, files, is_file=is_file)
    if is_file:
        return {files[0]: [output]}
    every = [mirrored(list(files), output, suffix) for suffix in _SUFFIXES]
    taken: dict[Path, Path] = {}  # a.mp4 and a.scores.mp4 would share a.scores.csv
    for path, place in (each for places in every for each in places.items()):
        if (other := taken.setdefault(place, path)) != path:
            raise ConfigError(
                f"--output {output}: {place} would be written for {other} and for {path}; name a "
                "folder for each"
            )
    return {path: [places[path] for places in every] for path in files}


def _films(files: Sequence[Path], annotate: Path | None) -> dict[Path, Path]:
    """The video to write of each video."""
    if annotate is None:
        return {}
    is_file = annotate.suffix.lower() in (".mp4", ".mkv")
    if names_file(annotate) and not is_file:
        raise ConfigError(f"--annotate {annotate}: name a file .mp4 or .mkv, or a folder")
    _check_place("--annotate", annotate, files, is_file=is_file)
    films = {files[0]: annotate} if is_file else mirrored(list(files), annotate, ".mp4")
    refuse_to_replace(f"--annotate {annotate}", films.values(), films)
    return films


def _check_place(flag: str, place: Path, files: Sequence[Path], *, is_file: bool) -> None:
    """Raise ConfigError for one file for several videos, and a place that cannot be written."""
    if is_file and len(files) > 1:
        raise ConfigError(f"{flag} {place} is one file for {len(files)} videos; name a folder")
    check_output(flag, place, is_file=is_file)


def _number(value: float | str) -> float | None:
    return None if isinstance(value, str) else value


def _rules(command: TimelineCommand) -> SegmentRules:
    usual = NOVELTY_RULES if command.novelty else SegmentRules()
    enter, leave = _number(command.enter), _number(command.leave)
    enter = usual.enter if enter is None else enter
    leave = min(usual.leave, enter) if leave is None else leave
    return SegmentRules(enter, leave, command.min_seconds, command.max_gap_seconds)


def _shown(found: Timeline) -> list[tuple[str | Bar, ...]]:
    """The rows of a table: a segment each, or why there is none."""
    segments = found.segments
    if not segments:
        index, best = max(enumerate(found.scores.max(1)), key=lambda each: each[1])
        label = found.labels[int(found.scores[index].argmax())]
        middle = found.windows[index].start_seconds
        return [("no segment:", f"the highest score is {best:.2f} ({label} at {clock(middle)})")]
    most = max(1.0, *(each.score for each in segments))
    return [
        (
            f"{clock(each.start_seconds, tenths=True):>9}",
            f"{clock(each.end_seconds, tenths=True):>9}",
            each.label,
            f"{each.score:5.2f}",
            score_bar(each.score / most),
        )
        for each in segments
    ]
