"""A sample of the faults in fuzz/fault_matrix.py, which tries them all."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits the size of files")
@pytest.mark.parametrize("case", ["best/ SIGKILL fresh x1", "pretrain checkpoint disk fresh x1"])
def test_a_struck_run_ends_as_one_that_was_left_alone(case: str, tmp_path: Path) -> None:
    words = ["-m", "fuzz.fault_matrix", "--only", case, "--output", str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *words], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert "1 of 1 as promised" in done.stdout, done.stdout + done.stderr
