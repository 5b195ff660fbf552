"""Folders of images, read as videos."""

import errno
import itertools
import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from made_videos import numbers, scene
from videomae.data.manifest import load_videos
from videomae.data.prepare import prepare
from videomae.errors import ConfigError, VideoError
from videomae.settings import PrepareSettings
from videomae.video.folder import FrameFolder, find_videos, natural_key, scan_folder
from videomae.video.limits import VideoInfo, VideoLimits
from videomae.video.reader import VideoReader, probe, read_frames


def save(folder: Path, frames: np.ndarray, name: str = "img_{}.png") -> Path:
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


def test_natural_order() -> None:
    names = ["img_10.jpg", "img_2.jpg", "b.jpg", "img_02.jpg", "img_1.jpg", "7.jpg"]
    in_order = ["7.jpg", "b.jpg", "img_1.jpg", "img_02.jpg", "img_2.jpg", "img_10.jpg"]
    assert sorted(names, key=natural_key) == in_order
    assert sorted(["x9y10", "x9y2", "x"], key=natural_key) == ["x", "x9y2", "x9y10"]


def test_images_are_frames_in_natural_order(tmp_path: Path) -> None:
    frames = scene(12)
    folder = save(tmp_path / "video", frames)  # img_10.png comes after img_9.png
    assert probe(folder) == VideoInfo(
        path=folder,
        num_frames=12,
        fps=None,
        duration_seconds=None,
        height=48,
        width=64,
        codec="images",
        rotation_degrees=0,
    )
    with VideoReader(folder) as reader:
        np.testing.assert_array_equal(reader.read([11, 2, 10, 2]), frames[[11, 2, 10, 2]])
        assert reader.read([]).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "bmp", "webp", "tiff", "ppm"])
def test_kinds_of_files(suffix: str, tmp_path: Path) -> None:
    save(tmp_path, scene(3), f"{{:05}}.{suffix}")
    assert numbers(read_frames(tmp_path, [2, 0, 1])) == [2, 0, 1]


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, scene(3))
    for name in ("labels.txt", "Thumbs.db", "._img_0.png", ".DS_Store", "sound.wav"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert probe(tmp_path).num_frames == 3


def test_grey_alpha_palette_and_16_bits(tmp_path: Path) -> None:
    grey = np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)
    rgb = np.stack([grey, grey[::-1], grey.T], axis=-1)
    images = {
        "0.png": Image.fromarray(grey),
        "1.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "2.png": Image.fromarray(np.dstack([rgb, grey])),  # alpha is dropped, not blended
        "3.png": Image.fromarray(rgb).quantize(256),
        "4.png": Image.fromarray(np.dstack([grey, grey]), "LA"),
        "5.png": Image.fromarray(grey > 100),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
    assert images["1.png"].mode.startswith("I;16")
    frames = read_frames(tmp_path, range(6))
    for k in (0, 1, 4):
        np.testing.assert_array_equal(frames[k], np.repeat(grey[..., None], 3, axis=-1))
    for k in (2, 3):
        np.testing.assert_array_equal(frames[k], rgb)
    np.testing.assert_array_equal(frames[5][..., 0], np.where(grey > 100, 255, 0))


def test_cameras_that_were_held_upright(tmp_path: Path) -> None:
    image = Image.fromarray(scene(1)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    image.save(tmp_path / "0.png", exif=exif)
    frames = read_frames(tmp_path, [0])
    np.testing.assert_array_equal(frames[0], np.rot90(np.asarray(image), k=-1))


def test_pixels_of_32_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "0.tiff")
    with pytest.raises(VideoError, match=r"0\.tiff: holds 32-bit pixels \(mode F\), whose range"):
        probe(tmp_path)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    save(tmp_path, scene(2))
    Image.fromarray(scene(1, 20, 30)[0]).save(tmp_path / "img_2.png")
    message = r"img_2\.png: is 20 x 30 px \(height x width\), but the first frame .* is 48 x 64"
    with pytest.raises(VideoError, match=message):
        read_frames(tmp_path, [0, 2])


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="the folder is empty; expected a video, or a folder with"):
        probe(tmp_path)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(
        VideoError, match=r"the folder holds \.txt 1; expected a video, or a folder"
    ):
        probe(tmp_path)
    (tmp_path / "x.mp4").touch()
    with pytest.raises(
        VideoError, match=r"holds videos, such as x\.mp4, which are given one by one"
    ):
        probe(tmp_path)


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(VideoError, match=r"x: cannot be opened \(Not a directory\)"):
        FrameFolder(tmp_path / "x", VideoLimits())


