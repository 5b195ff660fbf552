"""`videomae prepare`: a published list or a folder of videos -> one checked manifest.

    DIR/manifest.csv labels.txt   what `load_videos` and training read; bad files are left out
    DIR/report.md report.json     what was found, for people and for programs
    DIR/done.jsonl                what was done already, so that interrupted work goes on
    DIR/videos/ DIR/shards/       videos made small, and tar files, if asked for

Every file is written whole or not at all, and nothing outside of DIR is written.
"""

import hashlib
import io
import json
import os
import random
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from videomae.data.checking import (
    Checked,
    Journal,
    check,
    compare,
    find_files,
    in_parallel,
    stamp_of,
)
from videomae.data.manifest import (
    LABEL_SEPARATOR,
    MANIFEST_NAME,
    REPORT_NAME,
    Video,
    Videos,
    write_manifest,
)
from videomae.data.sources import list_shard, read_source
from videomae.data.survey import Survey, printable
from videomae.errors import ConfigError, VideoError
from videomae.hub import PathLike, atomic_path, read_json, write_json
from videomae.settings import PrepareSettings
from videomae.video.reader import VideoInfo, resize_video

Progress = Callable[[str, int, int], None]

JOURNAL_NAME = "done.jsonl"
# File systems allow 255 bytes; a file being written has a longer name for a while.
_MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class Prepared:
    """What was written: the manifest (None where no video is usable), the report, its contents."""

    manifest: Path | None
    report: Path
    survey: Survey


def prepare(settings: PrepareSettings, *, on_progress: Progress | None = None) -> Prepared:
    """Make one checked manifest of a list or folder, and if asked small videos and shards.

    Videos that `shards` packs to train on come in an order drawn from the seed. `on_progress(what,
    done, of)` hears of each video. The same call goes on where it was interrupted.

    Raises ConfigError for lists that make no sense, and where the output folder holds another data
    set; bad videos are reported instead.

    ```python
    settings = PrepareSettings(Path("k400/val.csv"), Path("data/k400"), resize_short=320)
    prepare(settings).survey.summary()
    ```
    """
    source, output = settings.source, settings.output
    workers = settings.workers or os.cpu_count() or 1
    _claim(source, output)

    def progress(what: str) -> Callable[[int, int], None] | None:
        return (lambda done, of: on_progress(what, done, of)) if on_progress else None

    inside = source.is_dir() and output.absolute().is_relative_to(source.absolute())
    listing = read_source(
        source,
        layout=settings.layout,
        root=settings.root,
        split=settings.split,
        fold=settings.fold,
        labels=settings.labels,
        delimiter=settings.delimiter,
        leave_out=output if inside else None,
    )
    rows, missing = find_files(listing.items, listing.root)
    journal = Journal(output / JOURNAL_NAME)
    try:
        rows = check(
            rows, journal, how=settings.check, workers=workers, on_progress=progress("checking")
        )
        too_short = [row for row in rows if row.info and row.num_frames < settings.min_frames]
        rows = [row for row in rows if not row.info or row.num_frames >= settings.min_frames]
        rows = compare(rows, journal, workers=workers, on_progress=progress("comparing contents"))
        if settings.resize_short is not None:
            job = _Resize(
                output,
                journal,
                settings.resize_short,
                settings.keyframe_distance,
                settings.crf,
            )
            rows = _resized(rows, job, listing.root, workers, progress("resizing"))
        bad = [row for row in rows if row.reason]
        bad += [_bad_shard(path, reason) for path, reason in listing.unreadable]
        rows = split_off([row for row in rows if not row.reason], settings.val_share)
        if settings.shards and rows:
            pack = _Pack(
                output / "shards",
                journal,
                listing.classes,
                settings.videos_per_shard,
                settings.seed,
            )
            rows = _packed(rows, pack, workers, progress("writing shards"))
    finally:
        journal.close()

    survey = Survey(
        printable(str(source)),
        listing.layout,
        listing.classes,
        tuple(rows),
        tuple(bad),
        tuple(too_short),
        tuple(missing),
        (("root", printable(str(listing.root))), ("resize_short", str(settings.resize_short))),
    )
    write_json(output / REPORT_NAME, survey.as_json())
    with atomic_path(output / "report.md") as temporary:
        temporary.write_text(survey.as_markdown(), encoding="utf-8")
    manifest = None
    if rows:
        videos = Videos(tuple(row.video for row in rows), listing.classes)
        manifest = write_manifest(output, videos)
    return Prepared(manifest, output / "report.md", survey)


