"""The order of files is the order of imports, and importing costs nothing."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

import videomae
from graph_files import FACTS, write_graph
from videomae.video.writer import write_video

SOURCE = Path(videomae.__file__).parent

# The rooms of the house from the ground up: a file imports files of its own room and of those
# before it. The files directly in the package are the ground.
ROOMS = [
    *(".", "compute", "video", "processing", "weights", "model", "data", "rendering"),
    *("report", "inference", "footage", "serving", "evaluation", "training", "commands"),
]
GROUND = {
    "version",
    "errors",
    "hub",
    "claim",
    "signals",
    "config",
    "fields",
    "presets",
    "tubelets",
    "masking",
    "positions",
    "recipe",
    "settings",
}
MAX_FLOORS, MAX_LINES = 10, 450

# Who may import a dependency: whole files, or `folder.*`.
DOORS = {
    "torch": ["*"],
    "numpy": ["*"],
    "PIL": ["*"],
    "av": ["video.container", "video.index", "video.decoder", "video.live", "video.writer"],
    "safetensors": ["weights.checkpoint"],
    "huggingface_hub": ["hub", "report.card", "commands.doctor", "commands.space"],
    "platformdirs": ["inference.cache"],
    "matplotlib": ["report.fonts", "report.heat", "report.plots"],
    "jinja2": ["report.html"],
    "tomli_w": ["recipe"],
    "tyro": ["commands.*"],
    "rich": ["commands.*", "training.log"],
    "torchvision": ["training.augment"],
    "threadpoolctl": ["compute.threads"],
    "accelerate": ["compute.distributed"],
    "fsspec": ["data.opening"],
    "ray": ["footage.cluster"],
    "faiss": ["footage.duplicates"],
    "torchmetrics": ["evaluation.metrics"],
    "sklearn": ["evaluation.classifiers"],
    "pyarrow": ["data.rows"],
    "flash_attn": ["model.attention"],
    "openvino": ["inference.formats", "inference.runtimes"],
    "nncf": ["inference.formats"],
    "onnxruntime": ["inference.formats", "inference.runtimes"],
    "executorch": ["inference.formats"],
    "torchao": ["inference.formats"],
    "fastapi": ["serving.*"],
    "starlette": ["serving.*"],
    "pydantic": ["serving.facts", "serving.problems"],
    "prometheus_client": ["serving.app", "serving.service"],
    "uvicorn": ["commands.serve"],
}

# These are read by the command line before a command is chosen, so they do without the heavy ones.
HEAVY = ["torch", "numpy", "av", "transformers", "torchvision", "matplotlib"]
LIGHT_FILES = ["errors", "hub", "config", "settings", "processing.sampling", "commands.cli"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
PACKAGES = sorted(name for name in FILES if name.endswith("__init__"))
MODULES = sorted(set(FILES) - set(PACKAGES))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Full names of what a file imports anywhere, inside functions too, with line numbers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write videomae.x"
            assert node.module
            if node.module.split(".")[0] != "videomae":
                yield node.module, node.lineno
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_file = whole.removeprefix("videomae.") in FILES
                yield (whole if is_file else node.module), node.lineno
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), node.lineno


def is_one_of(name: str, patterns: list[str]) -> bool:
    return any(
        pattern in ("*", name) or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
        for pattern in patterns
    )


def room_of(name: str) -> str:
    return name.split(".")[0] if "." in name else "."


def inner_imports(name: str) -> Iterator[tuple[str, int]]:
    """The files of the package that one of them imports, with line numbers."""
    for target, line in imported(FILES[name]):
        if target.startswith("videomae."):
            yield target.removeprefix("videomae."), line


def test_every_file_is_in_a_room() -> None:
    assert {room_of(name) for name in MODULES} == set(ROOMS)
    assert {name for name in MODULES if room_of(name) == "."} == GROUND | {"__main__"}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__"])
def test_a_file_imports_no_room_above_its_own(name: str) -> None:
    below = set(ROOMS[: ROOMS.index(room_of(name)) + 1])
    for target, line in imported(FILES[name]):
        assert target != "videomae", f"{name}:{line} imports all; name the file"
    for target, line in inner_imports(name):
        assert target in FILES, f"{name}:{line} imports {target}, which is no file"
        assert room_of(target) in below, f"{name}:{line} imports {target}, of a room above"


def test_files_import_in_no_circle_and_rooms_stand_on_few_floors() -> None:
    def height(links: dict[str, set[str]]) -> dict[str, int]:
        order = TopologicalSorter(links).static_order()  # CycleError names a circle
        heights: dict[str, int] = {}
        for node in order:
            heights[node] = 1 + max((heights[below] for below in links[node]), default=0)
        return heights

    files = {name: {target for target, _ in inner_imports(name)} for name in MODULES}
    height(files)
    # A folder is one floor, and so is each file of the ground.
    rooms: dict[str, set[str]] = {}
    for name, targets in files.items():
        room = name if room_of(name) == "." else room_of(name)
        rooms.setdefault(room, set()).update(
            t if room_of(t) == "." else room_of(t) for t in targets
        )
    heights = height({room: below - {room} for room, below in rooms.items()})
    assert max(heights.values()) <= MAX_FLOORS, heights


@pytest.mark.parametrize("name", MODULES)
def test_a_file_can_be_read_in_one_sitting(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_packages_hold_no_code_but_the_public_names() -> None:
    for name in PACKAGES:
        if name != "__init__":
            body = ast.parse(FILES[name].read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), f"{name} holds code"


@pytest.mark.parametrize("name", MODULES)
def test_one_door_per_dependency(name: str) -> None:
    for target, line in imported(FILES[name]):
        top = target.split(".")[0]
        if top == "videomae" or top in sys.stdlib_module_names:
            continue
        assert top in DOORS, f"{name}:{line} imports {top}, which is not a dependency"
        assert is_one_of(name, DOORS[top]), f"{name}:{line} imports {top}; use {DOORS[top]}"


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh process holds after running some code."""
    report = "import sys; print('loaded:', *{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", ["", *LIGHT_FILES])
