import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from videomae.data import sources
from videomae.data.folders import split_named
from videomae.data.lists import (
    Line,
    Listed,
    layout_of,
    named,
    read_lines,
    read_names,
    split_line,
    split_lines,
    understood,
)
from videomae.errors import ConfigError
from videomae.settings import Layout, PrepareSettings


@pytest.mark.parametrize(
    ("text", "path", "numbers", "words"),
    [
        ("/data/a.mp4 5", "/data/a.mp4", (5,), ""),
        ("a  dance, 3.mp4   5 ", "a  dance, 3.mp4", (5,), ""),
        ("a b.mp4 0 -1", "a b.mp4", (0, -1), ""),
        ("clip 12 58 5", "clip", (12, 58, 5), ""),
        ('"clip 12" 58 5', "clip 12", (58, 5), ""),
        ('"say ""hi"".mp4" 3', 'say "hi".mp4', (3,), ""),
        ('"odd.mp4 3', '"odd.mp4', (3,), ""),
        ("00123", "00123", (), ""),
        ("00123 4", "00123", (4,), ""),
        ("#1 [a]; x|y.avi 2", "#1 [a]; x|y.avi", (2,), ""),
        ("tänzer 舞.mp4 7", "tänzer 舞.mp4", (7,), ""),
        ("a b.mp4 riding a bike", "a b.mp4", (), "riding a bike"),
        ("a.mp4 0.5", "a.mp4", (), "0.5"),
        ("s3://b/a.mp4 5", "s3://b/a.mp4", (5,), ""),
        pytest.param("1 " * 200_000 + "x", "1 " * 200_000 + "x", (), "", id="long, in linear time"),
    ],
)
def test_a_line_is_taken_apart_from_its_right_end(
    text: str, path: str, numbers: tuple[int, ...], words: str
) -> None:
    assert split_line(text) == Line(path, numbers, words)


def test_a_control_character_before_a_number_is_a_blank() -> None:
    assert split_line("a.mp4::\x1e5", delimiter="::") == Line("a.mp4", (5,))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a b.mp4\t1\n", ["a b.mp4"]),
        ("a, b.mp4,1\r\nc.mp4,2\r\n", ["a, b.mp4", "c.mp4"]),
        ("a b.mp4::1\nc.mp4::2\n", ["a b.mp4", "c.mp4"]),
        ("a\u2028b.mp4 1\n\nc.mp4 2", ["a\u2028b.mp4", "c.mp4"]),
    ],
)
def test_the_delimiter_is_what_all_lines_have(text: str, paths: list[str]) -> None:
    lines = split_lines(text, "x.csv")
    assert [line.path for line in lines] == paths
    assert [line.numbers for line in lines] == [(1,), (2,)][: len(paths)]
    assert lines[-1].origin == f"x.csv, line {len(text.rstrip().split(chr(10)))}"


def test_a_delimiter_can_be_told() -> None:
    (line,) = split_lines("a b;7", "x.txt", delimiter=";")
    assert (line.path, line.numbers) == ("a b", (7,))


def folders(**images: Sequence[int]) -> Callable[[str], Sequence[int] | None]:
    return images.get


ONE = range(1, 59)


@pytest.mark.parametrize(
    ("text", "images", "layout"),
    [
        ("a.mp4", {}, "paths"),
        ("a.mp4 3", {}, "v1"),
        ("a.mp4 dancing", {}, "v1"),
        ("a.mp4 0 -1", {}, "v2-pretrain"),
        ("a.mp4 0 -1\nb 1 58", {}, "v2-pretrain"),
        ("a.mp4 3 5", {}, "mmaction2"),
        ("a 1 58", {"a": ONE}, "v2-pretrain"),
        ("a 9601 300", {"a": range(1, 27000)}, "v2-pretrain"),
        ("a 58 1", {"a": ONE}, "v2-finetune"),
        ("a 58 173", {"a": ONE}, "v2-finetune"),
        ("a 0 50 7", {"a": ONE}, "mmaction2-offset"),
        ("a 58 50 7", {"a": ONE}, "mmaction2"),
    ],
)
def test_the_layout_follows_from_lines_and_disk(
    text: str, images: dict[str, Sequence[int]], layout: str
) -> None:
    assert layout_of(split_lines(text, "x"), folders(**images)) == layout


