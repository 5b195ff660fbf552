"""Which attention is fastest here: eager or SDPA, by precision and number of tokens.

    python benchmarks/attention.py

Shapes are those of ViT-B (12 heads of 64) on 224-px clips: 1568 tokens in fine-tuning, 160 visible
ones in pre-training; and those of the shipped tiny model. Interleaved runs, medians, one process.
"""

import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from videomae.attention import attend, best_implementation

SHAPES = {  # clips, heads, tokens, features per head
    "tiny, 32 visible": (64, 4, 32, 32),
    "tiny, 128": (32, 4, 128, 32),
    "base, 160 visible": (2, 12, 160, 64),
    "base, 512": (1, 12, 512, 64),
    "base, 1568": (1, 12, 1568, 64),
}
RUNS = 9


def seconds(implementation: str, shape: tuple[int, ...], dtype: torch.dtype, train: bool) -> float:
    query, key, value = (torch.randn(shape, dtype=dtype, requires_grad=train) for _ in range(3))
    start = time.perf_counter()
    context, _ = attend(query, key, value, implementation=implementation)
    if train:
        context.sum().backward()
    return time.perf_counter() - start


def main() -> None:
    table = Table(title=f"ms, medians of {RUNS}; {torch.get_num_threads()} threads")
    table.add_column("shape")
    for column in ("dtype", "pass", "eager", "sdpa", "eager / sdpa", "auto takes"):
        table.add_column(column, justify="right")
    torch.manual_seed(0)
    for name, shape in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            for train in (False, True):
                taken: dict[str, list[float]] = {"eager": [], "sdpa": []}
                for run in range(RUNS + 2):
                    for implementation, times in taken.items():
                        spent = seconds(implementation, shape, dtype, train)
                        if run >= 2:  # the first two warm up
                            times.append(1000 * spent)
                eager, sdpa = (statistics.median(times) for times in taken.values())
                table.add_row(
                    name,
                    str(dtype).removeprefix("torch."),
                    "both ways" if train else "forward",
                    f"{eager:.2f}",
                    f"{sdpa:.2f}",
                    f"{eager / sdpa:.2f}",
                    best_implementation("cpu", dtype, shape[2]),
                )
    Console().print(table)


if __name__ == "__main__":
    main()
