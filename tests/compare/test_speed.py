"""The figures of the README and benchmarks/speed.md are those of the files; nothing is measured."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import speed
from benchmarks.speed import CHART, PAGES, compared, described, filled, read


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_have_what_the_files_give(page: Path) -> None:
    text = page.read_text()
    assert text.count("<!-- speed: ") == text.count("<!-- end of speed -->") > 0
    assert filled(text, read()) == text, "run: python -m benchmarks.speed"


def test_the_chart_is_drawn_of_the_same_figures() -> None:
    assert described(list(compared(read()))) in CHART.read_text()


@pytest.mark.parametrize("path", sorted(speed.FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_each_line_names_its_date_machine_and_versions(path: Path) -> None:
    for record in map(json.loads, path.read_text().splitlines()):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
        assert {"processor", "cores", "cpu_capability", "torch", "python"} <= set(record["machine"])


def line(day: int, figures: dict[str, float], **machine: Any) -> str:
    facts = {"processor": "Z", "cores": 2, "cpu_capability": "A", "torch": "2", **machine}
    case = {way: {"median": seconds} for way, seconds in figures.items()}
    record = {"run": "decode", "date": f"2026-01-0{day}", "clock": "wall", "machine": facts}
    return json.dumps(record | {"figures": {"1280x720": case}, "left_out": []}) + "\n"


def test_the_newest_line_counts_that_is_compared_on_a_machine_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        line(2, {"videomae": 0.5, "decord": 2.0, "torchcodec": 1.0, "else": 0.1}, load=3)
        + line(1, {"videomae": 9.0, "decord": 2.0})
        + line(3, {"videomae": 0.4})  # nobody beside it
        + '{"date": "2026-01-09", "another": "kind"}\n'
    )
    (tmp_path / "b.jsonl").write_text(line(4, {"videomae": 7.0, "decord": 2.0}, load=30))
    (row,) = compared(read(tmp_path))
    assert (row.ours, row.theirs, row.best) == (0.5, 1.0, "torchcodec")
    text = speed.jobs_text(read(tmp_path))
    assert "| 500 ms | 1.00 s (torchcodec) | 2.00× | 2026-01-02 |" in text
    assert " ".join(text.split()).endswith("others: 2026-01-02 on 2 cores of an Z (A).")


def test_ratios_beside_busy_processes_are_of_the_slower_of_ours(tmp_path: Path) -> None:
    figures = {"videomae image": 0.1, "videomae video": 0.2, "transformers video": 0.5}
    text = line(1, figures).replace("decode", "busy").replace("1280x720", "tensor")
    (tmp_path / "a.jsonl").write_text(text)
    found = speed.busy_text(read(tmp_path))
    assert "| tensor | 100 | 200 | 500 | 2.5× |" in found
    assert found.endswith("the smallest is 2.5 (tensor).")


def test_before_and_now_stand_beside_each_other(tmp_path: Path) -> None:
    text = line(1, {"before": 3.0, "now": 2.0}) + line(1, {"now": 0.25}).replace("1280x720", "new")
    (tmp_path / "a.jsonl").write_text(text.replace("decode", "cold").splitlines()[0])
    found = speed.before_text("cold", read(tmp_path))
    assert found.endswith("| 1280x720 | 3.00 s | 2.00 s | 1.50× |")
    assert "Before is commit" not in found
    named = {**json.loads(text.splitlines()[1]), "run": "cold", "commits": {"before": "abc1234"}}
    (tmp_path / "a.jsonl").write_text(json.dumps(named))
    assert "Before is commit abc1234." in " ".join(
        speed.before_text("cold", read(tmp_path)).split()
    )
    assert speed.before_text("cold", read(tmp_path)).endswith("| new |  | 250 ms |  |")
    assert speed.before_text("warm", read(tmp_path)) == "Not measured yet."


def test_runs_are_appended_and_those_that_are_there_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command[2:])
        record = {"figures": {}, "clock": "wall", "command": " ".join(command)}
        return subprocess.CompletedProcess(command, 0, f"shown\n{json.dumps(record)}\n")

    monkeypatch.setattr(speed, "FOLDER", tmp_path)
    monkeypatch.setattr(
        speed, "RUNS", {"cold": "before_after cold", "decode": "compare.run decode"}
    )
    monkeypatch.setattr(speed.subprocess, "run", run)
    speed.measure("x", ["cold"], Path("old"), ["--repeats", "1"])
    assert asked == [
        ["benchmarks.before_after", "cold", "--before", "old", "--repeats", "1", "--json"]
    ]
    speed.measure("x", [], Path("old"), [])
    assert asked[1:] == [["benchmarks.compare.run", "decode", "--json"]]
    lines = [json.loads(each) for each in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [each["run"] for each in lines] == ["cold", "decode"]
    assert all(each["date"] and each["clock"] == "wall" for each in lines)
    assert "--before CHECKOUT --repeats" in lines[0]["command"]
