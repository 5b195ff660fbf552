"""Requests drawn from the OpenAPI description, right and wrong ones: never a 5xx."""

import importlib.util
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

# Its own command, as its plugin for pytest does not know version 9.
COMMAND = Path(sysconfig.get_path("scripts")) / "schemathesis"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed"
)
def test_no_request_breaks_the_service(address: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [
            *(str(COMMAND), "run", f"{address}/openapi.json", "--no-color", "--seed", "0"),
            *("--max-examples", "15", "--phases", "examples,coverage,fuzzing"),
            # What is drawn for a file is no video, and refused.
            *("--exclude-checks", "positive_data_acceptance", "--generation-database", "none"),
        ],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "SCHEMATHESIS_HOOKS": ""},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
