"""The order of files is the order of imports, and importing costs nothing."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import videomae

SOURCE = Path(videomae.__file__).parent

# A file imports only files above it. New files get a place here.
PICTURE = """
errors hub config
tubelets masking cpu attention outputs spellings weights matching pretrained layers modeling
sampling video_limits video_bytes frame_folder video_file video_write video frames processing
pipeline
engine_cache exporting engines visualize webpage inference motion
datasets.manifest datasets.opening datasets.lists datasets.published datasets.checking
datasets.survey
training.settings training.augment training.data training.machine training.optim training.step
training.checkpoint training.report training.card training.record training.page training.start
training.loop training.pretrain
training.metrics training.predictions training.views training.evaluate training.frozen
training.finetune
measuring peers model_speed
findings.arms findings.copying findings.run
findings.outcomes findings.claims findings.plots findings.tables findings.sentences findings.page
apps.bench apps.convert apps.demo apps.prepare
terminal commands cli __main__
"""
ORDER = PICTURE.split()

# Who may import a dependency: whole files, or `folder.*`.
DOORS = {
    "torch": ["*"],
    "numpy": ["*"],
    "PIL": ["*"],
    "av": ["video_file", "video_write", "peers"],
    "transformers": ["peers"],
    "decord": ["peers"],
    "torchcodec": ["peers"],
    "safetensors": ["weights"],
    "huggingface_hub": ["hub"],
    "matplotlib": ["visualize"],
    "tyro": ["cli", "commands"],
    "rich": ["terminal", "cli", "training.report", "apps.*"],
    "torchvision": ["training.augment"],
    "accelerate": ["training.machine"],
    "fsspec": ["datasets.opening"],
    "torchmetrics": ["training.metrics"],
    "pyarrow": ["training.predictions"],
    "flash_attn": ["attention"],
    "openvino": ["exporting", "peers"],
    "nncf": ["exporting"],
    "onnxruntime": ["exporting"],
}

# These are read by the command line before a command is chosen, so they do without the heavy ones.
HEAVY = ["torch", "numpy", "av", "transformers", "torchvision", "matplotlib"]
LIGHT_FILES = ["errors", "hub", "config", "sampling", "training.settings", "cli"]


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
                if alias.name == "__version__":  # a plain text, known before anything is imported
                    continue
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


def test_every_file_has_its_place_in_the_order() -> None:
    unplaced = sorted(set(MODULES) - set(ORDER))
    assert not unplaced, f"add to ORDER, above what imports them: {unplaced}"
    assert not set(ORDER) - set(MODULES), f"gone: {sorted(set(ORDER) - set(MODULES))}"


def test_packages_hold_no_code_but_the_public_names() -> None:
    for name in PACKAGES:
        if name != "__init__":
            body = ast.parse(FILES[name].read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), f"{name} holds code"


@pytest.mark.parametrize("name", MODULES)
def test_a_file_imports_only_files_above_it(name: str) -> None:
    above = set(ORDER[: ORDER.index(name)])
    for target, line in imported(FILES[name]):
        if target == "videomae":  # the public names, which reach everywhere
            assert is_one_of(name, ["apps.*"]), f"{name}:{line} imports all; name the file"
        elif target.startswith("videomae."):
            inside = target.removeprefix("videomae.")
            assert inside in above, f"{name}:{line} imports {inside}, which stands below it"


@pytest.mark.parametrize("name", MODULES)
def test_neighbours_do_not_know_each_other(name: str) -> None:
    strangers = {"inference": ["training.*"], "training": ["inference"], "apps": ["apps.*"]}
    own = name.split(".")[0]
    for target, line in imported(FILES[name]):
        inside = target.removeprefix("videomae.")
        assert not is_one_of(inside, strangers.get(own, [])), f"{name}:{line} imports {inside}"


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
        "from videomae.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    assert "videomae" in loaded
    assert not loaded & set(HEAVY)


def test_classifying_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    path = str(tmp_path / "a.mp4")
    code = f"""
import gc, sys
from videomae import motion, video
video.write_video({path!r}, motion.render_clip("sway", seed=0, num_frames=20))
from videomae.cli import main
assert main(["classify", {path!r}, "--json", "--engine", "torch"]) == 0
assert gc.isenabled() and gc.get_freeze_count()  # torch was imported without the collector
trained = [name for name in sys.modules if name.startswith("videomae.training.")]
assert trained == ["videomae.training.settings"], trained  # the flags, which are light
"""
    strangers = {"torchvision", "transformers", "accelerate", "matplotlib", "huggingface_hub"}
    strangers |= {"torchmetrics", "pyarrow", "fsspec", "typeguard", "openvino", "onnxruntime"}
    assert not loaded_by(code) & strangers


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
    house = text.split("src/videomae/\n")[1].split("tests/ ")[0]
    shown = re.findall(r"^\s+(\w+)\.py ", house, flags=re.MULTILINE)
    apps = re.search(r"^  apps/ .*: (.*)$", house, flags=re.MULTILINE)
    assert apps
    expected = [name.split(".")[-1] for name in ORDER if name != "__main__"]
    shown[shown.index("terminal") : shown.index("terminal")] = apps[1].split(", ")
    assert shown == expected
