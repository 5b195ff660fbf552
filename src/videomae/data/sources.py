"""Data sets as they are published -> the videos they list: one function per layout.

Kinetics (csv with a first line), Something-Something V2 (json), UCF101 and HMDB51 (folders of
lists), plain lists (see `lists`), V-JEPA's .npy, tar shards, folders, and our own manifests.
"""

import csv
import json
import re
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from videomae.data import lists
from videomae.data.lists import Listed, read_names, split_named
from videomae.data.manifest import LABELS_NAME, MANIFEST_NAME, is_address, read_manifest
from videomae.errors import ConfigError
from videomae.settings import Layout
from videomae.video.folder import IMAGE_SUFFIXES, find_videos, natural_key
from videomae.video.limits import VIDEO_SUFFIXES

_LINES = ("v1", "v2-pretrain", "v2-finetune", "mmaction2", "mmaction2-offset", "vjepa2", "paths")
_HMDB51 = re.compile(r"(.+)_test_split([1-3])\.txt")
_UCF101 = re.compile(r"(train|test)list0([1-3])\.txt")


@dataclass(frozen=True)
class Listing:
    """What a source lists, in its order. root: where relative paths start."""

    layout: str
    items: tuple[Listed, ...]
    classes: tuple[str, ...]
    root: Path
    files: tuple[Path, ...] = ()  # what was read
    unreadable: tuple[tuple[str, str], ...] = ()  # shards that are damaged, with the reason


def read_source(
    source: Path,
    *,
    layout: Layout = "auto",
    root: Path | None = None,
    split: str | None = None,
    fold: int = 1,
    labels: Path | None = None,
    delimiter: str | None = None,
    leave_out: Path | None = None,
) -> Listing:
    """Read a list, a folder of lists, or a folder of videos.

    `root` is where relative paths start, by default the source's own folder. `split` is that of a
    list whose name tells none. `fold` is the split 1, 2 or 3 of UCF101 and HMDB51. `labels` names
    class numbers. `leave_out` is a folder that is not searched for videos.

    Raises ConfigError where there is nothing, or it cannot be understood.
    """
    if not source.exists():
        raise ConfigError(f"{source} does not exist; expected a list or a folder")
    folder = source if source.is_dir() else source.parent
    root = root or folder
    if not root.is_dir():
        raise ConfigError(f"--root {root} is not a folder")
    if fold not in (1, 2, 3):
        raise ConfigError(f"--fold {fold} is unknown; UCF101 and HMDB51 have 1, 2 and 3")
    chosen: str = tell_layout(source) if layout == "auto" else layout
    names = read_names(labels) if labels else None
    if chosen == "manifest":
        return _manifest(source, folder)
    files: list[Path] = []
    unreadable: list[tuple[str, str]] = []
    if chosen == "folder":
        items = list_folder(source, split=split, leave_out=leave_out)
    elif chosen == "shards":
        files = [source] if source.is_file() else sorted(source.rglob("*.tar"))
        items = _each_shard(files, split, unreadable)
        beside = [place / LABELS_NAME for place in (folder, folder.parent)]
        names = names or next((read_names(path) for path in beside if path.is_file()), None)
    elif chosen == "kinetics":
        files = _files(source, ".csv")
        items = [item for file in files for item in list_kinetics(file, split)]
    elif chosen == "ssv2":
        every = _files(source, ".json")
        files = [file for file in every if _is_ssv2(file)]
        beside = [file for file in folder.glob("*.json") if "labels" in file.stem]
        items = [item for file in files for item in list_ssv2(file, split)]
        names = names or (read_names(beside[0]) if len(beside) == 1 else None)
    elif chosen == "ucf101":
        items, files, own = list_ucf101(folder, fold)
        names = names or own
    elif chosen == "hmdb51":
        items, files = list_hmdb51(folder, fold)
    else:
        files = _list_files(source)
        items, chosen = _read_lines(files, chosen, root, split, delimiter)
    if not items and not unreadable:
        raise ConfigError(f"{source}, read as {chosen}, lists no videos")
    # Only lists and shards have numbers for labels: a class folder called 7 is not class number 7.
    by_number = chosen in (*_LINES, "shards")
    named, classes = lists.named(items, names, by_number=by_number)
    return Listing(chosen, tuple(named), classes, root, tuple(files), tuple(unreadable))