@pytest.mark.parametrize(
    ("text", "images", "why"),
    [
        ("a 1 58", {}, r"x, line 1: `a 1 58` may be .* no such folder was found \(--root\)"),
        ("a 40 10", {"a": ONE}, "what its folder holds fits both; say --layout v2-pretrain"),
    ],
)
def test_what_cannot_be_told_is_asked_for(
    text: str, images: dict[str, Sequence[int]], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        layout_of(split_lines(text, "x"), folders(**images))
    with pytest.raises(ConfigError, match="the list has no lines"):
        layout_of([], folders())


@pytest.mark.parametrize(
    ("layout", "text", "expected"),
    [
        ("v1", "a/x 3", Listed("a/x.mp4", "3")),
        ("v1", "a 1.mp4 -1", Listed("a 1.mp4")),
        ("v2-pretrain", "x.mp4 0 -1", Listed("x.mp4")),
        ("v2-pretrain", "x 9601 300", Listed("x", first_number=9601, num_frames=300)),
        ("v2-finetune", "x.mp4 4", Listed("x.mp4", "4")),
        ("v2-finetune", "x 58 4", Listed("x", "4", num_frames=58)),
        ("mmaction2", "x.mp4 4 7", Listed("x.mp4", "4|7")),
        ("mmaction2", "x 58 4 7", Listed("x", "4|7", num_frames=58)),
        ("mmaction2-offset", "x 10 58 4", Listed("x", "4", first_frame=10, num_frames=58)),
        ("vjepa2", "p2:s3://b/x.mp4 4", Listed("s3://b/x.mp4", "4")),
        ("paths", "a clip 7", Listed("a clip 7")),
        ("paths", "a/clip  007", Listed("a/clip  007")),
        ("v1", "a/take 007 3", Listed("a/take 007.mp4", "3")),
    ],
)
def test_each_layout_is_understood(layout: str, text: str, expected: Listed) -> None:
    assert understood([split_line(text)], layout) == [expected]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "text", "expected"),
    [
        ("v1", "x.mp4", "PATH CLASS"),
        ("v2-pretrain", "x 5", "PATH FIRST TOTAL"),
        ("mmaction2", "x 5", "FOLDER TOTAL CLASS"),
        ("mmaction2-offset", "x 1 5", "FOLDER OFFSET TOTAL CLASS"),
    ],
)
def test_a_line_of_another_layout_is_told_with_its_number(
    layout: str, text: str, expected: str
) -> None:
    (row,) = understood(split_lines(f"\n{text}", "x.csv"), layout)  # type: ignore[arg-type]
    assert row.reason.startswith(f"x.csv, line 2: expected {expected}, got 'x")


def test_class_numbers_stay_numbers_and_keep_their_gaps() -> None:
    items = [Listed("x", "10"), Listed("y", "2"), Listed("z")]
    assert named(items) == (items, tuple(map(str, range(11))))
    names = [f"class {number}" for number in range(11)]
    got, classes = named(items, names)
    assert [item.label for item in got] == ["class 10", "class 2", ""]
    assert classes == tuple(names)
    assert named([Listed("x", "0|2")], ["a", "b", "c"])[0][0].label == "a|c"


def test_labels_in_words_are_sorted_and_values_are_no_classes() -> None:
    assert named([Listed("x", "b|c"), Listed("y", "a")])[1] == ("a", "b|c")
    assert named([Listed("x", "0.5"), Listed("y", "2")])[1] == ()
    assert named([Listed("x", "007"), Listed("y", "7")], by_number=False)[1] == ("007", "7")