def _claim(source: Path, output: Path) -> None:
    """Refuse a folder that is the source, or holds what another source or hand has made."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output} is a file; name a folder")
    if source.exists() and output.exists() and source.resolve() == output.resolve():
        raise ConfigError(
            f"--output {output} is the source itself; name another folder, such as "
            f"{output / 'prepared'}"
        )
    if not (output / MANIFEST_NAME).exists():
        return
    made_of = None
    if (output / JOURNAL_NAME).is_file() and (output / REPORT_NAME).is_file():
        made_of = read_json(output / "report.json").get("source")
    if made_of != printable(str(source)):
        raise ConfigError(
            f"{output} holds a manifest of {made_of or 'somebody else'}, not of {source}; name "
            "another folder, or remove this one"
        )


def _bad_shard(path: str, reason: str) -> Checked:
    return Checked(Video(path), path, reason=f"{path}: {reason}")


def split_off(rows: Sequence[Checked], share: float) -> list[Checked]:
    """Call a share of each class's training videos val, where there is nothing else to test on.

    Which ones follows from their names below the folder that all share, so that it is the same on
    each machine. What has the same content stays together, as do the parts of one video.
    """
    if not share or any(row.video.split != "train" for row in rows):
        return list(rows)
    top = _base([Path(row.video.path) for row in rows if not row.video.is_remote])

    def rank(row: Checked) -> str:
        path = row.video.path
        name = path if row.video.is_remote else str(_absolute(path).relative_to(top))
        return hashlib.sha256(f"{name} {row.video.offset}".encode(errors="replace")).hexdigest()

    groups: dict[str, list[Checked]] = defaultdict(list)
    for row in rows:
        groups[row.content or row.video.path].append(row)
    classes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for content, group in groups.items():
        classes[group[0].video.label].append((min(map(rank, group)), content))
    chosen = {
        content
        for members in classes.values()
        for _, content in sorted(members)[: round(share * len(members))]
    }
    return [
        replace(row, video=replace(row.video, split="val"))
        if (row.content or row.video.path) in chosen
        else row
        for row in rows
    ]


# Making videos small


@dataclass(frozen=True)
class _Resize:
    output: Path
    journal: Journal
    short_side_px: int
    keyframe_distance: int
    crf: int


@dataclass(frozen=True)
class _Source:
    """One file to be resized: a video, a piece of a shard, or frames of a folder."""

    path: str
    offset: int | None = None
    num_bytes: int | None = None
    part: tuple[int, int] | None = None


def _source_of(row: Checked) -> _Source:
    video = row.video
    if row.info is not None and row.info.codec == "images" and video.first_frame is not None:
        return _Source(video.path, part=(video.first_frame, video.first_frame + row.num_frames))
    return _Source(video.path, video.offset, video.num_bytes)


def _resized(
    rows: Sequence[Checked],
    job: _Resize,
    root: Path,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> list[Checked]:
    """Rows that name the small videos; those that turn out to be damaged get a reason."""
    sources = {row: _source_of(row) for row in rows if row.info is not None and not row.reason}
    places = targets(list(dict.fromkeys(sources.values())), root)

    def act(source: _Source) -> VideoInfo | str:
        return _resize(source, job, PurePath("videos", places[source]))

    made = in_parallel(act, sources.values(), workers=workers, on_progress=on_progress)
    results = []
    for row in rows:
        result = made[sources[row]] if row in sources else None
        if isinstance(result, str):
            row = replace(row, reason=result)
        elif result is not None:
            nowhere: dict[str, Any] = {"offset": None, "num_bytes": None}
            if sources[row].part:
                nowhere |= {"first_frame": None, "num_frames": None}
            video = replace(row.video, path=str(result.path), **nowhere)
            row = replace(row, video=video, info=result)
        results.append(row)
    return results


def _resize(source: _Source, job: _Resize, place: PurePath) -> VideoInfo | str:
    video = Video(source.path, offset=source.offset, num_bytes=source.num_bytes)
    target = job.output / place
    settings = [job.short_side_px, job.keyframe_distance, job.crf, str(place)]
    stamp = [*stamp_of(video), *settings]
    name = f"resize {source.path} {source.offset} {source.part}"
    known = job.journal.get(name, stamp)
    if known is not None and target.is_file():
        return VideoInfo(path=target, **known)
    data = None
    if source.offset is not None:
        with Path(source.path).open("rb") as file:
            file.seek(source.offset)
            data = file.read(source.num_bytes)
    try:
        info = resize_video(
            source.path,
            target,
            short_side_px=job.short_side_px,
            keyframe_distance=job.keyframe_distance,
            crf=job.crf,
            part=range(*source.part) if source.part else None,
            data=data,
        )
    except VideoError as error:
        return str(error)
    value = {key: each for key, each in asdict(info).items() if key != "path"}
    job.journal.put(name, stamp, value)
    return info


def targets(sources: Sequence[_Source], root: Path) -> dict[_Source, str]:
    """Where below DIR/videos each small video goes: as the sources lie to each other.

    Paths are taken relative to the root where all lie in it, else to the folder that all share, so
    that none leads out of DIR. Names that differ in their suffix alone keep it (x.avi.mp4).

        root/a/x.avi root/b/x.mp4  ->  a/x.mp4 b/x.mp4
    """
    paths = [_absolute(source.path) for source in sources]
    top = _absolute(root)
    if not all(path.is_relative_to(top) and path != top for path in paths):
        top = _base(paths)
    plain, kept = {}, {}
    for source, path in zip(sources, paths, strict=True):
        place = path.relative_to(top)
        if source.offset is not None:  # a piece of a shard
            place = place.with_suffix("") / str(source.offset)
        elif source.part:
            place = place.with_name(f"{place.name}_{source.part[0]}_{source.part[1]}")
        is_file = source.offset is None and not path.is_dir()
        kept[source] = str(place)
        plain[source] = str(place.with_suffix("")) if is_file else str(place)
    times = Counter(plain.values())
    taken: set[str] = set()
    result = {}
    for source in sources:
        name = plain[source] if times[plain[source]] == 1 else kept[source]
        name = "/".join(_short_name(part) for part in PurePath(name).parts)
        if name in taken:  # x.avi.mp4 beside x.avi and x.mp4
            name += f"-{_digest(str(source))}"
        taken.add(name)
        result[source] = f"{name}.mp4"
    return result


def _short_name(name: str) -> str:
    raw = os.fsencode(name)
    if len(raw) <= _MAX_NAME_BYTES:
        return name
    return f"{os.fsdecode(raw[:150]).encode(errors='ignore').decode()}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _absolute(path: PathLike) -> Path:
    """The absolute path without `..`, links left as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _base(paths: Sequence[Path]) -> Path:
    """The folder that all lie in."""
    return Path(os.path.commonpath([_absolute(path).parent for path in paths] or [Path.cwd()]))


