"""docs/licences.md has a licence for whatever pip installs with the package."""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]


def plain(name: str) -> str:
    """The name of a package as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_has_its_licence_in_the_list() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {plain(re.match(r"[\w.-]+", line)[0]) for line in needed} - {"videomae"}
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    listed = {plain(name) for name, _ in re.findall(r"^\| (\S+) \| (.+) \|$", page, re.M)}
    missing = names - listed
    assert not missing, f"add what the command of docs/licences.md says of {missing}"
