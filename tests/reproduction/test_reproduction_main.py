"""The command of the findings."""

from pathlib import Path

import pytest

from reproduction.__main__ import main
from reproduction.plan import FULL, QUICK
from reproduction.run import Study


def test_it_runs_the_chosen_plan_and_writes_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(study: Study, *, workers: int) -> object:
        seen.append((study.plan, study.folder, study.results_dir, workers))
        return {"two": "exit code 1, see x"} if study.plan is QUICK else {}

    seen: list[object] = []
    monkeypatch.setattr(Study, "run", run)
    place = tmp_path / "runs"
    assert main(["--quick", "--output", str(place)]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == (
        f"wrote {place / 'quick' / 'reproduction.md'}\n",
        "two: exit code 1, see x\n",
    )
    page, results = place / "a" / "page.md", place / "results"
    words = ["--output", str(place), "--results", str(results), "--page", str(page)]
    assert main(["--workers", "1", *words]) == 0
    assert capsys.readouterr() == (f"wrote {page}\n", "")
    assert main(["--only-page", *words]) == 0
    assert seen == [(QUICK, place, place / "quick" / "results", 2), (FULL, place, results, 1)]
    assert f"| all | 0 of {len(FULL.experiments)} |" in page.read_text()
