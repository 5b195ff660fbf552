"""Folders of videos -> the split and class of each; a question where two readings would do.

    train/run/a.mp4  Test/run/b.mp4     split/class     splits in any case, by their usual names
    run/a.mp4  walk/b.mp4               class
    sport/golf/a.mp4  home/cook/b.mp4   class           nested: sport/golf, home/cook
    run/anna/a.mp4  walk/anna/b.mp4     class/* or class? That is asked

A pattern says what the folders above a video are, from the top: split, class, or * for neither. Its
last word holds for all folders further down.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from videomae.errors import ConfigError, as_text

_SPLITS = {
    "train": {"train", "training", "trainlist", "pretrain"},
    "val": {"val", "valid", "validate", "validation", "dev", "eval", "evaluation"},
    "test": {"test", "testing", "testlist"},
}
# So many folders of one video each are more likely those of the videos than classes.
_MANY_FOLDERS = 8

Folders = tuple[str, ...]


def split_named(name: str) -> str | None:
    """The split in the name of a file or folder: train, val, test, or None.

    >>> split_named("kinetics400_val_list_videos.txt"), split_named("validation"), split_named("my")
    ('val', 'val', None)
    """
    words = set(re.findall(r"[a-z]+", name.lower()))
    return next((split for split, names in _SPLITS.items() if words & names), None)


@dataclass(frozen=True)
class Place:
    """The split (None: the folders tell none) and the label of a video; or why it is left out."""

    split: str | None = None
    label: str = ""
    reason: str = ""


def read_folders(
    places: Sequence[PurePath],
    pattern: str | None = None,
    *,
    group_is_folder: bool = False,
    labelled: bool = True,
) -> list[Place]:
    """Find the split and class of videos by where they lie below the folder of a data set.

    Without a pattern the one that suits is found; ConfigError names those between which it cannot
    be told. group_is_folder: the lowest of several folders is that of a group. labelled: False
    where no classes are needed, so that nothing is asked about them.

    >>> read_folders([PurePath("Train/run/a.mp4")])[0]
    Place(split='train', label='run', reason='')
    """
    if pattern is None:
        pattern = _guess(places, group_is_folder, labelled)
    return [_read(place.parent.parts, pattern) for place in places]


def _read(folders: Folders, pattern: str) -> Place:
    levels = [word for word in pattern.split("/") if word]
    classes, split = [], None
    for number, folder in enumerate(folders):
        level = levels[min(number, len(levels) - 1)]
        if level == "class":
            classes.append(folder)
        elif level == "split" and number < len(levels):
            split = split_named(folder)
            if split is None:
                return Place(reason=f"below {folder}, which is no split")
    if "split" in levels and split is None:
        return Place(reason="above the folders of splits")
    if "class" in levels and not classes:
        return Place(reason="above the folders of classes")
    return Place(split, as_text("/".join(classes)))


def _guess(places: Sequence[PurePath], group_is_folder: bool, labelled: bool) -> str:
    folders = [place.parent.parts for place in places]
    pattern: list[str] = []
    rest = folders
    for level in range(min(map(len, folders), default=0)):
        if _are_splits({each[level] for each in folders}):
            pattern = ["*"] * level + ["split"]
            rest = [each[:level] + each[level + 1 :] for each in folders]
            break
    else:
        tops = {each[0] for each in folders if each}
        if splits := sorted(filter(_is_split, tops)):
            others = sorted(tops - set(splits)) or [p.name for p in places if len(p.parts) == 1]
            odd = next(p for p in places if p.parts[0] == others[0])
            _ask(
                f"{', '.join(splits)} may be a split or a class, as {others[0]} lies beside it",
                odd,
                ["split/class", "class"],
            )
    if not labelled or not any(rest):
        return "/".join(pattern) or "*"
    return _with_classes(pattern, rest, places, group_is_folder)


def _with_classes(
    pattern: list[str], rest: list[Folders], places: Sequence[PurePath], group_is_folder: bool
) -> str:
    """The pattern, and in it the words for what is left of the folders without the splits."""
    before = pattern.index("split") if pattern else 0  # folders above those of the splits
    shared = 0  # folders that all videos lie in say nothing of them
    while min(map(len, rest)) > shared + 1 and len({each[shared] for each in rest}) == 1:
        shared += 1

    def whole(*words: str) -> str:
        every = ["*"] * shared + list(words)
        return "/".join([*every[:before], *pattern[before:], *every[before:]])

    own = [each[shared:] for each in rest]
    if min(map(len, own)) == 0:
        loose = next(p for p, each in zip(places, own, strict=True) if not each)
        _ask("some videos lie in folders and some beside them", loose, [whole("class"), "*"])
    if max(map(len, own)) == 1:
        return whole("class")
    if group_is_folder:
        return whole("class", "*")
    held = Counter(own)
    deepest = next(p for p, each in zip(places, own, strict=True) if len(each) > 1)
    above = {each[:end] for each in held for end in range(1, len(each))}
    lowest = Counter(each[-1] for each in held)
    ways = [whole("class", "*"), whole("class")]
    if both := sorted(above & set(held)):
        _ask(f"{'/'.join(both[0])} holds videos and folders of videos", deepest, ways)
    if max(lowest.values()) > 1:
        name = lowest.most_common(1)[0][0]
        deepest = next(p for p, each in zip(places, own, strict=True) if each[-1] == name)
        ways.insert(1, whole("*", "class"))
        _ask(f"{name} lies in several folders", deepest, ways)
    if len(held) > _MANY_FOLDERS and max(held.values()) == 1:
        _ask("each video has a folder of its own", deepest, ways)
    return whole("class")


def _ask(why: str, place: PurePath, patterns: Sequence[str]) -> None:
    """Raise ConfigError: what can be read in two ways, and what each would make of a video."""
    ways = []
    for pattern in patterns:
        read = _read(place.parent.parts, pattern)
        made = f"class {read.label}" if read.label else "no class"
        ways.append(f"--folders '{pattern}' ({'left out' if read.reason else made})")
    raise ConfigError(
        f"the folders can be read in two ways: {why}. For {place} choose {' or '.join(ways)}: "
        "videomae prepare FOLDER --output DATA --folders ..., which makes DATA to train on"
    )


def _is_split(name: str) -> bool:
    """Whether a folder has the usual name of a split and no other word in it."""
    return split_named(name) is not None and len(re.findall(r"[^\W\d_]+", name)) == 1


def _are_splits(names: set[str]) -> bool:
    """Whether folders are those of splits: by their names alone, or by one word in each.

    >>> _are_splits({"Train", "dev"}), _are_splits({"rawframes_train", "rawframes_val"})
    (True, True)
    >>> _are_splits({"hand_training", "leg_training"}), _are_splits({"train", "bus"})
    (False, False)
    """
    splits = Counter(map(split_named, names))
    if None in splits or not names:
        return False
    if all(map(_is_split, names)):
        if max(splits.values()) > 1:
            twice = next(split for split, times in splits.items() if times > 1)
            same = sorted(name for name in names if split_named(name) == twice)
            raise ConfigError(
                f"the folders {' and '.join(same)} are both split {twice} by their names; rename "
                "one, or say --folders class to videomae prepare where they are classes"
            )
        return True
    return "train" in splits and len(splits) > 1 and max(splits.values()) == 1