# Packing into shards


@dataclass(frozen=True)
class _Pack:
    folder: Path
    journal: Journal
    classes: tuple[str, ...]
    videos_per_shard: int
    seed: int


def _packed(
    rows: Sequence[Checked],
    pack: _Pack,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> list[Checked]:
    """Rows that name their piece of a shard; those to train on in the order of the shards."""
    folders = [row for row in rows if row.info and row.info.codec == "images"]
    if folders:
        raise ConfigError(
            f"{len(folders)} videos are folders of frames, such as {folders[0].video.path}, which "
            "have no place in a shard; make them videos with --resize-short"
        )
    plans: dict[str, list[Checked]] = {}
    for split in dict.fromkeys(["train", "val", "test", *(row.video.split for row in rows)]):
        members = [row for row in rows if row.video.split == split and row.info is not None]
        if split == "train":  # neighbours in a shard are read together: they must not be alike
            random.Random(f"{pack.seed} shards").shuffle(members)
        for number, start in enumerate(range(0, len(members), pack.videos_per_shard)):
            name = f"{split}-{number:06d}.tar"
            plans[name] = members[start : start + pack.videos_per_shard]
    top = _base([Path(row.video.path) for members in plans.values() for row in members])

    def act(name: str) -> list[list[int]]:
        return _write_shard(name, plans[name], pack, top)

    made = in_parallel(act, plans, workers=workers, on_progress=on_progress)
    # Shards of an earlier run with other settings would be read along with these.
    for path in pack.folder.glob("*-*.tar"):
        if path.name not in plans and pack.journal.knows(f"shard {path.name}"):
            path.unlink()
    packed = [row for row in rows if row.info is None]
    for name, members in plans.items():
        for row, (offset, num_bytes) in zip(members, made[name], strict=True):
            place = str(pack.folder / name)
            video = replace(row.video, path=place, offset=offset, num_bytes=num_bytes)
            packed.append(replace(row, video=video))
    return packed


def _write_shard(name: str, rows: Sequence[Checked], pack: _Pack, top: Path) -> list[list[int]]:
    """Write one tar, or find it written: where each video begins in it, and its bytes."""
    numbers = {label: number for number, label in enumerate(pack.classes)}
    path = pack.folder / name
    entries = [_entry(row, numbers, top) for row in rows]
    stamps = [stamp_of(row.video) for row in rows]
    stamp = _digest(json.dumps([entries, stamps]))
    known: list[list[int]] | None = pack.journal.get(f"shard {name}", stamp)
    if known is not None and path.is_file():
        return known
    with (
        atomic_path(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for number, (row, (about, class_text)) in enumerate(zip(rows, entries, strict=True)):
            key = f"{path.stem}-{number:06d}"
            video = row.video
            with Path(video.path).open("rb") as file:
                file.seek(video.offset or 0)
                size = stamps[number][0]
                suffix = ".mp4" if video.offset is not None else Path(video.path).suffix.lower()
                tar.addfile(_member(f"{key}{suffix}", size), file)
            if class_text:
                _add_text(tar, f"{key}.cls", class_text)
            _add_text(tar, f"{key}.json", about)
    places = [[item.offset or 0, item.num_bytes or 0] for item in list_shard(path)]
    pack.journal.put(f"shard {name}", stamp, places)
    return places


def _entry(row: Checked, numbers: dict[str, int], top: Path) -> tuple[str, str]:
    """What a shard tells of a video: all of it as JSON, and its class number where it has one."""
    video = row.video
    about: dict[str, Any] = {
        "label": video.label,
        "path": printable(str(_absolute(video.path).relative_to(top))),
        "num_frames": row.num_frames,
    }
    for name in ("start_seconds", "end_seconds", "first_frame"):
        if getattr(video, name) is not None:
            about[name] = getattr(video, name)
    if video.label not in numbers and LABEL_SEPARATOR in video.label:
        about["labels"] = video.label.split(LABEL_SEPARATOR)
    number = numbers.get(video.label)
    return json.dumps(about, sort_keys=True), "" if number is None else str(number)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A member without time, owner or rights of its own, so that equal videos make equal tars."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    tar.addfile(_member(name, len(data)), io.BytesIO(data))
