"""A sample of `fuzz/decode_oracle.py`, which compares every frame of some 600 files."""

from pathlib import Path

import pytest

from fuzz.decode_oracle import Case, cases, check

SAMPLE = (
    "mp4 libx265",
    "matroska libvpx-vp9",
    "avi mpeg4",
    "gif gif",
    "mpegts, h264 open",
    "mp4, rotated by 90",
    "mp4, negative_cts_offsets",
    "mp4, edit list of the end first, h264 open",
    "matroska, end_as_decoded, h264 open",
    "mp4, second_half_first, hevc open",
    "mp4 without ctts, h264 deep",
    "mp4 without stss, mpeg4",
    "avi, packed B-frames",
    "mpeg, joined 2 times, mpeg2 open",
    "matroska libx264, cut_off",
)
ALL = {case.name: case for case in cases()}


@pytest.mark.parametrize("case", [ALL[name] for name in SAMPLE], ids=lambda case: case.name)
def test_each_frame_is_that_of_a_plain_decode(case: Case, tmp_path: Path) -> None:
    result = check(case, tmp_path)
    assert not result.wrong
    assert not result.refused
    assert result.num_read > 8 * result.num_frames
