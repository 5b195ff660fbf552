"""What the files of a run say of it, whole, half written or missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from videomae.errors import ConfigError
from videomae.recipe import write_recipe
from videomae.report.record import numbers, read_log, read_run, thin
from videomae.settings import FinetuneSettings, PretrainSettings


def write_log(folder: Path, rows: list[dict[str, Any]], *, rest: str = "") -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "log.jsonl").write_text(text + rest)


def test_the_length_of_a_run_follows_from_its_last_line(tmp_path: Path) -> None:
    write_recipe(PretrainSettings(data=Path("some/clips"), epochs=30), tmp_path / "settings.toml")
    # 7 steps an epoch; the log rounds epochs to 6 digits.
    write_log(tmp_path, [{"step": 100, "epoch": 14.2857, "loss": 0.5, "seconds": 20.0}])
    run = read_run(tmp_path)
    assert (run.command, run.title) == ("pretrain", "Pre-training on clips")
    assert (run.step, run.num_steps, run.is_finished, run.seconds) == (100, 210, False, 20.0)


def test_reports_and_evaluations_are_told_apart(tmp_path: Path) -> None:
    write_recipe(FinetuneSettings(epochs=2), tmp_path / "settings.toml")
    reports = [
        {"step": 1, "epoch": 0.5, "loss": None, "lr": 0.1, "clips_per_second": 1.0, "seconds": 1},
        {"step": 2, "epoch": 1.0, "loss": 0.7, "lr": 0.2, "clips_per_second": 9.0, "seconds": 2},
        {"step": 4, "epoch": 2.0, "loss": 0.6, "lr": 0.1, "clips_per_second": 3.0, "seconds": 4},
    ]
    evaluation = {"step": 4, "epoch": 2, "score": 50.0, "top1": 50.0, "seconds": 9}
    write_log(tmp_path, [*reports, evaluation], rest='[1, 2]\n{"step": 9, "lo')
    run = read_run(tmp_path)
    assert run.command == "finetune"
    assert run.is_finished
    assert run.seconds == 9
    assert run.recent("clips_per_second") == 3.0  # the median
    assert run.recent("data_ms") is None
    assert run.curve("loss") == ([2, 4], [0.7, 0.6])  # null is no point
    assert run.curve("top1", over="epoch") == ([2], [50.0])


def test_lines_that_are_no_lines_of_a_log_are_left_out_with_a_warning(tmp_path: Path) -> None:
    good = b'{"step": 1, "loss": 0.5, "seconds": 1.0}\n'
    nested = b"[" * 100_000
    for bad in (b"oops", b"[1]", b'"\xff"', nested, b'{"step": "2"}', b'{"seconds": 1e999}'):
        (tmp_path / "log.jsonl").write_bytes(good + bad + b"\n" + good)
        with pytest.warns(UserWarning, match=r"log\.jsonl: line 2 is no line of a log, left out"):
            assert len(read_log(tmp_path)) == 2
    (tmp_path / "log.jsonl").write_bytes(good + b'{"st')  # of a run that was killed: no word of it
    assert [row["step"] for row in read_log(tmp_path)] == [1]


def test_an_empty_folder_is_a_run_of_which_nothing_is_known(tmp_path: Path) -> None:
    run = read_run(tmp_path)
    assert (run.command, run.title, run.step, run.num_steps) == (None, "Run", 0, None)
    assert run.curve("loss") == ([], [])
    with pytest.raises(ConfigError, match="is no folder; give the output folder of a run"):
        read_run(tmp_path / "nowhere")


def test_half_written_files_count_as_missing(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('data = "cli')
    (tmp_path / "environment.json").write_text('{"torch": ')
    (tmp_path / "results.json").write_bytes(b"\xff\xfe")
    (tmp_path / "bad_videos.json").write_text("[]")
    (tmp_path / "run.json").write_text("[" * 100_000)
    run = read_run(tmp_path)
    assert (run.settings, run.environment, run.results, run.bad) == ({}, {}, {}, [])


def test_long_curves_are_thinned_to_means_and_end_where_they_end() -> None:
    assert thin([1, 2, 3], [4, 5, 6], most=3) == ([1, 2, 3], [4, 5, 6])
    assert thin([1, 2, 3, 4, 5], [10, 20, 30, 40, 90], most=3) == ([1.5, 3.5, 5], [15, 35, 90])
    xs, ys = thin([float(x) for x in range(100_001)], [1.0] * 100_001)
    assert len(xs) == len(ys) == 500
    assert xs == sorted(xs)
    assert xs[-1] == 100_000


def test_only_finite_numbers_are_numbers() -> None:
    values = [1, 2.5, True, None, "3", float("nan"), float("inf")]
    found = numbers({str(index): value for index, value in enumerate(values)})
    assert list(found.values()) == [1, 2.5, None, None, None, None, None]
