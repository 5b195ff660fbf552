"""What the README and the documents tell people to type works as printed."""

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from videomae.commands import cli
from videomae.rendering.motion import render_dataset
from videomae.settings import MotionSettings

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [text for kind, text in found if kind == language]


def commands() -> list[str]:
    lines = [
        line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()
    ]
    recipes = [
        command
        for recipe in sorted(ROOT.glob("src/videomae/recipes/*.toml"))
        for command in re.findall(r'"(videomae [^"]+)"', recipe.read_text())
    ]
    typed = [line.partition("#")[0].strip() for line in lines] + recipes
    return sorted({line for line in typed if line.startswith("videomae ")})


@pytest.mark.parametrize("command", commands())
def test_every_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # files are named from there
    assert cli.parse(shlex.split(command)[1:]) is not None


def test_the_first_lines_print_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    render_dataset(MotionSettings(Path("clips"), clips=12, workers=1))
    (code,) = blocks(ROOT / "README.md", "python")
    printed = StringIO()
    with redirect_stdout(printed):
        exec(code, {})
    (expected,) = blocks(ROOT / "README.md", "")
    assert printed.getvalue() == expected
    assert (tmp_path / "reconstruction.png").stat().st_size > 1000


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
