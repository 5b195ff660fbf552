"""One bad entry of a list costs that entry: the rest is prepared, and its reason is told."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from made_videos import encode, scene
from videomae.commands import cli
from videomae.data.manifest import load_videos, read_manifest
from videomae.data.prepare import Prepared, prepare
from videomae.errors import ConfigError, parse_json
from videomae.hub import read_json
from videomae.settings import PrepareSettings

DEEP = "[" * 100_000
LONG = "9" * 5000


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return encode(tmp_path_factory.mktemp("video") / "x.mp4", scene(8, 16, 16)).read_bytes()


@pytest.fixture
def folder(tmp_path: Path, video: bytes) -> Path:
    """Three videos that differ in a byte behind their end."""
    for number in range(3):
        path = tmp_path / "videos" / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(video + bytes([0, 0, 0, 9]) + b"free" + bytes([number]))
    return tmp_path


def made(source: Path, **more: Any) -> Prepared:
    return prepare(PrepareSettings(source, source.parent / "out", workers=1, **more))


def reasons(result: Prepared) -> list[str]:
    return [row.reason for row in result.survey.unreadable]


def shard(folder: Path, video: bytes, **beside: bytes) -> Path:
    """A tar of videos 0, 1 and 2 with class numbers, and what else lies beside video 1."""
    path = folder / "shards" / "train-0.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for number in range(3):
            files = {"mp4": video + bytes([0, 0, 0, 9]) + b"free" + bytes([number])}
            own = {"cls": str(number % 2).encode()}
            for suffix, data in (files | (beside if number == 1 else own)).items():
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"videos/1.mp4,{LONG},train,0", "its label '9999"),
        ("videos/1.mp4,run,train,soon", "start_seconds='soon' is no number of at least 0"),
        (f"videos/1.mp4,run,train,{LONG}", "start_seconds='9999"),
        ("videos/1.mp4,run,train,0,more", "expected a path and the columns of the first line"),
        (",run,train,0", "expected a path and the columns of the first line"),
        ('videos/1.mp4,"run\nwalk",train,0', r"label='run\nwalk' has a line end in it; is a quote"),
        ('videos/1.mp4,run,"train\nx",0', r"split='train\nx' has a line end in it"),
        ("x" * 5000 + ",run,train,0", "a path of 5,000 characters; is a quote left open?"),
        ("x" * 200_000 + ",run,train,0", "cannot be taken apart (field larger than field limit"),
        (
            "videos/1.mp4,dance,train,0",
            "label 'dance' is not among the 2 classes of labels.txt",
        ),
    ],
    ids=lambda text: text[:30],
)
def test_a_bad_row_of_a_manifest_is_left_out_alone(folder: Path, row: str, reason: str) -> None:
    (folder / "labels.txt").write_text("run\nwalk\n")
    rows = ["path,label,split,start_seconds", "videos/0.mp4,run,train,0", row]
    (folder / "m.csv").write_text("\n".join([*rows, "videos/2.mp4,walk,train,0"]))
    result = made(folder / "m.csv")
    assert [Path(item.path).name for item in result.survey.usable] == ["0.mp4", "2.mp4"]
    (found,) = reasons(result)
    assert found.startswith("m.csv, line ")
    assert reason in found
    assert len(found) < 2000
    assert found in [each["reason"] for each in read_json(folder / "out/report.json")["unreadable"]]
    if "label" not in reason or "line end" in reason:  # what trains on a list refuses it
        with pytest.raises(ConfigError, match=r"m\.csv, line "):
            read_manifest(folder / "m.csv")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"videos/1.mp4 {LONG}", "9' is above 9,999: no --labels names them"),
        ("videos/1.mp4 999999", "its label '999999' is above 9,999"),
        ("videos/1.mp4", "list.txt, line 2: expected PATH CLASS"),
    ],
    ids=lambda text: text[:30],
)
def test_a_bad_line_of_a_list_is_left_out_alone(folder: Path, line: str, reason: str) -> None:
    (folder / "list.txt").write_text(f"videos/0.mp4 0\n{line}\nvideos/2.mp4 1\n")
    result = made(folder / "list.txt", layout="v1")
    assert result.survey.listing.classes == ("0", "1")
    assert [Path(item.path).name for item in result.survey.usable] == ["0.mp4", "2.mp4"]
    assert [reason in found for found in reasons(result)] == [True]


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ({"cls": b"999999"}, "label '999999' is above 9,999"),
        ({"cls": LONG.encode()}, "is above 9,999"),
        ({"cls": b"\xff\xfe"}, "is no class number from 0, as those of most others are"),
        ({"json": DEEP.encode()}, "train-0.tar, 1.json: its values are nested too deeply"),
        ({"json": b"{"}, "train-0.tar, 1.json: Expecting property name"),
        ({"json": b'{"label": {"a": 1}}'}, "its label {'a': 1} is neither a name nor a number"),
        ({"json": b'{"label": true}'}, "its label True is neither a name nor a number"),
        ({"json": b'{"label": %s}' % LONG.encode()}, "is above 9,999"),
        ({"txt": b"run\nwalk"}, "is no class number from 0"),
        ({"txt": b"1" * (2**20 + 1)}, "1,048,577 bytes are too many for a label"),
        ({"json": DEEP.encode(), "cls": b"1"}, ""),
        ({"json": b'{"key": "no label"}', "cls": b"1"}, ""),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value[:30],
)
def test_a_bad_file_beside_a_video_in_a_shard_costs_that_video(
    folder: Path, video: bytes, beside: dict[str, bytes], reason: str
) -> None:
    result = made(shard(folder, video, **beside).parent)
    assert result.survey.listing.classes[:2] == ("0", "1")[: len(result.survey.listing.classes)]
    assert len(result.survey.usable) == 3 - bool(reason)
    assert [reason in found for found in reasons(result)] == [True] * bool(reason)


def test_what_follows_a_damaged_place_of_a_shard_is_told(folder: Path, video: bytes) -> None:
    path = shard(folder, video, cls=b"1")
    data = bytearray(path.read_bytes())
    start = data.index(b"1.cls")
    data[start + 148 : start + 156] = b"?" * 8  # the checksum of that header
    path.write_bytes(data)
    result = made(path.parent)
    assert [row.origin for row in result.survey.usable] == [f"{path.name}, {k}.mp4" for k in (0, 1)]
    assert reasons(result) == [
        f"{path}: is damaged at byte {start:,}, what follows is not read; get the file anew"
    ]


@pytest.mark.parametrize("line", ["5", "[]", '[["a"], 1, 2]', DEEP, '["x", 1]', "\0", LONG])
def test_a_journal_that_was_changed_is_made_anew(folder: Path, line: str) -> None:
    made(folder / "videos", folders="*")
    journal = folder / "out" / "done.jsonl"
    rows = list(map(json.loads, journal.read_text().splitlines()))
    for number, value in enumerate([{"num_frames": 3}, 7, {**rows[2][2], "fps": "x"}]):
        rows[number][2] = value
    journal.write_text("\n".join([line, *map(json.dumps, rows)]))
    assert made(folder / "videos", folders="*").survey.counts() == {}
    lines = journal.read_text().splitlines()
    assert [json.loads(each)[2]["num_frames"] for each in lines[-3:]] == [8, 8, 8]


def test_a_label_with_a_line_end_does_not_end_hours_of_work(folder: Path) -> None:
    (folder / "data" / "a\nb").mkdir(parents=True)
    (folder / "data" / "c").mkdir()
    (folder / "videos" / "0.mp4").rename(folder / "data" / "a\nb" / "0.mp4")
    (folder / "videos" / "1.mp4").rename(folder / "data" / "c" / "1.mp4")
    result = made(folder / "data")
    assert result.survey.listing.classes == ("c",)
    (reason,) = reasons(result)
    assert r"its label 'a\nb' has a line end in it" in reason


def test_a_manifest_lies_where_its_link_leads_or_where_root_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "manifest.csv").write_text("path,label\nvideos/0.mp4,run\n")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "manifest.csv").symlink_to("../manifest.csv")
    (folder / "link").symlink_to("elsewhere")
    (folder / "other").mkdir()
    (folder / "other" / "manifest.csv").write_text("path,label\n0.mp4,run\n")
    monkeypatch.chdir(folder / "elsewhere")
    for number, (source, root) in enumerate(
        [
            *((Path(name), None) for name in ("..", "../manifest.csv", "manifest.csv", ".")),
            *((Path(name), None) for name in ("../link", "../link/manifest.csv")),
            (Path("../other"), Path("../videos")),
            (folder / "other", folder / "videos"),
        ]
    ):
        result = prepare(PrepareSettings(source, Path(f"../out{number}"), root=root, workers=1))
        (found,) = [os.path.realpath(row.path) for row in result.survey.usable]
        assert found == os.path.realpath(folder / "videos" / "0.mp4"), source
        (video,) = load_videos(Path(f"../out{number}")).items
        assert Path(video.path).is_file()


def test_names_of_classes_that_cannot_be_written_are_refused_before_the_work(folder: Path) -> None:
    (folder / "list.txt").write_text("videos/0.mp4 0\n")
    for name, text, why in [
        ("twice.txt", "run\nrun\n", r"twice.txt: class 'run' cannot be written to labels.txt"),
        ("a.json", '["a\\nb"]', r"a.json: class 'a\\nb' cannot be written"),
        ("b.json", '[["a"]]', r"b.json cannot be read: \['a'\] is no name"),
        ("c.json", DEEP, r"c.json cannot be read: its values are nested too deeply"),
        ("d.json", f'{{"a": {LONG}}}', "d.json cannot be read: Exceeds the limit"),
    ]:
        (folder / name).write_text(text)
        with pytest.raises(ConfigError, match=why):
            made(folder / "list.txt", labels=folder / name)
    (folder / "labels.txt").write_text("run\nwalk\nrun\n")
    (folder / "m.csv").write_text("path,label\nvideos/0.mp4,run\n")
    with pytest.raises(ConfigError, match=r"labels.txt: class 'run' cannot be written"):
        load_videos(folder / "m.csv")


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "{", "", "\0"])
def test_json_that_is_none_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested too deeply|line 1 column"):
        parse_json(text)


def test_json_keeps_numbers_that_nobody_counts_with() -> None:
    assert parse_json(f"[1, {LONG}]") == [1, LONG]


def test_a_long_value_is_shown_by_both_its_ends(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(["prepare", "x" * 5000, "--output", "out"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 1600
    assert line.startswith("videomae: ")


def test_no_name_in_data_leads_a_command_out_of_its_output(
    folder: Path, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splits, classes, members and files, of prepare, embed and reconstruct, under a watch."""
    top = folder / "work"
    top.mkdir()
    monkeypatch.chdir(top)
    splits = ["../../X", str(folder / "abs"), "CON", "a\x1b[2J", "s" * 3000, "..", "x:y"]
    rows = [f'../videos/{k % 3}.mp4,../c{k},"{split}"' for k, split in enumerate(splits)]
    Path("m.csv").write_text("\n".join(["path,label,split", *rows]))
    Path("odd").mkdir()
    for name in ("a\x1b[2J.mp4", "CON.mp4", "x:y.mp4", "..mp4.mp4", "é" * 100 + ".mp4"):
        Path("odd", name).write_bytes(video)
    with tarfile.open("train.tar", "w") as tar:
        for name in ("../../X.mp4", "/abs/X.mp4", "a/../../b.mp4", "CON.mp4"):
            member = tarfile.TarInfo(name)
            member.size = len(video)
            tar.addfile(member, io.BytesIO(video))

    def outside() -> set[tuple[str, int]]:
        found = {path for path in folder.rglob("*") if path.is_file()}
        inside = {path for path in found if path.is_relative_to(top / "out")}
        return {(str(path), path.stat().st_mtime_ns) for path in found - inside}

    before = outside()
    for number, arguments in enumerate(
        [
            ["prepare", "m.csv", "--shards"],
            ["prepare", "m.csv", "--shards", "--resize-short", "16"],
            ["prepare", "train.tar", "--resize-short", "16", "--shards"],
            ["prepare", "odd", "--folders", "*", "--resize-short", "16"],
            ["embed", "odd", "--model", "actions-tiny-pretrain", "--engine", "torch"],
            ["reconstruct", "odd", "--model", "actions-tiny-pretrain", "--engine", "torch"],
        ]
    ):
        output = Path("out", str(number))
        assert cli.main([*arguments, "--output", str(output)]) == 0, arguments
        assert outside() == before, arguments
        names = [path.name for path in output.rglob("*")]
        assert names
        assert not [name for name in names if set(name) & set('\x1b:\\"') or len(name) > 255]
    assert len(list(Path("out/0/shards").iterdir())) == len(splits)
