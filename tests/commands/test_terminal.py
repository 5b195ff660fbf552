import ast
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from videomae.commands import cli, terminal
from videomae.errors import complain
from videomae.video.reader import BadVideo

FILES = [Path("a.mp4"), Path("b.mp4"), Path("c.mp4")]
RESULTS = [1, BadVideo(Path("b.mp4"), "b.mp4: is\nbroken"), 3]


def report(results: Any, *, as_json: bool = False, files: list[Path] = FILES) -> int:
    def show(result: int) -> terminal.Shown:
        return {"n": result}, [(f"#{result}",)]

    return terminal.report(results, files, "counting", show, widths=(5,), as_json=as_json)


def test_results_go_to_stdout_and_complaints_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(RESULTS) == 1
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [["a.mp4", "#1"], ["c.mp4", "#3"]]
    assert err == "videomae: b.mp4: is broken\nvideomae: 1 of 3 videos could not be read\n"


def test_the_width_of_all_paths_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = Mock(return_value=9)
    monkeypatch.setattr(terminal, "path_width", widths)
    report([1, 2, 3])
    widths.assert_called_once_with(FILES)  # each time, it would be quadratic in their number


def test_json_has_a_line_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(RESULTS, as_json=True) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"path": "a.mp4", "n": 1},
        {"path": "b.mp4", "error": "b.mp4: is\nbroken"},
        {"path": "c.mp4", "n": 3},
    ]
    assert err.startswith("videomae: b.mp4: is broken\n")


def test_all_well_is_0_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([1, 2, 3], as_json=True) == 0
    assert capsys.readouterr().err == ""


def test_a_result_is_printed_before_the_next_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []

    def results() -> Any:
        for number in range(3):
            yield number
            printed.append(capsys.readouterr().out)

    report(results(), as_json=True)
    assert [json.loads(line)["n"] for line in printed] == [0, 1, 2]


def test_a_terminal_shows_a_bar_that_leaves_the_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich believe in a terminal
    monkeypatch.setenv("COLUMNS", "100")
    assert report(RESULTS) == 1
    out, err = capsys.readouterr()
    assert "counting" in out
    assert "#1" in out
    assert "b.mp4: is" in out  # above the bar, as it is the same terminal
    assert "1 of 3 videos could not be read" in err


def test_json_on_a_terminal_is_not_mixed_with_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    report([1, 2, 3], as_json=True)
    out, err = capsys.readouterr()
    assert [json.loads(line)["n"] for line in out.splitlines()] == [1, 2, 3]
    assert "counting" not in err


def test_columns_line_up_from_result_to_result(capsys: pytest.CaptureFixture[str]) -> None:
    cells = {"a": ("bb", "c"), "aaaaaa": ("b", "ccc")}
    files = [Path(name) for name in cells]
    show = {name: ({}, [row]) for name, row in cells.items()}
    code = terminal.report(cells, files, "x", show.__getitem__, widths=(4,), as_json=False)
    assert code == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "a       bb    c",
        "aaaaaa  b     ccc",
    ]


def test_lines_for_programs_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x" * 90
    terminal.report([1], [Path(name)], "x", lambda _: ({}, [("y" * 200,)]), as_json=False)
    assert capsys.readouterr().out.strip() == name + "  " + "y" * 200


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """No part of a file's name or of a label is taken for markup or for an emoji."""
    terminal.report([1], [Path("[b]:cat:.mp4")], "x", lambda _: ({}, [("[i]z",)]), as_json=False)
    assert capsys.readouterr().out.split() == ["[b]:cat:.mp4", "[i]z"]


def test_scores_become_bars_where_there_are_characters_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drawn(score: float) -> str:
        console = Console(file=io.StringIO(), width=30)
        with console.capture() as capture:
            console.print(terminal.score_bar(score))
        return capture.get().strip()

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert [drawn(score) for score in (-1, 0, 0.5, 7)] == ["", "", "█" * 10, "█" * 20]
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))
    assert terminal.score_bar(0.5) == ""


def test_warnings_and_complaints_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = cli.show_warning
        warnings.warn("beware\nof this", stacklevel=1)
    assert complain("no", code=5) == 5
    assert capsys.readouterr().err == "videomae: warning: beware of this\nvideomae: no\n"


def test_a_bar_says_how_many_a_second_and_counts_no_earlier_work_as_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    clock = iter(range(1000))
    with terminal.Screen("counting") as screen:
        monkeypatch.setattr(screen.progress, "get_time", lambda: float(next(clock)))
        screen.advance(1000, 1010)
        for done in range(1001, 1004):
            screen.advance(done, 1010)
        (task,) = screen.progress.tasks
        assert task.speed == pytest.approx(1, rel=0.6)
        assert (task.completed, task.total) == (1003, 1010)
    assert "1003/1010" in capsys.readouterr().out
    assert terminal._Rate().render(task).plain == f"{task.speed:.3g}/s"


def test_what_would_move_the_cursor_reaches_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = "a\x1b[2J\x9b1m\x07\u202e\rb"
    (tmp_path / "r.toml").write_text(f"# {odd}\nlr = 1\n", newline="")
    assert cli.main(["recipes", str(tmp_path / "r.toml")]) == 0
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich believe in a terminal
    with terminal.Screen(odd, 2) as screen:
        screen.out.print(odd)
        screen.out.print(terminal.aligned([(odd, odd)]))
        screen.update(odd, 1, 2)
        screen.complain(odd)
    terminal.report([1], [Path(odd)], odd, lambda _: ({odd: odd}, [(odd,)]), as_json=False)
    terminal.report([1], [Path(odd)], odd, lambda _: ({odd: odd}, [(odd,)]), as_json=True)
    shown = "".join(capsys.readouterr())
    assert shown.count(r"a\x1b[2J\x9b1m\x07\u202e\rb") >= 6
    for sign in ("\x1b[2J", "\x9b", "\x07", "\u202e", "\rb"):
        assert sign not in shown


def test_text_leaves_for_a_terminal_by_ways_that_escape_it() -> None:
    source = Path(terminal.__file__).parents[1]
    for path in source.rglob("*.py"):
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        bare = [call.lineno for call in calls if ast.unparse(call.func) == "print"]
        assert not bare or path.name == "errors.py", f"{path}: print in lines {bare}; use say"
