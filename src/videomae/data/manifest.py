"""The list of a data set: which file, which class, which split, which part; one CSV for all.

    path,label,split,start_seconds,end_seconds
    videos/a dance.mp4,dancing,train,,

Paths are relative to the manifest's folder, absolute, or addresses that fsspec opens. Beside it,
`labels.txt` has a class a line; the number of the line, from 0, is the number of the class.
"""

import csv
import math
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.compute.cores import without_collector
from videomae.data.folders import Place, read_folders
from videomae.data.rows import LABELS_NAME, check_classes, csv_rows, is_one_line
from videomae.errors import ConfigError, as_text, in_brief
from videomae.hub import atomic_path, local_path, read_json, write_text
from videomae.video.folder import by_reason, scan_folder

MANIFEST_NAME = "manifest.csv"
REPORT_NAME = "report.json"  # what `videomae prepare` found
SPLITS = ("train", "val", "test")
# What a longer path or a larger number is, is a slip: no system opens it, no disk holds it.
_MAX_PATH, _MAX_NUMBER = 4096, 2**53
# A path that is joined to a folder as it is: relative, no address, with nothing to be tidied up.
_PLAIN_PATH = re.compile(r"[^/\\:.][^/\\:]*(/[^/\\:.][^/\\:]*)*" if os.sep == "/" else "(?!)")
# Between the classes of a video that has several.
LABEL_SEPARATOR = "|"

_TEXTS = ("path", "label", "split")
_NUMBERS: dict[str, type] = {
    "start_seconds": float,
    "end_seconds": float,
    "first_frame": int,
    "num_frames": int,
    "offset": int,
    "num_bytes": int,
}


@dataclass(frozen=True, slots=True)
class Video:
    """One row of a manifest.

    path: a file, a folder of frames, a shard (then `offset` and `num_bytes` say where in it), or an
    address. label: the name of the class, several names with | between them, a number to be
    predicted, or "" where nothing is known. split: train, val or test. start_seconds, end_seconds:
    the part of a video file that counts. first_frame, num_frames: the part of a file or folder of
    frames, counted from 0; without first_frame the first ones. group: the animal, person or camera,
    whose videos stay in one split.
    """

    path: str
    label: str = ""
    split: str = "train"
    start_seconds: float | None = None
    end_seconds: float | None = None
    first_frame: int | None = None
    num_frames: int | None = None
    offset: int | None = None
    num_bytes: int | None = None
    group: str = ""

    @property
    def is_remote(self) -> bool:
        """Whether the path is an address and not a local file."""
        return is_address(self.path)

    @property
    def file(self) -> "Video":
        """The file by itself, or its place in a shard: without label, split and part."""
        return Video(self.path, offset=self.offset, num_bytes=self.num_bytes)

    def file_state(self) -> tuple[int, int] | None:
        """Size and time of change (ns) of a local file, by which another in its place is told."""
        try:
            about = Path(self.path).stat()
        except (OSError, ValueError):  # an address, or gone
            return None
        return about.st_size, about.st_mtime_ns

    def __str__(self) -> str:
        parts = [
            f"{name}={value}" for name in _NUMBERS if (value := getattr(self, name)) is not None
        ]
        return f"{self.path} ({', '.join(parts)})" if parts else self.path