@pytest.mark.parametrize(
    ("labels", "names", "classes", "reason"),
    [
        (
            ["0", "1", "999999"],
            None,
            ("0", "1"),
            "'999999' is above 9,999: no --labels names",
        ),
        (["0", "1", "9" * 5000], None, ("0", "1"), "is above 9,999: no --labels names them"),
        (["0", "1", "3"], ["a", "b"], ("a", "b"), "label '3' is above 1: --labels has 2 names"),
        (["0", "1", "-1"], None, ("0", "1"), "label '-1' is no class number from 0, as those of"),
        (["0", "1", "run"], None, ("0", "1"), "label 'run' is no class number from 0"),
        (["a", "b", "c"], ["a", "b"], ("a", "b"), "label 'c' is not among the 2 classes"),
        (["a", "b", "0"], ["a", "b"], ("a", "b"), "label '0' is not among the 2 classes"),
        (["0.5", "2", "nan"], None, (), "label 'nan' is no number, as those of most others are"),
        (["a", "b", "c\nd"], None, ("a", "b"), r"label 'c\nd' has a line end in it"),
    ],
)
def test_a_label_that_cannot_be_leaves_its_video_out_alone(
    labels: list[str], names: list[str] | None, classes: tuple[str, ...], reason: str
) -> None:
    items = [Listed(f"{number}.mp4", label) for number, label in enumerate(labels)]
    got, found = named(items, names)
    assert found == classes
    assert [bool(row.reason) for row in got] == [False, False, True]
    assert got[2].reason.startswith("2.mp4: its label ")
    assert reason in got[2].reason
    assert len(got[2].reason) < 250


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("trainlist01.txt", "train"),
        ("sthv2_val_list_rawframes.txt", "val"),
        ("something-something-v2-validation.json", "val"),
        ("testlist02.txt", "test"),
        ("constraints.txt", None),
    ],
)
def test_names_tell_splits(name: str, split: str | None) -> None:
    assert split_named(name) == split


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.txt", "run\njump high\r\n", ["run", "jump high"]),
        ("classInd.txt", "2 B\n1 A\n", ["A", "B"]),
        ("a.txt", "3 legs\n9 lives\n", ["3 legs", "9 lives"]),
        ("labels.json", '{"Holding it": "1", "Moving": "0"}', ["Moving", "Holding it"]),
        ("labels.json", '["b", "a"]', ["b", "a"]),
    ],
)  # fmt: skip
def test_names_of_classes_come_in_several_spellings(
    tmp_path: Path, name: str, text: str, names: list[str]
) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert read_names(tmp_path / name) == names


@pytest.mark.parametrize("text", ["{", '{"a": "1"}', '{"a": []}', "3"])
def test_names_that_make_no_sense_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ConfigError, match=r"labels.json cannot be read"):
        read_names(tmp_path / "labels.json")


