"""The demo, whole and small, with random models in place of the shipped ones."""

import dataclasses
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from videomae.commands import cli
from videomae.commands import demo as demo_file
from videomae.commands.demo import MASK, TRAINED_RATIO, demo
from videomae.commands.flags import Demo
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, VideoError
from videomae.hub import write_json
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.recipe import load_recipe
from videomae.rendering.actions import CLASSES, render_clip
from videomae.settings import PretrainSettings
from videomae.video.writer import write_video

VOID = {"img", "link", "meta", "source", "br", "hr", "input"}
HOSTILE = 'a <b>&"bad" name.mp4'


class Page(HTMLParser):
    """Checks that tags are closed in order; keeps attributes of each tag and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@dataclasses.dataclass
class Made:
    folder: Path
    command: Demo
    models: dict[str, str]
    page: Page
    html: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A demo of 20 clips, with one step of each training, and a video of a hostile name."""
    root = tmp_path_factory.mktemp("demo")
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_intermediate_size": 32,
    }
    names = dict(enumerate(CLASSES))
    classifier = VideoMAEConfig.preset("tiny", id2label=names, num_labels=20, **sizes)
    VideoMAEForVideoClassification(classifier).save_pretrained(root / "classifier")
    autoencoder = VideoMAEConfig.preset("tiny", use_mean_pooling=False, **sizes)
    VideoMAEForPreTraining(autoencoder).save_pretrained(root / "autoencoder")
    figures = {"top1": 98.75, "num_videos": 600, "scratch_top1": [9.0, 10.0]}
    write_json(root / "classifier" / "results.json", figures)
    write_video(root / HOSTILE, render_clip("throw", seed=1, num_frames=32), fps=16)
    models = {name: str(root / name) for name in ("classifier", "autoencoder")}
    command = Demo(
        output=root / "out <i>",
        video=root / HOSTILE,
        clips=20,
        train_clips=20,
        finetune_epochs=1,
        workers=1,
    )
    html = demo(command, **models).read_text(encoding="utf-8")
    return Made(command.output, command, models, Page(html), html)


def test_the_page_tells_of_clips_reconstructions_training_and_what_is_next(made: Made) -> None:
    headings = re.findall(r"<h[12]>(.*?)</h[12]>", made.html)
    assert headings == [
        "A small model that sees what people do",
        "Reconstructing what is hidden",
        "Training, live",
        "Your video",
        "What to try next",
    ]
    assert "from 20 labelled clips. With the encoder as it is, a linear head" in made.page.text
    assert "Guessing gets 5% of 20 actions right" in made.page.text
    table = made.page.text.split("What each names right")[1]
    for name in ("all its layers", "its head alone", "guessing"):
        assert name in table
    assert "leaks the answer" in made.page.text
    assert all(f"{share} hidden" in made.page.text for share in ("50%", "75%", "90%"))
    assert len(made.page.all("svg")) == 1
    assert [part.get("role") for part in made.page.all("div")].count("img") == 1
    # 20 clips, 3 shares of 4 pictures, 4 of the video
    assert len(made.page.all("img")) == 20 + 12 + 4


def test_every_picture_has_words(made: Made) -> None:
    assert all(image["alt"] for image in made.page.all("img"))
    assert all(part["aria-label"] for part in made.page.all("div") if part.get("role") == "img")
    assert "A drawn person: walk backwards" in {i["alt"] for i in made.page.all("img")}


def test_the_page_needs_nothing_else(made: Made) -> None:
    html = made.html.replace('<link rel="icon" href="data:,">', "")  # asks for nothing
    assert not re.search("https?:|<script|<link|@import|url\\(", html)
    sources = [image["src"] for image in made.page.all("img")]
    sources += [source["srcset"] for source in made.page.all("source")]
    assert all(source and source.startswith("data:image/") for source in sources)
    assert len(made.html) < 8e6


def test_names_are_escaped(made: Made) -> None:
    assert HOSTILE in made.page.text
    assert str(made.folder) in made.page.text
    assert "<b>&" not in made.html
    assert "<i>" not in made.html.replace(str(made.folder), "")


def test_what_the_recipe_reached_is_read_from_beside_the_model(made: Made, tmp_path: Path) -> None:
    assert "The full recipe reached 98.8 % on 600 other clips" in made.page.text
    assert "9.5 % without pre-training (mean of 2 seeds)." in made.page.text
    assert demo_file._published(str(tmp_path)) == {}  # no figures there: no sentence


def test_it_hides_as_the_recipe_does() -> None:
    settings = load_recipe("actions-tiny-pretrain", PretrainSettings)
    assert (settings.mask, settings.mask_ratio) == (MASK, TRAINED_RATIO)


def test_another_run_renders_nothing_and_leaves_what_is_not_its_own(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = sorted(made.folder.glob("videos/*/*/*.mp4"))
    assert len(clips) == 40
    written = [clip.stat().st_mtime_ns for clip in clips]
    note = made.folder / "note.txt"
    note.write_text("mine")
    page = made.folder / "index.html"
    page.write_text("old")
    assert demo(made.command, **made.models) == page
    assert "<h1>" in page.read_text(encoding="utf-8")
    assert note.read_text() == "mine"
    assert [clip.stat().st_mtime_ns for clip in clips] == written
    summary = " ".join(capsys.readouterr().out.split())
    assert "index.html" in summary
    assert "guessing: clips named right 1 of 20" in summary


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ConfigError, match="was not made by the demo; name a new or empty folder"):
        demo(Demo(tmp_path))
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_video_that_cannot_be_read_stops_it_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"missing\.mp4"):
        demo(Demo(tmp_path / "out", video=tmp_path / "missing.mp4"))
    assert not (tmp_path / "out").exists()


def test_the_commands_that_it_proposes_parse(made: Made) -> None:
    (code,) = re.findall("<pre><code>(.*?)</code></pre>", made.html, flags=re.DOTALL)
    commands = [line for line in unescape(code).splitlines() if line.startswith("videomae")]
    assert len(commands) == 8
    for line in commands:
        cli.parse(shlex.split(line)[1:])
    assert shlex.split(commands[0])[2] == str(made.folder / "videos" / "test")
