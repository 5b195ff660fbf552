"""The recipes that come with the package: complete, true to what was published, and they run."""

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.text import Text

from made_videos import encode
from videomae.commands import cli
from videomae.commands.runs import RECIPE_COLUMNS, recipe_rows
from videomae.data.prepare import prepare
from videomae.recipe import find_recipe, load_recipe, read_recipe, recipe_names
from videomae.rendering.actions import CLASSES, render_clip
from videomae.settings import FinetuneSettings, PrepareSettings, PretrainSettings
from videomae.training.finetune import finetune
from videomae.training.pretrain import make_model, pretrain

ROOT = Path(__file__).parents[1]
NAMES = recipe_names()
PUBLISHED = [name for name in NAMES if not name.startswith("actions-")]


def load(name: str) -> PretrainSettings | FinetuneSettings:
    kind: Any = PretrainSettings if name.endswith("-pretrain") else FinetuneSettings
    loaded: PretrainSettings | FinetuneSettings = load_recipe(name, kind)
    return loaded


# What they say


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_and_whence(name: str) -> None:
    assert name.endswith(("-pretrain", "-finetune"))
    settings, about = load(name), read_recipe(name)["about"]
    texts = {"title", "data", "source", "command", "hardware", "hours_are"}
    lists = {"prepare", "differs"}
    expected = texts | lists | {"estimated_hours"}
    if name.endswith("-finetune"):
        assert about["expected_is"]
        expected |= {"evaluate", "expected_is"}
        scores = {"expected_top1", "expected_top5"} & set(about)
        assert bool(scores) == (
            about["expected_is"] not in ("not published", "see benchmarks/actions_tiny.md")
        )
        assert all(30 < about[score] <= 100 for score in scores)
        expected |= scores
    assert set(about) == expected
    assert all(isinstance(about[key], str) and about[key] for key in texts)
    assert all(isinstance(about[key], list) and about[key] for key in lists)
    assert about["estimated_hours"] > 0
    assert about["hours_are"].startswith(("published", "measured", "estimated"))
    assert find_recipe(name).read_text().startswith("# ")
    assert settings.output == Path("runs") / name


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_recipe_are_understood(name: str) -> None:
    settings, about = load(name), read_recipe(name)["about"]
    launcher, _, flags = about["command"].rpartition("videomae ")
    command = cli.parse(shlex.split(flags))
    assert (command.recipe, command.settings) == (name, settings)
    assert type(command).__name__.lower() == name.rpartition("-")[2]
    processes = math.prod(int(n) for n in re.findall(r"--n(?:nodes|proc-per-node) (\d+)", launcher))
    assert settings.batch_size % processes == 0

    made = [cli.parse(shlex.split(line)[1:]) for line in about["prepare"]]
    assert settings.data in [each.output for each in made]
    if "evaluate" in about:
        asked = cli.parse(shlex.split(about["evaluate"])[1:]).settings
        assert asked.model == str(settings.output / "model")
        assert asked.data in [each.output for each in made]


@pytest.mark.parametrize("name", NAMES)
def test_fine_tuning_starts_where_another_recipe_ends(name: str) -> None:
    settings = load(name)
    if isinstance(settings, PretrainSettings):
        assert settings.init is None
        return
    assert settings.init is not None
    before = load(Path(settings.init).parent.name)
    assert settings.init == str(before.output / "model")
    assert before.preset == settings.preset


# Learning rate for 256 videos, batch and peak as the published scripts give them, worked out by
# hand: lr * batch / 256.
PEAKS = {
    "kinetics400-base-pretrain": (1.5e-4, 2048, 1.2e-3),
    "kinetics400-large-pretrain": (1.5e-4, 512, 3e-4),
    "ucf101-base-pretrain": (3e-4, 192, 2.25e-4),
    "v2-large-pretrain": (1e-3, 1536, 6e-3),
    "v2-giant-pretrain": (6e-4, 2048, 4.8e-3),
    "kinetics400-small-finetune": (5e-4, 384, 7.5e-4),
    "kinetics400-huge-finetune": (1e-3, 512, 2e-3),
    "ssv2-small-finetune": (1e-3, 384, 1.5e-3),
    "ucf101-base-finetune": (5e-4, 128, 2.5e-4),
    "v2-giant-kinetics710-finetune": (1e-3, 96, 3.75e-4),
    "v2-giant-kinetics400-from-kinetics710-finetune": (1e-5, 96, 3.75e-6),
}


