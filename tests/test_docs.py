"""Every block of code and every command of README.md and docs/ runs as printed, in small.

A page is run from its top to its end in a folder of its own, as a reader would: lines of `bash` and
those behind `$` in `console`, and `python`. What cannot run here says so and why in the first line
of its block (```bash checked: a GPU); its words are checked instead. Published models are stood in
for by folders of their names, trainings are cut short, and nothing asks the network. A block that
is called `text output` is what the block before it prints, to the letter.
"""

import ast
import importlib
import os
import re
import shlex
import shutil
import tomllib
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from made_videos import encode, scene
from videomae import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    errors,
)
from videomae.commands import cli
from videomae.data.prepare import prepare
from videomae.settings import PrepareSettings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
OTHERS = [*ROOT.glob("benchmarks/*.md"), ROOT / "fuzz/README.md", ROOT / "reproduction/README.md"]
CLASSES = ("cooking", "dancing", "sawing")

# A run is cut short: no field is above these numbers, where 0 stands for "as many as it needs".
MOST = {
    **{"epochs": 1, "finetune_epochs": 1, "repeats": 1, "workers": 1, "num_workers": 1, "files": 2},
    **{"clips": 20, "test_clips": 20, "train_clips": 20, "check_clips": 2, "calibration_clips": 2},
    **{"parts": 2},
}
PRESETS = {"small": "micro", "base": "micro", "large": "micro"}
# Programs of others, whose flags nothing here knows.
TOOLS = {
    ".venv/bin/pip-licenses",
    "git",
    "docker",
    "npm",
    "sbatch",
    "srun",
    "kubectl",
    "serve",
    "source",
    "export",
    "cd",
}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    note: str
    text: str

    @property
    def checked(self) -> bool:
        """Whether it is checked alone, and does not run."""
        return self.note.startswith("checked: ")

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page; directives of the site are none."""
    text = page.read_text()
    found = re.finditer(r"^```(\w*) ?(.*)\n((?s:.*?))^```$", text, re.M)
    return [
        Block(page, text.count("\n", 0, each.start()) + 1, *each.groups())
        for each in found
        if not each[2].startswith("{")
    ]


def commands(block: Block) -> list[str]:
    """The commands of a block, without comments, a line each."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        text = "\n".join(re.findall(r"^\$ (.+)", text, re.M))
    lines = [re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines()]
    return [each.strip() for line in lines for each in line.split("&&") if each.strip()]


# What is checked


def check_command(words: list[str]) -> None:
    """Fail where a command could not be meant: a flag, an extra, a target, a module, an address."""
    if words[0] == "videomae":
        assert cli.parse(words[1:]) is not None
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for name in re.findall(r"\[(.+?)\]", " ".join(words)):
            known = {*extras["optional-dependencies"], "serve"}
            assert set(name.split(",")) <= known, name
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), words
    elif words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        known = get_args_parser().parse_args(words[1:])
        check_command([known.training_script, *known.training_script_args])
    elif words[0] == "srun":
        check_command(words[1:])
    elif words[:2] == ["accelerate", "launch"]:
        from accelerate.commands.launch import launch_command_parser

        known = launch_command_parser().parse_args(words[2:])
        check_command([known.training_script, *known.training_script_args])
    elif words[0] in ("python", "python3") and words[1] == "-m":
        assert words[2] in ("http.server", "venv") or find_spec(words[2]), words
    elif words[0] == "curl":
        check_request(words)
    else:
        assert words[0].startswith(".venv/bin/") or words[0] in TOOLS, (
            f"{words[0]} is no command that can be checked"
        )


