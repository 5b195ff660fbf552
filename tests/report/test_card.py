"""Model cards: YAML that the hub reads, code that runs, and no more of a machine than was given."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.report.card import model_card
from videomae.settings import FinetuneSettings, PretrainSettings

SIZES: dict[str, Any] = {"image_size": 16, "num_frames": 4, "frame_stride": 2}
CLASSES = ("run|jump", "<sit>", "stand_up")


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, as far as a card looks at it."""

    values: dict[str, float]
    num_videos: int = 1000
    num_views: int = 15
    per_class: dict[str, float] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        return self.values


def classifier(num_labels: int = 3, device: str = "meta") -> VideoMAEForVideoClassification:
    names = CLASSES if num_labels == 3 else [f"class {n}" for n in range(num_labels)]
    config = VideoMAEConfig.preset("tiny", id2label=dict(enumerate(names)), **SIZES)
    with torch.device(device):
        return VideoMAEForVideoClassification(config)


def autoencoder(preset: str = "tiny", **sizes: Any) -> VideoMAEForPreTraining:
    with torch.device("meta"):  # a card counts the weights and reads none
        return VideoMAEForPreTraining(VideoMAEConfig.preset(preset, **sizes))


def front_of(card: str) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return front


def blocks_of(card: str, language: str, folder: Path, video: Path) -> list[str]:
    """The code of a card, with a real folder and a real video in place of those to be filled in."""
    found = re.findall(rf"```{language}\n(.*?)```", card, flags=re.DOTALL)
    return [
        code.replace("path/to/this/folder", str(folder)).replace("video.mp4", str(video))
        for code in found
    ]


