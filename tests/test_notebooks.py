"""The notebooks run; their two files agree; what readers are shown is whole, small and clean."""

import ast
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from videomae.commands import cli

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
MAX_BYTES = 1_000_000
# Other values of the cell that is tagged `parameters`: as small as every cell still runs.
SMALL: dict[str, dict[str, Any]] = {
    "finetune": {"CLIPS": 3, "TEST_CLIPS": 1, "EPOCHS": 1},
    "pretrain": {"CLIPS": 8, "TEST_CLIPS": 20, "EPOCHS": 1, "BATCH_SIZE": 4, "WORKERS": 1},
    "embeddings": {"CLIPS": 20, "TEST_CLIPS": 20, "LABELS_PER_CLASS": [1], "WORKERS": 1},
    "long_video": {"NUM_SCENES": 2},
}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def stored(path: Path) -> Any:
    return nbformat.read(path.with_suffix(".ipynb"), as_version=4)


def names_of(source: str) -> set[str]:
    """The names that some code assigns."""
    names = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


@each_notebook
def test_runs_in_small(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.stem == "finetune":
        pytest.importorskip("transformers", reason="needs the extra clients")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = jupytext.read(path)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    small = SMALL[path.stem]
    assert set(small) <= names_of(cell.source)
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in small.items())
    # Through sockets in a folder, as ports that are free now may be taken when the kernel starts.
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            kernel_name="python3",  # that of this very environment
            startup_timeout=600,
            resources={"metadata": {"path": tmp_path}},
            config=Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"}),
        ).execute()


@each_notebook
def test_both_files_have_the_same_cells(path: Path) -> None:
    def cells(notebook: Any) -> list[tuple[Any, ...]]:
        return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]

    assert cells(stored(path)) == cells(jupytext.read(path)), f"make notebooks/{path.stem}.ipynb"


@each_notebook
def test_stored_outputs_are_those_of_a_whole_run_without_complaints(path: Path) -> None:
    code = [cell for cell in stored(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        for kind, text in {"text": output.get("text", ""), **output.get("data", {})}.items():
            if not kind.startswith("image/"):
                assert "Warning" not in text
                assert not re.search(r"(?<![\w.:<)/])/\w[\w.-]*/\w|\b[A-Z]:\\", text), text


@each_notebook
def test_stored_files_are_small(path: Path) -> None:
    assert path.with_suffix(".ipynb").stat().st_size <= MAX_BYTES


@each_notebook
def test_what_a_notebook_names_is_there(path: Path) -> None:
    text = "\n".join(c.source for c in stored(path).cells if c.cell_type == "markdown")
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S):
        for line in block.splitlines():
            assert cli.parse(shlex.split(line)[1:]) is not None
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), target
    assert f"(../notebooks/{path.stem}.ipynb)" in (ROOT / "docs" / "notebooks.md").read_text()
