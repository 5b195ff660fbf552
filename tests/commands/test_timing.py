from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from videomae.commands import timing
from videomae.commands.timing import Timing, exponent, stopwatch, take_turns
from videomae.errors import ConfigError

CPU = torch.device("cpu")


def test_a_timing_is_the_median_between_quartiles() -> None:
    assert Timing.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Timing(3.0, 2.0, 4.0)
    assert str(Timing(0.1, 0.09, 0.13)) == "100.0 ±20.0 ms"
    assert Timing.of([3.0]).over(Timing.of([2.0])) == "1.50x"


def test_jobs_take_turns_and_the_first_round_does_not_count() -> None:
    clock = iter(range(100))
    order: list[str] = []
    logged: list[str] = []

    def phases() -> Iterator[str]:
        order.append("b")
        yield "first"
        yield "second"

    jobs: dict[str, Any] = {"a": lambda: order.append("a"), "b": phases}
    found = take_turns(jobs, lambda: float(next(clock)), repeats=2, log=logged.append)
    assert order == ["a", "b"] * 3
    assert logged[:3] == ["a, warming up", "b, warming up", "a, round 1 of 2"]
    assert found["a"] == {"total": Timing(1, 1, 1)}
    assert found["b"]["second"].median == 1
    assert found["b"]["total"].median == 3


def test_an_exponent_is_the_slope_of_the_logarithms() -> None:
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert exponent([8, 16, 32, 64], [5, 5, 5, 5]) == pytest.approx(0)


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


def hold(num_bytes: int) -> Callable[[], torch.Tensor]:
    """A job that needs so many bytes, for a process of its own."""
    return lambda: torch.ones(num_bytes // 4)


@pytest.mark.slow
def test_peak_memory_is_what_came_on_top_of_the_imports() -> None:
    peak = timing.peak_of(hold, 200_000_000, small=4, device=CPU)
    assert 195e6 <= peak < 260e6  # and not the hundreds of MB that torch itself takes


def test_peak_memory_does_not_depend_on_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    there = timing.peak_bytes()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError))
    assert timing.peak_bytes() >= there * 0.9


def test_the_machine_is_described() -> None:
    facts = timing.about_machine(CPU)
    assert {"processor", "cores", "threads", "load", "torch", "videomae", "python"} <= set(facts)
    assert "decord" not in facts


def test_figures_become_tables_and_plain_json() -> None:
    ours, theirs = Timing(0.1, 0.09, 0.11), Timing(0.2, 0.2, 0.2)
    rows = {"ours": {"step": ours, "peak_bytes": 5_000_000}, "theirs": {"step": theirs, "x": 0.5}}
    assert timing.as_plain(rows)["theirs"] == {
        "step": {"median": 0.2, "low": 0.2, "high": 0.2},
        "x": 0.5,
    }
    console = Console(width=100)
    with console.capture() as capture:
        console.print(timing.table_of(rows), timing.table_of({"ours": ours, "theirs": theirs}))
    lines = [line.split() for line in capture.get().splitlines() if line.strip(" ─")]
    assert lines == [
        ["step", "peak_bytes", "x"],
        ["ours", "100.0", "±10.0", "ms", "5,000,000"],
        ["theirs", "200.0", "±0.0", "ms", "(2.00x)", "0.5"],
        ["ours", "100.0", "±10.0", "ms"],
        ["theirs", "200.0", "±0.0", "ms", "(2.00x)"],
    ]
