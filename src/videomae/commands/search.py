"""The commands on an index of videos: make one, search it, find copies in it."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from videomae.commands.answers import check_output
from videomae.commands.batch import run_batch
from videomae.commands.model_flags import Duplicates, Files, Index, Search
from videomae.commands.terminal import Screen, names_file
from videomae.data.folders import read_folders
from videomae.data.inputs import name_of
from videomae.data.manifest import is_address, load_videos
from videomae.data.opening import open_video, part_of
from videomae.data.rows import write_csv
from videomae.errors import (
    ConfigError,
    VideoError,
    as_text,
    complain,
    counted,
    one_line,
    say,
    to_json,
)
from videomae.footage.batch import find_parts
from videomae.footage.duplicates import (
    Pair,
    joined,
    nearest_others,
    similar_pairs,
    similarity_of_copies,
    usual_threshold,
)
from videomae.footage.search import Index as Rows
from videomae.footage.search import Stretch, load_model, open_index, search
from videomae.hub import check_writable, write_text
from videomae.inference.predict import Floats
from videomae.report.html import Embedded, embed_clip, embed_picture, render
from videomae.report.pictures import check_suffix
from videomae.report.plots import clock, plot_threshold

_SHOWN_GROUPS, _SHOWN_CARDS = 50, 12  # on a page, which holds its pictures
_CLIP_FRAMES, _CLIP_PX = 8, 120


def index(command: Index) -> int:
    """Write the features of videos into a folder of Parquet files."""
    if names_file(command.output):
        raise ConfigError(f"--output {command.output}: an index is a folder; leave out the suffix")
    return run_batch("embed", command, command.videos())


def find(command: Search) -> int:
    """Show the videos of an index that are most like one, and where in them."""
    page = None if command.output == Path("-") else command.output
    if page is not None:
        check_suffix(page, (".html",))
        check_output("--output", page, is_file=True)
    end = None if command.end_seconds == "end" else command.end_seconds
    whole = command.start_seconds == 0 and end is None
    query = Stretch(str(command.query), None if whole else command.start_seconds, end)
    rows = open_index(command.index)
    loaded = load_model(
        rows,
        model=command.model,
        engine=command.engine,
        device=command.device,
        whole=not whole,
        tell=complain if sys.stderr.isatty() else None,
    )
    found = search(rows, query, loaded, count=command.top_k, mirrored=command.mirrored)
    table = Table.grid("", "", "", padding=(0, 2, 0, 0))
    for match in found:
        if command.json:
            say(to_json({**vars(match.stretch), "similarity": round(match.similarity, 6)}))
        table.add_row(
            f"{match.similarity:6.3f}", _seconds(match.stretch), one_line(match.stretch.path)
        )
    if not command.json:
        Screen("").out.print(table)
    if page is not None:
        cards = [
            _card(
                each.stretch,
                f"{each.similarity:.3f}  {_seconds(each.stretch)}",
                command.allow_addresses,
            )
            for each in found
        ]
        _write_page(
            page,
            title="Videos like this one",
            lead=f"{counted(len(rows.rows), 'row')} were compared by {rows.facts['model']}. "
            "1 is the same, 0 is as different as any two.",
            groups=[
                _Group("Looked for", "", [_card(query, _seconds(query))]),
                _Group("Found", "", cards),
            ],
        )
        if not command.json:
            say(f"wrote {page}")
    return 0


def duplicates(command: Duplicates) -> int:
    """Write the pairs of videos that are copies, and a page that shows them."""
    folder, source = command.output, Path(command.source)
    check_writable(folder)
    code = 0
    if not (source.is_dir() and find_parts(source)):
        code = _make_index(command, folder / "index")
        if code == 130:  # part of the videos would look like all of them
            return code
        source = folder / "index"
    rows = open_index(source)
    named = source != Path(command.source) or command.model != Duplicates.model
    model = command.model if named else ""  # an index knows its own
    loaded = load_model(rows, model=model, engine=command.engine, device=command.device, whole=True)
    others = nearest_others(rows)
    nearest = others[0][:, 0]
    # an address that was typed may be opened, and all that lies there
    allowed = command.allow_addresses or is_address(command.source)
    copies = similarity_of_copies(rows, loaded, allow_addresses=allowed)
    if command.threshold == "auto" and not len(copies):
        complain(
            f"no video of {source} can be opened, so that the threshold is no more than a guess "
            "from how alike they are; look at the pairs, or give --threshold"
        )
    threshold = (
        usual_threshold(copies, nearest) if command.threshold == "auto" else command.threshold
    )
    groups = joined(rows, similar_pairs(rows, others, threshold))
    splits = _splits(command.source, [row.path for row in rows.rows])
    leaks = [pair for group in groups for pair in group if _is_leak(rows, pair, splits)]
    records = [
        _record(rows, pair, number, splits)
        for number, group in enumerate(groups, start=1)
        for pair in group
    ]
    write_csv(folder / "pairs.csv", _record(rows, Pair(0, 0, 0), 0, splits), records)
    _draw_page(folder, rows, groups, splits, copies, nearest, threshold, allowed)
    if command.json:
        for record in records:
            say(to_json(record))
    else:
        videos = len(set(rows.videos.tolist()))
        say(
            f"{counted(videos, 'video')}, {counted(len(records), 'pair')} of copies in "
            f"{counted(len(groups), 'group')} (similarity of {threshold:.3f} or more)"
        )
        if leaks:
            say(f"{counted(len(leaks), 'pair')} in different splits: a model is tested on them")
        say(f"wrote {folder / 'pairs.csv'} and {folder / 'index.html'}")
    return code


FUNCTIONS: dict[type, Callable[[Any], int]] = {Index: index, Search: find, Duplicates: duplicates}


def _make_index(command: Duplicates, folder: Path) -> int:
    """Write the index of the videos, or go on with it."""
    job = Index(
        Files(),
        model=command.model,
        engine=command.engine,
        device=command.device,
        input=command.source,
        allow_addresses=command.allow_addresses,
        window_seconds=command.window_seconds,
        resume=True,
        output=folder,
    )
    with redirect_stdout(sys.stderr) if command.json else nullcontext():  # pairs alone are printed
        return run_batch("embed", job, [], again="the same command")


def _splits(source: str, paths: Sequence[str]) -> dict[str, str]:
    """The split of each video, by its manifest or by its folders; empty where nothing tells."""
    if Path(source).suffix == ".csv" or (Path(source) / "manifest.csv").is_file():
        return {
            name_of(video): video.split
            for video in load_videos(source, None, allow_addresses=True).items
        }
    names = sorted({path for path in paths if "::" not in path})
    with suppress(ConfigError, ValueError):
        root = os.path.commonpath([Path(name).parent for name in names])
        places = read_folders([Path(name).relative_to(root) for name in names], labelled=False)
        pairs = zip(names, places, strict=True)
        return {name: place.split for name, place in pairs if place.split}
    return {}


def _is_leak(rows: Rows, pair: Pair, splits: dict[str, str]) -> bool:
    first, second = (splits.get(rows.rows[number].path) for number in (pair.first, pair.second))
    return first != second


def _record(rows: Rows, pair: Pair, group: int, splits: dict[str, str]) -> dict[str, Any]:
    """A pair as a line of the table and of JSON."""
    record: dict[str, Any] = {"group": group, "similarity": round(pair.similarity, 6)}
    for name, number in (("a", pair.first), ("b", pair.second)):
        row = rows.rows[number]
        record |= {
            f"path_{name}": row.path,
            f"start_seconds_{name}": row.start_seconds,
            f"split_{name}": splits.get(row.path, ""),
        }
    return record


def _draw_page(
    folder: Path,
    rows: Rows,
    groups: Sequence[Sequence[Pair]],
    splits: dict[str, str],
    copies: Floats,
    nearest: Floats,
    threshold: float,
    allow_addresses: bool,
) -> None:
    """The page of groups of copies, and the picture that explains the threshold."""
    spread = {"to the nearest other video": nearest[np.isfinite(nearest)]}
    if len(copies):
        spread["to a re-encoded copy"] = copies
    chart = plot_threshold(spread, threshold, folder / "threshold.png", xlabel="similarity")
    shown = []
    for number, group in enumerate(groups[:_SHOWN_GROUPS], start=1):
        best: dict[int, tuple[int, float]] = {}  # of each video its first row, and how alike
        for pair in group:
            for row in (pair.first, pair.second):
                best.setdefault(int(rows.videos[row]), (row, pair.similarity))
        cards = [
            _card(
                rows.rows[row],
                f"{splits.get(rows.rows[row].path, '')} {similarity:.3f}".strip(),
                allow_addresses,
            )
            for row, similarity in list(best.values())[:_SHOWN_CARDS]
        ]
        leak = any(_is_leak(rows, pair, splits) for pair in group)
        more = len(best) - len(cards)
        title = f"{number}. {counted(len(best), 'video')}" + (f", {more} not shown" if more else "")
        shown.append(_Group(title, "in different splits" if leak else "", cards))
    count = len(set(rows.videos.tolist()))
    _write_page(
        folder / "index.html",
        title="Copies among the videos",
        lead=f"{counted(count, 'video')} have {counted(len(groups), 'group')} of copies"
        + (f", of which the first {_SHOWN_GROUPS} are shown." if groups[_SHOWN_GROUPS:] else "."),
        chart=embed_picture(chart),
        explanation=f"Similarity by {rows.facts['model']}: of each row to the nearest other video, "
        "and of some rows to a copy that was re-encoded at 3/4 of the size. Copies lie to the "
        "right of the threshold; look at the pairs that are nearest to it, the last ones of "
        "pairs.csv, before anything is deleted.",
        groups=shown,
    )


@dataclass(frozen=True)
class _Card:
    name: str
    figures: str
    clip: Embedded | None


@dataclass(frozen=True)
class _Group:
    title: str
    note: str
    cards: list[_Card]


def _write_page(
    path: Path, *, groups: list[_Group], chart: Embedded | None = None, **values: str
) -> None:
    values = {"explanation": "", **values}
    write_text(path, render("matches.html", **values, groups=groups, chart=chart))


def _card(stretch: Stretch, figures: str, allow_addresses: bool = False) -> _Card:
    """A stretch with a small moving picture, or without one where it is not to be read."""
    clip = None
    if stretch.is_remote and not allow_addresses:
        return _Card(as_text(stretch.path), figures, clip)
    with suppress(VideoError), open_video(stretch.video) as reader:
        part = part_of(stretch.video, reader.info, reader.times)
        places = ((k + 0.5) * len(part) / _CLIP_FRAMES for k in range(_CLIP_FRAMES))
        frames = reader.read([part[int(place)] for place in places])
        height, width = frames.shape[1:3]
        size = max(round(width * _CLIP_PX / height), 1), _CLIP_PX
        small = [np.asarray(Image.fromarray(frame).resize(size)) for frame in frames]
        clip = embed_clip(np.stack(small), fps=5)
    return _Card(as_text(stretch.path), figures, clip)


def _seconds(stretch: Stretch) -> str:
    start, end = stretch.start_seconds, stretch.end_seconds
    if start is None and end is None:
        return ""
    last = "" if end is None else clock(end, tenths=True)
    return f"{clock(start or 0.0, tenths=True)}-{last}"