def test_importing_a_light_file_loads_nothing_heavy(name: str) -> None:
    loaded = loaded_by(f"import videomae{name and '.' + name}")
    assert "videomae" in loaded
    assert not loaded & set(HEAVY)


def test_asking_for_help_loads_nothing_heavy() -> None:
    loaded = loaded_by(
        "import sys; sys.argv = ['videomae', '--help']\n"
        "from videomae.__main__ import main\n"
        "assert main() == 0"
    )
    assert "videomae" in loaded
    assert not loaded & {*HEAVY, "tyro", "rich", "dataclasses", "typing", "pathlib"}


def test_classifying_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    path = str(tmp_path / "a.mp4")
    code = f"""
import gc, sys
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video
write_video({path!r}, render_clip("throw", seed=0, num_frames=20))
from videomae.commands.cli import main
assert main(["classify", {path!r}, "--json", "--engine", "torch"]) == 0
assert gc.isenabled() and gc.get_freeze_count()  # torch was imported without the collector
trained = [name for name in sys.modules if name.startswith("videomae.training")]
assert not trained, trained
"""
    strangers = {"torchvision", "transformers", "accelerate", "matplotlib", "huggingface_hub"}
    strangers |= {
        "torchmetrics",
        "sklearn",
        "pyarrow",
        "fsspec",
        "typeguard",
        "openvino",
        "onnxruntime",
    }
    assert not loaded_by(code) & strangers


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_an_exported_model_answers_without_torch(tmp_path: Path, command: str) -> None:
    own = {} if command == "classify" else {"task": "embed", "features": "pooled"}
    graph = write_graph(tmp_path / "model.onnx", {**FACTS, **own})
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", frames)
    code = f"""
from videomae.commands.cli import main
assert main([{command!r}, {str(path)!r}, "--json", "--model", {str(graph)!r}]) == 0
"""
    loaded = loaded_by(code)
    assert "onnxruntime" in loaded
    strangers = {"torch", "matplotlib", "huggingface_hub", "onnx", "pyarrow", "openvino"}
    assert not loaded & strangers


def test_importing_leaves_threads_seeds_logging_and_environment_alone() -> None:
    code = """
import logging, os, random, warnings
import torch
import torchvision, matplotlib, safetensors, av, PIL.Image  # what these do themselves is theirs
def state():
    return (
        dict(os.environ), torch.get_num_threads(), torch.initial_seed(), random.getstate(),
        list(logging.getLogger().handlers), logging.getLogger().level,
        torch.get_default_dtype(), torch.is_grad_enabled(), list(warnings.filters),
    )
before = state()
import videomae
for name in videomae.__all__:
    getattr(videomae, name)
assert state() == before
"""
    assert "videomae" in loaded_by(code)


def test_every_public_name_is_there() -> None:
    for name in videomae.__all__:
        assert getattr(videomae, name) is not None
    assert dir(videomae) == sorted(videomae.__all__)
    assert videomae.VideoMAEFeatureExtractor is videomae.VideoMAEImageProcessor
    assert issubclass(videomae.errors.ConfigError, ValueError)


def test_public_names_are_pinned() -> None:
    assert set(videomae.__all__) == {
        "SaveConfigCallback",
        "VideoMAEConfig",
        "VideoMAEFeatureExtractor",
        "VideoMAEForPreTraining",
        "VideoMAEForVideoClassification",
        "VideoMAEImageProcessor",
        "VideoMAEModel",
        "VideoMAEPreTrainedModel",
        "VideoMAEVideoProcessor",
        "__version__",
        "classify",
        "embed",
        "errors",
        "masking",
        "reconstruct",
        "timeline",
    }


def test_type_checkers_see_the_public_names_where_they_are_loaded_from() -> None:
    tree = ast.parse(FILES["__init__"].read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        alias.name: (node.module or "").removeprefix("videomae").strip(".") or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == videomae._HOMES
    assert set(seen) | {"__version__"} == set(videomae.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'videomae' has no attribute 'Clasify'"):
        _ = videomae.Clasify
    with pytest.raises(ImportError):
        importlib.import_module("videomae.utils")


def test_version_is_one_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", videomae.__version__)


def test_contributing_shows_the_house_as_it_is() -> None:
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    house = text.split("src/videomae/\n")[1].split("```")[0]
    shown, room = set(), ""
    for line in house.splitlines():
        if found := re.match(r"  (\w+)/ ", line):
            room = found[1]
        elif found := re.match(r"( +)(\w+)\.py ", line):
            shown.add(found[2] if len(found[1]) == 2 else f"{room}.{found[2]}")
    assert shown == set(MODULES) - {"__main__"}
