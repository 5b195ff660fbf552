"""`videomae prepare`: a published list or a folder of videos -> one checked manifest.

DIR/manifest.csv labels.txt   what `load_videos` and training read; bad files are left out
DIR/report.md report.json     what was found, for people and for programs
DIR/done.jsonl                the journal, so that interrupted work goes on
DIR/videos/ DIR/shards/       videos made small, and tar files, if asked for
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from videomae.claim import claimed, refuse_to_replace
from videomae.compute.cores import num_cores
from videomae.data.checking import (
    Progress,
    Work,
    as_json,
    check,
    common_folder,
    compare,
    find_files,
    info_of,
    stamp_of,
)
from videomae.data.groups import split_off
from videomae.data.lists import Listed
from videomae.data.manifest import MANIFEST_NAME, REPORT_NAME, Video, Videos, write_manifest
from videomae.data.opening import read_bytes
from videomae.data.shards import pack
from videomae.data.sources import read_source
from videomae.data.survey import Survey
from videomae.errors import ConfigError, VideoError, as_text, file_name, keeping, short_digest
from videomae.hub import read_json, write_json, write_text
from videomae.settings import PrepareSettings
from videomae.video.limits import VideoInfo
from videomae.video.writer import resize_video

JOURNAL_NAME = "done.jsonl"


@dataclass(frozen=True)
class Prepared:
    """The manifest (None where no video is usable) and the report, as written, and its contents."""

    manifest: Path | None
    report: Path
    survey: Survey


def prepare(settings: PrepareSettings, *, on_progress: Progress | None = None) -> Prepared:
    """Make one checked manifest of a list or folder, and if asked small videos and shards.

    Videos that `shards` packs to train on come in an order drawn from the seed. `on_progress(what,
    done, of)` is called after each video. The same call goes on where it was interrupted.

    Raises ConfigError for lists that make no sense, and where the output folder holds another data
    set; bad videos are reported instead.

    ```python
    settings = PrepareSettings(Path("k400/val.csv"), Path("data/k400"), resize_short=320)
    prepare(settings).survey.summary()
    ```
    """
    output = settings.output
    _claim(settings.source, output)
    kept = f"what was found is kept in {output}; the same command goes on from there"
    parts = ("shards", "videos", "videos/**")
    with keeping(lambda: kept), claimed(output, *parts, again=f"make room; {kept}"):
        return _prepare(settings, on_progress)


def _prepare(settings: PrepareSettings, on_progress: Progress | None) -> Prepared:
    output = settings.output
    listing = read_source(settings)
    rows, missing = find_files(listing.items, listing.root)
    workers = settings.workers or num_cores()
    work = Work(output / JOURNAL_NAME, workers=workers, on_progress=on_progress)
    rows = check(rows, work, settings.check, settings.on_damage)
    too_short = [row for row in rows if row.info and row.num_part_frames < settings.min_frames]
    rows = [row for row in rows if not row.info or row.num_part_frames >= settings.min_frames]
    rows = compare(rows, work)
    if settings.resize_short is not None:
        rows = _resized(rows, settings, work, listing.root)
    bad = [row for row in rows if row.reason]
    rows = split_off([row for row in rows if not row.reason], settings.val_share)
    if settings.shards and rows:
        rows = pack(rows, listing.classes, settings, work)

    survey = Survey(settings, listing, rows, bad, too_short, missing)
    write_json(output / REPORT_NAME, survey.as_json())
    write_text(output / "report.md", survey.as_markdown())
    manifest = write_manifest(output, Videos(tuple(rows), listing.classes)) if rows else None
    return Prepared(manifest, output / "report.md", survey)


def _claim(source: Path, output: Path) -> None:
    """Refuse a folder that is the source, or holds what another source or hand has made."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output} is a file; name a folder")
    if output.exists() and source.resolve() == output.resolve():
        raise ConfigError(
            f"--output {output} is the source itself; name another folder, such as "
            f"{output / 'prepared'}"
        )
    if not (output / MANIFEST_NAME).exists():
        return
    made_of = None
    if (output / JOURNAL_NAME).is_file() and (output / REPORT_NAME).is_file():
        made_of = read_json(output / REPORT_NAME).get("source")
    if made_of is None or as_text(Path(str(made_of)).absolute()) != as_text(source.absolute()):
        raise ConfigError(
            f"{output} holds a manifest of {made_of or 'another source'}, not of {source}; name "
            "another folder, or remove this one"
        )


