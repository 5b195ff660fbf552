"""Files that are damaged, hostile, or too large."""

import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from made_videos import encode, full_decode, join, make, numbers, scene
from videomae.errors import VideoError
from videomae.video import container
from videomae.video.decoder import VideoFile
from videomae.video.limits import VideoLimits
from videomae.video.reader import VideoReader, probe, read_frames

DAMAGED = r"is damaged or cut off; frames readable from its beginning on: (\d+)( of \d+)?\. Get"


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("kind", ["faststart", "vp9", "gif", "mjpeg-avi"])
def test_files_cut_off_tell_how_many_frames_are_left(
    kind: str, share: float, tmp_path: Path
) -> None:
    if kind == "faststart":  # the index comes first, so that it tells what is missing
        options = {"movflags": "+faststart"}
        path = encode(tmp_path / "x.mp4", scene(60), container_options=options)
    else:
        path = make(kind, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError, match=DAMAGED) as caught:
        probe(path)
    found = re.search(DAMAGED, str(caught.value))
    assert found
    assert 60 * share - 22 < int(found[1]) < 60
    assert found[2] == (None if kind in ("vp9", "gif") else " of 60")


def test_a_fragmented_mp4_cut_off(tmp_path: Path) -> None:
    path = make("fragmented", tmp_path)  # five fragments of twelve frames
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"mdat") + 20])
    with pytest.raises(VideoError, match=DAMAGED) as caught:
        probe(path)
    assert "beginning on: 48" in str(caught.value)


def test_a_transport_stream_with_a_hole(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.ts", scene(30), codec="mpeg2video")
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 30] + data[188 * 31 :])
    with pytest.raises(VideoError, match=DAMAGED):
        probe(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_without_its_index_an_mp4_cannot_be_opened(share: float, tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)  # the index is at the end
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError, match=r"is an mp4 without its whole index \(moov\)"):
        probe(path)


def test_an_avi_without_its_index_is_read(tmp_path: Path) -> None:
    path = make("mpeg4-avi", tmp_path)
    expected = full_decode(path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"idx1") + 20])
    assert probe(path).num_frames == 60
    np.testing.assert_array_equal(read_frames(path, [59, 7]), expected[[59, 7]])


