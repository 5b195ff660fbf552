"""Lines of published lists -> which file, which numbers behind it; which layout they must be.

    abc/x y.mp4 5          v1, vjepa2, v2-finetune, mmaction2: a video and its class
    abc/x.mp4 0 -1         v2-pretrain: a video
    abc/x 1 58             v2-pretrain: a folder of frames, its first number, how many
    abc/x 58 5             v2-finetune, mmaction2: a folder of frames, how many, its class
    abc/x 0 58 5           mmaction2-offset: a folder, frames to leave out, how many, its class

Names may hold spaces: the numbers are taken from the right end, or a name stands in quotes. Nothing
here opens a video; what the disk says comes in as a function, and only `read_lines` reads a file.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from videomae.data.manifest import LABEL_SEPARATOR
from videomae.errors import ConfigError
from videomae.video.limits import VIDEO_SUFFIXES

LineLayout = Literal["v1", "v2-pretrain", "v2-finetune", "mmaction2", "mmaction2-offset", "vjepa2"]

# Class numbers make a list of names with a place for each, so that one slip must not make millions.
_MAX_CLASSES = 1_000_000
# Rows that are looked up on the disk to tell layouts apart, spread over the list.
_LOOKED_UP = 32

_SUFFIXES = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
# A video, and behind it a label in words: `a b.mp4 riding a bike`.
_IN_WORDS = re.compile(rf"(.*\.(?:{_SUFFIXES}))(?:\s+|::|,)(.+)", re.IGNORECASE)
_INT = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True)
class Listed:
    """A video as a list names it, before anybody looked for its file.

    path: as written. label: names or numbers with | between, or "". by_name: the file may lie
    anywhere below the root and have any video suffix. first_frame: the part's first frame, counted
    from 0; first_number: the number in the name of that frame's image. origin: where it says so,
    such as `train.csv, line 7`. For the rest see `manifest.Video`.
    """

    path: str
    label: str = ""
    split: str = "train"
    start_seconds: float | None = None
    end_seconds: float | None = None
    first_frame: int | None = None
    first_number: int | None = None
    num_frames: int | None = None
    offset: int | None = None
    num_bytes: int | None = None
    by_name: bool = False
    origin: str = ""


@dataclass(frozen=True)
class Line:
    """One line taken apart: a path, the whole numbers behind it, or a label in words."""

    path: str
    numbers: tuple[int, ...] = ()
    words: str = ""
    origin: str = ""

    @property
    def is_file(self) -> bool:
        """Whether the path has the name of a video file."""
        return Path(self.path).suffix.lower() in VIDEO_SUFFIXES


def read_lines(path: Path, *, delimiter: str | None = None) -> list[Line]:
    """The lines of a list, taken apart, but for empty ones. Raises ConfigError if unreadable."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"list {path} cannot be read: {error.strerror}") from error
    if "\0" in text:
        raise ConfigError(f"list {path} is no text; expected lines such as `path/x.mp4 3`")
    return split_lines(text, path.name, delimiter=delimiter)


def split_lines(text: str, name: str, *, delimiter: str | None = None) -> list[Line]:
    """Take lines apart; where no delimiter is given, tabs, `::`, commas or spaces, as all lines do.

    >>> split_lines("a b.mp4 0 -1", "x.csv")[0].numbers
    (0, -1)
    """
    # Not splitlines(): names may hold characters that it, but no file system, takes for line ends.
    lines = [(k, line) for k, line in enumerate(text.split("\n"), 1) if line.strip()]
    if delimiter is None:
        delimiter = _delimiter_of([line for _, line in lines])
    return [
        replace(split_line(line, delimiter=delimiter), origin=f"{name}, line {number}")
        for number, line in lines
    ]


def _delimiter_of(lines: Sequence[str]) -> str | None:
    for delimiter in ("\t", "::"):
        if lines and all(delimiter in line for line in lines):
            return delimiter
    return "," if lines and all(re.search(r",\s*[+-]?\d+\s*$", line) for line in lines) else None