@dataclass(frozen=True)
class Videos:
    """The videos of one data set or split, and the names of its classes in order."""

    items: tuple[Video, ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def class_numbers(self) -> tuple[int, ...]:
        """The class number of each video; ConfigError where one has a label that is no class."""
        number_of = {name: number for number, name in enumerate(self.classes)}
        try:
            return tuple([number_of[item.label] for item in self.items])
        except KeyError:
            return tuple(number for (number,) in self._numbers(several=False))  # says which

    def class_sets(self) -> tuple[tuple[int, ...], ...]:
        """The class numbers of each video, for labels such as `running|outdoors`."""
        return self._numbers(several=True)

    def values(self) -> tuple[float, ...]:
        """The label of each video as a number; ConfigError where one is none."""
        found = []
        for item in self.items:
            try:
                found.append(float(item.label))
            except ValueError:
                found.append(math.nan)
            if not math.isfinite(found[-1]):
                raise ConfigError(
                    f"{item}: its label {item.label!r} is not a number, as regression needs"
                )
        return tuple(found)

    def _numbers(self, *, several: bool) -> tuple[tuple[int, ...], ...]:
        number_of = {name: number for number, name in enumerate(self.classes)}
        found = []
        for item in self.items:
            names = classes_of(item.label, number_of) if several else [item.label]
            unknown = [name for name in names if name not in number_of]
            if unknown:
                raise ConfigError(
                    f"{item}: its label {unknown[0]!r} is not among the {len(number_of)} classes "
                    f"{list(self.classes[:8])}"
                )
            found.append(tuple(number_of[name] for name in names))
        return tuple(found)


def classes_of(label: str, known: Container[str]) -> list[str]:
    """The classes that a label names; a known class may have the separator in its own name.

    >>> classes_of("a|b", {"a", "b"}), classes_of("a|b", {"a|b"}), classes_of("", {})
    (['a', 'b'], ['a|b'], [])
    """
    if not label:
        return []
    return [label] if label in known else label.split(LABEL_SEPARATOR)


def is_address(path: str) -> bool:
    """Whether a path is an address such as s3://bucket/x.mp4.

    >>> is_address("s3://bucket/x.mp4"), is_address("zip::s3://b/x.zip"), is_address("C:/x.mp4")
    (True, True, False)
    """
    return (
        "://" in path
        and re.match(r"([A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://", path) is not None
    )


def load_videos(
    data: Path | str,
    split: str | None = "train",
    *,
    classes: Sequence[str] | None = None,
    labelled: bool = True,
    allow_addresses: bool = False,
) -> Videos:
    """The videos of a manifest, of a folder that holds one, or of a plain folder of videos.

    A plain folder may hold a folder per class, inside train/, val/ and test/ or not (see
    `read_folders`); a folder of frames counts as a video. `split=None` takes all. With `classes`,
    those of a trained model, the numbers are theirs. `labelled=False` asks for no classes.

    Raises ConfigError for other labels, a split without videos, folders that can be read in two
    ways or not at all, and, without `allow_addresses`, a manifest that names addresses.
    """
    data, manifest = _places(data)
    if manifest.is_file():
        found = read_manifest(manifest, split)
        check_addresses(found.items, manifest, allowed=allow_addresses)
    elif data.is_dir():
        items = _videos_in(data, split, labelled)
        found = Videos(tuple(items), tuple(sorted({item.label for item in items} - {""})))
    else:
        raise ConfigError(
            f"data {data} does not exist; expected a folder of videos or a manifest.csv "
            "(`videomae prepare` makes one)"
        )
    if classes is None:
        return found
    known = set(classes)
    named = {name for item in found.items for name in classes_of(item.label, known)}
    if unknown := sorted(named - known):
        raise ConfigError(
            f"{data} has the classes {unknown[:5]}, which the model does not know; "
            f"it knows {list(classes[:12])}"
        )
    return Videos(found.items, tuple(classes))


def check_addresses(videos: Iterable[Video], name: Path, *, allowed: bool) -> None:
    """Raise ConfigError for a list that names addresses, unless that is allowed.

    They are opened as fsspec does, with the credentials of this user and from inside this network,
    and a list may come from anybody.
    """
    found = [] if allowed else [video.path for video in videos if video.is_remote]
    if found:
        raise ConfigError(
            f"{name} names addresses, {len(found):,} such as {found[0]}, which would be opened "
            "with your credentials; if you trust it, give --allow-addresses "
            "(allow_addresses=True)"
        )


def has_split(data: Path | str, split: str) -> bool:
    """Whether a data set has videos of a split."""
    data, manifest = _places(data)
    if manifest.is_file():
        return any(isinstance(row, Video) for _, row in manifest_rows(manifest, split=split))
    return data.is_dir() and any(
        place.split == split for _, place in _places_in(data, labelled=False)
    )


def left_out(data: Path | str, split: str) -> int:
    """How many videos of a split `videomae prepare` was given and could not read or find."""
    report = _places(data)[1].with_name(REPORT_NAME)
    found = read_json(report) if report.is_file() else {}
    lost = [rows for name in ("unreadable", "missing") if isinstance(rows := found.get(name), list)]
    entries = (entry for rows in lost for entry in rows if isinstance(entry, dict))
    return sum(entry.get("split") == split for entry in entries)


def _places(data: Path | str) -> tuple[Path, Path]:
    """Where a data set lies, and where its manifest is if it has one."""
    data = local_path(data)
    return data, data / MANIFEST_NAME if data.is_dir() else data


def _places_in(folder: Path, *, labelled: bool) -> list[tuple[Path, Place]]:
    """The videos of a plain folder, and the split and class of each."""
    scan = scan_folder(folder)
    if scan.unreadable:
        raise ConfigError(
            f"{next(iter(scan.unreadable.values()))}; make it readable, or move it out of {folder}"
        )
    found = [path for path in scan.videos if path != folder]
    if not found:
        why = f": {by_reason(scan.passed_over)}" if scan.passed_over else ", it is empty"
        raise ConfigError(f"data folder {folder} holds no videos{why}")
    try:
        places = read_folders([path.relative_to(folder) for path in found], labelled=labelled)
    except ConfigError as error:
        raise ConfigError(f"data folder {folder}: {error}") from error
    return list(zip(found, places, strict=True))


def _videos_in(folder: Path, split: str | None, labelled: bool) -> list[Video]:
    found = _places_in(folder, labelled=labelled)
    splits = {place.split for _, place in found} - {None}
    if splits and split is not None and split not in splits:
        raise ConfigError(
            f"data folder {folder} has no folder {split}; it has the splits "
            f"{', '.join(sorted(filter(None, splits)))}"
        )
    order = (*SPLITS, None)
    return [
        Video(str(path), place.label, place.split or split or "train")
        for path, place in sorted(found, key=lambda pair: order.index(pair[1].split))
        if not splits or split in (None, place.split)
    ]


@without_collector()
def read_manifest(path: Path | str, split: str | None = None) -> Videos:
    """The rows of one split, or of all, their paths resolved, with the classes of labels.txt.

    All rows are checked, and have a part in the classes. Raises ConfigError with the line number
    for a row that cannot be understood.
    """
    path = Path(path)
    items, texts = [], Texts()
    for line, row in manifest_rows(path, split=split, texts=texts):
        if isinstance(row, str):
            raise ConfigError(f"manifest {path}, line {line}: {row}")
        items.append(row)
    if not items:
        splits = sorted({name or "train" for name in texts.splits})
        raise ConfigError(f"{path} has no videos of split {split!r}; it has {splits}")
    return Videos(tuple(items), classes_beside(path, texts.labels.values()))


def manifest_rows(
    path: Path,
    *,
    group: str = "group",
    root: Path | None = None,
    split: str | None = None,
    texts: "Texts | None" = None,
) -> Iterator[tuple[int, Video | str]]:
    """The number of each line of a manifest with its video, or with what is wrong with it.

    group: the column that groups are taken from, where there is one of that name. root: where
    relative paths start; by default the manifest's folder, for a link the one it leads to where the
    files lie there. split: the one whose videos are given; the others are checked. texts: takes the
    labels and splits of all rows. Raises ConfigError for a file that is not there, or has no rows.
    """
    top = root or path.parent
    linked = path.resolve().parent if path.is_symlink() and not root else None

    start = str(top / "x").removesuffix("x")
    texts = texts or Texts()

    def whole(place: str) -> str:
        if linked is None and _PLAIN_PATH.fullmatch(place):
            return start + place
        if is_address(place) or Path(place).is_absolute():
            return place
        beside = linked is not None and not os.path.lexists(top / place)
        return str((linked if linked and beside else top) / place)

    number = None
    for number, row in csv_rows(path, f"manifest {path}"):
        if isinstance(row, str):
            yield number, row
            continue
        try:
            video = _row(row, group, texts, split, whole)
            if video is not None:
                yield number, video
        except ConfigError as error:
            yield number, str(error)
    if number is None:
        raise ConfigError(f"manifest {path} has no rows")


def classes_beside(path: Path, labels: Iterable[str]) -> tuple[str, ...]:
    """The classes of labels.txt beside a manifest; without one, those that its labels name."""
    labels_path = path.with_name(LABELS_NAME)
    if not labels_path.is_file():
        names = {name for label in labels for name in label.split(LABEL_SEPARATOR)}
        return tuple(sorted(names - {""}))
    # Not splitlines(), which takes more signs for line ends than names do without.
    text = as_text(labels_path.read_bytes().decode("utf-8-sig", "surrogateescape"))
    classes = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    classes = [] if classes == [""] else classes
    check_classes(classes, str(labels_path))
    return tuple(classes)


class _Texts(dict[str, str]):
    """Labels, splits or groups as they are kept: each is checked, and held in memory, once."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __missing__(self, text: str) -> str:
        kept = as_text(text) if self.name == "label" else text
        if not is_one_line(kept):
            shown = in_brief(repr(kept), 80)
            raise ConfigError(f"{self.name}={shown} has a line end in it; is a quote left open?")
        self[text] = kept
        return kept


class Texts:
    """What the rows of a manifest have in these columns, as it is written and as it is kept."""

    def __init__(self) -> None:
        self.labels, self.splits, self.groups = map(_Texts, ("label", "split", "group"))


def _row(
    row: dict[str, Any], group: str, texts: Texts, split: str | None, whole: Callable[[str], str]
) -> Video | None:
    """The video of a row, None where it is of another split. whole: resolves a path."""
    place = row.get("path")
    if None in row or not place:
        raise ConfigError(
            "expected a path and the columns of the first line, got "
            f"{in_brief(str(list(row.values())[:4]))}"
        )
    if (length := len(place)) > _MAX_PATH:
        raise ConfigError(f"a path of {length:,} characters; is a quote left open?")
    label = texts.labels[row.get("label") or ""]
    own = texts.splits[row.get("split") or ""] or "train"
    group = texts.groups[row.get(group) or ""]
    values: dict[str, Any] = {}
    for name, kind in _NUMBERS.items():
        if text := row.get(name):
            try:
                values[name] = kind(text)
            except ValueError:
                values[name] = -1
            if not 0 <= values[name] < _MAX_NUMBER:
                number = "whole number" if kind is int else "number"
                shown = in_brief(repr(text), 80)
                raise ConfigError(f"{name}={shown} is no {number} of at least 0, below 2**53")
    if split not in (None, own):
        return None
    return Video(whole(place), label, own, group=group, **values)


def write_manifest(folder: Path, videos: Videos) -> Path:
    """Write manifest.csv and labels.txt into a folder; paths inside it are written relative.

    Columns that no row uses are left out. Reads back as the same videos. Raises ConfigError for
    classes that labels.txt cannot hold: with line ends in their names, without a name, or twice.
    """
    names = videos.classes
    check_classes(names, "classes")
    folder = Path(folder)
    used = [n for n in _NUMBERS if any(getattr(item, n) is not None for item in videos.items)]
    used += ["group"] * any(item.group for item in videos.items)
    with (
        atomic_path(folder / MANIFEST_NAME) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        # Up to Python 3.12, a carriage return alone gets no quotes, and then ends the row.
        has_returns = any("\r" in f"{item.path}{item.label}{item.group}" for item in videos.items)
        writer = csv.DictWriter(
            file,
            [*_TEXTS, *used],
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL,
        )
        writer.writeheader()
        for item in videos.items:
            place = item.path
            if not item.is_remote:
                full, top = Path(place).absolute(), folder.absolute()
                place = str(full.relative_to(top) if full.is_relative_to(top) else full)
            values = {name: getattr(item, name) for name in (*_TEXTS, *used)}
            writer.writerow(values | {"path": place})
    write_text(folder / LABELS_NAME, "".join(f"{name}\n" for name in names))
    return folder / MANIFEST_NAME
