"""The tests of transformers for VideoMAE, run on the classes here with only the imports changed.

    git clone --depth 1 --branch v5.23.0 https://github.com/huggingface/transformers
    python -m benchmarks.compare.transformers_tests transformers

The folder holds `tests/models/videomae`, of a checkout. What the tests share may lie beside it; if
it does not, it comes with the source distribution of the installed version, which pip downloads.
Everything runs in a temporary folder, and nothing of transformers is kept. `--theirs` runs them on
the classes of transformers instead. The exit status is 1 where a test failed that applies.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import tyro

FILES = (
    "test_modeling_videomae",
    "test_image_processing_videomae",
    "test_video_processing_videomae",
)

# Modules of a checkout that the shared tests import and the source distribution lacks. What is not
# there is replaced by this little: other models than VideoMAE, several GPUs and the hub need them.
STAND_INS = {
    "tests/utils/test_configuration_utils.py": """config_common_kwargs = {
        "return_dict": False, "output_hidden_states": True, "output_attentions": True,
        "dtype": "float16", "chunk_size_feed_forward": 5, "architectures": ["Some"],
        "id2label": {0: "label"}, "label2id": {"label": "0"}, "problem_type": "regression"}
    """,
    "tests/exporters/test_export.py": "class ExportTesterMixin: pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin: pass\n",
    "tests/distributed_testing_utils.py": "def __getattr__(name): return None\n",
    "tests/utils/tiny_model_summary.json": "{}\n",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url): return url\n",
}

# What the tests take from the registries of transformers, of which ours are no part, and the class
# of the layers that forget what they computed.
REGISTRY = """
import transformers
import videomae
from videomae import *
from videomae.model.layers import VideoMAELayer as GradientCheckpointingLayer

MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING = {VideoMAEConfig: VideoMAEForVideoClassification}
IMAGE_PROCESSOR_MAPPING_NAMES = {
    "videomae": {"torchvision": "VideoMAEImageProcessor", "pil": "VideoMAEImageProcessorPil"}
}


def get_image_processor_class_from_name(name):  # the second is theirs, to be compared with
    return getattr(videomae if name in videomae.__all__ else transformers, name)
"""

# Tests that fail and do not apply, each with its reason.
ON_PURPOSE = "differs on purpose: docs/compatibility.md"
NOT_APPLICABLE = {
    "test_base_model_prefix_loads_base_weights": f"{ON_PURPOSE} (a lost decoder is an error)",
    "test_correct_missing_keys": f"{ON_PURPOSE} (a lost decoder is an error)",
    "test_model_weights_reload_no_missing_tied_weights": f"{ON_PURPOSE} (no tensor fits)",
    "test_config": f"{ON_PURPOSE} (dtype is a name, labels are numbers)",
    "test_backends_equivalence_batched": f"{ON_PURPOSE} (mean and std)",
    "test_sdpa_can_dispatch_non_composite_models": f"{ON_PURPOSE} (attention is 'auto')",
    "test_cannot_load_with_meta_device_context_manager": "we can: the weights are right there too",
    "test_can_load_ignoring_mismatched_shapes": "reads the log of transformers; we warn",
    "test_can_set_attention_dynamically": "asks for the words of an error, which is raised",
}

# How a test fails that needs what is not there.
ABSENT = {
    "needs the network": r"LocalEntryNotFound|OfflineMode|ConnectionError|ConnectError|URLError",
}


class Result(NamedTuple):
    """One test: `passed`, `failed` or `not applicable`, and why."""

    name: str
    status: str
    reason: str = ""


def transformers_tests(
    checkout: tyro.conf.Positional[Path], /, *, theirs: bool = False, select: str = ""
) -> int:
    """Run the tests of transformers for VideoMAE; 1 where one failed that applies.

    Args:
        checkout: a checkout of transformers, or any folder with tests/models/videomae.
        theirs: run them on the classes of transformers.
        select: only tests that match this expression of pytest's -k.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        arrange(checkout, root)
        if not theirs:
            for path in root.glob("tests/**/test_*.py"):
                path.write_text(on_our_classes(path.read_text(), path.stem))
            (root / "ours.py").write_text(REGISTRY)
        results = run(root, select)
    print_results(results)
    return int(any(result.status == "failed" for result in results))