def split_line(line: str, *, delimiter: str | None = None) -> Line:
    """Take one line apart at a delimiter; None is any number of blanks.

    >>> split_line("dir/a b 12.mp4  7")
    Line(path='dir/a b 12.mp4', numbers=(7,), words='', origin='')
    >>> split_line('"a 1" 7').path, split_line("00123").path, split_line("x.mp4 a b").words
    ('a 1', '00123', 'a b')
    """
    line = line.strip()
    quoted = re.match(r'"((?:[^"]|"")*)"(?=\s|,|::|$)', line)
    if quoted:
        rest = line[quoted.end() :].strip()
        rest = rest.removeprefix(delimiter).strip() if delimiter else rest
        after = [part.strip() for part in rest.split(delimiter) if part.strip()]
        path = quoted[1].replace('""', '"')
        if all(map(_INT.fullmatch, after)):
            return Line(path, tuple(map(int, after)))
        return Line(path, words=rest.strip('"'))
    parts = [line]
    numbers: list[int] = []
    while True:
        parts = parts[0].rsplit(delimiter, 1)
        if len(parts) == 1 or not _INT.fullmatch(parts[1].strip()) or not parts[0].strip():
            break
        numbers.insert(0, int(parts[1]))
    path = (delimiter or " ").join(parts) if delimiter else _without(line, len(numbers))
    words = _IN_WORDS.fullmatch(path)
    if words and not numbers and Path(path).suffix.lower() not in VIDEO_SUFFIXES:
        return Line(words[1], words=words[2].strip().strip('"'))
    if delimiter and len(parts) == 2 and not numbers:
        return Line(parts[0].strip(), words=parts[1].strip())
    return Line(path.strip(), tuple(numbers))


def _without(line: str, num_numbers: int) -> str:
    """What stands before the last numbers of a line, its blanks untouched."""
    return line.rsplit(None, num_numbers)[0] if num_numbers else line


