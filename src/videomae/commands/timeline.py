"""The command that says what happens when in long videos."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.bar import Bar

from videomae.commands.answers import mirrored, warn_if_unlike_rendered
from videomae.commands.flags import Timeline as TimelineCommand
from videomae.commands.terminal import Screen, file_table, score_bar
from videomae.errors import ConfigError, VideoError, as_text, complain, to_json
from videomae.hub import check_writable
from videomae.inference.timeline import (
    NOVELTY_RULES,
    Scored,
    SegmentRules,
    Timeline,
    gathered,
    ready_for_timeline,
    scored_windows,
)
from videomae.processing.views import ViewMaker
from videomae.report.plots import clock

_SUFFIXES = (".json", ".csv", ".scores.csv", ".vtt", ".png")  # what a folder gets of each video


def timeline(command: TimelineCommand) -> int:
    """Show the segments of each video, and write them; what is done is kept if it is broken off."""
    files = command.videos()
    places, films = _places(files, command.output), _films(files, command.annotate)
    rules = _rules(command)
    if not command.novelty:
        warn_if_unlike_rendered(command.model, files[0])
    ready, processor = ready_for_timeline(
        command.model,
        None,
        command.novelty,
        complain if sys.stderr.isatty() else None,
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
    scored = partial(
        scored_windows,
        ready=ready,
        maker=maker,
        features=command.novelty,
        window_seconds=_number(command.window_seconds),
        hop_seconds=_number(command.hop_seconds),
        batch_size=command.batch_size,
    )
    failed, interrupted = 0, False
    with Screen("", as_json=command.json) as screen:

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
            rows: list[Scored] = []
            reason = ""
            try:
                for row in scored(path):
                    rows.append(row)
                    screen.update(as_text(path.name), row.window.index + 1, row.window.count)
            except VideoError as error:
                reason = str(error)
            except KeyboardInterrupt:
                interrupted, reason = True, f"{path}: interrupted"
            try:
                found = gathered(path, rows, labels, rules) if rows else None
            except VideoError as error:
                found, reason = None, reason or f"{path}: {error}"
            if reason:
                failed += 1
                done = f"; the first {clock(rows[-1].window.end_seconds)} are kept" if found else ""
                screen.complain(f"{reason}{done}")
            if found is not None:
                for place in places[path]:
                    found.save(place, top_k=command.top_k)
                if path in films and not interrupted:
                    draw(found, path)
                if command.json:
                    print(to_json(found.record(top_k=command.top_k)), flush=True)
                else:
                    screen.out.print(file_table(path, _shown(found), files, (8, 14)))
            elif command.json:
                print(to_json({"path": str(path), "error": reason}), flush=True)
            if interrupted:
                return 130
    if failed and len(files) > 1:
        complain(f"{failed} of {len(files)} videos could not be read whole")
    return 1 if failed else 0


def _places(files: Sequence[Path], output: Path | None) -> dict[Path, list[Path]]:
    """The files to write about each video."""
    if output is None:
        return {path: [] for path in files}
    if output.suffix and not output.is_dir():
        known = (*_SUFFIXES, ".svg")
        if not output.name.lower().endswith(known):
            raise ConfigError(f"--output {output}: name a file {', '.join(known)}, or a folder")
        if len(files) > 1:
            raise ConfigError(
                f"--output {output} is one file for {len(files)} videos; name a folder"
            )
        check_writable(output.parent)
        return {files[0]: [output]}
    check_writable(output)
    every = [mirrored(list(files), output, suffix) for suffix in _SUFFIXES]
    return {path: [places[path] for places in every] for path in files}


def _films(files: Sequence[Path], annotate: Path | None) -> dict[Path, Path]:
    """The video to write of each video."""
    if annotate is None:
        return {}
    if annotate.suffix.lower() not in (".mp4", ".mkv"):
        check_writable(annotate)
        return mirrored(list(files), annotate, ".mp4")
    if len(files) > 1:
        raise ConfigError(
            f"--annotate {annotate} is one file for {len(files)} videos; name a folder"
        )
    check_writable(annotate.parent)
    return {files[0]: annotate}


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
