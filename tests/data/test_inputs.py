import io
import os
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pytest

from videomae.data.inputs import list_inputs, name_of, video_named
from videomae.data.manifest import Video, write_manifest
from videomae.data.manifest import Videos as VideoList
from videomae.data.opening import open_video, read_bytes
from videomae.errors import ConfigError


def put_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def zipped(name: str, data: bytes) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


def test_folders_and_files_are_the_videos_in_them(videos_dir: Path, tmp_path: Path) -> None:
    found = list_inputs(str(videos_dir))
    assert [video.path for video in found] == sorted(map(str, videos_dir.rglob("*.mp4")))
    assert {video.label for video in found} == {""}
    assert list_inputs(found[0].path) == found[:1]
    with pytest.raises(ConfigError, match="gone does not exist; expected a folder, a video"):
        list_inputs(str(tmp_path / "gone"))
    os.mkfifo(tmp_path / "pipe")  # as <(...) of a shell
    with pytest.raises(ConfigError, match="pipe is a device or pipe, and what lists videos"):
        list_inputs(str(tmp_path / "pipe"))
    (tmp_path / "pipe").unlink()
    (tmp_path / "a.odd").touch()
    with pytest.raises(ConfigError, match=r"holds no videos; it holds \.odd 1"):
        list_inputs(str(tmp_path))


def test_lists_of_any_kind_name_videos_with_their_parts(videos_dir: Path, tmp_path: Path) -> None:
    one = str(videos_dir / "throw" / "0.mp4")
    parts = (Video(one, "throw", "val", 0.5, 1.0), Video(one, "walk", "test"))
    write_manifest(tmp_path, VideoList(parts, ("throw", "walk")))
    for source in (tmp_path, tmp_path / "manifest.csv"):
        found = list_inputs(str(source))
        assert found == [Video(one, start_seconds=0.5, end_seconds=1.0), Video(one)]
        assert [name_of(video) for video in found] == [one, one]
    lines = tmp_path / "all.txt"
    lines.write_text(f"{one} 0\ngone.mp4 1\nmemory://b/x.mp4 1\n")
    assert [video.path for video in list_inputs(str(lines), allow_addresses=True)] == [
        one, "memory://b/x.mp4", str(tmp_path / "gone.mp4"),
    ]  # fmt: skip


def test_a_manifest_keeps_its_order_and_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("path,label,num_frames\nb.mp4,x,\n,x,\n/gone/a.mp4,,7\nb/c.mp4,x,-1\n")
    assert list_inputs(str(path)) == [
        Video(str(tmp_path / "b.mp4")),
        Video("manifest.csv, line 3"),
        Video("/gone/a.mp4", num_frames=7),
        Video("manifest.csv, line 5"),
    ]
    path.write_text("path\ns3://b/x.mp4\n")
    with pytest.raises(ConfigError, match=r"names addresses, 1 such as s3:..b.x\.mp4"):
        list_inputs(str(tmp_path))
    assert list_inputs(str(tmp_path), allow_addresses=True) == [Video("s3://b/x.mp4")]
    path.write_text("path,num_frames\na.mp4,many\nb.mp4,few\n")
    with pytest.raises(ConfigError, match=r"csv, line 2: num_frames='many' is no .*for all of 2"):
        list_inputs(str(path))


def test_members_of_tars_have_addresses_of_their_own(videos_dir: Path, tmp_path: Path) -> None:
    data = (videos_dir / "throw" / "0.mp4").read_bytes()
    tar = put_tar(tmp_path / "x.tar", {"a/1.mp4": data, "a/1.cls": b"3", "2.mp4": data[:9]})
    for source in (tar, tmp_path):
        first, second = list_inputs(str(source))
        assert name_of(first) == f"tar://a/1.mp4::{tar}"
        assert name_of(second) == f"tar://2.mp4::{tar}"
        assert first.offset
        assert read_bytes(first) == data
        assert read_bytes(second) == data[:9]
        with open_video(Video(name_of(first))) as reader:  # found again by its name alone
            assert reader.info.num_frames == 8
    # Rows of a manifest know the place, not the name.
    assert name_of(Video(str(tar), offset=512, num_bytes=9)) == f"{tar} (offset=512, num_bytes=9)"


def test_addresses_are_searched(videos_dir: Path, tmp_path: Path) -> None:
    data = (videos_dir / "throw" / "0.mp4").read_bytes()
    tar = put_tar(tmp_path / "x.tar", {"1.mp4": data})
    memory = fsspec.filesystem("memory")
    for name, content in {"b.mp4": data, "a/c.mp4": data, "n.txt": b"no", "x.tar": tar}.items():
        memory.pipe_file(
            f"/inputs/{name}", content if isinstance(content, bytes) else content.read_bytes()
        )
    found = list_inputs("memory://inputs")
    assert [name_of(video) for video in found] == [
        "memory:///inputs/a/c.mp4", "memory:///inputs/b.mp4",
        "tar://1.mp4::memory:///inputs/x.tar",
    ]  # fmt: skip
    assert {read_bytes(video) for video in found} == {data}
    assert list_inputs("memory://inputs/*.mp4") == found[1:2]
    assert list_inputs("memory://inputs/b.mp4") == found[1:2]
    memory.pipe_file("/inputs/y.zip", zipped("1.mp4", data))
    for member in ("*.mp4", "1.mp4"):
        (video,) = list_inputs(f"zip://{member}::memory://inputs/y.zip")
        assert name_of(video) == "zip://1.mp4::memory://inputs/y.zip"
        assert read_bytes(video) == data
    with pytest.raises(ConfigError, match=r"n\.txt holds no videos or tars of them; lists are"):
        list_inputs("memory://inputs/n.txt")
    with pytest.raises(ConfigError, match="nosuch://x cannot be searched"):
        list_inputs("nosuch://x")


@pytest.mark.parametrize(
    "video",
    [
        Video("a.mp4"),
        Video("frames (2)", first_frame=0, num_frames=8),
        Video("a.tar (offset=1, num_bytes=2)", offset=512, num_bytes=99),
        Video("tar://a (offset=1).mp4::b.tar"),
    ],
)
def test_a_name_in_a_table_finds_its_video(video: Video) -> None:
    assert video_named(name_of(video)) == video