def tell_layout(source: Path) -> Layout | Literal["lines"]:
    """The layout a source has by its names and first lines; "lines" is a list of whatever kind."""
    if source.is_file():
        suffix = source.suffix.lower()
        if suffix == ".tar":
            return "shards"
        if suffix in VIDEO_SUFFIXES:
            return "folder"
        if suffix == ".json":
            return "ssv2"
        if suffix == ".npy":
            return "lines"
        first = _first_line(source)
        if "youtube_id" in first:
            return "kinetics"
        return "manifest" if "path" in first else "lines"
    if (source / MANIFEST_NAME).is_file():
        return "manifest"
    names = sorted(path.name for path in source.iterdir() if path.is_file())
    if "classInd.txt" in names or any(map(_UCF101.fullmatch, names)):
        return "ucf101"
    if any(map(_HMDB51.fullmatch, names)):
        return "hmdb51"
    if any(name.endswith(".json") and _is_ssv2(source / name) for name in names):
        return "ssv2"
    if any(name.endswith(".tar") for name in names):
        return "shards"
    found = _list_files(source, required=False)
    if found and all("youtube_id" in _first_line(file) for file in found):
        return "kinetics"
    return "lines" if found else "folder"


def _first_line(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(4096).decode("utf-8-sig", "replace")
    return [name.strip().strip('"') for name in line.strip().split(",")]


def _list_files(source: Path, *, required: bool = True) -> list[Path]:
    """The lists in a folder: csv, txt or npy files whose names tell their split."""
    if source.is_file():
        return [source]
    found = [
        path
        for path in sorted(source.iterdir())
        if path.suffix.lower() in (".csv", ".txt", ".list", ".npy") and split_named(path.stem)
    ]
    if required and not found:
        raise ConfigError(f"{source} holds no lists such as train.csv; name the file itself")
    return found


def _files(source: Path, suffix: str) -> list[Path]:
    return [source] if source.is_file() else sorted(source.glob(f"*{suffix}"))


def _split_of(path: Path, split: str | None) -> str:
    return split or split_named(path.stem) or "train"


def _read_lines(
    files: Sequence[Path], layout: str, root: Path, split: str | None, delimiter: str | None
) -> tuple[list[Listed], str]:
    """Lists of one layout, which all of them together tell."""
    read: list[tuple[Path, list[lists.Line]]] = []
    for file in files:
        if file.suffix.lower() == ".npy":
            read.append((file, _npy_lines(file)))
        else:
            read.append((file, lists.read_lines(file, delimiter=delimiter)))

    def images_of(path: str) -> list[int] | None:
        return None if is_address(path) else image_numbers(root / path)

    items: list[Listed] = []
    told = []
    for file, lines in read:
        if not lines:
            continue
        # A list for testing may lack the classes that the one for training has.
        told.append(lists.layout_of(lines, images_of) if layout == "lines" else layout)
        rows = lists.understood(lines, cast(Any, told[-1]))
        items += [replace(row, split=_split_of(file, split)) for row in rows]
    return items, next((one for one in told if one != "paths"), "paths")


def _npy_lines(path: Path) -> list[lists.Line]:
    """V-JEPA's arrays of paths, never unpickled."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); expected an array of text without pickled objects: "
            "np.save(path, np.array(paths, dtype=str))"
        ) from error
    if found.dtype.kind != "U" or found.ndim != 1:
        raise ConfigError(
            f"{path} holds {found.dtype} of shape {found.shape}; expected a list of paths"
        )
    return [
        replace(lists.split_line(str(text)), origin=f"{path.name}, entry {number}")
        for number, text in enumerate(found)
    ]


def image_numbers(folder: Path) -> list[int] | None:
    """The last number in the name of each image of a folder, in order; None for no such folder.

        img_00001.jpg img_00002.jpg ... -> [1, 2, ...]

    A name without a number counts as -1.
    """
    if not folder.is_dir():
        return None
    names = [
        path.name
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    found = [re.findall(r"[0-9]+", Path(name).stem) for name in sorted(names, key=natural_key)]
    return [int(numbers[-1]) if numbers else -1 for numbers in found] or None


def list_kinetics(path: Path, split: str | None = None) -> list[Listed]:
    """The official csv: `label,youtube_id,time_start,time_end,split`; files id_start_end.mp4."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"list {path} cannot be read: {error}") from error
    items = []
    for number, row in enumerate(rows, start=2):
        try:
            start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
            name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path.name}, line {number}: expected the columns label, youtube_id, time_start, "
                f"time_end and split, got {list(row.values())[:5]}"
            ) from error
        items.append(
            Listed(
                name,
                row.get("label") or "",
                split or split_named(row.get("split") or "") or _split_of(path, None),
                by_name=True,
                origin=f"{path.name}, line {number}",
            )
        )
    return items