def layout_of(
    lines: Sequence[Line], images_of: Callable[[str], Sequence[int] | None]
) -> LineLayout | Literal["paths"]:
    """The layout that lines must have, by themselves and by what their folders hold.

    `images_of` gives the numbers in the names of a folder's images in order, and None for what is
    no folder of images. Raises ConfigError where two layouts would do, or none.
    """
    if not lines:
        raise ConfigError("the list has no lines; expected one video per line")
    fewest = min(len(line.numbers) for line in lines)
    if fewest == 0:
        some = any(line.numbers or line.words for line in lines)
        return "v1" if some else "paths"
    if fewest == 1:
        return "v1"
    if any(line.numbers[-1] < 0 for line in lines):
        return "v2-pretrain"  # -1 frames: a video, as many as it has
    folders = [line for line in lines if not line.is_file]
    if not folders:
        return "mmaction2"  # several classes
    step = -(-len(folders) // _LOOKED_UP)
    seen = [(line.numbers, images) for line in folders[::step] if (images := images_of(line.path))]
    if seen and all(len(numbers) == 2 for numbers, _ in seen):
        return _two_numbers(seen, folders[0])
    if seen:
        totals = _mostly(numbers[0] == len(images) for numbers, images in seen)
        parts = _mostly(sum(numbers[:2]) <= len(images) for numbers, images in seen)
        if totals != parts:
            return "mmaction2" if totals else "mmaction2-offset"
    raise _ambiguous(folders[0], found=bool(seen))


def _two_numbers(
    seen: Sequence[tuple[tuple[int, ...], Sequence[int]]], example: Line
) -> LineLayout:
    """Whether `folder a b` means frames a to a + b - 1, or a frames of class b."""
    parts = _mostly({a, a + b - 1} <= set(images) for (a, b), images in seen)
    # A folder's total is about what it holds; a part of a film begins anywhere.
    totals = _mostly(a <= len(images) <= 2 * a for (a, _), images in seen)
    if parts and totals:  # then the exact one wins
        parts = _mostly(a == images[0] and b == len(images) for (a, b), images in seen)
        totals = _mostly(a == len(images) for (a, _), images in seen)
    if parts == totals:
        raise _ambiguous(example, found=True)
    return "v2-pretrain" if parts else "v2-finetune"


def _mostly(facts: Iterable[bool]) -> bool:
    """Whether nine of ten hold: some folders of a large data set always lack images."""
    every = list(facts)
    return sum(every) >= 0.9 * len(every)


def _ambiguous(line: Line, *, found: bool) -> ConfigError:
    numbers = " ".join(map(str, line.numbers))
    why = "what its folder holds fits both" if found else "no such folder was found (--root)"
    return ConfigError(
        f"{line.origin}: `{line.path} {numbers}` may be first frame and number of frames, or "
        f"number of frames and class, and {why}; say --layout v2-pretrain, v2-finetune, mmaction2 "
        "or mmaction2-offset"
    )


def understood(lines: Iterable[Line], layout: LineLayout | Literal["paths"]) -> list[Listed]:
    """What lines of a known layout say. Raises ConfigError with the line that does not fit it.

    >>> understood([Line("x", (1, 58))], "v2-pretrain")[0].first_number
    1
    """
    return [_understood(line, layout) for line in lines]


def _understood(line: Line, layout: LineLayout | Literal["paths"]) -> Listed:
    path, numbers = _plain(line.path), line.numbers
    if layout == "paths":
        text = " ".join([line.path, *map(str, numbers)])
        return Listed(_plain(text), line.words, origin=line.origin)
    if line.words:
        return Listed(path, line.words, origin=line.origin)
    if layout in ("v1", "vjepa2"):
        # A name may end in a number by itself: only the last one is the class.
        path = " ".join([path, *map(str, numbers[:-1])])
        # The published code reads a name without suffix as that of an mp4.
        _expect(line, len(numbers) >= 1, "PATH CLASS")
        path += "" if Path(path).suffix else ".mp4"
        return Listed(path, _label(numbers[-1:]), origin=line.origin)
    if layout == "v2-pretrain":
        _expect(line, len(numbers) == 2, "PATH FIRST TOTAL")
        first, total = numbers
        part = (first, total) if total > 0 else (None, None)
        return Listed(path, first_number=part[0], num_frames=part[1], origin=line.origin)
    if layout == "mmaction2-offset":
        _expect(line, len(numbers) >= 3, "FOLDER OFFSET TOTAL CLASS")
        first, total = numbers[:2]
        return Listed(
            path, _label(numbers[2:]), first_frame=first, num_frames=total, origin=line.origin
        )
    if line.is_file:
        _expect(line, len(numbers) >= 1, "PATH CLASS")
        return Listed(path, _label(numbers), origin=line.origin)
    if layout == "v2-finetune" and len(numbers) == 1:
        return Listed(path, _label(numbers), origin=line.origin)
    _expect(line, len(numbers) >= 2, "FOLDER TOTAL CLASS")
    return Listed(path, _label(numbers[1:]), num_frames=numbers[0], origin=line.origin)


def _expect(line: Line, good: bool, expected: str) -> None:
    if not good:
        raise ConfigError(
            f"{line.origin}: expected {expected}, got {line.path!r} and the numbers "
            f"{list(line.numbers)}; mend the line, or say another --layout or --delimiter"
        )


def _plain(path: str) -> str:
    """A path without the name of a store's cluster, which only the published code's client knows.

    >>> _plain("p2:s3://bucket/x.mp4")
    's3://bucket/x.mp4'
    """
    return re.sub(r"^\w+:(?=s3://)", "", path)


def _label(numbers: Sequence[int]) -> str:
    """Class numbers as text; below 0 means none, as lists for pre-training have it."""
    return LABEL_SEPARATOR.join(str(number) for number in numbers if number >= 0)


def named(
    items: Sequence[Listed], names: Sequence[str] | None = None, *, by_number: bool = True
) -> tuple[list[Listed], tuple[str, ...]]:
    """Give class numbers their names, and tell the classes in order.

    Where all labels are whole numbers, `names` are their names; without any, each number is its own
    name, those that never occur too, so that class 7 stays number 7. Other labels are names
    already, as all are unless `by_number`. Numbers with a point are values to be predicted, and no
    classes. Raises ConfigError for numbers without a name, and names that are not among `names`.

    >>> named([Listed("x", "2")])[1], named([Listed("x", "1")], ["no", "yes"])[0][0].label
    (('0', '1', '2'), 'yes')
    """
    found = {item.label: item.label.split(LABEL_SEPARATOR) for item in items if item.label}
    parts = {part for each in found.values() for part in each}
    if by_number and parts and all(re.fullmatch("0|[1-9][0-9]*", part) for part in parts):
        most = max(map(int, parts))
        if most >= _MAX_CLASSES:
            raise ConfigError(
                f"class number {most} is above {_MAX_CLASSES - 1}; expected whole numbers from 0. "
                "Say --layout where the last number of a line is no class"
            )
        if names is None:
            return list(items), tuple(str(number) for number in range(most + 1))
        if most >= len(names):
            raise ConfigError(
                f"class number {most} has no name: --labels has {len(names)} names, for the "
                f"numbers 0 to {len(names) - 1}"
            )
        told = {
            label: LABEL_SEPARATOR.join(names[int(part)] for part in each)
            for label, each in found.items()
        }
        return [replace(item, label=told.get(item.label, "")) for item in items], tuple(names)
    if by_number and names is None and parts and all(map(_is_number, parts)):
        return list(items), ()
    if names is not None:
        strange = sorted(label for label in found if label not in set(names))
        strange = [label for label in strange if not set(found[label]) <= set(names)]
        if strange:
            raise ConfigError(f"labels {strange[:5]} are not among the {len(names)} of --labels")
        return list(items), tuple(names)
    return list(items), tuple(sorted(found))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def split_named(name: str) -> str | None:
    """The split that a file or folder name tells of: train, val, test, or None.

    >>> split_named("kinetics400_val_list_videos.txt"), split_named("validation"), split_named("my")
    ('val', 'val', None)
    """
    words = re.findall(r"[a-z]+", name.lower())
    for split, spellings in _SPLITS.items():
        if any(word in spellings for word in words):
            return split
    return None


_SPLITS = {
    "train": {"train", "training", "trainlist", "pretrain"},
    "val": {"val", "valid", "validate", "validation", "dev"},
    "test": {"test", "testing", "testlist"},
}


def read_names(path: Path) -> list[str]:
    """Names of classes by number: a line each, classInd.txt (`1 Name`), or a labels.json.

    Raises ConfigError where it cannot be understood.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix.lower() == ".json":
            found = json.loads(text)
            if isinstance(found, list):
                return [str(name) for name in found]
            by_number = {int(number): str(name) for name, number in found.items()}
            return _in_order(by_number, path)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--labels {path} cannot be read ({error}); expected a name per line, or JSON that "
            "maps names to numbers"
        ) from error
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    matches = [re.fullmatch(r"(\d+)\s+(\S.*)", line) for line in lines]
    if lines and all(matches):
        numbers = {int(match[1]): match[2] for match in matches if match}
        if sorted(numbers) in (list(range(len(lines))), list(range(1, len(lines) + 1))):
            return [numbers[number] for number in sorted(numbers)]
    return lines


def _in_order(by_number: dict[int, str], path: Path) -> list[str]:
    if sorted(by_number) != list(range(len(by_number))):
        raise ConfigError(f"--labels {path}: expected the numbers 0 to {len(by_number) - 1}")
    return [by_number[number] for number in range(len(by_number))]