def arrange(checkout: Path, root: Path) -> None:
    """Make the tests of a checkout runnable in an empty folder."""
    source = checkout / "tests" / "models" / "videomae"
    missing = [name for name in FILES if not (source / f"{name}.py").is_file()]
    if missing:
        raise SystemExit(
            f"{source} lacks {missing[0]}.py; give a checkout of transformers: git clone --depth 1 "
            f"--branch v{version('transformers')} https://github.com/huggingface/transformers"
        )
    tests, models = root / "tests", root / "tests" / "models" / "videomae"
    models.mkdir(parents=True)
    for name in FILES:
        shutil.copy(source / f"{name}.py", models)
    shared = checkout / "tests"
    if not (shared / "test_modeling_common.py").is_file():
        shared = source_distribution(root) / "tests"
    for path in shared.glob("*.py"):
        shutil.copy(path, tests)
    for name, stand_in in STAND_INS.items():
        path, found = root / name, checkout / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(found.read_text() if found.is_file() else stand_in)
    for folder in {path.parent for path in tests.glob("**/*.py")} | {tests / "models"}:
        (folder / "__init__.py").touch()
    package = find_spec("transformers")  # the tests look for it in src/, beside them
    assert package is not None
    assert package.origin is not None
    (root / "src").mkdir()
    (root / "src" / "transformers").symlink_to(Path(package.origin).parent)


def source_distribution(root: Path) -> Path:
    """The unpacked source distribution of the installed version of transformers."""
    name = f"transformers-{version('transformers')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
    command += ["--no-build-isolation", name.replace("-", "=="), "--dest", str(root)]
    subprocess.run(command, check=True)
    with tarfile.open(root / f"{name}.tar.gz") as archive:
        archive.extractall(root, filter="data")
    return root / name


def on_our_classes(source: str, stem: str) -> str:
    """The source of a test with its imports of VideoMAE's classes taken from `ours`.

    >>> on_our_classes("from transformers import VideoMAEConfig, logging\\n", "test_x")
    'from transformers import logging\\nfrom ours import VideoMAEConfig\\n'
    """
    named = r"VideoMAE\w+|MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING"
    if stem == "test_image_processing_common":
        named = r"IMAGE_PROCESSOR_MAPPING_NAMES|get_image_processor_class_from_name"
    elif stem == "test_modeling_common":
        named = "GradientCheckpointingLayer"
    elif stem not in FILES:
        return source

    def split(match: re.Match[str]) -> str:
        indent, module, names = match.groups()
        imported = re.findall(r"\w+", names)
        ours = [name for name in imported if re.fullmatch(named, name)]
        if not ours:
            return match[0]
        others = [name for name in imported if name not in ours]
        lines = [(module, others), ("ours", ours)]
        return "".join(
            f"{indent}from {place} import {', '.join(chosen)}\n"
            for place, chosen in lines
            if chosen
        )

    return re.sub(
        r"^( *)from (transformers[\w.]*) import (\([^)]*\)|[^(\n]+)\n", split, source, flags=re.M
    )


def run(root: Path, select: str) -> list[Result]:
    """The result of each test."""
    report = root / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--disable-warnings"]
    command += ["-p", "no:cacheprovider", "--rootdir", ".", "-c", os.devnull, "-k", select]
    command += [f"--junitxml={report}", "tests/models/videomae"]
    python_path = os.pathsep.join([str(root), *filter(None, sys.path)])
    settings = {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, cwd=root, env=os.environ | settings, check=False)
    return [result_of(case) for case in ElementTree.parse(report).iter("testcase")]


def result_of(case: ElementTree.Element) -> Result:
    """What the report of pytest says of one test."""
    name = case.get("name", "?")
    failures = [part for part in case if part.tag in ("failure", "error")]
    skipped = case.find("skipped")
    if failures:
        message = failures[0].get("message") or ""
        text = message + (failures[0].text or "")
        reasons = [why for why, pattern in ABSENT.items() if re.search(pattern, text)]
        reasons += [why for known, why in NOT_APPLICABLE.items() if re.fullmatch(known, name)]
        if reasons:
            return Result(name, "not applicable", reasons[0])
        return Result(name, "failed", message.splitlines()[0] if message else text)
    if skipped is not None:
        reason = (skipped.get("message") or "").splitlines()[0]
        if "pipeline_model_mapping" in reason:
            reason = "a pipeline for other models"
        return Result(name, "not applicable", reason.rpartition("is skipped: ")[2])
    return Result(name, "passed")


def print_results(results: list[Result]) -> None:
    """Print the failures, the reasons why tests do not apply, and the counts."""
    for result in results:
        if result.status == "failed":
            print(f"failed  {result.name}: {result.reason}")
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.status == "not applicable":
            reasons.setdefault(result.reason, []).append(result.name)
    for reason, names in sorted(reasons.items()):
        print(f"not applicable  {len(names)} x {reason}: {', '.join(names)}")
    counts = Counter(result.status for result in results)
    applying = counts["passed"] + counts["failed"]
    print(
        f"{len(results)} tests, {counts['not applicable']} of them not applicable: "
        f"{counts['passed']} of {applying} passed, {counts['failed']} failed"
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(transformers_tests))
