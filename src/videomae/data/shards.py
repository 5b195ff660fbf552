"""WebDataset tars, which hold many videos in one file: written, and read as a list.

train-000000-000000.mp4 .cls .json   a video, its class number, and what is known of it
"""

import io
import json
import os
import random
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from videomae.claim import refuse_to_replace
from videomae.data.checking import Work, common_folder, stamp_of
from videomae.data.lists import Listed
from videomae.data.manifest import LABEL_SEPARATOR, SPLITS, is_address
from videomae.data.opening import open_file
from videomae.errors import ConfigError, as_text, file_name, in_brief, parse_json, short_digest
from videomae.hub import atomic_path
from videomae.settings import PrepareSettings
from videomae.video.limits import VIDEO_SUFFIXES

# Names say more than numbers: json before txt before cls.
_LABELS = (".cls", ".txt", ".json")
_MAX_LABEL_BYTES = 2**20


def list_shard(path: Path | str, split: str = "train") -> list[Listed]:
    """The videos of a WebDataset tar: where each lies, and its label from .cls, .txt or .json.

    `path` may be an address. Members of one sample share their name up to its first dot. A file
    that is no tar is listed itself, as damaged, as is what follows a damaged place. A video whose
    label cannot be read from any of the files beside it gets a reason.
    """
    place = str(path) if is_address(str(path)) else str(Path(path).absolute())
    videos: list[tuple[str, tarfile.TarInfo]] = []
    labels: dict[str, list[tuple[int, str]]] = defaultdict(list)
    wrong: dict[str, str] = {}
    damage = ""
    try:
        with open_file(place) as whole, tarfile.open(fileobj=whole, mode="r:") as tar:
            for member in filter(tarfile.TarInfo.isreg, tar):
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}"
                kind = Path(f"x.{extension}").suffix.lower()
                if kind in VIDEO_SUFFIXES:
                    videos.append((key, member))
                elif kind in _LABELS:
                    try:
                        if label := _label_in(tar, member, kind):
                            labels[key].append((_LABELS.index(kind), label))
                    except ValueError as error:
                        wrong[key] = f"{path}, {member.name}: {error}"
            whole.seek(tar.offset)  # tarfile takes a bad header for the end
            if any(whole.read(tarfile.BLOCKSIZE)):
                damage = f"is damaged at byte {tar.offset:,}, what follows is not read"
    except Exception as error:  # a mutilated file may raise anything
        damage = f"is no readable tar ({error or type(error).__name__})"
    found = [
        Listed(
            place,
            max(labels[key], default=(0, ""))[1],
            split,
            offset=member.offset_data,
            num_bytes=member.size,
            origin=f"{Path(path).name}, {member.name}",
            member=member.name,
            reason="" if labels[key] else wrong.get(key, ""),
        )
        for key, member in videos
    ]
    if damage:
        reason = f"{place}: {damage}; get the file anew"
        found.append(Listed(place, split=split, origin=str(path), reason=reason))
    return found


def _label_in(tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str) -> str:
    """The label in a file beside a video, "" where it has none; ValueError where it is no label."""
    if member.size > _MAX_LABEL_BYTES:
        raise ValueError(f"{member.size:,} bytes are too many for a label")
    file = tar.extractfile(member)
    data = file.read() if file else b""
    if kind != ".json":
        return data.decode("utf-8", "replace").strip()
    value = parse_json(data)
    label = value.get("label") if isinstance(value, dict) else value
    if label is not None and type(label) not in (str, int):
        raise ValueError(f"its label {in_brief(repr(label), 80)} is neither a name nor a number")
    return "" if label is None else str(label)


