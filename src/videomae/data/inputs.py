"""What names videos to be worked through -> these videos: folders, lists, tars, addresses."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from videomae.compute.cores import without_collector
from videomae.data.checking import find_files
from videomae.data.lists import Listed
from videomae.data.manifest import MANIFEST_NAME, Video, check_addresses, is_address, manifest_rows
from videomae.data.opening import files_at
from videomae.data.shards import list_shard
from videomae.data.sources import guess_layout, read_source
from videomae.errors import ConfigError
from videomae.hub import local_path
from videomae.settings import PrepareSettings
from videomae.video.folder import by_reason, scan_folder
from videomae.video.limits import VIDEO_SUFFIXES

# How `name_of` says where in a shard or folder a video is.
_PLACES = "first_frame|num_frames|offset|num_bytes"
_PLACE = re.compile(rf"(.+) \(((?:(?:{_PLACES})=\d+(?:, |\)$))+)", re.DOTALL)


def list_inputs(source: str, *, allow_addresses: bool = False) -> list[Video]:
    """The videos that a source names, whatever their classes and splits, in its order.

    source: a video; a folder of videos or frames; a manifest or any list that `videomae prepare`
    reads; WebDataset tars; or an address that fsspec opens, such as s3://bucket/videos, of a
    video, a tar, a folder of these, or a pattern with `*`. A video in a tar gets the address
    tar://MEMBER::TAR. What is named and not there is listed for its error's sake.

    Raises ConfigError where there is nothing, or it cannot be understood, and where a list names
    addresses without `allow_addresses`.
    """
    if is_address(source):
        return _at_address(source)
    path = local_path(source)
    if not path.exists():
        raise ConfigError(f"{path} does not exist; expected a folder, a video, a list or a tar")
    layout = guess_layout(path)
    if layout == "manifest":
        return _in_manifest(path / MANIFEST_NAME if path.is_dir() else path, allow_addresses)
    if layout == "folder":
        scan = scan_folder(path) if path.is_dir() else None
        found = [path] if scan is None else [*scan.videos, *scan.unreadable]
        if not found and scan is not None:
            holds = by_reason(scan.passed_over) if scan.passed_over else "nothing"
            raise ConfigError(f"{path} holds no videos; it holds {holds}")
        return [Video(str(video)) for video in found]
    listing = read_source(PrepareSettings(path, Path("-")))
    check_addresses(listing.items, path, allowed=allow_addresses)
    there, missing = find_files(listing.items, listing.root)
    lost = [replace(item, path=str(listing.root / item.path)) for item in missing]
    return [_plain(item) for item in (*there, *lost)]


@without_collector()
def _in_manifest(path: Path, allow_addresses: bool) -> list[Video]:
    """The videos of our own list, which may have a million rows; a bad row is one that fails."""
    found: list[Video] = []
    wrong: list[str] = []
    for number, row in manifest_rows(path.absolute()):
        if isinstance(row, str):
            place = f"{path.name}, line {number}"
            wrong.append(f"{place}: {row}")
            row = Video(place)
        found.append(_plain(row))
    if len(wrong) == len(found):
        raise ConfigError(f"{wrong[0]} (so for all of {len(wrong):,})")
    check_addresses(found, path, allowed=allow_addresses)
    return found


def name_of(video: Video) -> str:
    """What stands for a video in tables: its path or address, and where in it if by numbers.

    Not its part in seconds, which has columns of its own.
    """
    whole = replace(video, start_seconds=None, end_seconds=None)
    return whole.path if "::" in whole.path else str(whole)


def video_named(name: str) -> Video:
    """The video that `name_of` gave this name.

    >>> video_named("x.tar (offset=512, num_bytes=9)") == Video("x.tar", offset=512, num_bytes=9)
    True
    """
    found = None if "::" in name else _PLACE.fullmatch(name)
    if not found:
        return Video(name)
    pairs = (part.split("=") for part in found[2].rstrip(")").split(", "))
    numbers: dict[str, Any] = {key: int(value) for key, value in pairs}
    return Video(found[1], **numbers)


def _at_address(address: str) -> list[Video]:
    found: list[Video] = []
    for place in files_at(address):
        suffix = Path(place.partition("::")[0]).suffix.lower()
        if suffix == ".tar":
            found += map(_plain, list_shard(place))
        elif suffix in VIDEO_SUFFIXES:
            found.append(Video(place))
    if not found:
        raise ConfigError(
            f"{address} holds no videos or tars of them; lists are read from this machine alone, "
            "and their lines may be addresses"
        )
    return found


def _plain(item: Video) -> Video:
    """A row of a list without its class and split; a member of a tar by its own address."""
    member = item.member if isinstance(item, Listed) else ""
    return Video(
        f"tar://{member}::{item.path}" if member else item.path,
        start_seconds=item.start_seconds,
        end_seconds=item.end_seconds,
        first_frame=item.first_frame,
        num_frames=item.num_frames,
        offset=item.offset,
        num_bytes=item.num_bytes,
    )