def _resized(
    rows: Sequence[Listed], settings: PrepareSettings, work: Work, root: Path
) -> list[Listed]:
    """Rows that name the small videos; those that turn out to be damaged get a reason."""
    short_side_px, crf, distance = settings.resize_short, settings.crf, settings.keyframe_distance
    assert short_side_px is not None
    sources = {row: _source_of(row) for row in rows if row.info is not None and not row.reason}
    places = {
        source: settings.output / "videos" / place
        for source, place in targets(list(dict.fromkeys(sources.values())), root).items()
    }
    refuse_to_replace(f"--output {settings.output}", places.values(), {s.path for s in places})

    def resize(source: Video) -> VideoInfo | str:
        target, part = places[source], _part(source)

        def act() -> dict[str, Any]:
            info = resize_video(
                source.path,
                target,
                short_side_px=short_side_px,
                keyframe_distance=distance,
                crf=crf,
                part=range(*part) if part else None,
                data=None if source.offset is None else read_bytes(source),
                on_damage=settings.on_damage,
            )
            return as_json(info)

        key = f"resize {source.path} {source.offset} {part}"
        try:
            place = str(target.relative_to(settings.output))
            stamp = [*stamp_of(source), short_side_px, distance, crf, place]
            stamp += [] if settings.on_damage == "refuse" else [settings.on_damage]
            return work.once(key, stamp, act, partial(info_of, target), target)
        except VideoError as error:
            return str(error)
        except (ConfigError, OSError):  # of the disk that is written to, and no fault of the video
            raise
        except Exception as error:  # as in `check`
            return f"{source}: cannot be made small ({type(error).__name__}: {error})"

    made = work.each("resizing", resize, sources.values())
    results = []
    for row in rows:
        result = made[sources[row]] if row in sources else None
        if isinstance(result, str):
            row = replace(row, reason=result)
        elif result is not None:
            if _part(sources[row]):
                row = replace(row, first_frame=None, num_frames=None)
            row = replace(row, path=str(result.path), offset=None, num_bytes=None, info=result)
        results.append(row)
    return results


def _source_of(row: Listed) -> Video:
    """The source to resize: a video, a piece of a shard, or a part of a folder of frames."""
    source = row.file
    if row.info is not None and row.info.codec == "images" and row.first_frame is not None:
        return replace(source, first_frame=row.first_frame, num_frames=row.num_part_frames)
    return source


def _part(source: Video) -> tuple[int, int] | None:
    """The first frame of a part, and the one after its last."""
    first, count = source.first_frame, source.num_frames
    return None if first is None or count is None else (first, first + count)


def targets(sources: Sequence[Video], root: Path) -> dict[Video, str]:
    """Where below DIR/videos each small video goes: as the sources lie to each other.

    Paths are taken relative to the root where all lie in it, else to the folder that all share, so
    that none leads out of DIR. Names that differ in their suffix alone keep it (x.avi.mp4).

        root/a/x.avi root/b/x.mp4  ->  a/x.mp4 b/x.mp4
    """
    shared = common_folder(source.path for source in sources)
    top = Path(os.path.abspath(root))  # noqa: PTH100
    top = top if shared.is_relative_to(top) else shared
    plain, kept = {}, {}
    for source in sources:
        place = Path(os.path.relpath(source.path, top))
        if source.offset is not None:  # a piece of a shard
            place = place.with_suffix("") / str(source.offset)
        elif part := _part(source):
            place = place.with_name(f"{place.name}_{part[0]}_{part[1]}")
        is_file = source.offset is None and not Path(source.path).is_dir()
        kept[source] = str(place)
        plain[source] = str(place.with_suffix("")) if is_file else str(place)
    times = Counter(plain.values())
    taken: set[str] = set()
    result = {}
    for source in sources:
        name = plain[source] if times[plain[source]] == 1 else kept[source]
        name = "/".join(map(file_name, PurePath(name).parts))
        if name in taken:  # x.avi.mp4 beside x.avi and x.mp4
            name += f"-{short_digest(str(source))}"
        taken.add(name)
        result[source] = f"{name}.mp4"
    return result
