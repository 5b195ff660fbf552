import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

import videomae
from tiny_models import SIZES
from videomae.commands import answers, cli, flags, videos
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Video, Videos
from videomae.errors import as_text
from videomae.footage import batch
from videomae.footage.batch import key_of, read_batch
from videomae.inference import predict, reconstruct
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.recipe import write_recipe
from videomae.rendering.actions import render_clip
from videomae.settings import EvaluateSettings, FinetuneSettings, PretrainSettings
from videomae.video.reader import probe
from videomae.video.writer import write_video

TINY: dict[str, Any] = {**SIZES, "num_hidden_layers": 1, "frame_stride": 2}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models and some videos, one of them broken."""
    place = tmp_path_factory.mktemp("cli")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = VideoMAEConfig(**TINY, id2label={0: "run", 1: "jump", 2: "fall"})
        classifier = VideoMAEForVideoClassification(config)
        torch.nn.init.normal_(classifier.classifier.weight)
        classifier.save_pretrained(place / "classifier")
        config = VideoMAEConfig(**TINY, use_mean_pooling=False)
        VideoMAEForPreTraining(config).save_pretrained(place / "pretrained")
    for name in ("a/1", "b/1", "b/2"):
        path = place / "videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, render_clip("throw", seed=len(name), size=24, num_frames=12), fps=8)
    frames = place / "videos" / "c"
    frames.mkdir()
    for index, frame in enumerate(render_clip("push", seed=1, size=24, num_frames=9)):
        Image.fromarray(frame).save(frames / f"{index}.png")
    (place / "bad.mp4").write_bytes(b"not a video")
    return place


def found(place: Path) -> list[str]:
    return [str(place / "videos" / name) for name in ("a/1.mp4", "b/1.mp4", "b/2.mp4", "c")]


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_classify_prints_a_table_that_lines_up(run: Run, place: Path) -> None:
    code, out, err = run(
        "classify", place / "videos", "--model", place / "classifier", "--top-k", 2
    )
    assert (code, err) == (0, "")
    rows = [row.split() for row in out.splitlines()]
    assert len(rows) == 8
    assert [row[0] for row in rows[::2]] == found(place)
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert {first[1], second[0]} < {"run", "jump", "fall"}
        share = float(first[2].removesuffix("%"))
        assert first[3].count("█") == pytest.approx(share / 5, abs=1)  # of 20
    assert len({row.index("%") for row in out.splitlines()}) == 1


def test_classify_prints_the_values_of_a_regression_as_they_are(
    run: Run, place: Path, tmp_path: Path
) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(place / "classifier")
    model.config.problem_type = "regression"
    model.save_pretrained(tmp_path / "model")
    code, out, err = run("classify", found(place)[0], "--model", tmp_path / "model", "--top-k", 1)
    assert (code, err) == (0, "")
    result = videomae.classify(found(place)[0], model=tmp_path / "model", top_k=1)
    path, label, value = out.split()
    assert (path, label) == (found(place)[0], result.labels[0])
    assert float(value) == pytest.approx(result.scores[0], rel=1e-2)


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_a_terminal_is_told_in_one_line_what_runs_the_model(
    command: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    code, _, err = run(
        command, found(place)[0], "--model", place / "classifier", "--device", "cpu", "--json"
    )
    assert code == 0
    expected = r"videomae: torch [0-9.]+, cpu \(\d+ threads?\), b?float(32|16), \w+ attention"
    assert re.fullmatch(expected, err.splitlines()[0])


def test_classify_as_json_gives_the_numbers_of_the_function(run: Run, place: Path) -> None:
    code, out, err = run(
        "classify", place / "videos", "--model", place / "classifier", "--json", "--num-clips", 2,
        "--num-crops", 3, "--batch-size", 4, "--dtype", "float32", "--engine", "torch",
    )  # fmt: skip
    assert (code, err) == (0, "")
    results = videomae.classify(
        found(place), model=place / "classifier", num_clips=2, num_crops=3, dtype="float32"
    )
    for line, result in zip(lines(out), results, strict=True):
        assert list(line) == ["path", "labels", "scores"]
        assert line["path"] == str(result.path)
        assert tuple(line["labels"]) == result.labels
        assert line["scores"] == pytest.approx(result.scores, abs=1e-5)


def test_a_bad_video_is_reported_and_the_others_go_on(run: Run, place: Path) -> None:
    files = [place / "bad.mp4", place / "gone.mp4", place / "videos" / "c"]
    code, out, err = run("classify", *files, "--model", place / "classifier", "--json")
    assert code == 1
    first, second, third = lines(out)
    assert list(first) == list(second) == ["path", "error"]
    assert "cannot be opened as a video" in first["error"]
    assert list(third) == ["path", "labels", "scores"]
    errors = err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("videomae: ") for line in errors)
    assert errors[1] == f"videomae: {place / 'gone.mp4'}: there is no such file or folder"
    assert errors[2] == "videomae: 2 of 3 videos could not be read"


def test_the_frame_stride_can_be_told(run: Run, place: Path) -> None:
    scores = []
    for stride in ("config", "2", "1"):
        _, out, _ = run(
            "classify", place / "videos" / "c", "--model", place / "classifier", "--json",
            "--frame-stride", stride,
        )  # fmt: skip
        scores.append(lines(out)[0]["scores"])
    assert scores[0] == scores[1] != scores[2]


def test_the_rate_can_be_told(run: Run, place: Path) -> None:
    call = ("classify", place / "videos/a/1.mp4", "--model", place / "classifier", "--json")
    scores = [
        lines(run(*call, "--fps", fps)[1])[0]["scores"] for fps in ("config", "own", "8", "3")
    ]
    assert scores[0] == scores[1] == scores[2] != scores[3]
    code, _, err = run(*call, "--fps", "0")
    assert code == 1
    assert err.startswith("videomae: --fps=0.0 must lie in 0.01 to 1000, or be config or own")


def test_embed_shows_prints_or_writes_vectors(run: Run, place: Path, tmp_path: Path) -> None:
    call = ("embed", place / "videos", "--model", place / "pretrained", "--dtype", "float32")
    expected = videomae.embed(found(place), model=place / "pretrained", dtype="float32")

    code, out, _ = run(*call)
    assert code == 0
    assert [row.split()[:2] for row in out.splitlines()] == [[path, "16"] for path in found(place)]
    _, out, _ = run(*call, "--json")
    for line, result in zip(lines(out), expected, strict=True):
        np.testing.assert_allclose(line["features"], result.features, atol=1e-5)

    code, out, _ = run(*call, "--json", "--output", tmp_path / "new" / "all.npz")
    assert lines(out)[0] == {"path": found(place)[0], "shape": [16]}
    with np.load(tmp_path / "new" / "all.npz") as stored:
        assert stored["paths"].tolist() == found(place)
        np.testing.assert_allclose(
            stored["features"], np.stack([e.features for e in expected]), atol=1e-5
        )

    code, _, err = run(*call, "--output", tmp_path / "all.txt")
    assert code == 1
    assert "all.txt: name a file that ends in .npz or .csv, or a folder" in err
    assert run(*call, "--output", tmp_path / "features-1.0")[0] == 0
    code, _, err = run(*call, "--output", tmp_path / "all.csv", "--features", "tokens")
    assert code == 1
    assert "a row of a table has one vector; use --features pooled, .npz, or a folder" in err


def test_a_batch_job_fills_a_folder_and_says_so_in_one_line(
    run: Run, place: Path, tmp_path: Path
) -> None:
    call = ("--input", place / "videos", "--output", tmp_path / "out", "--dtype", "float32")
    embed = ("embed", place / "bad.mp4", *call, "--model", place / "pretrained")
    code, out, err = run(*embed, "--features", "per_time")
    assert code == 1
    assert err.startswith(f"videomae: {place / 'bad.mp4'}: cannot be opened as a video")
    assert len(err.splitlines()) == 1
    assert re.fullmatch(
        r".*/out: 5 videos in .* s \(.* a second\), 4 rows; "
        r"1 video could not be read, see bad-\*.parquet\n",
        out,
    )
    rows = read_batch(tmp_path / "out")
    assert rows.table["path"].to_pylist() == found(place)
    assert rows.features().shape == (4, 2, 16)
    code, out, _ = run(*embed, "--features", "per_time", "--resume", "--json")
    assert code == 1  # a bad one stays one, though it is not tried again
    assert lines(out)[0].items() >= {"num_before": 5, "num_done": 0, "num_bad": 1}.items()
    code, _, err = run(*embed)
    assert code == 1
    assert "was made with --features=per_time, and not with --features=pooled; name" in err
    # the names of the folders, which differ from run to run, tell who is in which share
    share = int(key_of(Video(found(place)[0])), 16) % 2 + 1
    code, out, err = run(
        "classify", *call[:-1], "auto", "--output", tmp_path / "labels", "--shard", f"{share}/2",
        "--model", place / "classifier", "--window-seconds", 1,
    )  # fmt: skip
    assert read_batch(tmp_path / "labels").facts["settings"]["window_seconds"] == 1
    assert next((tmp_path / "labels").glob(f"*-{share}of2-*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("embed x --window-seconds abc", "--window-seconds abc: expected FLOAT|{video}"),
        ("classify x --num-clips 1.5", "--num-clips 1.5: expected INT"),
        ("pretrain epochs=no", "--epochs no: expected INT"),
        ("pretrain --crop-scales a b", "--crop-scales a b: expected [FLOAT [FLOAT ...]]"),
        ("pretrain --data", "--data lacks a value; expected PATH"),
        (
            "pretrain --mask tubee",
            "--mask tubee is not one of tube, random, frame, running_cell, auto; "
            "did you mean 'tube'?",
        ),
        ("prepare", "give SOURCE and --output"),
        ("duplicates", "give VIDEOS"),
        ("export", "give MODEL"),
    ],
)
def test_words_that_are_no_command_are_answered_in_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    program = f"videomae {words.split()[0]}"
    expected = f"videomae: {message}; `{program} --help` lists the options\n"
    assert (ended.value.code, capsys.readouterr().err) == (2, expected)


def test_settings_out_of_their_limits_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["pretrain", "--num-workers", "0"])
    assert ended.value.code == 2
    expected = "videomae: --num-workers=0 must be at least 1, or be None\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("launched", [False, True])
def test_a_process_whose_neighbour_has_ended_says_so(
    launched: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")
    monkeypatch.setattr(cli, "run", Mock(side_effect=lost))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if not launched:
        with pytest.raises(RuntimeError, match="by peer"):
            cli.main(["doctor"])
        return
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["doctor"]) == 1
    expected = "videomae: another process of this run has ended; what it said tells why\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resume",), "--resume is for a batch job; give --output FOLDER, too"),
        (("--input", "x", "--output", "x.csv"), "--input is for a batch job; give --output FOLDER"),
        (("--output", "out", "--shard", "2"), "--shard 2: expected 2/8 for the second of 8"),
        (("--output", "out", "--shard", "3/2"), "--shard=3/2 is no share; expected 1/2 to 2/2"),
        (("--output", "out", "--input", "gone"), "gone does not exist; expected a folder, a video"),
        (("--output", "out.parquet"), "out.parquet: name a file that ends in .csv, or a folder"),
    ],
)
def test_options_of_a_batch_job_that_make_no_sense_are_refused(
    options: tuple[str, ...],
    message: str,
    run: Run,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("classify", found(place)[0], *options, "--model", place / "classifier")
    assert (code, out) == (1, "")
    assert message in err
    assert not list(tmp_path.iterdir())


def test_a_batch_job_that_has_done_nothing_says_so(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "compute_here", Mock(side_effect=KeyboardInterrupt))
    options = ("--output", tmp_path / "out", "--model", place / "classifier")
    code, _, err = run("classify", place / "videos", *options)
    assert (code, err) == (130, "videomae: interrupted before anything was done\n")


def test_a_batch_job_keeps_what_is_done_when_a_scheduler_ends_it(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = batch.compute_here

    def stopped(*arguments: Any) -> Iterator[Any]:
        for number, each in enumerate(compute(*arguments)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield each

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(batch, "compute_here", stopped)
    code, out, err = run(
        "classify", place / "videos", "--output", tmp_path, "--model", place / "classifier"
    )
    assert (code, out) == (130, "")
    assert err == f"videomae: interrupted; {tmp_path} has what is done, and --resume goes on\n"
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_batch(tmp_path).table["path"].to_pylist() == found(place)[:2]


@pytest.mark.parametrize(
    ("command", "output"),
    [("classify", "a.csv"), ("embed", "a.csv"), ("embed", "a.npz")],
)
def test_a_table_keeps_what_is_done_when_a_scheduler_ends_it(
    command: str,
    output: str,
    run: Run,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compute = getattr(predict, command)

    def stopped(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, each in enumerate(compute(*arguments, **options)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield each

    before, path = signal.getsignal(signal.SIGTERM), tmp_path / output
    monkeypatch.setattr(predict, command, stopped)
    code, _, err = run(command, place / "videos", "--output", path, "--model", place / "classifier")
    assert (code, err) == (130, "videomae: interrupted; 2 of 4 videos are done, and kept\n")
    assert signal.getsignal(signal.SIGTERM) is before
    kept = [row["path"] for row in table(path)] if path.suffix == ".csv" else np.load(path)["paths"]
    assert list(kept) == found(place)[:2]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_have_a_row_per_video_bad_ones_too(run: Run, place: Path, tmp_path: Path) -> None:
    source = Path(found(place)[0])
    odd = tmp_path / 'a, "b" \udce9' / source.name  # as quoting is there for
    odd.parent.mkdir()
    shutil.copy(source, odd)
    call = (odd, place / "bad.mp4", "--model", place / "classifier")
    code, _, _ = run("classify", *call, "--output", tmp_path / "p.csv", "--top-k", "2")
    assert code == 1
    good, bad = table(tmp_path / "p.csv")
    assert list(good) == ["path", "label_1", "score_1", "label_2", "score_2", "error"]
    (answer,) = videomae.classify([odd], model=place / "classifier", top_k=2)
    assert (good["path"], good["label_1"], good["error"]) == (as_text(odd), answer.labels[0], "")
    assert float(good["score_2"]) == pytest.approx(answer.scores[1], rel=1e-4)
    assert bad["path"] == str(place / "bad.mp4")
    assert bad["label_1"] == ""
    assert "bad.mp4" in bad["error"]

    run("embed", *call, "--output", tmp_path / "f.csv")
    (features,) = videomae.embed([odd], model=place / "classifier")
    stored = [float(table(tmp_path / "f.csv")[0][f"feature_{k}"]) for k in range(16)]
    np.testing.assert_allclose(stored, features.features, atol=1e-4)

    code, _, err = run("classify", *call, "--output", tmp_path / "p.json")
    assert code == 1
    assert "p.json: name a file that ends in .csv, or a folder" in err


def test_embed_leaves_bad_videos_out_of_the_file(run: Run, place: Path, tmp_path: Path) -> None:
    code, _, _ = run(
        "embed", place / "bad.mp4", place / "videos" / "c", "--model", place / "classifier",
        "--output", tmp_path / "x.npz",
    )  # fmt: skip
    assert code == 1
    with np.load(tmp_path / "x.npz") as stored:
        assert stored["paths"].tolist() == [str(place / "videos" / "c")]


def test_reconstruct_writes_pictures(run: Run, place: Path, tmp_path: Path) -> None:
    call = ("reconstruct", "--model", place / "pretrained", "--mask-ratio", "0.5")
    output = tmp_path / "pictures"
    code, out, _ = run(*call, place / "videos", "--output", output, "--format", "gif")
    assert code == 0
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*.gif")) == [
        "a/1.gif", "b/1.gif", "b/2.gif", "c.gif",
    ]  # fmt: skip
    assert out.splitlines()[0].split()[:3] == [found(place)[0], str(output / "a/1.gif"), "loss"]

    code, out, _ = run(*call, found(place)[0], "--output", tmp_path / "one.mp4", "--json")
    assert code == 0
    assert list(lines(out)[0]) == ["path", "output", "loss"]
    assert probe(tmp_path / "one.mp4").num_frames == 4

    code, _, err = run(*call, place / "videos", "--output", tmp_path / "one.png")
    assert code == 1
    assert "one.png is one file for 4 videos; name a folder" in err


def test_explain_writes_pictures_and_numbers(run: Run, place: Path, tmp_path: Path) -> None:
    call = ("explain", "--model", place / "classifier")
    code, out, err = run(*call, place / "videos", "--output", tmp_path, "--method", "attention")
    assert (code, err) == (0, "")
    first = out.splitlines()[0].split()
    assert first[0] == found(place)[0]
    assert " ".join(first[3:6]) == "most in slice"
    assert first[-1] == str(tmp_path / "a" / "1.gif")
    assert len(list(tmp_path.rglob("*.gif"))) == 4

    label = json.loads((place / "classifier" / "config.json").read_text())["id2label"]["0"]
    output = tmp_path / "one.mp4"
    code, out, _ = run(
        *call, found(place)[0], place / "bad.mp4", "--json", "--label", label, "--format", "png",
        "--output", tmp_path,
    )  # fmt: skip
    good, bad = lines(out)
    assert code == 1
    names = ["path", "output", "label", "score", "method", "grid", "hottest", "heat"]
    assert list(good) == names
    assert (good["label"], good["method"]) == (label, "occlusion")
    assert np.shape(good["heat"]) == tuple(good["grid"])
    assert list(bad) == ["path", "error"]

    code, _, err = run(*call, found(place)[0], "--label", f"{label}x", "--output", output)
    assert code == 1
    assert err.startswith(f"videomae: --label='{label}x' is none of the ")
    assert err.endswith(f"; did you mean {label!r}?\n")
    assert not output.exists()


def test_outputs_lie_to_each_other_as_the_files_do(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("x/1.mp4", "x/1.avi", "y/z/2.b.mp4")]
    assert answers.mirrored(files, Path("out"), ".png") == {
        files[0]: Path("out/x/1.mp4.png"),
        files[1]: Path("out/x/1.avi.png"),
        files[2]: Path("out/y/z/2.b.png"),
    }
    assert answers.mirrored(files[2:], Path("out"), ".png") == {files[2]: Path("out/2.b.png")}


def test_no_two_videos_share_an_output(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("x.mp4", "x.avi", "x.mp4.mp4", "x.mp4.mp4.mp4", "y.mp4")]
    names = [path.name for path in answers.mirrored(files, Path("out"), ".png").values()]
    whole = ["x.mp4.png", "x.avi.png", "x.mp4.mp4.png", "x.mp4.mp4.mp4.png"]
    assert names == [*whole, "y.png"]


def test_probe_tells_what_is_in_a_file(run: Run, place: Path) -> None:
    code, out, _ = run("probe", found(place)[0], place / "videos" / "c")
    assert code == 0
    first, second = out.splitlines()
    assert first.split()[1:] == ["12", "frames", "8", "fps", "24", "x", "24", "px", "h264"]
    assert second.split()[1:] == ["9", "frames", "24", "x", "24", "px", "images"]
    code, out, _ = run("probe", found(place)[0], place / "bad.mp4", "--json")
    assert code == 1
    assert lines(out)[0]["num_frames"] == 12
    assert list(lines(out)[1]) == ["path", "error"]


def test_convert_writes_and_reports(run: Run, place: Path, tmp_path: Path) -> None:
    code, out, _ = run("convert", place / "classifier", tmp_path / "v1.pth", "--to", "v1")
    assert code == 0
    assert "tensors loaded" in out
    assert f"wrote {tmp_path / 'v1.pth'}" in out
    code, _, err = run("convert", tmp_path / "v1.pth", tmp_path / "hf")
    assert code == 1
    assert "does not say how many heads" in err
    code, out, _ = run("convert", tmp_path / "v1.pth", tmp_path / "hf", "--num-attention-heads", 2)
    assert code == 0
    files = {path.name for path in (tmp_path / "hf").iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= files


def test_actions_renders_a_data_set(run: Run, tmp_path: Path) -> None:
    shape = ("--size", 16, "--num-frames", 4, "--workers", 1)
    code, out, _ = run("actions", tmp_path / "set", "--clips", 3, "--test-clips", 2, *shape)
    assert code == 0
    assert out == f"wrote 5 videos into {tmp_path / 'set'}\n"
    assert len(list((tmp_path / "set" / "test").rglob("*.mp4"))) == 2
    code, _, err = run("actions", tmp_path / "set", "--clips", 4, *shape)
    assert code == 1
    assert "holds a data set made with --clips=3, --test-clips=2" in err


def test_demo_and_bench_get_the_flags_as_they_are(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[Any] = []
    monkeypatch.setattr("videomae.commands.demo.demo", commands.append)
    monkeypatch.setattr("videomae.commands.bench.bench", commands.append)
    assert run("demo", "--output", "x", "--video", "v.mp4", "--clips", "12")[0] == 0
    assert run("bench", "train", "--batch-sizes", "1", "3")[0] == 0
    assert commands == [
        flags.Demo(Path("x"), video=Path("v.mp4"), clips=12),
        flags.Bench("train", batch_sizes=(1, 3)),
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for training: the settings that it was called with."""
    from videomae.training import finetune, pretrain

    settings: list[Any] = []
    monkeypatch.setattr(pretrain, "pretrain", settings.append)
    monkeypatch.setattr(finetune, "finetune", settings.append)
    return settings


