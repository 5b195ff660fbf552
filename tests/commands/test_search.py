"""The commands on an index, on rendered videos."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae.commands import batch, cli
from videomae.commands.search import _splits
from videomae.data.manifest import Video
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

Run = Callable[..., tuple[int, str, str]]
CLASSES = ("throw", "pull", "walk", "sit_down", "stand_up", "take_off_hat")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos to train with and two to test with, one of which is in training, smaller."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(CLASSES):
        clip = render_clip(name, seed=number, num_frames=32)
        write_video(folder / "train" / name / "0.mp4", clip, fps=16)
    write_video(folder / "test" / "throw" / "1.mp4", render_clip("throw", seed=50, num_frames=32))
    pull = render_clip("pull", seed=1, num_frames=32)
    brighter = np.clip(pull * 1.02, 0, 255).astype(np.uint8)
    write_video(folder / "test" / "pull" / "1.mp4", brighter, fps=16)
    return folder


@pytest.fixture(scope="module")
def index(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "index"
    options = ["--input", str(videos), "--output", str(folder), "--dtype", "float32"]
    assert cli.main(["index", *options]) == 0
    return folder


def test_search_finds_the_copy_and_not_the_video_itself(
    run: Run, videos: Path, index: Path
) -> None:
    query = videos / "train" / "pull" / "0.mp4"
    code, out, err = run("search", index, query, "--top-k", 3)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert len(rows) == 3
    assert rows[0][1:] == ["0:00.0-0:02.0", str(videos / "test" / "pull" / "1.mp4")]
    assert float(rows[0][0]) > 0.95
    assert str(query) not in out


def test_search_by_a_stretch_as_json_and_as_a_page(
    run: Run, videos: Path, index: Path, tmp_path: Path
) -> None:
    query, page = videos / "train" / "pull" / "0.mp4", tmp_path / "found.html"
    code, out, _ = run(
        "search", index, query, "--start-seconds", 0.2, "--end-seconds", 1.9, "--json",
        "--mirrored", "--top-k", 2, "--output", page,
    )  # fmt: skip
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 2
    assert found[0]["path"] == str(videos / "test" / "pull" / "1.mp4")
    assert found[0]["similarity"] >= found[1]["similarity"]
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == 3
    assert text.count("data:image/gif") == 3


def test_search_finds_a_mirror_image_where_it_is_asked_to(
    run: Run, index: Path, tmp_path: Path
) -> None:
    mirror = np.ascontiguousarray(render_clip("pull", seed=1, num_frames=32)[:, :, ::-1])
    query = write_video(tmp_path / "mirror.mp4", mirror, fps=16)
    options = ("search", index, query, "--json", "--top-k", 1)
    plain, flipped = (json.loads(run(*options, *more)[1]) for more in ((), ("--mirrored",)))
    assert flipped["similarity"] > plain["similarity"]
    assert Path(flipped["path"]).parent.name == "pull"


def test_duplicates_between_splits(run: Run, videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    code, out, err = run(
        "duplicates", videos, "--output", output, "--threshold", 0.97, "--window-seconds", "video"
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1] == "8 videos, 1 pair of copies in 1 group (similarity of 0.970 or more)"
    assert lines[2] == "1 pair in different splits: a model is tested on them"
    with (output / "pairs.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert {row["split_a"], row["split_b"]} == {"train", "test"}
    assert {Path(row["path_a"]).parent.name, Path(row["path_b"]).parent.name} == {"pull"}
    page = (output / "index.html").read_text(encoding="utf-8")
    assert "in different splits" in page
    assert page.count("data:image/gif") == 2
    assert "data:image/png" in page  # the picture of the threshold
    # Once more, from the index: the same pairs, and nothing is computed again.
    again = tmp_path / "again"
    code, out, _ = run(
        "duplicates", output / "index", "--output", again, "--threshold", 0.97, "--json"
    )
    assert code == 0
    assert json.loads(out)["similarity"] == pytest.approx(float(row["similarity"]), abs=1e-6)
    assert not (again / "index").exists()


def test_copies_alone_are_all_found_and_only_pairs_are_printed_as_json(
    run: Run, videos: Path, tmp_path: Path
) -> None:
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        (tmp_path / "equal").mkdir(exist_ok=True)
        shutil.copy(videos / "train" / "pull" / "0.mp4", tmp_path / "equal" / name)
    code, out, err = run("duplicates", tmp_path / "equal", "--output", tmp_path / "out", "--json")
    assert code == 0
    assert "out/index: 3 videos" in err
    pairs = [json.loads(line) for line in out.splitlines()]
    assert [pair["similarity"] for pair in pairs] == pytest.approx([1, 1, 1], abs=1e-3)


def test_part_of_an_index_is_not_searched_for_copies(
    run: Run, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batch.run_job

    def stopped(given: list[Video], *arguments: Any, **options: Any) -> None:
        whole(given[:3], *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "run_job", stopped)
    output = tmp_path / "out"
    code, out, err = run("duplicates", videos, "--output", output, "--window-seconds", "video")
    assert (code, out) == (130, "")
    place = output / "index"
    assert err == f"videomae: interrupted; {place} has what is done, and the same command goes on\n"
    assert [path.name for path in output.iterdir()] == ["index"]


def test_an_index_is_a_folder(run: Run, videos: Path) -> None:
    code, out, err = run("index", videos, "--output", "index.csv")
    assert (code, out) == (1, "")
    assert err == "videomae: --output index.csv: an index is a folder; leave out the suffix\n"


def test_the_threshold_is_measured_where_none_is_given(
    run: Run, index: Path, tmp_path: Path
) -> None:
    code, out, _ = run("duplicates", index, "--output", tmp_path)
    assert code == 0
    assert "8 videos" in out
    assert (tmp_path / "threshold.png").stat().st_size > 1000


def test_an_index_of_another_model_is_not_mixed(
    run: Run, videos: Path, index: Path
) -> None:  # fmt: skip
    query = videos / "train" / "pull" / "0.mp4"
    code, out, err = run("search", index, query, "--model", "actions-tiny-pretrain")
    assert (code, out) == (1, "")
    assert "model actions-tiny-pretrain has other weights than the index was made with" in err
    assert len(err.splitlines()) == 1


def test_a_model_that_has_moved_is_named_anew(run: Run, videos: Path, tmp_path: Path) -> None:
    model, moved, index = tmp_path / "model", tmp_path / "moved", tmp_path / "index"
    assert run("convert", "actions-tiny", model)[0] == 0
    query = videos / "train" / "pull" / "0.mp4"
    assert run("index", query, videos / "test", "--model", model, "--output", index)[0] == 0
    model.rename(moved)
    code, out, err = run("search", index, query)
    assert (code, out) == (1, "")
    assert "the index was made with it; where it has moved, give its place as --model" in err
    assert run("search", index, query, "--model", moved)[0] == 0


def test_what_cannot_be_searched_is_said(
    run: Run, videos: Path, index: Path, tmp_path: Path
) -> None:
    query = videos / "train" / "pull" / "0.mp4"
    for arguments, expected in (
        ((videos, query), "holds no parts"),
        ((index, tmp_path / "none.mp4"), "none.mp4"),
        ((index, query, "--start-seconds", 1, "--end-seconds", 0.5), "ends before it begins"),
        ((index, query, "--start-seconds", 9), "that part is empty, as it has 32 frames (2 s)"),
        ((index, query, "--top-k", 0), "--top-k=0 must be at least 1"),
        ((index, query, "--output", "found.txt"), "found.txt ends in '.txt'"),
    ):
        code, out, err = run("search", *arguments)
        assert (code, out) == (1, "")
        assert expected in err
        assert len(err.splitlines()) == 1


def test_splits_by_manifest_and_by_folder(videos: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(videos.rglob("*.mp4"))]
    assert set(_splits(str(videos), paths).values()) == {"train", "test"}
    copy = tmp_path / "clip.mp4"
    shutil.copy(paths[0], copy)
    assert _splits(str(tmp_path), [str(copy)]) == {}
    (tmp_path / "manifest.csv").write_text("path,label,split\nclip.mp4,,val\n", encoding="utf-8")
    assert _splits(str(tmp_path), [str(copy)]) == {str(copy): "val"}


def test_copies_in_shards_are_opened_and_have_splits(
    run: Run, videos: Path, tmp_path: Path
) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    assert run("prepare", videos, "--output", data, "--shards")[0] == 0
    code, out, err = run(
        "duplicates", data, "--output", output, "--window-seconds", "video", "--threshold", 0.97
    )
    assert (code, err) == (0, "")
    assert "1 pair in different splits" in out
    page = (output / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/gif") == 2
    shutil.rmtree(data / "shards")
    code, _, err = run("duplicates", output / "index", "--output", tmp_path / "again")
    assert code == 0
    assert "can be opened, so that the threshold is no more than a guess" in err