def check_request(words: list[str]) -> None:
    """Fail where the service has no such address, or the address no such field."""
    from videomae.serving.app import make_app
    from videomae.serving.service import Service
    from videomae.serving.settings import ServeSettings

    api = make_app(Service(ServeSettings())).openapi()
    address, given = "", set()
    for flag, word in zip(["", *words], words, strict=False):
        if word.startswith("http"):
            address = re.sub(r"https?://[^/]+", "", word)
        elif flag == "-F":
            given.add(word.partition("=")[0])
    body = api["paths"][address]["post"]["requestBody"]["content"]["multipart/form-data"]
    schema = api["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    assert given <= set(schema["properties"]), f"{address} has no {given}"


def check_code(text: str) -> None:
    """Fail where a name that is imported does not exist."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("videomae"):
            module = importlib.import_module(str(node.module))
            for name in (each.name for each in node.names):
                # what is no attribute is a file that nobody has imported yet
                assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), name


def check(block: Block) -> None:
    """Check a block that does not run, or hardly can."""
    if block.language in ("bash", "console"):
        for command in commands(block):
            check_command(shlex.split(command))
    elif block.language == "python":
        check_code(block.text)
    elif block.language == "diff":
        check_code(re.sub(r"^-.*\n|^[+ ]", "", block.text, flags=re.M))
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language in ("yaml", "json"):
        assert list(yaml.safe_load_all(block.text))
    else:
        assert block.language in ("", "text", "nginx"), f"what is {block.language}?"


# What runs


def shortened(command: Any) -> Any:
    """The command, or its settings, with less to do."""
    values: dict[str, Any] = {}
    for name in (each.name for each in fields(command)):
        value = getattr(command, name)
        if name == "settings":
            values[name] = shortened(value)
        elif name in MOST and (value is None or type(value) is int):
            values[name] = min(value or MOST[name], MOST[name])
        elif name == "preset" or (name == "model" and value in PRESETS):
            values[name] = PRESETS.get(value, value)
    return replace(command, **values)


def run_command(line: str) -> None:
    """Run one line of a shell, where it is a command of ours; check it where it is none."""
    line, _, target = line.partition(" > ")
    words = shlex.split(line)
    if words[0] == "cd":
        os.chdir(words[1])
    elif words[0] != "videomae":
        check_command(words)
    elif words[1] == "--help":
        assert cli.main(words[1:]) == 0
    else:
        printed = StringIO()
        with redirect_stdout(printed):
            assert cli.run(shortened(cli.parse(words[1:]))) == 0, line
        print(printed.getvalue(), end="")
        if target:
            Path(target).write_text(printed.getvalue())


def run(block: Block, names: dict[str, Any]) -> str:
    """Run a block; what it prints."""
    printed = StringIO()
    with redirect_stdout(printed):
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
        else:
            for line in commands(block):
                run_command(line)
    return printed.getvalue()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that pages speak of: videos in a folder per class, single ones, models."""
    folder = tmp_path_factory.mktemp("world")
    clip = encode(folder / "clip.mp4", scene(48), fps=16)
    for name in CLASSES:
        for number in range(6):
            path = folder / "videos" / name / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode(path, scene(60)[20 * CLASSES.index(name) + number :], fps=16)
    encode(folder / "film.mp4", scene(520), fps=8)
    for name in ("new.mp4", "match.mp4", "long.mp4", "new/1.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(clip, folder / name)
    prepare(PrepareSettings(folder / "videos", folder / "prepared", val_share=0.2))
    sizes = {
        **{"image_size": 32, "patch_size": 8, "num_frames": 8, "frame_stride": 2},
        # the widths of ViT-S, by which a .pth file is known
        **{"hidden_size": 384, "num_hidden_layers": 1, "num_attention_heads": 6},
        **{"intermediate_size": 64, "decoder_hidden_size": 192, "decoder_num_hidden_layers": 1},
        **{"decoder_num_attention_heads": 3, "decoder_intermediate_size": 64},
    }
    published = VideoMAEConfig(**sizes, use_mean_pooling=False)
    VideoMAEForPreTraining(published).save_pretrained(folder / "pretrained")
    assert not cli.main(
        ["convert", f"{folder}/pretrained", f"{folder}/checkpoint.pth", "--to", "v1"]
    )
    labels = VideoMAEConfig(**sizes, id2label=dict(enumerate(CLASSES)))
    VideoMAEForVideoClassification(labels).save_pretrained(folder / "classifier")
    return folder


def furnish(page: Path, world: Path, here: Path) -> None:
    """Lay out what a page names and does not make itself."""
    text = page.read_text()
    made = set(re.findall(r"--output ([\w/.-]+)", text))
    for name in ("clip.mp4", "new.mp4", "match.mp4", "film.mp4", "long.mp4"):
        shutil.copy(world / name, here / name)
    shutil.copy(world / "checkpoint.pth", here)
    for name, source in {"videos": "videos", "my_videos": "videos", "new": "new"}.items():
        shutil.copytree(world / source, here / name)
    if not re.search(r"videomae actions clips", text):
        shutil.copytree(world / "new", here / "clips")
    for name in {*re.findall(r"--(?:data|input) (data(?:/\w+(?![\w.]))?)", text)} - made:
        shutil.copytree(world / "prepared", here / name)
    for name in {*re.findall(r"(?:MCG-NJU|OpenGVLab)/[\w-]+|runs/[\w-]+/model", text)} - made:
        if name.removesuffix("/model") not in made:
            published = not name.startswith("runs/") and "finetuned" not in name
            kind = "pretrained" if published or "pretrain" in name else "classifier"
            shutil.copytree(world / kind, here / name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_end(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIDEOMAE_CACHE", str(tmp_path / "cache"))
    furnish(page, world, tmp_path)
    names: dict[str, Any] = {}
    printed = ""
    for block in blocks(page):
        try:
            if block.note == "output":
                assert printed == block.text
            elif block.checked or block.language not in ("bash", "console", "python"):
                check(block)
            else:
                monkeypatch.chdir(tmp_path)
                printed = run(block, names)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block}: {type(error).__name__}: {error}") from error


def test_what_other_pages_and_recipes_tell_to_type_is_understood() -> None:
    for page in OTHERS:
        for block in blocks(page):
            for command in commands(block) if block.language == "bash" else []:
                if command.startswith("videomae "):
                    check_command(shlex.split(command))
    for recipe in sorted(ROOT.glob("src/videomae/recipes/*.toml")):
        for command in re.findall(r'"(videomae [^"]+)"', recipe.read_text()):
            check_command(shlex.split(command))


def test_lines_fit_a_window() -> None:
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        text = page.read_text()
        for block in blocks(page):
            if block.language in ("", "text"):  # what something printed
                text = text.replace(block.text, "")
        lines = re.sub(r"^\|.*|<!--.*?-->", "", text, flags=re.M).splitlines()
        wide = [line for line in lines if len(line) > 118 and line.count(" ") > 1]
        assert not wide, f"{page.name}: more than 118 columns: {wide}"


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page."""
    titles = re.findall(r"^#+ (.+)", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page", [*PAGES, *OTHERS], ids=lambda page: f"{page.parent.name}-{page.stem}"
)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#:]*)(#([^)]+))?\)", page.read_text()):
        place = (page.parent / target) if target else page
        assert place.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(place), f"{page.name}: {target}#{anchor}"


ERRORS = {each.__name__ for each in vars(errors).values() if isinstance(each, type)}


def messages() -> dict[str, str]:
    """Where each error of the package is raised, and the words of it that are always the same."""
    found = {}
    for path in sorted(ROOT.glob("src/videomae/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                parts = [
                    each for each in ast.walk(node.exc.args[0]) if isinstance(each, ast.Constant)
                ]
                text = "".join(str(each.value) for each in parts)
                if getattr(node.exc.func, "id", "") in ERRORS:
                    found[f"{path.relative_to(ROOT)}:{node.lineno}"] = text
    return found


def test_each_error_finds_its_paragraph() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    says = " ".join(re.findall("^> (.*)", page, re.M))
    words = re.findall("`([^`]+)`", says)
    said = messages()
    lost = {
        place: text
        for place, text in said.items()
        if len(re.findall(r"[a-z]{2,}", text)) > 4  # others hand on what they were told
        and not any(each in text for each in words)
    }
    assert not lost, f"docs/troubleshooting.md has no words of: {lost}"
    unused = [word for word in words if not any(word in text for text in said.values())]
    assert not unused, f"no error says: {unused}"