@pytest.mark.parametrize("name", PEAKS)
def test_learning_rates_are_those_published(name: str) -> None:
    settings = load(name)
    lr, batch_size, peak = PEAKS[name]
    assert (settings.lr, settings.batch_size) == (lr, batch_size)
    assert settings.peak_lr == pytest.approx(peak)


# Width, layers and heads of encoder and decoder.
SIZES = {
    "kinetics400-small-pretrain": ((384, 12, 6), (192, 4, 3)),
    "kinetics400-base-pretrain": ((768, 12, 12), (384, 4, 6)),
    "kinetics400-large-pretrain": ((1024, 24, 16), (512, 12, 8)),
    "kinetics400-huge-pretrain": ((1280, 32, 16), (640, 12, 8)),
    "ssv2-small-pretrain": ((384, 12, 6), (192, 4, 3)),
    "v2-base-pretrain": ((768, 12, 12), (384, 4, 6)),
    "v2-large-pretrain": ((1024, 24, 16), (512, 4, 8)),
    "v2-huge-pretrain": ((1280, 32, 16), (512, 4, 8)),
    "v2-giant-pretrain": ((1408, 40, 16), (512, 4, 8)),
}


@pytest.mark.parametrize("name", SIZES)
def test_models_have_the_published_sizes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The config of what would be made; a billion weights are not.
    monkeypatch.setattr("videomae.training.pretrain.VideoMAEForPreTraining", lambda config: config)
    settings = load(name)
    assert isinstance(settings, PretrainSettings)
    config: Any = make_model(settings)
    assert SIZES[name] == (
        (config.hidden_size, config.num_hidden_layers, config.num_attention_heads),
        (
            config.decoder_hidden_size,
            config.decoder_num_hidden_layers,
            config.decoder_num_attention_heads,
        ),
    )
    assert config.decoder_intermediate_size == 4 * config.decoder_hidden_size
    assert (config.image_size, config.num_frames, config.tubelet_size) == (224, 16, 2)
    assert config.patch_size == (14 if settings.preset == "giant" else 16)


def test_clips_are_sampled_and_mirrored_as_published() -> None:
    for name in PUBLISHED:
        settings = load(name)
        trained = isinstance(settings, FinetuneSettings)
        if "ssv2" in name:
            stride: int | str = "uniform" if trained else 2
        else:
            stride = 2 if "hmdb51" in name else 4
        assert settings.frame_stride == stride, name
        assert settings.flip == (trained and "ssv2" not in name), name


def test_recipes_leave_nothing_to_the_defaults_that_a_publication_fixes() -> None:
    shared = {
        "data", "split", "output", "preset", "image_size", "num_frames", "frame_stride",
        "num_repeats", "flip", "epochs", "batch_size", "lr", "min_lr", "warmup_epochs",
        "weight_decay", "beta2", "seed",
    }  # fmt: skip
    own = {
        "pretrain": {"crop_scales", "mask", "mask_ratio", "decoder_depth", "norm_pix_loss"},
        "finetune": {
            "init", "layer_decay", "drop_path_rate", "classifier_dropout", "head_init",
            "head_scale", "label_smoothing",
            "crop", "crop_area", "crop_ratio", "rand_augment_ops", "rand_augment_magnitude",
            "erase_prob", "mixup_alpha", "cutmix_alpha", "mix_prob", "mix_switch_prob",
        },
    }  # fmt: skip
    for name in PUBLISHED:
        assert shared | own[name.rpartition("-")[2]] <= set(read_recipe(name)), name


# Where they are shown