def pack(
    rows: Sequence[Listed], classes: Sequence[str], settings: PrepareSettings, work: Work
) -> list[Listed]:
    """Write videos into shards, and return the rows that name their place in one.

    Those to train on are shuffled, and the rows are in the order of the shards.
    """
    local = [row for row in rows if row.info]
    folders = [row for row in local if row.info and row.info.codec == "images"]
    if folders:
        raise ConfigError(
            f"{len(folders)} videos are folders of frames, such as {folders[0].path}, which "
            "have no place in a shard; make them videos with --resize-short"
        )
    place = settings.output / "shards"
    shards: dict[Path, list[Listed]] = {}
    for split in dict.fromkeys([*SPLITS, *(row.split for row in local)]):
        members = [row for row in local if row.split == split]
        if split == "train":  # neighbours in a shard are read together: they must not be alike
            random.Random(f"{settings.seed} shards").shuffle(members)
        for number, start in enumerate(range(0, len(members), settings.videos_per_shard)):
            # WebDataset takes what stands before the first point for the name of a sample.
            path = place / f"{file_name(split.replace('.', ':'))}-{number:06d}.tar"
            shards[path] = members[start : start + settings.videos_per_shard]
    refuse_to_replace(f"--output {settings.output}", shards, {row.path for row in local})
    numbers = {name: number for number, name in enumerate(classes)}
    top = common_folder(row.path for row in local)

    def write(path: Path) -> list[list[int]]:
        texts = [_texts(row, numbers, top) for row in shards[path]]
        stamp = short_digest(json.dumps([texts, list(map(stamp_of, shards[path]))]))

        def act() -> list[list[int]]:
            _write(path, shards[path], texts)
            return [[item.offset or 0, item.num_bytes or 0] for item in list_shard(path)]

        def read(places: list[list[int]]) -> list[list[int]]:
            if [len(place) for place in places] != [2] * len(texts):
                raise ValueError(f"{path} has other members")
            return places

        return work.once(f"shard {path.name}", stamp, act, read, path)

    places = work.each("writing shards", write, shards)
    # Shards of an earlier run with other settings would be read along with these.
    for path in place.glob("*-*.tar"):
        if path not in shards and work.knows(f"shard {path.name}"):
            path.unlink()
    return [row for row in rows if row.info is None] + [
        replace(row, path=str(path), offset=offset, num_bytes=num_bytes)
        for path, members in shards.items()
        for row, (offset, num_bytes) in zip(members, places[path], strict=True)
    ]


def _texts(row: Listed, numbers: dict[str, int], top: Path) -> tuple[str, str]:
    """The texts beside a video: all that is known as JSON, and its class number if it has one."""
    about: dict[str, Any] = {
        "label": row.label,
        "path": as_text(os.path.relpath(row.path, top)),
        "num_frames": row.num_part_frames,
    }
    part = {name: getattr(row, name) for name in ("start_seconds", "end_seconds", "first_frame")}
    about |= {name: value for name, value in part.items() if value is not None}
    if row.label not in numbers and LABEL_SEPARATOR in row.label:
        about["labels"] = row.label.split(LABEL_SEPARATOR)
    return json.dumps(about, sort_keys=True), str(numbers.get(row.label, ""))


def _write(path: Path, rows: Sequence[Listed], texts: Sequence[tuple[str, str]]) -> None:
    """Write one tar; equal videos make equal tars, without times, owners or rights of their own."""
    with (
        atomic_path(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar,
    ):

        def add(name: str, size: int, file: IO[bytes]) -> None:
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, file)

        for number, (row, (about, class_number)) in enumerate(zip(rows, texts, strict=True)):
            key = f"{path.stem}-{number:06d}"
            suffix = Path(row.path if row.offset is None else row.member).suffix.lower()
            suffix = suffix if suffix in VIDEO_SUFFIXES else ".mp4"  # by which it is found again
            with Path(row.path).open("rb") as file:
                file.seek(row.offset or 0)
                add(f"{key}{suffix}", stamp_of(row)[0], file)
            for extension, text in (("cls", class_number), ("json", about)):
                if text:
                    add(f"{key}.{extension}", len(text.encode()), io.BytesIO(text.encode()))
