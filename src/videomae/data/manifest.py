"""The list of a data set: which file, which class, which split, which part; one CSV for all.

    path,label,split,start_seconds,end_seconds
    videos/a dance.mp4,dancing,train,,
    videos/long.mp4,cooking,val,12.5,20

Paths are relative to the manifest's folder, absolute, or addresses that fsspec opens. Beside it,
`labels.txt` has a class a line; the number of the line, from 0, is the number of the class.
"""

import csv
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.errors import ConfigError
from videomae.hub import atomic_path, read_json
from videomae.video.folder import find_videos

MANIFEST_NAME = "manifest.csv"
LABELS_NAME = "labels.txt"
REPORT_NAME = "report.json"  # what `videomae prepare` found
SPLITS = ("train", "val", "test")
# Between the classes of a video that has several.
LABEL_SEPARATOR = "|"

_NUMBERS: dict[str, type] = {
    "start_seconds": float,
    "end_seconds": float,
    "first_frame": int,
    "num_frames": int,
    "offset": int,
    "num_bytes": int,
}


@dataclass(frozen=True)
class Video:
    """One row of a manifest.

    path: a file, a folder of frames, a shard (then `offset` and `num_bytes` say where in it), or an
    address. label: the name of the class, several names with | between them, a number to be
    predicted, or "" where nothing is known. split: train, val or test. start_seconds, end_seconds:
    the part of a video file that counts. first_frame, num_frames: the part of a folder of frames,
    its frames counted from 0.
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

    @property
    def is_remote(self) -> bool:
        """Whether the path is an address and not a local file."""
        return is_address(self.path)

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
        return tuple(numbers[0] for numbers in self._numbers(single=True))

    def class_sets(self) -> tuple[tuple[int, ...], ...]:
        """The class numbers of each video, for labels such as `running|outdoors`."""
        return self._numbers(single=False)

    def values(self) -> tuple[float, ...]:
        """The label of each video as a number; ConfigError where one is none."""
        found = []
        for item in self.items:
            try:
                found.append(float(item.label))
            except ValueError:
                raise ConfigError(
                    f"{item}: its label {item.label!r} is not a number, as regression needs"
                ) from None
        return tuple(found)

    def _numbers(self, *, single: bool) -> tuple[tuple[int, ...], ...]:
        place = {name: number for number, name in enumerate(self.classes)}
        found = []
        for item in self.items:
            # A class may have the separator in its own name.
            whole = single or item.label in place
            names = [item.label] if whole else item.label.split(LABEL_SEPARATOR)
            strange = [name for name in names if name not in place]
            if strange and (single or item.label):
                raise ConfigError(
                    f"{item}: its label {strange[0]!r} is not among the {len(place)} classes "
                    f"{list(self.classes[:8])}"
                )
            found.append(tuple(place[name] for name in names if name in place))
        return tuple(found)


def is_address(path: str) -> bool:
    """Whether a path is an address such as s3://bucket/x.mp4.

    >>> is_address("s3://bucket/x.mp4"), is_address("zip::s3://b/x.zip"), is_address("C:/x.mp4")
    (True, True, False)
    """
    return re.match(r"([A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def load_videos(
    data: Path | str, split: str | None = "train", *, classes: Sequence[str] | None = None
) -> Videos:
    """The videos of a manifest, of a folder that holds one, or of a plain folder of videos.

    A plain folder may hold a folder per class, inside train/, val/ and test/ or not; a folder of
    frames counts as a video. `split=None` takes all. With `classes`, those of a trained model, the
    numbers are theirs, and other labels raise ConfigError, as does a split without videos.
    """
    data = Path(data).expanduser()
    manifest = data / MANIFEST_NAME if data.is_dir() else data
    if manifest.is_file():
        every = read_manifest(manifest)
        chosen = tuple(v for v in every.items if split is None or v.split == split)
        if not chosen:
            splits = sorted({video.split for video in every.items})
            raise ConfigError(f"{manifest} has no videos of split {split!r}; it has {splits}")
        return Videos(chosen, _known(chosen, classes, every.classes, manifest))
    if not data.is_dir():
        raise ConfigError(
            f"data {data} does not exist; expected a folder of videos or a manifest.csv "
            "(`videomae prepare` makes one)"
        )
    return _videos_in(data, split, classes)


def left_out(data: Path | str, split: str) -> int:
    """How many videos of a split `videomae prepare` was given and could not read or find."""
    report = Path(data).expanduser() / REPORT_NAME
    if not report.is_file():
        return 0
    found = read_json(report)
    lost = [*found.get("unreadable", []), *found.get("missing", [])]
    return sum(entry.get("split") == split for entry in lost)


def has_split(data: Path | str, split: str) -> bool:
    """Whether a data set has videos of a split."""
    data = Path(data).expanduser()
    manifest = data / MANIFEST_NAME if data.is_dir() else data
    if manifest.is_file():
        return any(video.split == split for video in read_manifest(manifest).items)
    return (data / split).is_dir()


def _videos_in(folder: Path, split: str | None, classes: Sequence[str] | None) -> Videos:
    if split is None and (folder / "train").is_dir():
        parts = [name for name in SPLITS if (folder / name).is_dir()]
        every = [_videos_in(folder, name, classes) for name in parts]
        names = sorted({name for videos in every for name in videos.classes})
        items = tuple(item for videos in every for item in videos.items)
        return Videos(items, _known(items, classes, names, folder))
    if split is not None and (folder / split).is_dir():
        folder = folder / split
    elif split not in (None, "train") and (folder / "train").is_dir():
        raise ConfigError(f"data folder {folder} has no folder {split}")
    found = [path for path in find_videos(folder) if path != folder]
    if not found:
        raise ConfigError(f"data folder {folder} holds no videos")
    names = [path.relative_to(folder).parts[0] for path in found]
    if any(folder / name == path for name, path in zip(names, found, strict=True)):
        names = [""] * len(found)  # no class folders, or not for all
    items = tuple(
        Video(str(path), name, split or "train") for path, name in zip(found, names, strict=True)
    )
    return Videos(items, _known(items, classes, sorted({*names} - {""}), folder))


def _known(
    items: Iterable[Video], classes: Sequence[str] | None, own: Sequence[str], source: Path
) -> tuple[str, ...]:
    """The classes that count: those given, which must then hold every label, or the data's own."""
    if classes is None:
        return tuple(own)
    labels = {item.label for item in items} - set(classes)
    parts = {name for label in labels for name in label.split(LABEL_SEPARATOR)}
    strange = sorted(parts - {"", *classes})
    if strange:
        raise ConfigError(
            f"{source} has the classes {strange[:5]}, which the model does not know; "
            f"it knows {list(classes[:12])}"
        )
    return tuple(classes)