def test_the_table_in_the_docs_is_that_of_the_files() -> None:
    rule = ["---"] * 3 + ["---:"] * 2 + ["---"] + ["---:"] * 2
    rows = [(f"`{name}`", *rest) for name, *rest in recipe_rows()]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [RECIPE_COLUMNS, rule, *rows])
    table = re.sub(r" +", " ", table)
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert table in page, f"docs/recipes.md should hold this table:\n{table}"


def test_the_command_lists_them_and_prints_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    out = capsys.readouterr().out
    firsts = [row.split()[0] for row in out.splitlines() if row.strip()]
    assert firsts[0] == RECIPE_COLUMNS[0]
    assert firsts[2:] == NAMES
    assert cli.main(["recipes", "ssv2-base-finetune"]) == 0
    assert capsys.readouterr().out == find_recipe("ssv2-base-finetune").read_text()
    assert cli.main(["recipes", "ssv2-base-finetuned"]) == 1
    assert "did you mean 'ssv2-base-finetune'?" in capsys.readouterr().err


def test_a_narrow_terminal_gets_fewer_columns_and_whole_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert cli.main(["recipes"]) == 0
    out = Text.from_ansi(capsys.readouterr().out).plain
    assert max(map(len, out.splitlines())) <= 72
    assert all(name in out for name in NAMES)
    assert "top-1" in out


# That they run: on videos as small as can be, in the layout that each data set is published in


@pytest.fixture(scope="session")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `prepare` makes of each data set's own files: two classes, four videos to train on."""
    folder = tmp_path_factory.mktemp("data-sets")
    clips = [
        render_clip(CLASSES[index % 2], seed=index, size=24, num_frames=20) for index in range(6)
    ]
    makers = {
        "data/kinetics400": _kinetics,
        "data/kinetics710": _kinetics710,
        "data/ssv2": _ssv2,
        "data/ucf101": _ucf101,
        "data/hmdb51": _hmdb51,
        "data/unlabeled-hybrid": _hybrid,
        "data/actions-10k": _folders,
    }
    made = {}
    for name, make in makers.items():
        source = folder / "published" / name
        source.mkdir(parents=True)
        options = make(source, clips)
        output = folder / name
        prepared = prepare(
            PrepareSettings(options.pop("source", source), output, workers=1, **options)
        )
        assert len(prepared.survey.usable) == len(clips), prepared.survey.summary()
        made[name] = output
    return made


def _write(path: Path, clip: np.ndarray, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, clip, **how)


def _kinetics(folder: Path, clips: list[np.ndarray]) -> dict[str, Any]:
    for split, numbers in {"train": range(4), "val": range(4, 6)}.items():
        rows = ["label,youtube_id,time_start,time_end,split"]
        for number in numbers:
            label, start = ("abseiling", "playing, not singing")[number % 2], 7 * number
            rows.append(f'"{label}",-abc_{number},{start},{start + 10},{split}')
            name = f"-abc_{number}_{start:06d}_{start + 10:06d}.mp4"
            _write(folder / "videos" / label / name, clips[number])
        (folder / f"{split}.csv").write_text("\n".join(rows))
    return {"root": folder / "videos"}