def test_training_gets_the_flags_as_settings(run: Run, asked: list[Any]) -> None:
    code, _, err = run(
        "pretrain", "--data", "d", "--preset", "tiny", "--init", "m", "--epochs", "9", "--lr", "2",
        "--batch-size", "4", "--mask-ratio", "0.75", "--dtype", "float32", "--seed", "3",
        "--save-every-steps", "5", "--output", "o", "--resume", "--no-norm-pix-loss",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert run("finetune", "--layer-decay", "0.5")[0] == 0
    assert asked == [
        PretrainSettings(
            data=Path("d"), preset="tiny", init="m", epochs=9, lr=2, batch_size=4, mask_ratio=0.75,
            dtype="float32", seed=3, save_every_steps=5, output=Path("o"), resume=True,
            norm_pix_loss=False,
        ),
        FinetuneSettings(layer_decay=0.5),
    ]  # fmt: skip


@pytest.mark.parametrize("joint", [True, False])
def test_a_recipe_gives_defaults_that_flags_override(
    joint: bool, run: Run, asked: list[Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('preset = "tiny"\nepochs = 90\nlr = 0.5\nwarmup_epochs = 2.0\n')
    flag = [f"--recipe={recipe}"] if joint else ["--recipe", recipe]
    assert run("pretrain", "--epochs", 7, *flag)[0] == 0
    assert asked == [PretrainSettings(preset="tiny", epochs=7, lr=0.5, warmup_epochs=2.0)]

    code, out, _ = run("pretrain", *flag, "--help")
    assert code == 0
    assert "(default: 90)" in out
    recipe.write_text("epoch = 90\n")
    code, _, err = run("pretrain", *flag)
    assert code == 1
    assert "has no key 'epoch'; did you mean 'epochs'?" in err


def test_resume_alone_reads_the_settings_of_the_folder(
    run: Run, asked: list[Any], tmp_path: Path
) -> None:
    began = PretrainSettings(data=Path("d"), preset="tiny", epochs=7, output=Path("moved"))
    # Earlier versions wrote how the run was started, too.
    write_recipe(replace(began, resume=True), tmp_path / "settings.toml")
    here = replace(began, output=tmp_path, resume=True)
    assert run("pretrain", "--output", tmp_path, "--resume")[0] == 0
    assert run("pretrain", f"output={tmp_path}", "resume=true", "num_workers=4")[0] == 0
    recipe = ("--recipe", tmp_path / "settings.toml", "--resume")
    assert run("pretrain", *recipe, "--output", tmp_path)[0] == 0
    assert asked == [here, replace(here, num_workers=4), here]
    # Without --resume the folder is not looked at, and a new folder has nothing to read.
    assert run("pretrain", "--output", tmp_path)[0] == 0
    assert run("pretrain", "--output", tmp_path / "new", "--resume")[0] == 0
    assert asked[3:] == [
        PretrainSettings(output=tmp_path),
        PretrainSettings(output=tmp_path / "new", resume=True),
    ]


@pytest.mark.parametrize(
    ("recipe", "words", "changed"),
    [
        ("ucf101-base-finetune", ["flip=true"], {}),
        ("ucf101-base-finetune", ["flip=false", "resume=false"], {"flip": False}),
        ("ucf101-base-pretrain", ["flip=false", "norm_pix_loss=true"], {}),
        ("ucf101-base-pretrain", ["--flip", "--norm-pix-loss"], {"flip": True}),
    ],
)
def test_a_switch_may_be_set_to_what_it_is_already(
    recipe: str, words: list[str], changed: dict[str, bool], run: Run, asked: list[Any]
) -> None:
    command = recipe.split("-")[-1]
    assert run(command, "--recipe", recipe)[0] == 0
    code, _, err = run(command, "--recipe", recipe, *words)
    assert (code, err) == (0, "")
    assert asked[1] == replace(asked[0], **changed)


def test_a_path_with_an_equals_sign_is_no_setting(
    run: Run, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dt=2024-01-01").mkdir()
    assert run("finetune", "--data", "dt=2024-01-01")[0] == 0
    assert asked[0].data == Path("dt=2024-01-01")


@pytest.mark.parametrize("recipe", [(), ("--recipe", "r.toml")])
def test_only_training_has_resume(
    recipe: tuple[str, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text('model = "m"\n')
    for command in ("evaluate", "linear-probe"):
        code, _, err = run(command, *recipe, "--resume")
        assert code == 2
        assert err.startswith(f"videomae: {command} has no option --resume; ")


def test_a_dry_run_prints_what_the_run_takes(
    run: Run, videos_dir: Path, tmp_path: Path, small: dict[str, Any]
) -> None:
    flags = [f"{name}={value}" for name, value in small.items()]
    output = tmp_path / "run"
    given = (f"data={videos_dir}", f"output={output}", "mask_ratio=0.5", *flags)
    code, out, _ = run("pretrain", "--dry-run", *given)
    assert code == 0
    names = [re.split(r"  +", line)[0] for line in out.splitlines()]
    assert names == [
        "videos", "parameters", "clips a step", "steps", "a step", "waiting for videos",
        "memory at its peak", "checkpoints", "to the end", "nothing was written",
    ]  # fmt: skip
    assert not output.exists()


def test_settings_that_contradict_each_other_are_wrong_usage(run: Run, asked: list[Any]) -> None:
    code, _, err = run("pretrain", "--epochs", 100, "--warmup-epochs", 200)
    assert code == 2
    assert "longer than --epochs=100" in err
    assert asked == []


def test_evaluate_prints_the_figures_and_what_it_could_not_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videomae.evaluation import evaluate

    asked: list[EvaluateSettings] = []

    def stand_in(settings: EvaluateSettings, *, on_progress: Any, **_: Any) -> evaluate.Evaluation:
        asked.append(settings)
        on_progress(2, 2)
        videos = Videos((Video("x.mp4", "a"), Video("y.mp4", "b")), ("a", "b"))
        scores = torch.tensor([[1.0, 0.0], [0.75, 0.25]])
        bad = {1: "y.mp4: broken"} if settings.num_crops > 1 else {}
        return evaluate.Evaluation("single_label", videos, 1, settings.num_crops, scores, bad)

    monkeypatch.setattr(evaluate, "evaluate", stand_in)
    code, out, err = run("evaluate", "--data", "d")
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "top-1 50.00 %",
        "top-5 100.00 %",
        "mean class accuracy 50.00 %",
        "videos 2",
        "views of each 1 (1 x 1)",
        "unreadable 0",
        "lowest classes",
        "b 0.00 %",
        "a 100.00 %",
    ]
    assert (code, err) == (0, "")
    code, out, err = run("evaluate", "--num-crops", "3")
    assert "3 (1 x 3)" in out
    assert (code, err) == (1, "videomae: y.mp4: broken\n")
    assert asked == [EvaluateSettings(data=Path("d")), EvaluateSettings(num_crops=3)]


@pytest.mark.parametrize("broken", [False, True])
def test_linear_probe_prints_the_figures_and_what_it_could_not_read(
    run: Run, tmp_path: Path, broken: bool
) -> None:
    for split in ("train", "val"):
        for index in range(6):
            path = tmp_path / "v" / split / ("throw", "spin")[index % 2] / f"{index}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, render_clip("throw", seed=index, size=24, num_frames=8), fps=8)
    if broken:
        (tmp_path / "v" / "val" / "throw" / "0.mp4").write_bytes(b"junk")
    flags = ("--data", tmp_path / "v", "--output", tmp_path / "out", "--device", "cpu")
    code, out, err = run("linear-probe", *flags)
    assert code == broken
    assert out.startswith("k-NN top-1")
    assert "linear probe top-1" in out
    assert "features.npz" not in out
    assert err.count("videomae: ") == broken
    code, out, _ = run("linear-probe", *flags)
    assert out.splitlines()[-1].endswith("out/features.npz")


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name, kind in flags.COMMANDS.items():
        assert name in out
        code, text, _ = run(name, "--help")
        assert code == 0
        assert (kind.__doc__ or "").split("\n")[0] in " ".join(text.split())
    assert run() == (0, out, "")


def test_help_is_one_screen(run: Run) -> None:
    out = run("-h")[1].splitlines()
    assert len(out) < 40
    assert max(map(len, out)) <= 100
    assert "--version" in out[-1]


def test_the_shells_complete_the_commands(run: Run) -> None:
    code, out, err = run("--tyro-print-completion", "bash")
    assert (code or 0, err) == (0, "")
    assert "linear-probe" in out


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"videomae {videomae.__version__}\n", "")


def test_wrong_usage_is_2(run: Run, place: Path) -> None:
    expected = (
        "there is no command 'clasify'; did you mean 'classify'?; `videomae --help` lists them"
    )
    assert run("clasify", "x") == (2, "", f"videomae: {expected}\n")
    for wrong, right in {"modle": "model", "sampling-rate": "frame-stride"}.items():
        expected = f"classify has no option --{wrong}; did you mean --{right}?; `videomae classify"
        code, out, err = run("classify", "x", f"--{wrong}", "y")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"videomae: {expected}")
    assert (
        "pretrain has no option --learning-rate; did you mean --lr?"
        in run(*("pretrain", "--learning-rate=1"))[2]
    )
    assert "serve has no option --model: give MODEL without it;" in run("serve", "--model", "x")[2]
    assert "actions has no place for 'b'" in run("actions", place / "a", "b")[2]
    assert run("classify", "x", "--dtype", "float17")[0] == 2
    assert run("convert", place / "classifier")[0] == 2
    assert run("classify") == (2, "", "videomae classify: name at least one video\n")


def test_errors_name_the_flags_as_they_are_typed(run: Run, place: Path) -> None:
    code, _, err = run("classify", found(place)[0], "--model", place / "classifier", "--top-k", 0)
    assert code == 1
    assert "--top-k=0" in err
    text = "recipe r: mask_ratio=2 must lie in 0 to 1"
    assert cli.as_typed(text, ["mask_ratio"]) == text
    assert cli.as_typed("data/lr=1/x: lr=1, min_lr=2", ["lr", "min_lr"]) == (
        "data/lr=1/x: --lr=1, --min-lr=2"
    )


def test_the_shipped_classifier_warns_of_videos_unlike_its_own(run: Run, tmp_path: Path) -> None:
    for size, warned in ((64, False), (48, True)):
        path = tmp_path / f"{size}.mp4"
        write_video(path, render_clip("throw", seed=1, size=size, num_frames=32), fps=16)
        code, _, err = run("classify", path)
        assert code == 0
        assert ("actions-tiny knows nothing but rendered clips" in err) == warned
        assert ("48 x 48" in err) == warned


def test_errors_are_one_line_without_a_traceback(run: Run, place: Path) -> None:
    code, out, err = run("classify", found(place)[0], "--model", place / "pretrained")
    assert (code, out) == (1, "")
    assert err.startswith(f"videomae: {place / 'pretrained'} holds no trained classifier")
    assert err.count("\n") == 1
    code, _, err = run("embed", found(place)[0], "--model", place / "nothing")
    assert code == 1
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "name"),
    [("classify", "x.csv"), ("embed", "x.npz"), ("reconstruct", "x.png")],
)
def test_outputs_are_checked_before_the_work(
    command: str, name: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = reconstruct if command == "reconstruct" else predict
    monkeypatch.setattr(home, command, lambda *_, **__: pytest.fail("it worked"))
    (place / "folders" / name).mkdir(parents=True)
    code, out, err = run(
        command, place / "videos" / "a" / "1.mp4", "--output", place / "folders" / name
    )
    assert (code, out) == (1, "")
    assert f"{name} is a folder; name a file" in err
    output = place / "bad.mp4" / name  # below a file
    code, out, err = run(
        command, found(place)[0], "--model", place / "classifier", "--output", output
    )
    assert (code, out) == (1, "")
    assert err.startswith("videomae: cannot write to the output folder")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["reconstruct", "explain"])
def test_no_answer_replaces_its_video(command: str, run: Run, place: Path, tmp_path: Path) -> None:
    video = tmp_path / "c.gif"
    shutil.copy(found(place)[0], video)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    for source, output in [(video, video), (video, tmp_path), (tmp_path / "1.png", tmp_path)]:
        code, out, err = run(command, source, "--format", source.suffix[1:], "--output", output)
        assert (code, out) == (1, "")
        assert f"--output {output} would replace {source}, which is read; name another" in err


def test_warnings_are_one_line_each(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(_: Any) -> int:
        warnings.warn("look\nout", stacklevel=1)
        return 0

    before = warnings.showwarning
    monkeypatch.setitem(videos.FUNCTIONS, flags.Probe, warn)
    assert run("probe", place) == (0, "", "videomae: warning: look out\n")
    assert warnings.showwarning is before


def test_ctrl_c_ends_quietly(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(videos.FUNCTIONS, flags.Probe, interrupt)
    assert run("probe", place) == (130, "", "videomae: interrupted\n")


DEAF = """
import os, signal, sys, threading
from videomae.commands import cli
cli._ANSWER_SECONDS = cli._PATIENCE_SECONDS = 0.1
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts tests may ignore it
kind = sys.argv.pop()
def run(_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait()
    except KeyboardInterrupt:
        if kind == "hears":
            raise
    threading.Event().wait()  # as a call of a library that never ends
cli.run = run
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    ("kind", "said"),
    [("deaf", "interrupted; ending what is being computed"), ("hears", "interrupted")],
)
def test_ctrl_c_ends_the_program_whatever_it_computes(kind: str, said: str) -> None:
    command = [sys.executable, "-c", DEAF, "recipes", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"videomae: {said}\n")


def test_a_reader_that_leaves_is_no_error(place: Path) -> None:
    command = [sys.executable, "-m", "videomae", "probe", "--json", *found(place)]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        result = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr == ""


def test_python_dash_m_runs_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "videomae", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"videomae {videomae.__version__}\n"
