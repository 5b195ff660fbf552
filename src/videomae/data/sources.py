"""Data sets as they are published -> the videos they list: one function per layout.

Kinetics (csv with a first line), Something-Something V2 (json), UCF101 and HMDB51 (folders of
lists), plain lists (see `lists`), V-JEPA's .npy, tar shards, folders, and our own manifests.
"""

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from videomae.compute.cores import without_collector
from videomae.data.folders import read_folders, split_named
from videomae.data.groups import with_groups
from videomae.data.lists import (
    Line,
    Listed,
    layout_of,
    named,
    read_lines,
    read_names,
    reading,
    split_line,
    understood,
)
from videomae.data.manifest import (
    MANIFEST_NAME,
    Video,
    classes_beside,
    classes_of,
    is_address,
    manifest_rows,
)
from videomae.data.rows import LABELS_NAME, csv_rows
from videomae.data.shards import list_shard
from videomae.errors import ConfigError, in_brief, parse_json
from videomae.settings import PrepareSettings
from videomae.video.folder import FolderScan, by_reason, image_numbers, scan_folder
from videomae.video.limits import VIDEO_SUFFIXES

_HMDB51 = re.compile(r"(.+)_test_split([1-3])\.txt")
_UCF101 = re.compile(r"(train|test)list0([1-3])\.txt")


@dataclass(frozen=True)
class Listing:
    """The videos that a source lists, in its order. root: where relative paths start.

    passed_over: files in a folder of videos that are none, and why.
    """

    layout: str
    items: list[Listed]
    classes: tuple[str, ...]
    root: Path
    passed_over: dict[str, str] = field(default_factory=dict)


@without_collector()
def read_source(settings: PrepareSettings) -> Listing:
    """Read a list, a folder of lists, or a folder of videos; the output is not searched for any.

    Raises ConfigError where there is nothing, or it cannot be understood.
    """
    source = settings.source
    if not source.exists():
        raise ConfigError(f"{source} does not exist; expected a list or a folder")
    folder = _folder(source)
    root = settings.root or folder
    if not root.is_dir():
        raise ConfigError(f"--root {root} is not a folder")
    layout = guess_layout(source) if settings.layout == "auto" else settings.layout
    names = read_names(settings.labels) if settings.labels else None
    if _group_column(settings) and layout not in ("manifest", "kinetics"):
        raise ConfigError(
            f"--group {settings.group}: {source}, read as {layout}, has no named columns; use "
            "--group pattern:REGEX, or write a manifest with the columns path, label and group"
        )
    if layout == "manifest":
        items, classes = list_manifest(settings)
        _refuse_if_all_wrong(items)
        return Listing(layout, with_groups(items, settings.group, root), classes, root)
    passed_over: dict[str, str] = {}
    if layout == "folder":
        items, passed_over = list_folder(settings)
    elif layout in _READERS:
        items = _READERS[layout](settings)
    else:
        items, layout = list_lines(settings, layout, root)
    if not items:
        holds = f"; it holds {by_reason(passed_over)}" if passed_over else ""
        raise ConfigError(f"{source}, read as {layout}, lists no videos{holds}")
    # Only lists and shards have numbers for labels: a class folder called 7 is not class number 7.
    by_number = layout == "shards" or layout not in (*_READERS, "folder")
    if layout not in ("folder", "shards"):  # where each reason is a file's own
        _refuse_if_all_wrong(items)
    good = [number for number, row in enumerate(items) if not row.reason]
    items, classes = named(items, names or _names_beside(folder, layout), by_number=by_number)
    _refuse_if_all_wrong([items[number] for number in good])
    items = with_groups(items, settings.group, root)
    return Listing(layout, items, classes, root, passed_over)


def _refuse_if_all_wrong(items: Sequence[Listed]) -> None:
    """Raise ConfigError where no entry is left: then a setting is wrong, or the list as a whole."""
    if items and all(row.reason for row in items):
        raise ConfigError(f"{items[0].reason} (so for all of {len(items):,})")