def save_with_processors(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    VideoMAEImageProcessor(**size).save_pretrained(folder)
    VideoMAEVideoProcessor(**size).save_pretrained(folder)


def test_a_pretraining_card_tells_what_was_done() -> None:
    settings = PretrainSettings(
        data=Path("/home/somebody/secret/many|clips"),
        preset="tiny",
        epochs=800,
        batch_size=64,
        lr=1.5e-4,
        mask="tube",
        mask_ratio=0.9,
        decoder_mask_ratio=0.5,
    )
    card = model_card(settings, autoencoder(**SIZES))
    assert "# VideoMAE pre-trained on many\\|clips\n" in card
    assert "| clip | 4 frames of 16 x 16 px, one of every 2 frames of the video |" in card
    assert "of every 2 frames of the video, taken at 12.5 frames a second |" in model_card(
        settings, autoencoder(**SIZES, fps=12.5)
    )
    assert "| token | 2 frames of 8 x 8 px; 8 of a clip |" in card
    assert "| parameters | 1.4 M, 1.2 M of them in the encoder |" in card
    assert "| epochs | 800, 40 of them warm-up |" in card
    assert "| peak learning rate | 3.75e-05, then a cosine |" in card
    assert "| hidden | 75 %, tube mask |" in card  # 3 of 4 cells
    assert "| not decoded either | 50 %, running cells |" in card
    assert "somebody" not in card
    assert front_of(card) == {
        "library_name": "transformers",
        "tags": ["videomae", "video", "masked-autoencoder"],
    }


def test_the_parameters_are_those_of_the_published_size() -> None:
    card = model_card(PretrainSettings(), autoencoder("base"))
    assert "| parameters | 94.2 M, 86.2 M of them in the encoder |" in card
    assert "| token | 2 frames of 16 x 16 px; 1,568 of a clip |" in card


def test_the_code_of_a_pretraining_card_runs(
    tmp_path: Path, videos_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = VideoMAEConfig.preset("tiny", use_mean_pooling=False, **SIZES)
    model = VideoMAEForPreTraining(config)
    save_with_processors(model, tmp_path / "model")
    card = model_card(PretrainSettings(mask="random", mask_ratio=0.5), model)
    monkeypatch.chdir(tmp_path)
    video = next(videos_dir.rglob("*.mp4"))
    ours, theirs = blocks_of(card, "python", tmp_path / "model", video)
    exec(ours, {})
    assert (tmp_path / "reconstruction.png").is_file()
    names: dict[str, Any] = {}
    exec(theirs, names)
    assert names["hidden"].sum() == 4
    assert names["loss"] > 0


def test_a_finetuning_card_is_read_by_the_hub(tmp_path: Path) -> None:
    settings = FinetuneSettings(
        data=Path("/private/labelled"), output=Path("runs/my run"), init="MCG-NJU/videomae-base"
    )
    outcome = Evaluated(
        {"top1": 91.25, "top5": 99.0, "mean_class": float("nan")},
        per_class={"run|jump": 50.0, "<sit>": 100.0},
        bad={3: "is damaged"},
    )
    text = model_card(settings, classifier(), outcome)
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    card: Any = ModelCard.load(path)
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.base_model == "MCG-NJU/videomae-base"
    assert card.data.pipeline_tag == "video-classification"
    assert card.data.metrics == ["accuracy"]
    assert card.data.model_name == "my run"
    found = [(r.dataset_name, r.metric_name, r.metric_value) for r in card.data.eval_results]
    assert found == [("labelled", "top-1", 0.9125), ("labelled", "top-5", 0.99)]
    assert "A VideoMAE that tells which of 3 classes a video belongs to." in text
    assert "On 1,000 videos of labelled, 15 views of each; 1 could not be read, counted" in text
    assert "| top-1 | 91.2 % |" in text
    assert "| run\\|jump | 50.0 |" in text
    assert "In their order: run\\|jump, &lt;sit&gt;, stand_up." in text
    assert "is not for commercial use" in text
    assert "private" not in text


def test_the_code_of_a_finetuning_card_runs(tmp_path: Path, videos_dir: Path) -> None:
    model = classifier(device="cpu")
    save_with_processors(model, tmp_path)
    card = model_card(FinetuneSettings(), model, None)
    ours, theirs = blocks_of(card, "python", tmp_path, next(videos_dir.rglob("*.mp4")))
    names: dict[str, Any] = {}
    exec(ours, names)
    assert set(names["seen"].labels) == set(CLASSES)
    # The pipeline is made; to decode a video it wants torchcodec, as the card says.
    exec(theirs.splitlines()[0], names)
    exec(theirs.splitlines()[2].replace(")", ', device="cpu")'), names)
    assert names["classify"].model.config.id2label[2] == "stand_up"


def test_without_an_evaluation_the_card_says_so() -> None:
    card = model_card(FinetuneSettings(), classifier(), None)
    assert "It was not evaluated: there were no videos held out for it." in card
    assert "model-index" not in front_of(card)
    assert "It was trained from scratch" in card


def test_several_labels_and_values_have_their_own_figures() -> None:
    model = classifier()
    several = FinetuneSettings(problem="multi_label", label_smoothing=0.1)
    card = model_card(several, model, Evaluated({"mean_ap": 40.0}))
    assert "which of 3 classes are in a video, each by itself" in card
    assert "| mean average precision | 40.0 % |" in card
    assert front_of(card)["metrics"] == ["mAP"]
    assert "label smoothing" not in card

    value = FinetuneSettings(problem="regression")
    card = model_card(value, model, Evaluated({"mae": 0.123456, "r2": 0.5}, num_views=1))
    assert "predicts a number from a video" in card
    assert "| mean absolute error | 0.1235 |\n| R2 | 0.5 |" in card
    assert "1 view of each." in card
    assert "pipeline_tag" not in front_of(card)
    assert "## Classes" not in card


def test_many_classes_are_folded_and_not_told_one_by_one() -> None:
    outcome = Evaluated({"top1": 1.0}, per_class={f"class {n}": 1.0 for n in range(51)})
    card = model_card(FinetuneSettings(), classifier(51), outcome)
    assert "| class 1 |" not in card
    assert "<details><summary>All 51, in their order</summary>\n\nclass 0, class 1," in card


def test_regularisation_is_told_where_it_was_used() -> None:
    plain = model_card(FinetuneSettings(), classifier(), None)
    assert "RandAugment" not in plain
    assert "| crops | 1, 0.875, 0.75, 0.66 |" in plain
    settings = FinetuneSettings(
        rand_augment_ops=4, mixup_alpha=0.8, erase_prob=0.25, crop="random_resized", ema_decay=0.99
    )
    card = model_card(settings, classifier(), None)
    assert "| RandAugment | 4 operations, magnitude 7 |" in card
    assert "| mixup, cutmix | 0.8, 0 |" in card
    assert "| erased | 25 % of the clips |" in card
    assert "| crops | of any shape, 0.08 to 1 of the frame |" in card
    assert "| crops | 1," not in card


@pytest.mark.parametrize(
    ("init", "licence", "base", "named"),
    [
        (None, None, None, "trained from scratch"),
        ("OpenGVLab/VideoMAEv2-Base", "cc-by-nc-4.0", True, "OpenGVLab/VideoMAEv2-Base"),
        ("someone/videomae", None, True, "made from someone/videomae:"),
        ("actions-tiny-pretrain", "apache-2.0", None, "from actions-tiny-pretrain, whose licence"),
        ("/home/me/runs/first/model", None, None, "made from first/model:"),
        ("/home/me/videomae.pth", None, None, "made from videomae.pth:"),
    ],
)
def test_the_licence_follows_from_the_start(
    init: str | None, licence: str | None, base: bool | None, named: str
) -> None:
    card = model_card(PretrainSettings(init=init), autoencoder())
    front = front_of(card)
    assert front.get("license") == licence
    assert front.get("base_model") == (init if base else None)
    assert named in card
    assert "/home" not in card
    assert ("# license: choose one" in card) == (licence is None)


def test_the_licence_is_handed_down_from_a_model_that_was_made_from_published_weights(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "first/model"
    folder.mkdir(parents=True)
    first = model_card(PretrainSettings(init="MCG-NJU/videomae-base"), autoencoder())
    (folder / "README.md").write_text(first)
    card = model_card(FinetuneSettings(init=str(folder)), classifier(), None)
    assert front_of(card)["license"] == "cc-by-nc-4.0"
    assert "It is made from first/model, whose weights are CC BY-NC 4.0." in card
    assert str(tmp_path) not in card


def test_names_of_any_letters_make_a_card_that_can_be_written_and_read() -> None:
    data = Path('/v/caf\udce9 "é" : \x07 #1')
    settings = FinetuneSettings(data=data, output=Path('x: "y"'))
    card = model_card(settings, classifier(), Evaluated({"top1": 1.0}))
    card.encode("utf-8")
    (result,) = front_of(card)["model-index"][0]["results"]
    assert result["dataset"]["name"] == 'caf\\xe9 "é" : \\x07 #1'
