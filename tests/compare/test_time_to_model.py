"""The table of the Trainer with either's classes."""

from pathlib import Path
from typing import Any

from benchmarks import time_to_model
from benchmarks.time_to_model import MARKS, trainers_table


def row(who: str, seed: int, top_1: float, cpu_seconds: float, epochs: int = 6) -> dict[str, Any]:
    machine = {"processor": "some processor", "torch": "2.14.1"}
    found = {"who": who, "top_1": top_1, "cpu_seconds": cpu_seconds, "machine": machine}
    return found | {"date": "2026-11-26", "settings": {"seed": str(seed), "epochs": str(epochs)}}


def test_seeds_come_in_order_and_each_has_its_medians() -> None:
    rows = [row("trainer float32", 1, 40.0, 90.0), row("trainer float32", 0, 30.0, 80.0)]
    rows += [row("trainer bfloat16", 0, 1.0, 1.0)]
    rows += [row("transformers float32", seed, 33.0 + seed, 100.0) for seed in (0, 1)]
    rows += [
        row("videomae float32", 0, 90.0, 140.0, epochs=16),
        row("videomae float32", 0, 32.0, 50.0),
    ]
    assert trainers_table(rows).splitlines()[2:] == [
        "| 6 | transformers' Trainer | 33.0, 34.0 | 33.5 | 100.0, 100.0 | 100.0 |",
        "| 6 | the same, with the classes here | 30.0, 40.0 | 35.0 | 80.0, 90.0 | 85.0 |",
        "| 6 | `videomae finetune` | 32.0 | 32.0 | 50.0 | 50.0 |",
        "| 16 | `videomae finetune` | 90.0 | 90.0 | 140.0 | 140.0 |",
        "",
        "2026-11-26, float32, some processor, torch 2.14.1.",
    ]


def test_the_page_has_a_place_for_it() -> None:
    text = Path(time_to_model.__file__).with_suffix(".md").read_text(encoding="utf-8")
    assert all(text.count(mark) == 1 for mark in MARKS)
