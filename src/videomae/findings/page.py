"""The page of the findings, written from the result files: plots, sentences, tables."""

from pathlib import Path

from videomae.findings.arms import Plan


def write_page(plan: Plan, results_dir: Path, page: Path) -> Path:
    raise NotImplementedError