def guess_layout(source: Path) -> str:
    """The layout a source has by its names and first lines; "lines" is a list of whatever kind."""
    if source.is_file():
        if layout := _BY_SUFFIX.get(source.suffix.lower()):
            return layout
        columns = _first_line(source)
        if "youtube_id" in columns:
            return "kinetics"
        return "manifest" if "path" in columns else "lines"
    if not source.is_dir():
        raise ConfigError(
            f"{source} is a device or pipe, and what lists videos is read twice; write it into a "
            "file, and name that"
        )
    files = sorted(path for path in source.iterdir() if path.is_file())
    for layout, is_sign in _SIGNS.items():
        if any(map(is_sign, files)):
            return layout
    found = _lists_in(source)
    if found and all("youtube_id" in _first_line(file) for file in found):
        return "kinetics"
    return "lines" if found else "folder"


def _first_line(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(4096).decode("utf-8-sig", "replace")
    return [name.strip().strip('"') for name in line.strip().split(",")]


def _is_ssv2(path: Path) -> bool:
    with path.open("rb") as file:
        return re.match(rb'\s*\[\s*\{[^}]*"id"\s*:', file.read(4096)) is not None


_VIDEOS = dict.fromkeys(VIDEO_SUFFIXES, "folder")
_BY_SUFFIX = {**_VIDEOS, ".tar": "shards", ".json": "ssv2", ".npy": "lines"}
# The files that show which layout a folder has; the first that is there counts.
_SIGNS: dict[str, Callable[[Path], object]] = {
    "manifest": lambda path: path.name == MANIFEST_NAME,
    "ucf101": lambda path: path.name == "classInd.txt" or _UCF101.fullmatch(path.name),
    "hmdb51": lambda path: _HMDB51.fullmatch(path.name),
    "ssv2": lambda path: path.suffix == ".json" and _is_ssv2(path),
    "shards": lambda path: path.suffix == ".tar",
}


def _lists_in(source: Path) -> list[Path]:
    """The lists in a folder: csv, txt or npy files that are named after their split."""
    if source.is_file():
        return [source]
    suffixes = (".csv", ".txt", ".list", ".npy")
    files = (path for path in sorted(source.iterdir()) if path.suffix.lower() in suffixes)
    return [path for path in files if split_named(path.stem)]


def _files(source: Path, pattern: str) -> list[Path]:
    return [source] if source.is_file() else sorted(source.glob(pattern))


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _split_of(path: Path, split: str | None) -> str:
    return split or split_named(path.stem) or "train"


def _group_column(settings: PrepareSettings) -> str | None:
    kind, _, name = (settings.group or "").partition(":")
    return name if kind == "column" else None


def _names_beside(folder: Path, layout: str) -> list[str] | None:
    """The names of class numbers that lie with a data set, where they do."""
    of_ssv2 = [path for path in folder.glob("*.json") if "labels" in path.stem]
    places = {
        "shards": [folder / LABELS_NAME, folder.parent / LABELS_NAME],
        "ucf101": [folder / "classInd.txt"],
        "ssv2": of_ssv2 if len(of_ssv2) == 1 else [],
    }
    return next((read_names(path) for path in places.get(layout, []) if path.is_file()), None)


def list_lines(settings: PrepareSettings, layout: str, root: Path) -> tuple[list[Listed], str]:
    """Plain lists, and the layout that all of them together have."""
    files = _lists_in(settings.source)
    if not files:
        raise ConfigError(f"{settings.source} holds no lists such as train.csv; name the file")

    def images_of(path: str) -> list[int] | None:
        with suppress(OSError, ValueError):  # a folder that is not ours to read, no name of a file
            return None if is_address(path) else image_numbers(root / path)
        return None

    items: list[Listed] = []
    found = []
    for file in files:
        is_npy = file.suffix.lower() == ".npy"
        lines = _npy_lines(file) if is_npy else read_lines(file, delimiter=settings.delimiter)
        if lines:
            # A list for testing may lack the classes that the one for training has.
            found.append(layout_of(lines, images_of) if layout == "lines" else layout)
            rows = understood(lines, found[-1])
            items += [replace(row, split=_split_of(file, settings.split)) for row in rows]
    return items, next((one for one in found if one != "paths"), "paths")


def _npy_lines(path: Path) -> list[Line]:
    """V-JEPA's arrays of paths, never unpickled."""
    expected = "text without pickled objects: np.save(path, np.array(paths, dtype=str))"
    with reading(path, expected):
        found = np.load(path, allow_pickle=False)
        if found.dtype.kind != "U" or found.ndim != 1:
            raise ValueError(f"it holds {found.dtype} of shape {found.shape}")
        # numpy lets pass what is no character, and Python fails on such text later
        if (np.frombuffer(found.tobytes(), found.dtype.byteorder + "u4") > sys.maxunicode).any():
            raise ValueError("it holds codes that are no characters")
    return [
        replace(split_line(str(text)), origin=f"{path.name}, entry {number}")
        for number, text in enumerate(found)
    ]


def list_manifest(settings: PrepareSettings) -> tuple[list[Listed], tuple[str, ...]]:
    """The rows of a manifest, and its classes; what is wrong with a row is its reason."""
    source = settings.source
    path = (source if source.is_file() else source / MANIFEST_NAME).absolute()
    root, group = settings.root, _group_column(settings) or "group"
    items: list[Listed] = []
    values_of: Callable[[Video], Any] = attrgetter(*(field.name for field in fields(Video)))
    for number, row in manifest_rows(path, group=group, root=root and root.absolute()):
        origin = f"{path.name}, line {number}"
        if isinstance(row, str):
            items.append(Listed(origin, origin=origin, reason=f"{origin}: {row}"))
        else:
            items.append(Listed(*(*values_of(row), origin)))
    classes = classes_beside(path, (item.label for item in items))
    known = set(classes)
    unknown = f"is not among the {len(known):,} classes of {LABELS_NAME}"

    def checked(row: Listed) -> Listed:
        if row.reason or not known or known.issuperset(classes_of(row.label, known)):
            return row
        label = in_brief(repr(row.label), 80)
        return replace(row, reason=f"{row.origin}: its label {label} {unknown}")

    return list(map(checked, items)), classes


def list_kinetics(settings: PrepareSettings) -> list[Listed]:
    """The official csv: `label,youtube_id,time_start,time_end,split`; files id_start_end.mp4."""
    group = _group_column(settings) or ""
    expected = "the columns label, youtube_id, time_start, time_end and split"

    def listed(path: Path, row: dict[str, Any] | str, origin: str) -> Listed:
        if isinstance(row, str):
            raise ConfigError(f"{origin}: {row}")
        with reading(f"{origin}: {in_brief(str(list(row.values())[:5]), 200)}", expected):
            start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
            name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
        split = settings.split or split_named(row.get("split") or "") or _split_of(path, None)
        label, group_name = row.get("label") or "", row.get(group) or ""
        return Listed(name, label, split, by_name=True, origin=origin, group=group_name)

    return [
        _or_reason(partial(listed, path, row, origin), origin)
        for path in _files(settings.source, "*.csv")
        for number, row in csv_rows(path, str(path))
        for origin in [f"{path.name}, line {number}"]
    ]


def list_ssv2(settings: PrepareSettings) -> list[Listed]:
    """The official json: `[{"id": "1", "template": "Holding [something]"}]`; files id.webm."""
    expected = '{"id": "1", "template": "..."}'

    def listed(row: Any, split: str, origin: str) -> Listed:
        with reading(f"{origin}: {in_brief(str(row), 200)}", expected):
            # labels.json has the templates without their brackets
            label = row.get("template", "").replace("[", "").replace("]", "")
            return Listed(str(row["id"]), label, split, by_name=True, origin=origin)

    items = []
    for path in filter(_is_ssv2, _files(settings.source, "*.json")):
        split = _split_of(path, settings.split)
        with reading(path, f"[{expected}, ...]"):
            rows = parse_json(path.read_text(encoding="utf-8-sig"))
            if not isinstance(rows, list):
                raise ConfigError(
                    f"{path} holds a {type(rows).__name__}; expected [{expected}, ...]"
                )
        for number, row in enumerate(rows):
            origin = f"{path.name}, entry {number}"
            items.append(_or_reason(partial(listed, row, split, origin), origin))
    return items


def _or_reason(listed: Callable[[], Listed], origin: str) -> Listed:
    """What an entry of a list names, or why it names nothing."""
    try:
        return listed()
    except ConfigError as error:
        return Listed(origin, origin=origin, reason=str(error))


def list_ucf101(settings: PrepareSettings) -> list[Listed]:
    """classInd.txt, trainlist01.txt (`Class/v_x.avi 1`) and testlist01.txt (`Class/v_x.avi`)."""
    folder = _folder(settings.source)
    files = {split: folder / f"{split}list0{settings.fold}.txt" for split in ("train", "test")}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise ConfigError(f"{folder} has no {' and no '.join(missing)}; choose another --fold")
    return [
        # The class is the folder's; its number, counted from 1, stands in the list for training.
        Listed(line.path, line.path.split("/")[0], split, by_name=True, origin=line.origin)
        for split, file in files.items()
        for line in read_lines(file)
    ]


def list_hmdb51(settings: PrepareSettings) -> list[Listed]:
    """`{class}_test_split1.txt` with lines `video.avi 1`: 1 trains, 2 tests, 0 is left out."""
    folder = _folder(settings.source)
    ending = f"_test_split{settings.fold}.txt"
    files = sorted(folder.glob(f"*{ending}"))
    if not files:
        raise ConfigError(f"{folder} has no lists of split {settings.fold}; choose another --fold")
    splits: dict[tuple[int, ...], str] = {(0,): "", (1,): "train", (2,): "test"}
    items = []
    for file in files:
        label = file.name.removesuffix(ending)
        for line in read_lines(file):
            place, split = f"{label}/{line.path}", splits.get(line.numbers)
            row = Listed(place, label, split or "train", by_name=True, origin=line.origin)
            if split is None:
                shown = f"{in_brief(repr(line.path), 200)} {list(line.numbers)}"
                reason = f"{line.origin}: expected `video.avi` and 0, 1 or 2, got {shown}"
                row = replace(row, reason=reason)
            if split != "":
                items.append(row)
    return items


def list_folder(settings: PrepareSettings) -> tuple[list[Listed], dict[str, str]]:
    """The videos of a folder, files or frame folders, and why each other file was passed over."""
    source, output = settings.source, settings.output.absolute()
    scan = scan_folder(source) if source.is_dir() else FolderScan([source])
    inside = output.is_relative_to(source.absolute())  # what an earlier call made is no source

    def is_ours(path: Path) -> bool:
        itself = path == source and source.is_dir()
        return itself or (inside and path.absolute().is_relative_to(output))

    top = _folder(source)
    found = [path for path in scan.videos if not is_ours(path)]
    left = {path: why for path, why in scan.passed_over.items() if not is_ours(path)}
    try:
        places = read_folders(
            [path.relative_to(top) for path in found],
            settings.folders,
            group_is_folder=settings.group == "folder",
        )
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    items = []
    for path, place in zip(found, places, strict=True):
        if place.reason:
            left[path] = place.reason
            continue
        origin, split = str(path.relative_to(top)), place.split or settings.split or "train"
        items.append(Listed(str(path.absolute()), place.label, split, origin=origin))
    for path, reason in scan.unreadable.items():
        origin = str(path.relative_to(top))
        items.append(Listed(str(path.absolute()), origin=origin, reason=reason))
    return items, {str(path): why for path, why in left.items()}


def list_shards(settings: PrepareSettings) -> list[Listed]:
    """The videos of WebDataset tars, in folders of any depth."""
    files = _files(settings.source, "**/*.tar")
    return [item for file in files for item in list_shard(file, _split_of(file, settings.split))]


_READERS: dict[str, Callable[[PrepareSettings], list[Listed]]] = {
    "shards": list_shards,
    "kinetics": list_kinetics,
    "ssv2": list_ssv2,
    "ucf101": list_ucf101,
    "hmdb51": list_hmdb51,
}
