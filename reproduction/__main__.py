"""Reproduce the paper's three findings in small: masks, few labels, matching data.

Runs the experiments that have no results yet, in the order of the plan, then fills the figures,
tables and plots of the page. Stop it at any time; the same command goes on where it stopped.
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reproduction.plan import FULL, QUICK
from reproduction.report import write_page
from reproduction.run import Study


@dataclass(frozen=True)
class Findings:
    quick: bool = False
    """A few experiments in half an hour, with results and page in the output folder."""
    output: Path = Path("runs/findings")
    """The folder of rendered clips and runs; what is finished there is not run again."""
    results: Path = Path("reproduction/results")
    """The folder of the results, a small JSON for each finished experiment."""
    page: Path = Path("docs/reproduction.md")
    """The page whose tables and plots are filled in; one that does not exist is made."""
    workers: int = 2
    """Experiments that run at a time, in a process of one thread each."""
    only_page: bool = False
    """Run nothing; fill in the page from the results that are there."""


def main(arguments: Sequence[str] | None = None) -> int:
    command = tyro.cli(Findings, args=arguments, prog="python -m reproduction", description=__doc__)
    study, page = Study(FULL, command.output, command.results), command.page
    if command.quick:
        folder = command.output / "quick"
        study, page = Study(QUICK, command.output, folder / "results"), folder / "reproduction.md"
    failed: dict[str, str] = {}
    if not command.only_page:
        # To terminate it stops it at checkpoints, as Ctrl-C does.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            failed = study.run(workers=command.workers)
        finally:
            signal.signal(signal.SIGTERM, before)
    for name, reason in failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    write_page(study, page)
    print(f"wrote {page}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
