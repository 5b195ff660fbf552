"""Videos that belong together, such as those of one animal, person or camera, stay in one split.

A model that is tested on an animal it was trained on looks better than it is.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TypeVar

from videomae.data.checking import common_folder
from videomae.data.lists import Listed
from videomae.errors import ConfigError

Key = TypeVar("Key", bound=Hashable)
Together = list[Listed]  # rows that must not be split


def with_groups(items: Sequence[Listed], how: str | None, root: Path) -> list[Listed]:
    """Name the group of each video: by its folder, or by what a pattern finds in its path.

    `how` is "folder", "pattern:REGEX" or "column:NAME"; the groups of a column are there already,
    as the list was read with them. Raises ConfigError where a video has no group, as it could be
    of any, and where the folders are those of the classes.

    >>> [row.group for row in with_groups([Listed("run/cow7_2.mp4")], r"pattern:cow\\d+", Path())]
    ['cow7']
    """
    kind, _, pattern = (how or "column").partition(":")
    if kind != "column":
        items = [replace(row, group=_group(_place(row, root), pattern)) for row in items]
    if how is None:
        return list(items)
    if without := [row for row in items if not row.group and not row.reason]:
        first = without[0].origin or without[0].path
        raise ConfigError(
            f"--group {how}: {len(without)} of {len(items)} videos have no group, the first is "
            f"{first}; a pattern must be found in each path, and a column filled in each row"
        )
    if kind == "folder" and all(row.group == row.label for row in items):
        raise ConfigError(
            "--group folder: the videos lie in the folders of their classes, and a whole class "
            "would be a group; use a folder per group in each class, or --group pattern:REGEX"
        )
    return list(items)


def _place(row: Listed, root: Path) -> str:
    """The path below the root; in a shard the name of the member; an address as it is."""
    if row.offset is not None:
        return row.member or row.origin
    top = Path(os.path.abspath(root))  # noqa: PTH100
    path = Path(os.path.abspath(top / row.path))  # noqa: PTH100
    if row.is_remote or not path.is_relative_to(top):
        return row.path
    return path.relative_to(top).as_posix()


def _group(place: str, pattern: str) -> str:
    """What a regular expression finds: its parts in brackets, or all; without one, the folder."""
    if not pattern:
        return PurePath(place).parent.name
    found = re.search(pattern, place)
    return " ".join(found.groups("") or [found[0]]).strip() if found else ""


def split_off(rows: list[Listed], share: float) -> list[Listed]:
    """Call a share of each class's training videos val, where there is nothing else to test on.

    Which ones follows from their names below the folder that all share, so that it is the same on
    each machine. What has the same content, or the same group, stays together, as do the parts of
    one video. With groups, a class may get more or less than its share: see `_whole_groups`.
    """
    if not share or any(row.split != "train" for row in rows):
        return rows
    top = common_folder([row.path for row in rows if not row.is_remote])

    def rank(together: Together) -> str:
        paths = (row.path if row.is_remote else os.path.relpath(row.path, top) for row in together)
        names = (f"{path} {row.offset}" for path, row in zip(paths, together, strict=True))
        return min(hashlib.sha256(name.encode(errors="replace")).hexdigest() for name in names)

    found = sorted(_together(rows), key=rank)
    if any(row.group for row in rows):
        chosen = _whole_groups(found, share)
    else:
        classes: dict[str, list[Together]] = defaultdict(list)
        for together in found:
            classes[together[0].label].append(together)
        chosen = []
        for each in classes.values():  # each keeps a video to train on
            chosen += each[: min(round(share * len(each)), len(each) - 1)]
    held_out = {row for together in chosen for row in together}
    return [replace(row, split="val") if row in held_out else row for row in rows]


def _together(rows: Sequence[Listed]) -> list[Together]:
    """Rows that share a content, a file or a group, directly or by way of others."""
    keys = [("video", row.content or row.path) for row in rows]
    groups = [("group", row.group) for row in rows]
    one_of = connected(pair for pair in zip(keys, groups, strict=True) if pair[1][1])
    found: dict[tuple[str, str], Together] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        found[one_of(key)].append(row)
    return list(found.values())


def connected(pairs: Iterable[tuple[Key, Key]]) -> Callable[[Key], Key]:
    """A function that gives the same one of all keys that pairs connect, directly or by others.

    >>> one_of = connected([(1, 2), (3, 4), (2, 5)])
    >>> one_of(1) == one_of(5), one_of(1) == one_of(3), one_of(7)
    (True, False, 7)
    """
    above: dict[Key, Key] = {}

    def top(key: Key) -> Key:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    for first, second in pairs:
        above[top(second)] = top(first)
    return top


def _whole_groups(groups: Sequence[Together], share: float) -> list[Together]:
    """The groups to hold out, so that each class comes near its share; in the order given.

    A group is taken where at least three quarters of it are still wanted. After that, a class of
    which there is nothing yet gives its smallest group. Each class keeps a group to train on; one
    that has a single group keeps it.
    """
    counts = [Counter(row.label for row in group) for group in groups]
    left = Counter(label for count in counts for label in count)  # groups to train on
    wanted: dict[str, float] = defaultdict(float)
    for count in counts:
        for label, number in count.items():
            wanted[label] += share * number
    chosen: set[int] = set()

    def take(number: int) -> None:
        chosen.add(number)
        for label, videos in counts[number].items():
            wanted[label] -= videos
            left[label] -= 1

    def is_free(number: int) -> bool:
        return number not in chosen and all(left[label] > 1 for label in counts[number])

    for number, count in enumerate(counts):
        useful = sum(min(max(wanted[label], 0), videos) for label, videos in count.items())
        if is_free(number) and useful >= 0.75 * count.total():
            take(number)
    for label in sorted(wanted):
        if not any(label in counts[number] for number in chosen):
            free = [n for n, count in enumerate(counts) if label in count and is_free(n)]
            if free:
                take(min(free, key=lambda n: counts[n].total()))
    return [groups[number] for number in sorted(chosen)]
