"""The report on a data set: its contents and losses, for people, and in full for programs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from statistics import median
from typing import Any

from videomae.data.lists import Listed
from videomae.data.manifest import SPLITS, classes_of
from videomae.data.sources import Listing
from videomae.errors import as_text, counted
from videomae.settings import PrepareSettings
from videomae.video.folder import by_reason

# The clips of the published models have 16 frames; shorter videos repeat some of theirs.
SHORT_FRAMES = 16
# Entries of a list that report.md shows, and that one line names; report.json has all.
_SHOWN, _NAMED = 50, 5


@dataclass(frozen=True)
class Survey:
    """The findings. usable: rows of the manifest; the others are left out of it.

    missing: listed, but not on the disk. too_short: below the least number of frames asked for.
    """

    settings: PrepareSettings
    listing: Listing
    usable: list[Listed]
    unreadable: list[Listed]
    too_short: list[Listed]
    missing: list[Listed]

    @property
    def source(self) -> str:
        """The path that was asked for, as text that any file can hold."""
        return as_text(self.settings.source)

    @property
    def num_listed(self) -> int:
        """The number of videos, the missing ones too."""
        return sum(map(len, (self.usable, self.unreadable, self.too_short, self.missing)))

    @property
    def unchecked(self) -> list[Listed]:
        """Addresses, which were not opened."""
        return [row for row in self.usable if row.info is None]

    @property
    def short(self) -> list[Listed]:
        """Usable, with fewer frames than a clip."""
        return [row for row in self.usable if row.info and row.num_part_frames < SHORT_FRAMES]

    def known(self, fact: str) -> list[Listed]:
        """Usable, with a fact in what is known of the video that is not as usual."""
        usual = {"pixel_aspect": 1.0}
        found = ((row, getattr(row.info, fact)) for row in self.usable if row.info)
        return [row for row, value in found if value and value != usual.get(fact)]

    @property
    def damaged(self) -> list[Listed]:
        """Usable in part, as was asked for."""
        return self.known("num_gaps")

    @property
    def splits(self) -> list[str]:
        """The splits of the usable videos: train, val, test, then others."""
        found = {row.split for row in self.usable}
        return sorted(found, key=lambda name: (*SPLITS, name).index(name))

    def counts(self) -> dict[str, dict[str, int]]:
        """How many videos each class has in each split."""
        splits = self.splits
        found = {name: dict.fromkeys(splits, 0) for name in self.listing.classes}
        for row in self.usable:
            for name in classes_of(row.label, found):
                if name in found:
                    found[name][row.split] += 1
        return found

    def groups(self) -> dict[str, dict[str, int]]:
        """How many videos each group has in each split that has any, by the group's name."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for row in self.usable:
            if row.group:
                found[row.group][row.split] += 1
        return {name: dict(found[name]) for name in sorted(found)}

    def duplicates(self) -> tuple[list[list[Listed]], list[list[Listed]]]:
        """Groups of rows of the same content and part: in several splits, and in one."""
        groups: dict[Any, list[Listed]] = defaultdict(list)
        for row in self.usable:
            if row.content:
                part = (row.start_seconds, row.end_seconds, row.first_frame, row.num_frames)
                groups[row.content, part].append(row)
        several = [group for group in groups.values() if len(group) > 1]
        across = [group for group in several if len({row.split for row in group}) > 1]
        return across, [group for group in several if len({row.split for row in group}) == 1]

    def warnings(self) -> list[str]:
        """Things to look at before training on these videos."""
        across, within = self.duplicates()
        splits = ", ".join(sorted({row.split for group in across for row in group}))
        clash = [g for g in [*across, *within] if len({row.label for row in g}) > 1]
        counts, groups = self.counts(), self.groups()
        unseen = [name for name, each in counts.items() if not each.get("train", 1)]
        unheld = [name for name, each in counts.items() if groups and not each.get("val", 1)]
        rates = sorted(row.info.fps for row in self.usable if row.info and row.info.fps)
        leaking = [name for name, each in groups.items() if len(each) > 1]
        use = "the small videos are whole"
        if self.settings.resize_short is None:
            use = "train with --on-damage use_readable, or make small, whole ones: --resize-short"
        found: list[tuple[Sequence[Any], str]] = [
            (
                across,
                f"the same in several of the splits {splits}: {_videos(across)}; models would be "
                "tested on what they learnt, unless one list is a copy of another",
            ),
            (within, f"several times in one split: {_videos(within)}"),
            (clash, f"the same with different labels: {_videos(clash)}"),
            (leaking, f"groups in several splits: {len(leaking)}: {_some(leaking)}"),
            (unseen, f"classes without videos to train on: {len(unseen)}: {_some(unseen)}"),
            (
                unheld,
                f"classes without videos in val: {len(unheld)}: {_some(unheld)}; a class of one "
                "group cannot be split",
            ),
            (
                rates if rates and rates[-1] > 1.25 * rates[0] else [],
                f"rates differ: {_spread(rates)} frames a second; frame_stride counts frames, so "
                "that clips of faster videos see less time. To train and test with all as if at "
                f"one rate: --fps {median(rates or [0]):.4g}",
            ),
            (self.short, f"fewer than {SHORT_FRAMES} frames: {_videos(self.short)}"),
            (self.damaged, f"damaged, used in part: {_videos(self.damaged)}; {use}"),
            (
                odd := self.known("pixel_aspect"),
                f"pixels that are not square: {_videos(odd)}; frames are taken as they are stored, "
                "narrower or wider than players show them",
            ),
            (
                hdr := self.known("hdr"),
                f"high dynamic range (PQ or HLG): {_videos(hdr)}; their tones are not mapped, so "
                "that frames look pale; convert them where other videos are not so: ffmpeg -i IN "
                "-vf zscale=t=linear:npl=100,tonemap=hable,zscale=t=bt709:m=bt709 OUT.mp4",
            ),
            (self.unchecked, f"addresses, not opened: {_videos(self.unchecked)}"),
        ]
        return [text for what, text in found if what]

    def left_out(self) -> list[str]:
        """One line for each kind of loss, and for the first unreadable videos the reason."""
        lines = [_short(row.reason) for row in self.unreadable[:_NAMED]]
        if len(self.unreadable) > _NAMED:
            lines.append(f"cannot be read, too: {_videos(self.unreadable[_NAMED:])}")
        if self.missing:
            first, num_listed = self.missing[0], self.num_listed
            fix = "; say where the videos lie: --root DIR"
            lines.append(
                f"missing: {_videos(self.missing)} of {num_listed:,}, such as {first.path} "
                f"({first.origin}){fix if len(self.missing) == num_listed else ''}"
            )
        if self.too_short:
            lines.append(f"too short: {_videos(self.too_short)}")
        return list(map(as_text, lines))

    def summary(self) -> list[tuple[str, str]]:
        """The figures, as pairs of a name and a text."""
        infos = [row.info for row in self.usable if row.info]
        seconds = [info.duration_seconds for info in infos if info.duration_seconds is not None]
        hours = f"; {sum(seconds) / 3600:.2g} hours in all" if seconds else ""
        videos = Counter(row.split for row in self.usable)
        groups = Counter(split for each in self.groups().values() for split in each)
        rows = [
            ("read as", self.listing.layout),
            ("listed", f"{self.num_listed:,}"),
            ("usable", f"{len(self.usable):,}"),
            ("unreadable", _number(self.unreadable)),
            ("missing", _number(self.missing)),
            ("too short", _number(self.too_short)),
            ("used in part", _number(self.damaged)),
            ("passed over", by_reason(self.listing.passed_over)),
            ("splits", self._per_split(videos)),
            ("classes", _number(self.listing.classes)),
            ("groups", self._per_split(groups)),
            ("frames", _spread([row.num_part_frames for row in self.usable if row.info])),
            ("seconds", _spread(seconds) + hours),
            ("fps", _commonest(f"{info.fps:.4g}" for info in infos if info.fps)),
            ("sizes (px)", _commonest(f"{info.width} x {info.height}" for info in infos)),
            ("codecs", _commonest(info.codec for info in infos)),
        ]
        return [(name, text) for name, text in rows if text]

    def _per_split(self, found: Counter[str]) -> str:
        return ", ".join(f"{name} {found[name]:,}" for name in self.splits if found[name])

    def as_json(self) -> dict[str, Any]:
        """Everything, in full."""
        across, within = self.duplicates()
        return {
            "source": self.source,
            "layout": self.listing.layout,
            "settings": {
                "root": as_text(self.listing.root),
                "resize_short": str(self.settings.resize_short),
            },
            "num_listed": self.num_listed,
            "num_usable": len(self.usable),
            "summary": {name: as_text(text) for name, text in self.summary()},
            "warnings": list(map(as_text, self.warnings())),
            "classes": {as_text(name): each for name, each in self.counts().items()},
            "groups": {as_text(name): each for name, each in self.groups().items()},
            "unreadable": [_entry(row, reason=as_text(row.reason)) for row in self.unreadable],
            "missing": [
                {"path": as_text(row.path), "split": row.split, "listed_in": row.origin}
                for row in self.missing
            ],
            "used_in_part": [
                _entry(row, damaged_places=row.info.num_gaps) for row in self.damaged if row.info
            ],
            "passed_over": [
                {"path": as_text(path), "reason": reason}
                for path, reason in self.listing.passed_over.items()
            ],
            "too_short": [_entry(row, num_frames=row.num_part_frames) for row in self.too_short],
            "short": [_entry(row, num_frames=row.num_part_frames) for row in self.short],
            "same_in_several_splits": [list(map(_entry, group)) for group in across],
            "same_in_one_split": [list(map(_entry, group)) for group in within],
            "not_opened": list(map(_entry, self.unchecked)),
        }

    def as_markdown(self) -> str:
        """The report for people."""
        across, within = self.duplicates()
        first, *others = self.summary()
        parts = [f"# {_code(self.source)}", _table(first, others)]
        if warnings := self.warnings():
            parts += ["## Look at this first", _bullets(warnings)]
        for title, lines in (
            ("Unreadable, left out", [_code(_short(row.reason)) for row in self.unreadable]),
            ("Missing, left out", [f"{_code(i.path)} ({i.origin})" for i in self.missing]),
            ("Too short, left out", [_frames(row) for row in self.too_short]),
            ("The same video in several splits", list(map(_group, across))),
            ("The same video several times in one split", list(map(_group, within))),
            ("Damaged, used in part", [_frames(row) for row in self.damaged]),
            (
                "Files that are no videos",
                [f"{_code(path)} ({why})" for path, why in self.listing.passed_over.items()],
            ),
            (f"Fewer than {SHORT_FRAMES} frames", [_frames(row) for row in self.short]),
            ("Addresses, not opened", [_code(row.path) for row in self.unchecked]),
        ):
            if lines:
                shown = lines[:_SHOWN] + _more(lines)
                parts += [f"## {title}: {len(lines):,}", _bullets(shown)]
        if counts := self.counts():
            parts += ["## Videos per class", self._table_of("class", counts)]
        if groups := self.groups():
            table = self._table_of("group", dict(list(groups.items())[:_SHOWN]))
            parts += [f"## Videos per group: {len(groups):,}", table, *_more(groups)]
        return as_text("\n\n".join(parts)) + "\n"

    def _table_of(self, what: str, counts: dict[str, dict[str, int]]) -> str:
        splits = self.splits
        rows = [
            (_code(name), *(str(each.get(split, 0)) for split in splits))
            for name, each in counts.items()
        ]
        return _table([what, *splits], rows)