def test_damage_in_the_middle(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp4", scene(60), codec_options={"g": "12", "bf": "0"})
    expected = full_decode(path)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    position, size = packets[30]
    data[position + 8 : position + size] = random.Random(0).randbytes(size - 8)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        assert reader.info.num_frames == 60
        np.testing.assert_array_equal(reader.read([50, 3, 29]), expected[[50, 3, 29]])
        for indices in ([30], [33], [2, 35]):
            with pytest.raises(VideoError, match=r"from its beginning on: (29|30) of 60\."):
                reader.read(indices)


def test_a_frame_that_gets_lost_shifts_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("b-frames", tmp_path)
    decode = VideoFile._decode
    lost = 20 * 512  # the time of frame 20

    def decode_all_but_one(self: VideoFile, packets: Any) -> Any:
        return (frame for frame in decode(self, packets) if frame.pts != lost)

    monkeypatch.setattr(VideoFile, "_decode", decode_all_but_one)
    with VideoReader(path) as reader:
        assert numbers(reader.read([19, 21, 40])) == [19, 21, 40]
        with pytest.raises(VideoError, match=r"from its beginning on: 59 of 60\."):
            reader.read([3, 20, 40])


def test_damage_at_the_beginning(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp4", scene(30), codec_options={"bf": "0"})
    with av.open(str(path)) as container:
        first = next(container.demux(video=0))
        position, size = first.pos, first.size
    data = bytearray(path.read_bytes())
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"from its beginning on: 0 of 30\."):
        probe(path)


@pytest.mark.parametrize("data", [b"\0" * 5000, random.Random(1).randbytes(5000), b"hello"])
@pytest.mark.parametrize("name", ["x.mp4", "x.avi", "x"])
def test_no_video_at_all(data: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VideoError, match="0 frames are readable"):
        probe(tmp_path / name)


# Hostile files: a secret video lies beside them


def playlist(secret: Path) -> str:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n"


def concat_script(secret: Path) -> str:
    return f"ffconcat version 1.0\nfile '{secret}'\n"


def dash_manifest(secret: Path) -> str:
    return f"""<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="urn:mpeg:dash:profile:full:2011"
 mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="1"><BaseURL>{secret}</BaseURL></Representation>
</AdaptationSet></Period></MPD>"""


def session_description(_secret: Path) -> str:
    return (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )


def windows_playlist(secret: Path) -> str:
    return f'<ASX version="3.0"><ENTRY><REF HREF="{secret}"/></ENTRY></ASX>'


def image_markup(secret: Path) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{secret}"/></svg>'


@pytest.mark.parametrize(
    "script",
    [
        playlist,
        concat_script,
        dash_manifest,
        session_description,
        windows_playlist,
        image_markup,
    ],
)
@pytest.mark.parametrize("name", ["x.mp4", "x.m3u8", "x.ffconcat", "x.mpd", "x.sdp"])
def test_scripts_that_name_other_files_are_refused(
    script: Callable[[Path], str], name: str, tmp_path: Path
) -> None:
    secret = make("fragmented", tmp_path).rename(tmp_path / "secret.mp4")
    (tmp_path / name).write_text(script(secret))
    with pytest.raises(VideoError, match="is a playlist, script or markup, which names other"):
        probe(tmp_path / name)


def test_the_scripts_would_have_worked(tmp_path: Path) -> None:
    secret = make("fragmented", tmp_path).rename(tmp_path / "secret.mp4")
    (tmp_path / "x.ffconcat").write_text(concat_script(secret))
    with av.open(str(tmp_path / "x.ffconcat"), options={"safe": "0"}) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60
    (tmp_path / "x.m3u8").write_text(playlist(secret))
    with av.open(str(tmp_path / "x.m3u8")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60


def test_image_patterns_are_just_missing_files(tmp_path: Path) -> None:
    for number in range(3):
        with av.open(str(tmp_path / f"{number}.png"), "w", format="image2") as container:
            stream = container.add_stream("png", rate=1)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene(1)[0])))
    with av.open(str(tmp_path / "%d.png")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
    with pytest.raises(VideoError, match="there is no such file or folder"):
        probe(tmp_path / "%d.png")
    with pytest.raises(
        VideoError, match="is a single picture; expected a video, or a folder of pictures"
    ):
        probe(tmp_path / "1.png")


def with_pictures_elsewhere(path: Path, secret: Path) -> None:
    """Make the video track of an mp4 (index last) point to the data of another file."""
    record = bytes(10) + bytes([1]) + b"v".ljust(27, b"\0") + bytes(12)
    record += bytes([len(secret.name)]) + secret.name.encode().ljust(63, b"\0") + bytes(16)
    record += struct.pack(">hh", 0, 0) + bytes(16)
    full = str(secret).encode()
    full += bytes(len(full) % 2)
    record += struct.pack(">hh", 2, len(full)) + full + struct.pack(">hh", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    data = bytearray(path.read_bytes())
    at = data.index(b"dref")
    assert data[at + 12 : at + 24] == struct.pack(">I4sI", 12, b"url ", 1)
    data[at + 12 : at + 24] = entry
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = data.index(box)
        size = struct.unpack(">I", data[at - 4 : at])[0]
        data[at - 4 : at] = struct.pack(">I", size + len(entry) - 12)
    path.write_bytes(data)


def test_an_mp4_cannot_take_its_pictures_from_another_file(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(path.read_bytes())
    with_pictures_elsewhere(path, secret)
    mdat = path.read_bytes().index(b"mdat")
    data = bytearray(path.read_bytes())
    data[mdat + 4 : mdat + 2000] = bytes(1996)  # so that the pictures are in the other file only
    path.write_bytes(data)
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), options=options) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60  # it would have worked
    with pytest.raises(VideoError, match=r"is damaged or cut off; .* beginning on: 0"):
        probe(path)


def test_whatever_else_ffmpeg_tries_to_open_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("b-frames", tmp_path)
    with_pictures_elsewhere(path, tmp_path / "secret")
    unsafe = {"enable_drefs": "1", "use_absolute_path": "1"}
    really_open = av.open

    def open_unsafely(*args: Any, options: dict[str, str], **rest: Any) -> Any:
        return really_open(*args, options=options | unsafe, **rest)

    monkeypatch.setattr(av, "open", open_unsafely)
    with pytest.raises(VideoError, match=r"to another file or address \(.*secret\); refused"):
        probe(path)


def test_addresses_are_refused_even_where_ffmpeg_opens_files_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("b-frames", tmp_path)
    monkeypatch.setattr(container, "CONTAINERS", (*container.CONTAINERS, "concat"))
    (tmp_path / "x").write_text(concat_script(path))
    with pytest.raises(VideoError, match="is a playlist, script or markup, which names other"):
        probe(tmp_path / "x")


# Limits


def test_limit_of_pixels(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    assert probe(path, limits=VideoLimits(max_pixels=48 * 64)).num_frames == 60
    message = (
        r"frames have 3,072 pixels, above the limit of 3,071; .*VideoLimits\(max_pixels=3072\)"
    )
    with pytest.raises(VideoError, match=message):
        probe(path, limits=VideoLimits(max_pixels=48 * 64 - 1))


def test_limit_of_pixels_holds_for_frames_that_grow(tmp_path: Path) -> None:
    path = join(tmp_path, scene(10), scene(10, 480, 640))
    with pytest.raises(VideoError, match="is damaged or cut off; frames readable"):
        probe(path, limits=VideoLimits(max_pixels=48 * 64))


def test_limit_of_frames(tmp_path: Path) -> None:
    for kind in ("b-frames", "vp9", "mpeg4-avi", "transport-stream"):
        path = make(kind, tmp_path)
        assert probe(path, limits=VideoLimits(max_frames=60)).num_frames == 60
        with pytest.raises(VideoError, match="frames or more, above the limit of 59; if"):
            probe(path, limits=VideoLimits(max_frames=59))


def test_limit_of_duration(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    assert probe(path, limits=VideoLimits(max_duration_seconds=2.5)).num_frames == 60
    message = r"it lasts 2 seconds, above the limit of 1; .*VideoLimits\(max_duration_seconds=3\)"
    with pytest.raises(VideoError, match=message):
        probe(path, limits=VideoLimits(max_duration_seconds=1))
    path = encode(tmp_path / "y.mkv", scene(2), fps=1, times=[0, 100_000])
    with pytest.raises(VideoError, match=r"it lasts 100,00\d seconds, above the limit of 21,600"):
        probe(path)


def test_limit_of_seconds(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    message = r"took more than 1e-09 seconds; .*VideoLimits\(max_decode_seconds=2e-09\)"
    with pytest.raises(VideoError, match=message):
        probe(path, limits=VideoLimits(max_decode_seconds=1e-9))
    with VideoReader(path) as reader:
        reader._source.clock._seconds = 1e-9  # for the read, not for opening
        with pytest.raises(VideoError, match="took more than 1e-09 seconds"):
            reader.read([40])
        reader._source.clock._seconds = 100
        assert numbers(reader.read([40, 2])) == [40, 2]
