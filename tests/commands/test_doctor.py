"""What `doctor` says, and that it fails where something is broken."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from videomae.commands import cli
from videomae.commands import doctor as command
from videomae.config import VideoMAEConfig
from videomae.inference import engines
from videomae.video import container


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks, which take a second, are all well."""
    monkeypatch.setattr(command, "CHECKS", {"decode a video": lambda: "decoded"})


def ask(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = cli.main(["doctor", "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, report


def test_all_is_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = ask(capsys)
    assert (code, report["verdict"]) == (0, "all is well"), report["checks"]
    assert report["checks"]["decode a video"]["words"].startswith("32 frames written and read, ")
    assert report["checks"]["classify a clip"]["words"].startswith("lie_down, 0.")
    assert {"videomae", "torch", "av", "ffmpeg", "cores", "threads"} <= set(report["environment"])
    assert {"h264", "gif"} <= set(report["decoders"])
    assert set(report["choices"]) == {"precision", "actions-tiny", "ViT-B (base)"}


@pytest.mark.usefixtures("well")
def test_a_person_reads_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for title in ("here", "what auto takes", "kinds of video", "places", "checks", "all is well"):
        assert f"{title}\n" in shown
    assert "decode a video   decoded" in shown


@pytest.mark.usefixtures("well")
def test_places_are_told_without_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VIDEOMAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "engines" / "x").mkdir(parents=True)
    (tmp_path / "cache" / "engines" / "x" / "model.bin").write_bytes(bytes(5))
    code, report = ask(capsys)
    assert code == 0
    place = {"path": "~/cache/engines", "bytes": 5, "reason": None}
    assert report["places"]["converted models"] == place
    assert str(tmp_path) not in json.dumps(report)


@pytest.mark.usefixtures("well")
def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDEOMAE_CACHE", str(tmp_path / "file"))
    code, report = ask(capsys)
    assert (code, report["verdict"]) == (
        0,
        "works, but there is no place to write converted models",
    )
    assert "is a file" in report["places"]["converted models"]["reason"]


def test_what_is_broken_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "write_video", lambda *_: 1 / 0)
    known = {"known_clip": {"label": "walk", "score": 0.5}}
    monkeypatch.setattr(command, "read_json", lambda _: known)
    code, report = ask(capsys)
    assert code == 1
    assert report["verdict"] == "broken: decode a video, classify a clip"
    found = report["checks"]["decode a video"]
    assert found == {"ok": False, "words": "ZeroDivisionError: division by zero"}
    assert "and walk (0.500) is right" in report["checks"]["classify a clip"]["words"]


class Reader:
    """A video that is not what was written."""

    def __init__(self, frames: Any) -> None:
        self.frames, self.info = frames, type("Info", (), {"num_frames": len(frames)})

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, _: Any) -> Any:
        return self.frames


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (np.zeros((31, 64, 64, 3), np.uint8), r"\(32, 64, 64, 3\) was written, \(31, 64, 64, 3\)"),
        (np.zeros((32, 64, 64, 3), np.uint8), r"pixels came back [\d.]+ levels of 255 off"),
    ],
)
def test_wrong_pixels_are_noticed(
    frames: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "VideoReader", lambda _: Reader(frames))
    with pytest.raises(ValueError, match=expected):
        command._decode()


def test_a_broken_installation_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "videomae.commands.doctor", None)
    assert cli.main(["doctor"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("videomae: broken: ")
    assert error.endswith("install videomae anew in a fresh environment\n")


def test_a_codec_that_is_not_there_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(container._USUAL_CODECS, "h264", "no_such_decoder")
    release, decoded = container.ffmpeg_facts()
    assert release == av.ffmpeg_version_info
    assert not decoded["h264"]
    assert decoded["gif"]


def test_the_choice_of_an_engine_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    cpu, base = torch.device("cpu"), VideoMAEConfig.preset("base")
    monkeypatch.setattr(engines, "cpu_multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(engines, "onednn_outruns_mkl", lambda: False)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda _: None)
    reasons = {
        ("base", "cuda", "bfloat16"): "nothing else runs on cuda",
        ("tiny", "cpu", "bfloat16"): "to convert a model narrower than 384 never pays",
        ("base", "cpu", "float32"): "nothing was measured to be faster in float32",
        ("base", "cpu", "bfloat16"): "OpenVINO would be faster here: pip install",
    }
    for (size, device, precision), reason in reasons.items():
        config = VideoMAEConfig.preset(size)
        engine, found = engines.choose(config, torch.device(device), precision)
        assert engine == "torch"
        assert found.startswith(reason)
    assert engines.choose(base, cpu, "int8")[1] == "nothing else computes in int8"
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda _: True)
    assert engines.choose(base, cpu, "bfloat16")[1].startswith("it was measured to be the fastest")