def list_ssv2(path: Path, split: str | None = None) -> list[Listed]:
    """The official json: `[{"id": "1", "template": "Holding [something]"}]`; files id.webm."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
        return [
            Listed(
                str(row["id"]),
                # labels.json has the templates without their brackets
                str(row.get("template", "")).replace("[", "").replace("]", ""),
                _split_of(path, split),
                by_name=True,
                origin=f"{path.name}, entry {number}",
            )
            for number, row in enumerate(rows)
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f'{path} cannot be read ({error!r}); expected [{{"id": "1", "template": "..."}}, ...]'
        ) from error


def _is_ssv2(path: Path) -> bool:
    with path.open("rb") as file:
        return re.match(rb'\s*\[\s*\{[^}]*"id"\s*:', file.read(4096)) is not None


def list_ucf101(folder: Path, fold: int) -> tuple[list[Listed], list[Path], list[str] | None]:
    """classInd.txt, trainlist01.txt (`Class/v_x.avi 1`) and testlist01.txt (`Class/v_x.avi`)."""
    files = [folder / f"{split}list0{fold}.txt" for split in ("train", "test")]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(f"{folder} has no {' and no '.join(missing)}; choose another --fold")
    items = [
        # The class is the folder's; its number, counted from 1, stands in the list for training.
        Listed(line.path, line.path.split("/")[0], split, by_name=True, origin=line.origin)
        for file, split in zip(files, ("train", "test"), strict=True)
        for line in lists.read_lines(file)
    ]
    index = folder / "classInd.txt"
    return items, files, read_names(index) if index.is_file() else None


def list_hmdb51(folder: Path, fold: int) -> tuple[list[Listed], list[Path]]:
    """`{class}_test_split1.txt` with lines `video.avi 1`: 1 trains, 2 tests, 0 is left out."""
    items, files = [], []
    for path in sorted(folder.iterdir()):
        match = _HMDB51.fullmatch(path.name)
        if not match or int(match[2]) != fold:
            continue
        files.append(path)
        for line in lists.read_lines(path):
            if len(line.numbers) != 1 or line.numbers[0] not in (0, 1, 2):
                raise ConfigError(
                    f"{line.origin}: expected `video.avi` and 0, 1 or 2, got {line.path!r} "
                    f"{list(line.numbers)}"
                )
            if line.numbers[0]:
                split = ("train", "test")[line.numbers[0] - 1]
                place = f"{match[1]}/{line.path}"
                items.append(Listed(place, match[1], split, by_name=True, origin=line.origin))
    if not files:
        raise ConfigError(f"{folder} has no lists of split {fold}; choose another --fold")
    return items, files


def list_folder(
    folder: Path, *, split: str | None = None, leave_out: Path | None = None
) -> list[Listed]:
    """The videos of a folder: train/Class/x.avi, Class/x.avi or x.avi, files or frame folders."""
    hidden = leave_out.absolute() if leave_out else None
    found = [
        path
        for path in find_videos(folder)
        if (path != folder or folder.is_file())
        and not (hidden and path.absolute().is_relative_to(hidden))
    ]
    places = [path.relative_to(folder if folder.is_dir() else folder.parent) for path in found]
    # Folders called train, val and test are splits where nothing but such folders lies beside them.
    tops = {place.parts[0] for place in places if len(place.parts) > 1}
    has_splits = bool(tops) and tops <= {"train", "training", "val", "valid", "validation", "test"}
    items = []
    for path, place in zip(found, places, strict=True):
        inside = has_splits and len(place.parts) > 1
        parts = place.parts[1:] if inside else place.parts
        own = split_named(place.parts[0]) if inside else None
        items.append(
            Listed(
                str(path.absolute()),
                parts[0] if len(parts) > 1 else "",
                own or split or "train",
                origin=str(place),
            )
        )
    if all(item.label for item in items):
        return items
    return [replace(item, label="") for item in items]  # folders, but not one per class


def _each_shard(
    files: Iterable[Path], split: str | None, unreadable: list[tuple[str, str]]
) -> list[Listed]:
    items: list[Listed] = []
    for file in files:
        try:
            items += list_shard(file, split)
        except (OSError, tarfile.TarError) as error:
            unreadable.append((str(file), f"is no readable tar ({error}); get the file anew"))
    return items


def list_shard(path: Path, split: str | None = None) -> list[Listed]:
    """The videos of a WebDataset tar: where each lies, and its label from .cls, .txt or .json.

    Members of one sample share their name up to its first dot. Raises tarfile.TarError.
    """
    found: list[tuple[str, tarfile.TarInfo]] = []
    labels: dict[str, tuple[int, str]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            folder, _, base = member.name.rpartition("/")
            stem, _, extension = base.partition(".")
            key = f"{folder}/{stem}"
            kind = Path(f"x.{extension}").suffix.lower()
            if not member.isreg():
                continue
            if kind in VIDEO_SUFFIXES:
                found.append((key, member))
            elif kind in (".cls", ".txt", ".json") and member.size <= 2**20:
                file = tar.extractfile(member)
                text = file.read().decode("utf-8", "replace") if file else ""
                label = _shard_label(kind, text)
                # Names tell more than numbers: json before txt before cls.
                rank = (".cls", ".txt", ".json").index(kind)
                if label:
                    labels[key] = max(labels.get(key, (-1, "")), (rank, label))
    return [
        Listed(
            str(path.absolute()),
            labels.get(key, (0, ""))[1],
            _split_of(path, split),
            offset=member.offset_data,
            num_bytes=member.size,
            origin=f"{path.name}, {member.name}",
        )
        for key, member in found
    ]


def _shard_label(kind: str, text: str) -> str:
    if kind != ".json":
        return text.strip()
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    label = value.get("label", "") if isinstance(value, dict) else value
    return str(label) if isinstance(label, str | int) else ""


def _manifest(source: Path, folder: Path) -> Listing:
    path = source if source.is_file() else source / MANIFEST_NAME
    videos = read_manifest(path)
    known = {field.name for field in fields(Listed)}
    items = [
        Listed(
            **{name: value for name, value in vars(video).items() if name in known},
            origin=f"{path.name}, row {number}",
        )
        for number, video in enumerate(videos.items, start=1)
    ]
    return Listing("manifest", tuple(items), videos.classes, folder, (path,))