def _kinetics710(folder: Path, clips: list[np.ndarray]) -> dict[str, Any]:
    for split, numbers in {"train": range(4), "val": range(4, 6)}.items():
        lines = []
        for number in numbers:
            _write(folder / "videos" / f"k{number} a.mp4", clips[number])
            lines.append(f"videos/k{number} a.mp4 {number % 2}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    return {"layout": "v2-finetune"}


def _ssv2(folder: Path, clips: list[np.ndarray]) -> dict[str, Any]:
    templates = ("Holding [something]", "Moving [something] up")
    for split, numbers in {"train": range(4), "validation": range(4, 6)}.items():
        rows = [
            {"id": str(78 + n), "label": "a thing", "template": templates[n % 2]} for n in numbers
        ]
        (folder / f"something-something-v2-{split}.json").write_text(json.dumps(rows))
        for number in numbers:
            how = {"codec": "libvpx-vp9", "fps": 12, "codec_options": {"cpu-used": "8"}}
            _write(folder / "videos" / f"{78 + number}.webm", clips[number], **how)
    names = {"Holding something": "0", "Moving something up": "1"}
    (folder / "something-something-v2-labels.json").write_text(json.dumps(names))
    return {"root": folder / "videos"}


def _ucf101(folder: Path, clips: list[np.ndarray]) -> dict[str, Any]:
    classes = ("ApplyEyeMakeup", "BabyCrawling")
    (folder / "classInd.txt").write_text("1 ApplyEyeMakeup\r\n2 BabyCrawling\r\n")
    names = [f"{classes[n % 2]}/v_{classes[n % 2]}_g0{n}_c01.avi" for n in range(len(clips))]
    for name, clip in zip(names, clips, strict=True):
        _write(folder / "UCF-101" / name, clip, codec="mpeg4")
    train = [f"{name} {1 + n % 2}\r\n" for n, name in enumerate(names[:4])]
    (folder / "trainlist01.txt").write_text("".join(train))
    (folder / "testlist01.txt").write_text("".join(f"{name}\r\n" for name in names[4:]))
    return {"root": folder / "UCF-101"}


def _hmdb51(folder: Path, clips: list[np.ndarray]) -> dict[str, Any]:
    for place, label in enumerate(("brush_hair", "cartwheel")):
        lines = []
        for number in range(place, len(clips), 2):
            name = f"{label}_a_f_nm_np1_ba_med_{number}.avi"
            _write(folder / "videos" / label / name, clips[number], codec="mpeg4")
            lines.append(f"{name} {1 if number < 4 else 2} \n")
        (folder / f"{label}_test_split1.txt").write_text("".join(lines))
    return {"root": folder / "videos"}


def _hybrid(folder: Path, clips: list[np.ndarray]) -> dict[str, Any]:
    lines = []
    for number, clip in enumerate(clips[:5]):
        _write(folder / "videos" / f"{number}.mp4", clip)
        lines.append(f"videos/{number}.mp4 0 -1\n")
    (folder / "frames").mkdir()
    for number, picture in enumerate(clips[5], start=1):
        Image.fromarray(picture).save(folder / "frames" / f"img_{number:05d}.jpg")
    lines.append(f"frames 1 {len(clips[5])}\n")
    (folder / "hybrid_train.csv").write_text("".join(lines))
    return {"source": folder / "hybrid_train.csv", "layout": "v2-pretrain"}


def _folders(folder: Path, clips: list[np.ndarray]) -> dict[str, Any]:
    for number, clip in enumerate(clips):
        split = "train" if number < 4 else "val"
        _write(folder / split / CLASSES[number % 2] / f"{number}.mp4", clip)
    return {}


Run = Callable[[str], Path]


@pytest.fixture(scope="session")
def run(data_sets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a recipe, and before it the one it starts from, once each: two steps of four videos."""
    folder = tmp_path_factory.mktemp("recipes")

    def run(name: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            # The page of a run has tests of its own, and takes longer than these steps.
            patch.setattr("videomae.training.log.write_page", lambda _: None)
            return run_once(name)

    def run_once(name: str) -> Path:
        settings = load(name)
        output = folder / settings.output
        if output.exists():
            return output
        small: dict[str, Any] = {
            "data": data_sets[str(settings.data)], "output": output,
            "preset": "tiny", "image_size": 16, "num_frames": 4,
            "epochs": 2, "warmup_epochs": None, "batch_size": 4,
            "device": "cpu", "dtype": "float32", "parallel": "ddp", "num_workers": 1,
            "tracker": "none", "log_every_steps": 1,
        }  # fmt: skip
        if isinstance(settings, PretrainSettings):
            small |= {"decoder_width": None, "decoder_depth": None}
            pretrain(dataclasses.replace(settings, **small))
        else:
            assert settings.init is not None
            small["init"] = str(run_once(Path(settings.init).parent.name) / "model")
            small["eval_data"] = small["data"]
            evaluation = finetune(dataclasses.replace(settings, **small))
            assert evaluation is not None
        return output

    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*a pre-training checkpoint")
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs_on_its_own_data(name: str, run: Run) -> None:
    output = run(name)
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert (output / "model" / "model.safetensors").is_file()
