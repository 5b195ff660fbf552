"""What a hosting service and a citing reader find: forms, workflows and the citation are valid."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import videomae

ROOT = Path(__file__).parents[1]
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", sorted(ROOT.glob(".github/workflows/*.yml"))),
        ("dependabot", [ROOT / ".github" / "dependabot.yml"]),
        ("github-issue-forms", [path for path in FORMS.glob("*.yml") if path.stem != "config"]),
        ("github-issue-config", [FORMS / "config.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
        ("compose-spec", [ROOT / "deploy" / "compose.yaml"]),
    ],
)
def test_files_keep_to_their_schemas(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    result = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert files
    assert result.returncode == 0, result.stdout + result.stderr


def test_workflows_pin_actions_by_version_and_run_targets_that_exist() -> None:
    text = "\n".join(path.read_text() for path in ROOT.glob(".github/workflows/*.yml"))
    actions = re.findall(r"uses: (\S+)", text)
    assert actions
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", action) for action in actions)
    assert text.count("runs-on:") == text.count("timeout-minutes:")
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([\w-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_citation_names_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {videomae.__version__}\n" in citation
