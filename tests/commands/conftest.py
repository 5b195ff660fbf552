"""Command lines run inside the process."""

from collections.abc import Callable
from typing import cast

import pytest

from videomae.commands import cli


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line: the exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = cast(int, stop.code)
        return code, *capsys.readouterr()

    return run
