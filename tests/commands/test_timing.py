from typing import Any

import pytest
import torch

from videomae.commands import timing
from videomae.commands.timing import stopwatch, take_turns
from videomae.errors import ConfigError

CPU = torch.device("cpu")


def test_jobs_take_turns_and_the_first_round_does_not_count() -> None:
    clock = iter([0, 9, 10, 19, 20, 21, 30, 33, 40, 43, 50, 53])
    order: list[str] = []
    jobs: dict[str, Any] = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = take_turns(jobs, lambda: float(next(clock)), repeats=2)
    assert order == ["a", "b"] * 3
    assert found["a"] == {"median": 2, "low": 1.5, "high": 2.5}  # of 1 and 3 seconds
    assert found["b"] == {"median": 3, "low": 3, "high": 3}


def test_the_cpu_clock_sees_no_gpu() -> None:
    with pytest.raises(ConfigError, match="clock='cpu' sees no work of cuda; use clock='wall'"):
        stopwatch("cpu", torch.device("cuda"))
    for clock in ("cpu", "wall"):
        now = stopwatch(clock, CPU)  # type: ignore[arg-type]
        assert now() <= now()


def test_the_cpu_clock_counts_processes_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    now = stopwatch("cpu", CPU)
    before = now()
    ended = type("Ended", (), {"children_user": 1000.0, "children_system": 500.0})
    monkeypatch.setattr(timing.os, "times", ended)
    assert now() - before > 1400


def test_the_machine_is_described() -> None:
    facts = timing.about_machine(CPU)
    assert {"processor", "cores", "threads", "load", "torch", "videomae", "python"} <= set(facts)
    assert "decord" not in facts
