"""Lines of published lists -> which file, which numbers behind it; which layout they must be.

    abc/x y.mp4 5          v1, vjepa2, v2-finetune, mmaction2: a video and its class
    abc/x.mp4 0 -1         v2-pretrain: a video
    abc/x 1 58             v2-pretrain: a folder of frames, its first number, how many
    abc/x 58 5             v2-finetune, mmaction2: a folder of frames, how many, its class
    abc/x 0 58 5           mmaction2-offset: a folder, frames to leave out, how many, its class

Names may hold spaces: the numbers are taken from the right end, or a name stands in quotes. Videos
are not opened here, and what the disk says of folders comes in as a function.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from videomae.data.manifest import LABEL_SEPARATOR, Video
from videomae.data.rows import check_classes, is_one_line
from videomae.errors import ConfigError, as_text, in_brief, parse_json
from videomae.video.limits import VIDEO_SUFFIXES, VideoInfo

# Class numbers make a list of names with a place for each, so that one slip must not make millions:
# without names, a number is believed up to here, or up to a hundred times the number of videos.
_MAX_CLASSES = 10_000
# Digits of a number: more are part of a name.
_DIGITS = "[0-9]{1,18}"
_WHOLE = re.compile("0|[1-9][0-9]*")
# Rows that are looked up on the disk to find the layout, spread over the list.
_LOOKED_UP = 32

_SUFFIXES = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
# A video, and behind it a label in words: `a b.mp4 riding a bike`.
_IN_WORDS = re.compile(rf"(.*\.(?:{_SUFFIXES}))(?:\s+|::|,)(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listed(Video):
    """A video that a list names, and what was found out about it.

    origin: where it is listed, such as `train.csv, line 7`. member: its name in a tar. by_name: the
    file may lie anywhere below the root and have any video suffix. first_number: the number in the
    name of the image that the part begins with.

    reason: why it is left out, "" if it is not. info: None for what was not looked at (an address)
    or cannot be read. num_part_frames: frames of the part that counts. content: the same for files
    of the same bytes, "" where it was not looked at.
    """

    origin: str = ""
    member: str = ""
    by_name: bool = False
    first_number: int | None = None
    reason: str = ""
    info: VideoInfo | None = None
    num_part_frames: int = 0
    content: str = ""


@dataclass(frozen=True)
class Line:
    """One line taken apart: a path, the whole numbers behind it, or a label in words.

    tail: the numbers as they are written, for those that belong to the name of the file.
    """

    path: str
    numbers: tuple[int, ...] = ()
    words: str = ""
    origin: str = ""
    tail: str = field(default="", compare=False, repr=False)

    @property
    def is_file(self) -> bool:
        """Whether the path has the name of a video file."""
        return Path(self.path).suffix.lower() in VIDEO_SUFFIXES


@contextmanager
def reading(path: Path | str, expected: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a ConfigError that names it."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # a mutilated file may raise anything
        why = getattr(error, "strerror", None) or in_brief(str(error) or type(error).__name__)
        raise ConfigError(f"{path} cannot be read: {why}; expected {expected}") from error


def read_lines(path: Path, *, delimiter: str | None = None) -> list[Line]:
    """The lines of a list, taken apart, but for empty ones. Raises ConfigError if unreadable."""
    expected = "text with lines such as `path/x.mp4 3`"
    with reading(path, expected):
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    # A line with a zero byte names a file that cannot be there; a text has few of them at most.
    if text.count("\0") > text.count("\n"):
        raise ConfigError(f"{path} is no text; expected {expected}")
    return split_lines(text, path.name, delimiter=delimiter)


def split_lines(text: str, name: str, *, delimiter: str | None = None) -> list[Line]:
    """Take lines apart; where no delimiter is given, tabs, `::`, commas or spaces, as all lines do.

    >>> split_lines("a b.mp4 0 -1", "x.csv")[0].numbers
    (0, -1)
    """
    # Not splitlines(): names may hold characters that it, but no file system, takes for line ends.
    lines = [(k, line) for k, line in enumerate(text.split("\n"), 1) if line.strip()]
    if delimiter is None:
        signs = {"\t": "\t", "::": "::", ",": r",\s*[+-]?[0-9]+\s*$"}
        fits = (
            sign for sign in signs if _mostly(re.search(signs[sign], line) for _, line in lines)
        )
        delimiter = next(fits, None)
    return [
        replace(split_line(line, delimiter=delimiter), origin=f"{name}, line {number}")
        for number, line in lines
    ]


def split_line(line: str, *, delimiter: str | None = None) -> Line:
    """Take one line apart at a delimiter; None is any number of blanks.

    >>> split_line("dir/a b 12.mp4  7")
    Line(path='dir/a b 12.mp4', numbers=(7,), words='', origin='')
    >>> split_line('"a 1" 7').path, split_line("00123").path, split_line("x.mp4 a b").words
    ('a 1', '00123', 'a b')
    """
    line = line.strip()
    gap = rf"\s*{re.escape(delimiter)}\s*" if delimiter else r"\s+"
    numbers = rf"(?:{gap}[+-]?{_DIGITS})*$"
    quoted = re.match(rf'"((?:[^"]|"")*)"(?={gap}|$)', line)
    if quoted:
        path, rest = quoted[1].replace('""', '"'), line[quoted.end() :]
        if not re.match(numbers, rest):
            return Line(path, words=re.sub(f"^{gap}", "", rest).strip('"'))
    else:
        # Backwards, as a search for where they begin takes the square of a long line's time.
        back = rf"\s*{re.escape(delimiter[::-1])}\s*" if delimiter else r"\s+"
        found = re.match(rf"(?:{_DIGITS}[+-]?{back})*(?=\S)", line[::-1])
        path = line[: len(line) - (found.end() if found else 0)]
        rest = line[len(path) :]
    if rest or quoted:
        parts = map(str.strip, rest.split(delimiter))
        return Line(path, tuple(int(part) for part in parts if part), tail=rest)
    in_words = _IN_WORDS.fullmatch(path)
    if in_words and not Line(path).is_file:
        return Line(in_words[1], words=in_words[2].strip().strip('"'))
    if delimiter and delimiter in path:
        path, words = path.rsplit(delimiter, 1)
        return Line(path.strip(), words=words.strip())
    return Line(path)


def layout_of(lines: Sequence[Line], images_of: Callable[[str], Sequence[int] | None]) -> str:
    """The layout that lines must have, by themselves and by what their folders hold.

    `images_of` gives the numbers in the names of a folder's images in order, and None for what is
    no folder of images. Raises ConfigError where two layouts would do, or none.
    """
    if not lines:
        raise ConfigError("the list has no lines; expected one video per line")
    if not any(line.numbers or line.words for line in lines):
        return "paths"
    if not _mostly(len(line.numbers) >= 2 for line in lines):
        return "v1"
    if any(line.numbers[-1] < 0 for line in lines):
        return "v2-pretrain"  # -1 frames: a video, as many as it has
    folders = [line for line in lines if not line.is_file]
    if not folders:
        return "mmaction2"  # several classes
    step = -(-len(folders) // _LOOKED_UP)
    seen = [(line.numbers, images) for line in folders[::step] if (images := images_of(line.path))]
    fitting = _fitting(seen) if seen else []
    if len(fitting) == 1:
        return fitting[0]
    line, numbers = folders[0], " ".join(map(str, folders[0].numbers))
    why = "what its folder holds fits both" if seen else "no such folder was found (--root)"
    raise ConfigError(
        f"{line.origin}: `{line.path} {numbers}` may be first frame and number of frames, or "
        f"number of frames and class, and {why}; say --layout v2-pretrain, v2-finetune, mmaction2 "
        "or mmaction2-offset"
    )


def _fitting(seen: Sequence[tuple[tuple[int, ...], Sequence[int]]]) -> list[str]:
    """The layouts that agree with the numbers of some folders and the numbers of their images."""
    if any(len(numbers) > 2 for numbers, _ in seen):
        fits = {
            "mmaction2": _mostly(numbers[0] == len(images) for numbers, images in seen),
            "mmaction2-offset": _mostly(
                sum(numbers[:2]) <= len(images) for numbers, images in seen
            ),
        }
    else:
        fits = {
            "v2-pretrain": _mostly({a, a + b - 1} <= set(images) for (a, b), images in seen),
            # A folder's total is about what it holds; a part of a film begins anywhere.
            "v2-finetune": _mostly(a <= len(images) <= 2 * a for (a, _), images in seen),
        }
        if all(fits.values()):  # then the exact one wins
            whole = (a == images[0] and b == len(images) for (a, b), images in seen)
            fits["v2-pretrain"] = _mostly(whole)
            fits["v2-finetune"] = _mostly(a == len(images) for (a, _), images in seen)
    return [layout for layout, fit in fits.items() if fit]


def _mostly(facts: Iterable[object]) -> bool:
    """Whether nine of ten hold: in a large set, some folders lack images, some lines are odd."""
    every = [bool(fact) for fact in facts]
    return not every or fmean(every) >= 0.9


def understood(lines: Iterable[Line], layout: str) -> list[Listed]:
    """The videos that lines of a known layout name; a line that does not fit it gets a reason.

    >>> understood([Line("x", (1, 58))], "v2-pretrain")[0].first_number
    1
    """
    found = []
    for line in lines:
        try:
            found.append(replace(_understood(line, layout), origin=line.origin))
        except ConfigError as error:
            found.append(Listed(line.path, origin=line.origin, reason=str(error)))
    return found


def _understood(line: Line, layout: str) -> Listed:
    # A store's cluster before its address is known to the published code's client alone.
    path, numbers = re.sub(r"^\w+:(?=s3://)", "", line.path), line.numbers
    if line.words or layout == "paths":
        return Listed(path + line.tail, line.words)
    if layout in ("v1", "vjepa2"):
        _expect(line, len(numbers) >= 1, "PATH CLASS")
        # A name may end in a number by itself: only the last one is the class.
        path += re.sub("^[0-9]+[^0-9]+", "", line.tail[::-1])[::-1]
        # The published code reads a name without suffix as that of an mp4.
        return Listed(path if Path(path).suffix else f"{path}.mp4", _label(numbers[-1:]))
    if layout == "v2-pretrain":
        _expect(line, len(numbers) == 2, "PATH FIRST TOTAL")
        first, total = numbers
        if total <= 0:  # a video
            return Listed(path)
        return Listed(path, first_number=first, num_frames=total)
    if layout == "mmaction2-offset":
        _expect(line, len(numbers) >= 3, "FOLDER OFFSET TOTAL CLASS")
        first, total, *classes = numbers
        return Listed(path, _label(classes), first_frame=first, num_frames=total)
    if line.is_file or (layout == "v2-finetune" and len(numbers) == 1):
        _expect(line, len(numbers) >= 1, "PATH CLASS")
        return Listed(path, _label(numbers))
    _expect(line, len(numbers) >= 2, "FOLDER TOTAL CLASS")
    total, *classes = numbers
    return Listed(path, _label(classes), num_frames=total)


def _expect(line: Line, good: bool, expected: str) -> None:
    if not good:
        raise ConfigError(
            f"{line.origin}: expected {expected}, got {in_brief(repr(line.path), 200)} and the "
            f"numbers {list(line.numbers)}; fix the line, or say another --layout or --delimiter"
        )


def _label(numbers: Sequence[int]) -> str:
    """Class numbers as text; below 0 means none, as lists for pre-training have it."""
    return LABEL_SEPARATOR.join(str(number) for number in numbers if number >= 0)


def named(
    items: Sequence[Listed], names: Sequence[str] | None = None, *, by_number: bool = True
) -> tuple[list[Listed], tuple[str, ...]]:
    """Give class numbers their names, and list the classes in order.

    Where all labels are whole numbers, `names` are their names; without any, each number is its own
    name, those that never occur too, so that class 7 stays number 7. Other labels are names
    already, as all are unless `by_number`. Numbers with a point are values to be predicted, and no
    classes. A label unlike most others, or that is not among `names`, is a reason to leave its
    video out.

    >>> named([Listed("x", "2")])[1], named([Listed("x", "1")], ["no", "yes"])[0][0].label
    (('0', '1', '2'), 'yes')
    """
    times = Counter(label for item in items if (label := as_text(item.label)) and not item.reason)
    parts = {label: label.split(LABEL_SEPARATOR) for label in times}

    def are_mostly(fits: Callable[[str], object]) -> bool:
        good = sum(times[label] for label in times if all(map(fits, parts[label])))
        return by_number and 2 * good > times.total()

    why: dict[str, str] = {}  # label -> what is wrong with it
    # A point among numbers means values to be predicted; one 007 or -1 among them is a slip.
    pointed = any("." in label and all(map(_is_number, parts[label])) for label in times)
    if numbered := are_mostly(_WHOLE.fullmatch) and not pointed:
        most = len(names) if names is not None else max(_MAX_CLASSES, 100 * len(items))
        told = f"--labels has {most:,} names" if names is not None else "no --labels names them"
        for label, each in parts.items():
            if not all(map(_WHOLE.fullmatch, each)):
                why[label] = "is no class number from 0, as those of most others are"
            elif not all(map(re.compile(_DIGITS).fullmatch, each)) or max(map(int, each)) >= most:
                why[label] = f"is above {most - 1:,}: {told}; is it really the number of a class?"
    elif names is not None:
        known = set(names)
        wrong = [label for label in parts if label not in known and not known >= {*parts[label]}]
        why = dict.fromkeys(wrong, f"is not among the {len(known):,} classes of --labels")
    elif valued := are_mostly(_is_number):
        wrong = [label for label in parts if not all(map(_is_number, parts[label]))]
        why = dict.fromkeys(wrong, "is no number, as those of most others are")
    else:
        wrong = [label for label in parts if not is_one_line(label)]
        why = dict.fromkeys(wrong, "has a line end in it")
    good = {label: parts[label] for label in times if label not in why}
    classes = names
    if numbered and names is None:
        most = max((int(part) for each in good.values() for part in each), default=-1)
        classes = [str(number) for number in range(most + 1)]
    elif numbered and names is not None:
        good = {label: [names[int(part)] for part in each] for label, each in good.items()}
    elif names is None:
        classes = () if valued else sorted(good)

    def row(item: Listed) -> Listed:
        label = as_text(item.label)
        if not item.reason and label in why:
            where = item.origin or item.path
            reason = f"{where}: its label {in_brief(repr(label), 80)} {why[label]}"
            return replace(item, label="", reason=reason)
        return replace(item, label=LABEL_SEPARATOR.join(good.get(label, [label] * bool(label))))

    return list(map(row, items)), tuple(classes or ())


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_names(path: Path) -> list[str]:
    """Names of classes by number: a line each, classInd.txt (`1 Name`), or a labels.json.

    Raises ConfigError where it cannot be understood.
    """
    with reading(path, "a name per line, or JSON that maps names to the numbers from 0"):
        text = path.read_bytes().decode("utf-8-sig")
        names = _names_in_json(text) if path.suffix.lower() == ".json" else _names_in_lines(text)
    check_classes(names, str(path))
    return names


def _names_in_json(text: str) -> list[str]:
    found = parse_json(text)
    if isinstance(found, list):
        if odd := [name for name in found if type(name) not in (str, int)]:
            raise ValueError(f"{in_brief(repr(odd[0]), 80)} is no name")
        return [str(name) for name in found]
    numbers = {int(number): str(name) for name, number in found.items()}
    if sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"it has the numbers {in_brief(str(sorted(numbers)[:5]), 80)}")
    return [numbers[number] for number in range(len(numbers))]


def _names_in_lines(text: str) -> list[str]:
    # An empty line at the end is none; one inside, which moves all numbers below it, is refused.
    lines = [line.rstrip("\r") if line.strip() else "" for line in text.rstrip().split("\n")]
    filled = [line for line in lines if line]
    matches = [re.fullmatch(rf"({_DIGITS})\s+(\S.*)", line) for line in filled]
    if filled and all(matches):
        numbers = {int(match[1]): match[2] for match in matches if match}
        if sorted(numbers) in (list(range(len(filled))), list(range(1, len(filled) + 1))):
            return [numbers[number] for number in sorted(numbers)]
    return lines if filled else []
