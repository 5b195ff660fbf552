"""The limits themselves; what keeps to them is tested where it reads."""

from contextlib import suppress
from pathlib import Path
from typing import get_args

import av
import pytest

from videomae import settings
from videomae.errors import ConfigError, VideoError
from videomae.video import limits
from videomae.video.limits import CONTAINERS, VIDEO_SUFFIXES, DecodeClock, VideoLimits

PATH = Path("x.mp4")


def test_what_a_camera_makes_passes() -> None:
    limits = VideoLimits()
    limits.check(PATH, max_pixels=7680 * 4320, max_duration_seconds=7200.0, max_frames=7200 * 60)
    limits.check(PATH, max_pixels=None)  # unknown
    limits.check(PATH)


def test_a_limit_is_the_last_value_that_passes() -> None:
    limits = VideoLimits(max_frames=10)
    limits.check(PATH, max_frames=10)
    with pytest.raises(VideoError) as caught:
        limits.check(PATH, max_frames=11)
    assert str(caught.value) == (
        "x.mp4: it has 11 frames or more, above the limit of 10; if you trust the file, raise it: "
        "limits=VideoLimits(max_frames=11)"
    )


def test_the_advice_suffices() -> None:
    with pytest.raises(VideoError, match=r"VideoLimits\(max_duration_seconds=4\)"):
        VideoLimits(max_duration_seconds=2).check(PATH, max_duration_seconds=3.2)
    VideoLimits(max_duration_seconds=4).check(PATH, max_duration_seconds=3.2)


@pytest.mark.parametrize(
    "name", ["max_pixels", "max_duration_seconds", "max_frames", "max_decode_seconds"]
)
def test_limits_are_above_zero(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{name}=0 is not above 0; leave it out for the default"
    ):
        VideoLimits(**{name: 0})


def test_the_clock_starts_anew() -> None:
    clock = DecodeClock(PATH, VideoLimits(max_decode_seconds=1e-9))
    with pytest.raises(VideoError, match=r"x\.mp4: reading took more than 1e-09 seconds"):
        clock.check()
    clock._seconds = 1000.0
    clock.restart()
    clock.check()


def test_suffixes_are_lower_case() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in VIDEO_SUFFIXES)


def test_suffixes_are_those_that_ffmpeg_names_for_what_is_read() -> None:
    not_pictures = {"m4a", "m4b", "isma", "mka", "mks", "wma"}
    not_videos = {"avif", "heic", "heif"}
    # of players, of a description that names files, and a codec of before the standard
    rare = {"psp", "ism", "h26l"}
    for container in CONTAINERS:
        known = set(av.ContainerFormat(container, "r").extensions)
        with suppress(ValueError):
            known |= av.ContainerFormat(container, "w").extensions
        names = {suffix[1:] for suffix in CONTAINERS[container].split()}
        assert not known - names - not_pictures - not_videos - rare, container


def test_what_is_done_about_damage_has_one_set_of_names() -> None:
    assert get_args(limits.OnDamage) == get_args(settings.OnDamage)
