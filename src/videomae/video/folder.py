"""A folder of numbered images, read as a video; folders searched for videos."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from videomae.errors import VideoError
from videomae.video.limits import VIDEO_SUFFIXES, DecodeClock, VideoInfo, VideoLimits

# Raster formats only: Pillow's other readers include ones that start programs (EPS, Ghostscript).
_IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Folders in folders, and links in what links lead to: more are no data set, but a trap, where two
# links in each of many folders double what is found at each level.
_MAX_DEPTH, _MAX_LINKS = 200, 4


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sort key that reads digits as numbers: img_2 before img_10.

    >>> sorted(["img_10.jpg", "img_2.jpg", "img_1.jpg"], key=natural_key)
    ['img_1.jpg', 'img_2.jpg', 'img_10.jpg']
    """
    parts = re.split(r"([0-9]+)", name)
    # the name itself decides between img_1 and img_01
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], name


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in natural order of their names; hidden files are passed over."""
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
            and not entry.name.startswith(".")
            and entry.is_file()  # opening a pipe would wait for ever
        ]
    return [folder / name for name in sorted(names, key=natural_key)]


def image_numbers(folder: Path) -> list[int] | None:
    """The last number in the name of each image of a folder, -1 without; None for no such folder.

    img_00001.jpg img_00002.jpg ... -> [1, 2, ...]
    """
    if not folder.is_dir():
        return None
    found = [re.findall(r"[0-9]+", path.stem) for path in image_files(folder)]
    return [int(numbers[-1]) if numbers else -1 for numbers in found] or None


class FrameFolder:
    """The images of a folder as the frames of a video; other files are passed over."""

    def __init__(self, path: Path, limits: VideoLimits) -> None:
        self._limits = limits
        self.clock = DecodeClock(path, limits)
        try:
            self._files = image_files(path)
        except OSError as error:
            raise VideoError(f"{path}: cannot be opened ({error.strerror})") from error
        if not self._files:
            scan = scan_folder(path)
            holds = f"holds {by_reason(scan.passed_over)}" if scan.passed_over else "is empty"
            if scan.videos:
                holds = f"holds videos, such as {scan.videos[0].name}, which are given one by one"
            raise VideoError(
                f"{path}: the folder {holds}; expected a video, or a folder with one image per "
                f"frame ({' '.join(IMAGE_SUFFIXES)}), for example img_00001.jpg"
            )
        limits.check(path, max_frames=len(self._files))
        height, width = self._read(self._files[0]).shape[:2]
        self.info = VideoInfo(
            path=path,
            num_frames=len(self._files),
            fps=None,
            duration_seconds=None,
            height=height,
            width=width,
            codec="images",
            rotation_degrees=0,
        )

    def frames(self, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """The frames of these numbers, RGB (H, W, 3)."""
        for index in wanted:
            self.clock.check()
            image = self._read(self._files[index])
            if image.shape[:2] != (self.info.height, self.info.width):
                raise VideoError(
                    f"{self._files[index]}: is {image.shape[0]} x {image.shape[1]} px (height x "
                    f"width), but the first frame of the folder is {self.info.height} x "
                    f"{self.info.width}; resize the images to one size"
                )
            yield image

    def close(self) -> None:
        """Nothing is held open between two frames."""

    def _read(self, path: Path) -> NDArray[np.uint8]:
        try:
            with Image.open(path, formats=_IMAGE_FORMATS) as image:
                self._limits.check(path, max_pixels=image.width * image.height)  # not yet decoded
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I;16"):  # Pillow would clip, not scale, 16-bit grey
                    grey = (np.asarray(upright) >> 8).astype(np.uint8)
                    return np.repeat(grey[..., None], 3, axis=-1)
                if upright.mode in ("I", "F"):
                    raise VideoError(
                        f"{path}: holds 32-bit pixels (mode {upright.mode}), whose range is "
                        "unknown; save the frames with 8 or 16 bits"
                    )
                return np.asarray(upright.convert("RGB"))
        except VideoError:
            raise
        except Image.DecompressionBombError as error:
            raise VideoError(
                f"{path}: {error}; Pillow itself refuses more, whatever VideoLimits say"
            ) from error
        except (OSError, SyntaxError, ValueError) as error:
            raise VideoError(
                f"{path}: cannot be read as an image ({error}); replace or remove the file"
            ) from error


@dataclass(frozen=True)
class FolderScan:
    """The videos in a folder, and why each other file and folder in it was not taken.

    unreadable: folders that cannot be opened, and why; what they hold is not known.
    """

    videos: list[Path] = field(default_factory=list)
    passed_over: dict[Path, str] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)


def by_reason(passed_over: Mapping[Any, str]) -> str:
    """How many were passed over, and for which reasons.

    >>> by_reason({"a.txt": ".txt", "b.txt": ".txt", ".git": "hidden"})
    '.txt 2, hidden 1'
    """
    found = Counter(passed_over.values()).most_common()
    return ", ".join(f"{reason} {count:,}" for reason, count in found)


def scan_folder(top: Path) -> FolderScan:
    """Search a folder and all below it for videos: by suffix, and folders of images.

    A folder that holds images and no videos is one video, frame by frame, unless there are as many
    videos below it as images in it, which then are covers. Links to folders are followed, up to
    four of them one below the other.
    """
    return _scan(top, frozenset(), num_links=0)


def _scan(folder: Path, above: frozenset[tuple[int, int]], *, num_links: int) -> FolderScan:
    scan = FolderScan()
    try:
        status = folder.stat()
        if (place := (status.st_dev, status.st_ino)) in above:
            scan.passed_over[folder] = "link to a folder that it lies in"
            return scan
        if len(above) > _MAX_DEPTH or num_links > _MAX_LINKS:
            what = f"{_MAX_LINKS} links" if num_links > _MAX_LINKS else f"{_MAX_DEPTH} folders"
            scan.unreadable[folder] = f"{folder}: lies below more than {what}; move it further up"
            return scan
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        scan.unreadable[folder] = f"{folder}: cannot be opened ({error.strerror})"
        return scan
    images, below = [], FolderScan()
    for entry in entries:
        path, suffix = folder / entry.name, Path(entry.name).suffix.lower()
        if entry.name.startswith("."):
            scan.passed_over[path] = "hidden"
        elif entry.is_dir():
            links = num_links + entry.is_symlink()
            inside = _scan(path, above | {place}, num_links=links)
            below.videos.extend(inside.videos)
            below.passed_over.update(inside.passed_over)
            scan.unreadable.update(inside.unreadable)
        elif suffix in VIDEO_SUFFIXES:
            scan.videos.append(path)
        elif suffix in IMAGE_SUFFIXES:
            images.append(path)
        else:
            scan.passed_over[path] = suffix or "no suffix"
    if images and not scan.videos and len(below.videos) < len(images):
        scan.videos.append(folder)
        scan.passed_over.update(dict.fromkeys(below.videos, "below a folder of frames"))
    else:
        reason = f"picture {'beside' if scan.videos else 'above'} videos"
        scan.passed_over.update(dict.fromkeys(images, reason))
        scan.videos.extend(below.videos)
    scan.passed_over.update(below.passed_over)
    return scan


def find_videos(path: Path, *, tell: Callable[[str], object] | None = None) -> list[Path]:
    """The videos that a path stands for: itself, or those in it where it is a folder of videos.

    What is not there, holds no video or cannot be opened is returned for its error's sake. `tell`
    gets a line on what is passed over, but for hidden files. For the rest see `scan_folder`.
    """
    if not path.is_dir():
        return [path]
    scan = scan_folder(path)
    if tell and scan.videos and set(scan.passed_over.values()) - {"hidden"}:
        tell(f"{path}: passed over {by_reason(scan.passed_over)}")
    return [*scan.videos, *scan.unreadable] or [path]
