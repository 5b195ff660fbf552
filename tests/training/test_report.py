import json
from pathlib import Path

from videomae.training.report import forget_after, read_log


def test_a_resumed_log_tells_no_step_twice(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    forget_after(tmp_path, 2)
    assert read_log(tmp_path) == rows[:2]


def test_a_run_without_a_log_has_no_lines(tmp_path: Path) -> None:
    assert read_log(tmp_path) == []
    forget_after(tmp_path, 5)
    assert read_log(tmp_path) == []