def _more(found: Sized) -> list[str]:
    more = len(found) - _SHOWN
    return [f"and {more:,} more, see report.json"] if more > 0 else []


def _entry(row: Listed, **more: str | int) -> dict[str, Any]:
    return {
        "path": as_text(row),
        "label": as_text(row.label),
        "split": row.split,
        "listed_in": as_text(row.origin),
        **more,
    }


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")


def _number(found: Sequence[Any]) -> str:
    return f"{len(found):,}" if found else ""


def _spread(values: Sequence[float]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    if low == high:
        return f"{low:.4g} each" if values else ""
    return f"{low:.4g} to {high:.4g}, median {median(values):.4g}"


def _commonest(values: Iterable[str]) -> str:
    found, shown = Counter(values), 4
    if len(found) < 2:
        return "".join(found)
    text = ", ".join(f"{name} ({number:,})" for name, number in found.most_common(shown))
    return text + (f" and {len(found) - shown} more" if len(found) > shown else "")


def _videos(found: Sequence[Any]) -> str:
    return counted(len(found), "video")


def _short(reason: str) -> str:
    return " ".join(reason.split())


def _frames(row: Listed) -> str:
    return f"{row.num_part_frames} frames: {_code(str(row))}"


def _group(group: Iterable[Listed]) -> str:
    return " = ".join(
        f"{_code(str(row))} ({row.split}{row.label and ', ' + row.label})" for row in group
    )


def _code(text: str) -> str:
    """Text as it is, whatever Markdown makes of its signs."""
    text = text.replace("\n", "\\n")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join(f"| {line} |" for line in cells)