def read_manifest(path: Path | str) -> Videos:
    """Every row of a manifest, its relative paths resolved, with the classes of labels.txt.

    Raises ConfigError with the line number for a row that cannot be understood.
    """
    path = Path(path)
    try:
        # Names of files may hold any bytes, which are not always UTF-8.
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            items = tuple(_row(row, path, reader.line_num) for row in reader)
    except (OSError, csv.Error) as error:
        raise ConfigError(f"manifest {path} cannot be read: {error}") from error
    if not items:
        raise ConfigError(f"manifest {path} has no rows")
    labels_path = path.with_name(LABELS_NAME)
    if labels_path.is_file():
        # Not splitlines(), which takes more signs for line ends than names do without.
        text = labels_path.read_bytes().decode("utf-8-sig", "surrogateescape")
        classes = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        classes = [] if classes == [""] else classes
    else:
        classes = sorted(
            {name for item in items for name in item.label.split(LABEL_SEPARATOR)} - {""}
        )
    return Videos(items, tuple(classes))


def _row(row: dict[str, Any], path: Path, line: int) -> Video:
    known = {field.name for field in dataclasses.fields(Video)}
    if None in row or not row.get("path"):
        raise ConfigError(
            f"manifest {path}, line {line}: expected a path and the columns of the first line, "
            f"got {list(row.values())[:4]}"
        )
    values: dict[str, Any] = {}
    for name, text in row.items():
        if name not in known or text is None or text == "":
            continue
        try:
            values[name] = _NUMBERS.get(name, str)(text)
        except ValueError:
            values[name] = -1
        if name in _NUMBERS and not 0 <= values[name] < math.inf:
            kind = "whole number" if _NUMBERS[name] is int else "number"
            raise ConfigError(
                f"manifest {path}, line {line}: {name}={text!r} is no {kind} of at least 0"
            )
    place = values["path"]
    if not is_address(place) and not Path(place).is_absolute():
        values["path"] = str(path.parent / place)
    return Video(**values)


def write_manifest(folder: Path, videos: Videos) -> Path:
    """Write manifest.csv and labels.txt into a folder; paths inside it are written relative.

    Columns that no row uses are left out. Reads back as the same videos. Raises ConfigError for
    classes that labels.txt cannot hold: with line ends in their names, without a name, or twice.
    """
    names = videos.classes
    odd = [name for name in names if not name or "\n" in name or name.endswith("\r")]
    odd += [name for name, times in Counter(names).items() if times > 1]
    if odd:
        raise ConfigError(
            f"class {odd[0]!r} cannot be written to {LABELS_NAME}; expected names of one line, "
            "each once"
        )
    folder = Path(folder)
    used = [
        field.name
        for field in dataclasses.fields(Video)
        if field.name in ("path", "label", "split")
        or any(getattr(item, field.name) is not None for item in videos.items)
    ]
    with (
        atomic_path(folder / MANIFEST_NAME) as temporary,
        Path(temporary).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(used)
        for item in videos.items:
            place = item.path
            if not item.is_remote:
                full, top = Path(place).absolute(), folder.absolute()
                place = str(full.relative_to(top) if full.is_relative_to(top) else full)
            values = dataclasses.asdict(item) | {"path": place}
            writer.writerow([values[name] for name in used])
    with atomic_path(folder / LABELS_NAME) as temporary:
        text = "".join(f"{name}\n" for name in names)
        Path(temporary).write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder / MANIFEST_NAME