@pytest.mark.parametrize("damage", ["cut off", "garbage", "empty"])
def test_damaged_images_are_named(damage: str, tmp_path: Path) -> None:
    save(tmp_path, scene(3))
    file = tmp_path / "img_1.png"
    data = {
        "cut off": file.read_bytes()[: file.stat().st_size // 2],
        "garbage": b"x" * 999,
        "empty": b"",
    }[damage]
    file.write_bytes(data)
    assert numbers(read_frames(tmp_path, [2, 0])) == [2, 0]
    with pytest.raises(VideoError, match=r"img_1\.png: cannot be read as an image \("):
        read_frames(tmp_path, [0, 1])


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    save(tmp_path, scene(3))
    with VideoReader(tmp_path) as reader:
        (tmp_path / "img_2.png").unlink()
        with pytest.raises(VideoError, match=r"img_2\.png: cannot be read as an image"):
            reader.read([2])


@pytest.mark.parametrize("script", ["%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "<svg/>"])
def test_only_plain_pictures_are_opened(script: str, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_text(script)
    with pytest.raises(VideoError, match="cannot be read as an image"):
        probe(tmp_path)


def test_limits(tmp_path: Path) -> None:
    save(tmp_path, scene(3))
    exact = VideoLimits(max_pixels=48 * 64, max_frames=3)
    assert probe(tmp_path, limits=exact).num_frames == 3
    with pytest.raises(VideoError, match="it has 3 frames or more, above the limit of 2"):
        probe(tmp_path, limits=VideoLimits(max_frames=2))
    with pytest.raises(VideoError, match=r"img_0\.png: its frames have 3,072 pixels, above the"):
        probe(tmp_path, limits=VideoLimits(max_pixels=3071))
    with (
        VideoReader(tmp_path, limits=VideoLimits(max_decode_seconds=1e-9)) as reader,
        pytest.raises(VideoError, match="reading took more than 1e-09 seconds"),
    ):
        reader.read([0])


def png_that_claims(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises a picture of any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def test_decompression_bombs_are_refused_unopened(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png_that_claims(9000, 9000))
    with pytest.raises(VideoError, match="its frames have 81,000,000 pixels, above the limit"):
        probe(tmp_path)
    (tmp_path / "0.png").write_bytes(png_that_claims(100_000, 100_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(
            VideoError, match="Pillow itself refuses more, whatever VideoLimits say"
        ):
            probe(tmp_path, limits=VideoLimits(max_pixels=10**11))


def test_folders_are_read_anew_each_time(tmp_path: Path) -> None:
    folder = save(tmp_path / "video", scene(3))
    assert probe(folder).num_frames == 3
    shutil.copy(folder / "img_0.png", folder / "img_3.png")
    assert probe(folder).num_frames == 4


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    def touch(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    return touch


def test_folders_stand_for_their_videos(tree: Callable[[str], Path], tmp_path: Path) -> None:
    videos = [tree("b/2.mp4"), tree("b/10.MKV"), tree("a/x.gif"), tree("top.webm")]
    tree("labels.txt"), tree(".hidden/3.mp4"), tree("b/.4.mp4"), tree("b/notes.txt")
    frames = tree("c/clip/1.jpg").parent
    tree("c/clip/2.jpg"), tree("c/clip/more/9.mp4"), tree("b/poster.png")
    found = find_videos(tmp_path)
    assert found == [videos[3], videos[2], videos[1], videos[0], frames]
    assert find_videos(frames) == [frames]
    assert find_videos(videos[0]) == [videos[0]]


def test_what_holds_no_videos_is_kept_for_its_error(
    tree: Callable[[str], Path], tmp_path: Path
) -> None:
    tree("empty/readme.txt")
    assert find_videos(tmp_path / "empty") == [tmp_path / "empty"]
    assert find_videos(tmp_path / "gone.mp4") == [tmp_path / "gone.mp4"]


def test_what_is_passed_over_has_its_reason(tree: Callable[[str], Path], tmp_path: Path) -> None:
    taken = [tree("a/1.mp4"), tree("a/2.M2TS"), tree("b/3.vob")]
    tree("a/1.srt"), tree("a/poster.jpg"), tree("cover.png"), tree(".git/config"), tree("b/.x.mp4")
    frames = tree("c/0.jpg").parent
    tree("c/1.jpg"), tree("c/2.jpg")
    tree("c/thumbs/4.jpg"), tree("b/README")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    scan = scan_folder(tmp_path)
    assert scan.videos == [*taken, frames]
    assert {str(path.relative_to(tmp_path)): why for path, why in scan.passed_over.items()} == {
        ".git": "hidden",
        "cover.png": "picture above videos",
        "a/1.srt": ".srt",
        "a/poster.jpg": "picture beside videos",
        "b/.x.mp4": "hidden",
        "b/README": "no suffix",
        "b/up": "link to a folder that it lies in",
        "c/thumbs": "below a folder of frames",
    }


def test_links_to_folders_are_followed(tree: Callable[[str], Path], tmp_path: Path) -> None:
    tree("elsewhere/1.mp4")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "run").symlink_to(tmp_path / "elsewhere")
    assert find_videos(tmp_path / "data") == [tmp_path / "data" / "run" / "1.mp4"]


def test_deep_folders_and_nested_links_end(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.joinpath(*["d"] * 210).mkdir(parents=True)
    (found,) = scan_folder(deep).unreadable.values()
    assert found.endswith("/d: lies below more than 200 folders; move it further up")
    levels = [tmp_path / "links" / str(k) for k in range(15)]
    for level in levels:
        level.mkdir(parents=True)
    for level, below in itertools.pairwise(levels):
        (level / "a").symlink_to(below), (level / "b").symlink_to(below)
    scan = scan_folder(levels[0])
    assert len(scan.unreadable) == 2**5
    assert "lies below more than 4 links" in next(iter(scan.unreadable.values()))


def test_a_folder_that_cannot_be_opened_is_named(
    tree: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, closed = tree("a/1.mp4"), tree("closed/2.mp4").parent
    really_scan = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return really_scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    scan = scan_folder(tmp_path)
    assert (scan.videos, list(scan.unreadable)) == ([video], [closed])
    assert scan.unreadable[closed].endswith("closed: cannot be opened (Permission denied)")
    assert find_videos(tmp_path) == [video, closed]
    with pytest.raises(VideoError, match=r"closed: cannot be opened \(Permission denied\)"):
        probe(closed)
    with pytest.raises(
        ConfigError, match=r"\(Permission denied\); make it readable, or move it out"
    ):
        load_videos(tmp_path)
    result = prepare(PrepareSettings(tmp_path, tmp_path.parent / "out"))
    assert [row.origin for row in result.survey.unreadable] == ["a/1.mp4", "closed"]
