"""What users install: the wheel, away from this folder."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import videomae
from videomae.recipe import recipe_names

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    result = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel_path: Path) -> None:
    assert wheel_path.name == f"videomae-{videomae.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel_path) as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names} == {
        "videomae",
        f"videomae-{videomae.__version__}.dist-info",
    }
    package = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("videomae/")} == package
    assert {"videomae/py.typed", "videomae/commands/cli.py"} < names
    assert not [name for name in names if re.search("reproduction|benchmarks|tests", name)]
    assert wheel_path.stat().st_size < 12e6
    for model in ("actions-tiny", "actions-tiny-pretrain"):
        assert f"videomae/assets/{model}/config.json" in names
        assert f"videomae/assets/{model}/model.safetensors" in names
    assert {f"videomae/recipes/{name}.toml" for name in recipe_names()} < names
    assert "videomae/recipes/kinetics400-base-pretrain.toml" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_works_from_an_empty_folder(wheel_path: Path, tmp_path: Path) -> None:
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel_path) as wheel:
        wheel.extractall(installed)
    code = """
import sys, videomae
assert videomae.__file__.startswith(sys.argv[1]), videomae.__file__
model = videomae.VideoMAEForVideoClassification.from_pretrained("actions-tiny")
assert model.config.num_labels == 20
from videomae.commands.cli import main
sys.argv = ["videomae", "--version"]
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(installed)],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert videomae.__version__ in result.stdout
    assert not list(empty.iterdir())