def test_an_empty_line_would_move_the_numbers_below_it(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("run\n\nwalk\n\n")
    with pytest.raises(
        ConfigError, match=r"labels\.txt: class '' cannot be written to labels\.txt"
    ):
        read_names(tmp_path / "labels.txt")


def test_lists_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_lines(tmp_path / "gone.csv")
    (tmp_path / "x.csv").write_bytes("a.mp4 1".encode("utf-16"))
    with pytest.raises(ConfigError, match="is no text"):
        read_lines(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_bytes(b"caf\xe9.mp4 1\n")
    assert read_lines(tmp_path / "y.csv")[0].path == "caf\udce9.mp4"


# Data sets as they are published


def read(source: Path, **changed: Any) -> sources.Listing:
    return sources.read_source(PrepareSettings(source, source / "out", **changed))


def test_every_layout_that_can_be_asked_for_has_a_reader() -> None:
    lines = {"v1", "vjepa2", "v2-pretrain", "v2-finetune", "mmaction2", "mmaction2-offset", "paths"}
    assert {"auto", "folder", "manifest", *lines, *sources._READERS} == set(get_args(Layout))


def test_kinetics_is_told_by_its_first_line(tmp_path: Path) -> None:
    head = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_text(
        head + '"eating cake, slowly",-a_B,5,15,train\nabseiling,x,0,10,train\n'
    )
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\ny,1,11,test\n")
    got = read(tmp_path)
    assert got.layout == "kinetics"
    assert got.classes == ("abseiling", "eating cake, slowly")
    assert [(item.path, item.label, item.split) for item in got.items] == [
        ("y_000001_000011", "", "test"),
        ("-a_B_000005_000015", "eating cake, slowly", "train"),
        ("x_000000_000010", "abseiling", "train"),
    ]
    (tmp_path / "test.csv").write_text("youtube_id,time_start\ny,1\n")
    bad, *good = read(tmp_path).items
    assert re.match(r"test.csv, line 2: .* expected the columns label", bad.reason)
    assert len(good) == 2
    assert not any(row.reason for row in good)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(ConfigError, match=r"expected the columns label.* \(so for all of 1\)"):
        read(tmp_path)


def test_ssv2_takes_the_numbers_of_labels_json(tmp_path: Path) -> None:
    (tmp_path / "ssv2-train.json").write_text(
        '[{"id": "74225", "label": "holding a cup", "template": "Holding [something]"}]'
    )
    (tmp_path / "ssv2-test.json").write_text('[{"id": "9"}]')
    (tmp_path / "ssv2-labels.json").write_text('{"Moving": "0", "Holding something": "1"}')
    got = read(tmp_path)
    assert (got.layout, got.classes) == ("ssv2", ("Moving", "Holding something"))
    assert [(i.path, i.label, i.split) for i in got.items] == [
        ("9", "", "test"), ("74225", "Holding something", "train"),
    ]  # fmt: skip
    (tmp_path / "ssv2-train.json").write_text('[{"id": "1"}, 5]')
    assert [row.reason for row in read(tmp_path).items] == [
        "", "", "ssv2-train.json, entry 1: 5 cannot be read: 'int' object has no attribute 'get'; "
        'expected {"id": "1", "template": "..."}',
    ]  # fmt: skip
    (tmp_path / "ssv2-train.json").write_text('[{"id": "1"}, ' + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"ssv2-train.json cannot be read: .* too deeply"):
        read(tmp_path)


def test_ucf101_takes_the_fold_asked_for(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 Zumba\n2 Archery\n")
    (tmp_path / "trainlist02.txt").write_text("Zumba/v_Zumba_g08_c01.avi 1\r\n")
    (tmp_path / "testlist02.txt").write_text("Archery/v_Archery_g01_c01.avi\r\n")
    got = read(tmp_path, fold=2)
    assert (got.layout, got.classes) == ("ucf101", ("Zumba", "Archery"))
    assert [(i.path, i.label, i.split) for i in got.items] == [
        ("Zumba/v_Zumba_g08_c01.avi", "Zumba", "train"),
        ("Archery/v_Archery_g01_c01.avi", "Archery", "test"),
    ]
    with pytest.raises(ConfigError, match=r"has no trainlist01.txt and no testlist01.txt"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="fold=4 must lie in 1 to 3"):
        read(tmp_path, fold=4)


def test_hmdb51_names_may_hold_any_sign(tmp_path: Path) -> None:
    text = "a #1 [x];(y) z!.avi 1 \nb.avi 2\nc.avi 0\n"
    (tmp_path / "brush_hair_test_split1.txt").write_text(text)
    (tmp_path / "wave_test_split2.txt").write_text("w.avi 1\n")
    got = read(tmp_path)
    assert [(i.path, i.label, i.split) for i in got.items] == [
        ("brush_hair/a #1 [x];(y) z!.avi", "brush_hair", "train"),
        ("brush_hair/b.avi", "brush_hair", "test"),
    ]
    (tmp_path / "brush_hair_test_split1.txt").write_text("b.avi 1\na.avi 3\n")
    assert [row.reason.split(", got")[0] for row in read(tmp_path).items] == [
        "",
        "brush_hair_test_split1.txt, line 2: expected `video.avi` and 0, 1 or 2",
    ]


def test_lists_of_one_folder_share_their_classes(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("/v/a.mp4 0\n/v/b.mp4 2\n")
    (tmp_path / "val.csv").write_text("/v/c.mp4 3\n")
    (tmp_path / "test.csv").write_text("/v/c.mp4\n")
    got = read(tmp_path)
    assert (got.layout, got.classes) == ("v1", ("0", "1", "2", "3"))
    assert {(i.path, i.split) for i in got.items} == {
        ("/v/a.mp4", "train"), ("/v/b.mp4", "train"), ("/v/c.mp4", "val"), ("/v/c.mp4", "test"),
    }  # fmt: skip
    alone = read(tmp_path / "val.csv", split="train")
    assert alone.items[0].split == "train"


def test_npy_lists_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array(["a b.mp4", "c.mp4"]))
    got = read(tmp_path / "x.npy")
    assert [item.path for item in got.items] == ["a b.mp4", "c.mp4"]
    np.save(tmp_path / "x.npy", np.array(["a.mp4", None], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="without pickled objects"):
        read(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ConfigError, match=re.escape("holds float64 of shape (3,)")):
        read(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["train/run/a.avi", "train/walk/b.avi", "val/run/c.avi"],
            [("run", "train"), ("walk", "train"), ("run", "val")],
        ),
        (["7/a.avi", "12/b.avi"], [("12", "train"), ("7", "train")]),
        (["a.avi", "b.avi"], [("", "train"), ("", "train")]),
        (["run/f1/1.png", "walk/f2/1.png"], [("run", "train"), ("walk", "train")]),
    ],
)
def test_folders_tell_classes_and_splits(
    tmp_path: Path, files: list[str], expected: list[tuple[str, str]]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    got = read(tmp_path)
    assert got.layout == "folder"
    assert [(item.label, item.split) for item in got.items] == expected
    assert got.classes == tuple(sorted({label for label, _ in expected} - {""}))


def test_a_source_that_is_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; expected a list or a folder"):
        read(tmp_path / "gone")
    with pytest.raises(ConfigError, match="read as folder, lists no videos"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"--root .* is not a folder"):
        read(tmp_path, root=tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"holds no lists such as train.csv"):
        read(tmp_path, layout="v1")
