import io
import json
import os
import sys
from pathlib import Path, PureWindowsPath

import pytest

from made_videos import encode, scene
from videomae.commands import cli
from videomae.data.manifest import load_videos
from videomae.data.prepare import prepare
from videomae.errors import (
    as_text,
    complain,
    file_name,
    going_on,
    one_line,
    parse_json,
    reason_of,
    to_json,
)
from videomae.hub import read_json, write_json
from videomae.recipe import read_recipe, write_recipe
from videomae.settings import FinetuneSettings, PrepareSettings

LATIN_1 = os.fsdecode(b"caf\xe9")  # as Python has the name of a file that is no UTF-8


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        (LATIN_1, r"caf\xe9", r"caf\xe9"),
        ("é 网球 😀", "é 网球 😀", "é 网球 😀"),
        ("a\nb\tc", "a\nb\tc", r"a\nb\tc"),
        ("\x1b[2J\x9b1m\x07", "\x1b[2J\x9b1m\x07", r"\x1b[2J\x9b1m\x07"),
        ("gpj.\u202e4pm", "gpj.\u202e4pm", r"gpj.\u202e4pm"),
        ("\ud83d alone", r"\ud83d alone", r"\ud83d alone"),
    ],
)
def test_names_become_text_that_can_be_written_and_shown(name: str, text: str, line: str) -> None:
    assert (as_text(name), one_line(name)) == (text, line)
    assert as_text(name).encode()
    assert one_line(name).encode()
    assert json.loads(to_json({name: [name]}).encode()) == {text: [text]}


def test_files_of_settings_and_results_hold_any_name(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"path": LATIN_1})
    assert read_json(tmp_path / "x.json") == {"path": r"caf\xe9"}
    write_recipe(FinetuneSettings(data=Path(LATIN_1)), tmp_path / "settings.toml")
    assert read_recipe(tmp_path / "settings.toml")["data"] == r"caf\xe9"


def test_a_name_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = ["a\x1b[2J.mp4", "b\nc.mp4", f"{LATIN_1}.mp4"]
    for name in names:
        encode(tmp_path / "x.mp4", scene(4)).rename(tmp_path / name)
    assert cli.main(["probe", *(str(tmp_path / name) for name in [*names, "\x1b[3Jgone"])]) == 1
    out, err = capsys.readouterr()
    assert [line.split("  ")[0].rpartition("/")[2] for line in out.splitlines()] == [
        r"a\x1b[2J.mp4", r"b\nc.mp4", r"caf\xe9.mp4",
    ]  # fmt: skip
    assert r"\x1b[3Jgone: there is no such file" in err
    cli.main(["probe", "--json", *(str(tmp_path / name) for name in names)])
    paths = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
    assert paths == [str(tmp_path / name) for name in names[:2]] + [f"{tmp_path}/caf\\xe9.mp4"]


def test_an_output_without_the_letters_is_no_reason_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = encode(tmp_path / "x.mp4", scene(4)).rename(tmp_path / "网球.mp4")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["probe", str(path)]) == 0
    out.seek(0)
    assert r"\u7f51\u7403" in out.read()


def test_a_class_of_any_name_goes_all_the_way(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in (LATIN_1, "网球"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            encode(tmp_path / "data" / split / name / "x.mp4", scene(4))
    prepared = prepare(PrepareSettings(tmp_path / "data", tmp_path / "out"))
    assert prepared.manifest
    expected = (r"caf\xe9", "网球")
    for data in (prepared.manifest, tmp_path / "data"):
        videos = load_videos(data, None)
        assert videos.classes == expected
        assert sorted({video.label for video in videos.items}) == list(expected)
        assert all(Path(video.path).is_file() for video in videos.items)


def test_a_report_that_cannot_be_written_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    why = r"x.png could not be written \(OSError: full\); all else goes on"
    with pytest.warns(UserWarning, match=why), going_on("x.png"):
        raise OSError("full")
    complain("a\x1b[2Jb\n  c")
    assert capsys.readouterr().err == "videomae: a\\x1b[2Jb c\n"


def test_json_has_no_word_for_what_is_not_finite() -> None:
    values = {"é": [float("nan"), 1.5], "x": {"y": float("-inf")}}
    assert to_json(values) == '{"é": [null, 1.5], "x": {"y": null}}'
    assert to_json({"x": {float("inf")}}, default=list) == '{"x": [null]}'


def test_json_is_refused_where_a_copy_of_it_would_recurse_too_deeply() -> None:
    assert parse_json('{"a": [[{"b": 1}]]}') == {"a": [[{"b": 1}]]}
    for text in ("[" * 101 + "]" * 101, '{"a":' * 500 + "1" + "}" * 500):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Re-run with `weights_only=False`.\nplease: WeightsUnpickler error: no", "no"),
        ("Pass `weights_only=False`.\nit is short", "it is short"),
        ("Pass `weights_only=False`.", "ValueError"),
        ("", "ValueError"),
        ("\nfirst\nsecond", "first"),
    ],
)
def test_no_advice_to_run_what_is_in_a_file_is_passed_on(text: str, reason: str) -> None:
    assert reason_of(ValueError(text)) == reason


@pytest.mark.parametrize(
    "text",
    [
        *(
            "../../X",
            "/abs/X",
            "..",
            ".",
            "",
            "a/b",
            "C:\\X",
            "\\\\host\\x",
            "CON",
            "nul.mp4",
            "com1",
        ),
        *("x.", "x ", "a\0b", "a\x1b[2J", "a\nb", "x" * 5000, "é" * 300, "\ud800", "a:b", "?", "~"),
    ],
)
def test_a_name_of_a_file_leads_nowhere_and_stands_for_one_text(text: str, tmp_path: Path) -> None:
    name = file_name(text)
    assert Path(name).name == PureWindowsPath(name).name == name
    assert name not in ("", ".", "..")
    assert (tmp_path / name).parent == tmp_path
    (tmp_path / name).write_text("")
    assert name != file_name(f"{text}x")
    assert file_name("train") == "train"
    assert file_name("Ein Name (2).mp4") == "Ein Name (2).mp4"
    assert file_name(LATIN_1) == LATIN_1
