"""The model card of a trained model: what it is, how it came about, how to use it.

A README.md as the model hub reads it, YAML in front. Of the machine it was trained on it tells no
path but the last part of what the user gave.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from html import escape
from pathlib import Path
from typing import Any, Protocol

import torch

from videomae.config import VideoMAEConfig
from videomae.hub import resolve_shipped
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.settings import FinetuneSettings, PretrainSettings, TrainSettings
from videomae.version import __version__

# What an evaluation measures, in words; the first one a model has is the one it is judged by.
FIGURE_NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class": "mean class accuracy",
    "mean_ap": "mean average precision",
    "mae": "mean absolute error",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "r2": "R2",
}
PERCENT = ("top1", "top5", "mean_class", "mean_ap")

# Whose weights on the hub are CC BY-NC 4.0, and so is what is made from them.
_NON_COMMERCIAL_OWNERS = ("MCG-NJU", "OpenGVLab")
_NON_COMMERCIAL = "cc-by-nc-4.0"
# More classes than this make a table that nobody reads.
_MAX_CLASS_ROWS = 50
_FOLDER = "path/to/this/folder"


class Outcome(Protocol):
    """What a card tells of an evaluation; `evaluate.Evaluation` is one."""

    @property
    def num_videos(self) -> int: ...

    @property
    def num_views(self) -> int: ...

    @property
    def per_class(self) -> Mapping[str, float]: ...

    @property
    def bad(self) -> Sized: ...

    def figures(self) -> Mapping[str, float]: ...


def pretraining_card(settings: PretrainSettings, config: VideoMAEConfig) -> str:
    """The README.md of a pre-trained model, decoder included."""
    data = _data_name(settings)
    parts = [
        _front_matter(settings, tags=["videomae", "video", "masked-autoencoder"]),
        f"# VideoMAE pre-trained on {_text(data)}",
        "A masked autoencoder for video: an encoder that has learned from clips without labels by "
        f"having {_share(settings.mask_ratio)} of each hidden, and the decoder that paints what is "
        "hidden. Its features can be used as they are, or the encoder be fine-tuned.",
        _sizes(config, VideoMAEForPreTraining),
        "## How it was trained",
        _table(("setting", "value"), [*_training_rows(settings), *_mask_rows(settings)]),
        "## How to use it",
        _pretraining_code(settings, config),
        "## Limits and licence",
        "It names nothing by itself: there is no classifier in it. What it saw in training is what "
        "it knows; videos of another kind, size or speed may look strange to it.",
        _licence_words(settings),
        _CITATION,
    ]
    return "\n\n".join(parts) + "\n"


def finetuning_card(
    settings: FinetuneSettings, config: VideoMAEConfig, evaluation: Outcome | None
) -> str:
    """The README.md of a fine-tuned model, with what it reached where it was evaluated."""
    data = _data_name(settings)
    parts = [
        _front_matter(
            settings,
            tags=["videomae", "video"],
            extra=_classifier_matter(settings, evaluation),
        ),
        f"# VideoMAE fine-tuned on {_text(data)}",
        _purpose(settings, config),
        _sizes(config, VideoMAEForVideoClassification),
        "## Results",
        _results(settings, evaluation),
        "## How it was trained",
        _table(("setting", "value"), [*_training_rows(settings), *_label_rows(settings)]),
        "## How to use it",
        _classifier_code(config),
        *_classes(settings, config),
        "## Limits and licence",
        _classifier_limits(settings),
        _licence_words(settings),
        _CITATION,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(
    settings: TrainSettings, *, tags: Sequence[str], extra: Mapping[str, Any] | None = None
) -> str:
    """What the hub reads, as YAML."""
    licence = _licence(settings.init)
    values: dict[str, Any] = {"library_name": "transformers", "tags": [*tags]}
    if licence:
        values["license"] = licence
    if settings.init is not None and _is_hub_id(settings.init):
        values["base_model"] = settings.init
    advice = [] if licence else ["# license: choose one before you share this model"]
    return "\n".join(["---", *advice, *_yaml_lines(values | dict(extra or {})), "---"])


def _yaml_lines(value: Any) -> list[str]:
    """Objects and lists as lines of YAML; what they hold as JSON, which YAML reads as well.

    >>> _yaml_lines({"tags": ["video", "b: c"], "n": 1})
    ['tags:', '  - "video"', '  - "b: c"', 'n: 1']
    """
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            if isinstance(item, dict | list):
                lines += [f"{key}:", *(f"  {line}" for line in _yaml_lines(item))]
            else:
                lines.append(f"{key}: {_yaml_lines(item)[0]}")
        return lines
    if isinstance(value, list):
        parts = [_yaml_lines(item) for item in value]
        return [
            f"{'- ' if not place else '  '}{line}" for p in parts for place, line in enumerate(p)
        ]
    return [json.dumps(value, ensure_ascii=False)]


def _classifier_matter(settings: FinetuneSettings, evaluation: Outcome | None) -> dict[str, Any]:
    """What the hub shows of a classifier: its task, and the figures it reached."""
    if settings.problem == "regression":  # the hub has no task of this kind
        return {}
    matter: dict[str, Any] = {"pipeline_tag": "video-classification"}
    metrics = [
        {
            "type": "mAP" if key == "mean_ap" else "accuracy",
            "name": name,
            "value": round(v / 100, 4),
        }
        for key, name, v in _known_figures(evaluation)
        if key in PERCENT
    ]
    if not metrics:
        return matter
    data = _printable((settings.eval_data or settings.data).name)
    result = {
        "task": {"type": "video-classification"},
        "dataset": {"name": data, "type": data},
        "metrics": metrics,
    }
    name = _printable(settings.output.absolute().name)
    return matter | {
        "metrics": list(dict.fromkeys(metric["type"] for metric in metrics)),
        "model-index": [{"name": name, "results": [result]}],
    }


def _known_figures(evaluation: Outcome | None) -> list[tuple[str, str, float]]:
    """Key, name and value of what was measured, the main one first."""
    found = evaluation.figures() if evaluation is not None else {}
    return [
        (key, name, found[key])
        for key, name in FIGURE_NAMES.items()
        if key in found and math.isfinite(found[key])
    ]


def _purpose(settings: FinetuneSettings, config: VideoMAEConfig) -> str:
    does = {
        "single_label": f"tells which of {config.num_labels} classes a video belongs to",
        "multi_label": f"tells which of {config.num_labels} classes are in a video, each by itself",
        "regression": "predicts a number from a video",
    }
    return f"A VideoMAE that {does[settings.problem]}."


def _sizes(
    config: VideoMAEConfig,
    kind: type[VideoMAEForPreTraining] | type[VideoMAEForVideoClassification],
) -> str:
    with torch.device("meta"):  # for its shapes alone
        model = kind(config)
    encoder = model.videomae.num_parameters()
    total = model.num_parameters()
    (height, width), (patch_height, patch_width) = config.image_hw, config.patch_hw
    tubelet = f"{config.tubelet_size} frames of {patch_height} x {patch_width} px"
    rows = [
        ("parameters", f"{total / 1e6:.1f} M, {encoder / 1e6:.1f} M of them in the encoder"),
        (
            "encoder",
            f"{config.num_hidden_layers} layers, {config.hidden_size} features, "
            f"{config.num_attention_heads} heads",
        ),
        ("clip", f"{config.num_frames} frames of {height} x {width} px, {_stride_words(config)}"),
        ("token", f"{tubelet}; {config.grid.num_tokens:,} of a clip"),
    ]
    return _table(("", ""), rows)


def _stride_words(config: VideoMAEConfig) -> str:
    stride = config.frame_stride
    if stride is None:
        return "spread over the whole video"
    return "one after the other" if stride == 1 else f"one of every {stride} frames of the video"


def _training_rows(settings: TrainSettings) -> list[tuple[str, str]]:
    start = _init_name(settings.init) or f"from scratch ({settings.preset})"
    rows = [
        ("videos", f"{_data_name(settings)}, split {settings.split}"),
        ("start", start),
        ("epochs", f"{settings.epochs}, {settings.num_warmup_epochs:g} of them warm-up"),
        ("videos per step", str(settings.batch_size)),
        ("clips of each video", str(settings.num_repeats)),
        ("peak learning rate", f"{settings.peak_lr:.3g}, then a cosine"),
        ("weight decay", f"{settings.weight_decay:g} (AdamW, second beta {settings.beta2:g})"),
        ("largest gradient norm", f"{settings.clip_grad:g}" if settings.clip_grad else "any"),
        ("crops", ", ".join(f"{scale:g}" for scale in settings.crop_scales)),
        ("mirrored", "half of the clips" if settings.flip else "no"),
        ("seed", str(settings.seed)),
        ("made with", f"videomae {__version__}"),
    ]
    random_resized = isinstance(settings, FinetuneSettings) and settings.crop == "random_resized"
    return [row for row in rows if not (random_resized and row[0] == "crops")]


def _mask_rows(settings: PretrainSettings) -> list[tuple[str, str]]:
    rows = [("hidden", f"{_share(settings.mask_ratio)}, {settings.mask} mask")]
    if settings.decoder_mask_ratio is not None:
        rows.append(("not decoded either", f"{_share(settings.decoder_mask_ratio)}, running cells"))
    target = "pixels of each tubelet, without its mean and contrast"
    return [*rows, ("target", target if settings.norm_pix_loss else "pixels")]


def _label_rows(settings: FinetuneSettings) -> list[tuple[str, str]]:
    """Regularisation, where there was some."""
    area = " to ".join(f"{share:g}" for share in settings.crop_area)
    head = "the classifier alone" if settings.train_only == "head" else "all layers"
    found = {
        "trained": head,
        "learning rate of a layer": f"{settings.layer_decay:g} of that of the one above",
        "crops": f"of any shape, {area} of the frame",
        "stochastic depth": f"{settings.drop_path_rate:g}",
        "dropout": f"{settings.classifier_dropout:g}",
        "label smoothing": f"{settings.label_smoothing:g}",
        "RandAugment": f"{settings.rand_augment_ops} operations, magnitude "
        f"{settings.rand_augment_magnitude:g}",
        "erased": f"{_share(settings.erase_prob)} of the clips",
        "mixup, cutmix": f"{settings.mixup_alpha:g}, {settings.cutmix_alpha:g}",
        "mean of weights": f"decay {settings.ema_decay:g}",
        "class weights": settings.class_weights,
    }
    used = {
        "learning rate of a layer": settings.layer_decay != 1 and settings.train_only == "all",
        "crops": settings.crop == "random_resized",
        "stochastic depth": settings.drop_path_rate,
        "dropout": settings.classifier_dropout,
        "label smoothing": settings.label_smoothing and settings.problem == "single_label",
        "RandAugment": settings.rand_augment_ops,
        "erased": settings.erase_prob,
        "mixup, cutmix": settings.mixes,
        "mean of weights": settings.ema_decay,
        "class weights": settings.class_weights != "none",
    }
    return [(name, text) for name, text in found.items() if used.get(name, True)]


def _results(settings: FinetuneSettings, evaluation: Outcome | None) -> str:
    if evaluation is None:
        return "It was not evaluated: there were no videos held out for it."
    data = _text(_printable((settings.eval_data or settings.data).name))
    views = f"{evaluation.num_views} view{'s' if evaluation.num_views > 1 else ''} of each"
    text = f"On {evaluation.num_videos:,} videos of {data}, {views}"
    if len(evaluation.bad):
        how = "left out" if settings.problem == "regression" else "counted as wrong"
        text += f"; {len(evaluation.bad):,} could not be read, {how}"
    rows = [
        (name, f"{value:.1f} %" if key in PERCENT else f"{value:.4g}")
        for key, name, value in _known_figures(evaluation)
    ]
    parts = [f"{text}.", _table(("measure", "value"), rows), _per_class(evaluation.per_class)]
    return "\n\n".join(part for part in parts if part)


def _per_class(values: Mapping[str, float]) -> str:
    if not 0 < len(values) <= _MAX_CLASS_ROWS:
        return ""
    table = _table(("class", "%"), [(name, f"{value:.1f}") for name, value in values.items()])
    return _folded(f"Each of the {len(values)} classes", table)


def _classes(settings: FinetuneSettings, config: VideoMAEConfig) -> list[str]:
    if settings.problem == "regression":
        return []
    names = ", ".join(_text(config.id2label[index]) for index in sorted(config.id2label))
    if config.num_labels > _MAX_CLASS_ROWS:
        return ["## Classes", _folded(f"All {config.num_labels:,}, in their order", names)]
    return ["## Classes", f"In their order: {names}."]


def _pretraining_code(settings: PretrainSettings, config: VideoMAEConfig) -> str:
    height, width = config.image_hw
    shape = f"1, {config.num_frames}, {config.num_channels}, {height}, {width}"
    ours = f"""import videomae

model = "{_FOLDER}"  # or its id on the hub
features = videomae.embed("video.mp4", model=model).features
painted = videomae.reconstruct(
    "video.mp4", model=model, mask="{settings.mask}", mask_ratio={settings.mask_ratio}
)
painted.save("painted.png")"""
    theirs = f"""import torch
from transformers import VideoMAEForPreTraining

model = VideoMAEForPreTraining.from_pretrained("{_FOLDER}")
pixel_values = torch.randn({shape})  # in place of a clip
hidden = torch.rand(1, {config.grid.num_tokens}).argsort() < {_num_hidden(settings, config)}
loss = model(pixel_values, bool_masked_pos=hidden).loss"""
    return "\n\n".join(
        [
            "With `videomae`:",
            _code("python", ours),
            _code("bash", f"videomae finetune --init {_FOLDER} --data LABELLED --output RUN"),
            "With transformers:",
            _code("python", theirs),
        ]
    )


def _num_hidden(settings: PretrainSettings, config: VideoMAEConfig) -> int:
    return int(settings.mask_ratio * config.grid.num_tokens)


def _classifier_code(config: VideoMAEConfig) -> str:
    ours = f"""import videomae

seen = videomae.classify("video.mp4", model="{_FOLDER}")  # or its id on the hub
print(seen.labels[0], seen.scores[0])"""
    theirs = f"""from transformers import pipeline

classify = pipeline("video-classification", model="{_FOLDER}")
print(classify("video.mp4"))"""
    differs = (
        ""
        if config.frame_stride is None
        else f" It spreads the {config.num_frames} frames over the whole video, where the model "
        f"was trained on {_stride_words(config)}; `videomae` samples as in training."
    )
    return "\n\n".join(
        [
            "With `videomae`:",
            _code("python", ours),
            _code("bash", f"videomae classify video.mp4 --model {_FOLDER}"),
            "With transformers, which decodes videos with torchcodec (`pip install torchcodec`)."
            + differs,
            _code("python", theirs),
        ]
    )


def _classifier_limits(settings: FinetuneSettings) -> str:
    if settings.problem == "regression":
        return "Its answers mean something for videos like those it was trained on, and no others."
    many = settings.problem == "multi_label"
    strange = "has nothing to say" if many else "names one of them all the same"
    return (
        f"It knows its classes and no others: of a video of anything else it {strange}. Its scores "
        "order the classes; as probabilities nobody has checked them. What the labels of its "
        "training say, right or wrong, it has learned."
    )


def _licence(init: str | None) -> str | None:
    """The licence that weights to start from impose, if it is known."""
    if init is None:
        return None
    if resolve_shipped(init) is not None:
        return "apache-2.0"
    if _is_hub_id(init):
        return _NON_COMMERCIAL if init.split("/")[0] in _NON_COMMERCIAL_OWNERS else None
    card = Path(init).expanduser() / "README.md"  # a model may be the grandchild of published ones
    try:
        front = card.read_text(encoding="utf-8").split("\n---", 1)[0]
    except (OSError, ValueError):
        return None
    found = re.search(r'^license: *"?([\w.-]+)"? *$', front, flags=re.MULTILINE)
    return found[1] if found else None


def _licence_words(settings: TrainSettings) -> str:
    name, licence = _init_name(settings.init), _licence(settings.init)
    if licence == _NON_COMMERCIAL:
        return (
            f"It is made from {name}, whose weights are CC BY-NC 4.0. The same holds for this "
            "model: it is not for commercial use."
        )
    if name is None:
        return "It was trained from scratch: its licence is for its maker to choose."
    if licence is not None:
        return f"It is made from {name}, whose licence is {licence}."
    return (
        f"It is made from {name}: the licence of those weights holds for this model too. The "
        "published VideoMAE weights are CC BY-NC 4.0, not for commercial use."
    )


def _is_hub_id(init: str) -> bool:
    """Whether this is an id on the hub; an existing path is looked at before the hub is."""
    if resolve_shipped(init) is not None or Path(init).expanduser().exists():
        return False
    is_file = init.endswith((".safetensors", ".pth", ".pt", ".bin"))
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", init) is not None and not is_file


def _init_name(init: str | None) -> str | None:
    """What a model started from: a hub id or shipped name as it is, of a path the end."""
    if init is None or _is_hub_id(init) or resolve_shipped(init) is not None:
        return init
    parts = [part for part in Path(init).parts if part not in ("/", "..", "~")]
    # Every run calls its models so; the name of the run says more.
    keep = 2 if parts[-1:] in (["model"], ["best"]) else 1
    return _printable("/".join(parts[-keep:]))


def _data_name(settings: TrainSettings) -> str:
    return _printable(settings.data.name or settings.data.absolute().name)


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _printable(text: str) -> str:
    """What UTF-8 and YAML can hold: names of files may have any bytes."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    # Within a word _ means nothing.
    special = r"([\\`*\[\]|#~]|(?<!\w)_|_(?!\w))"
    return re.sub(special, r"\\\1", escape(_printable(text), quote=False))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _code(language: str, lines: str) -> str:
    return f"```{language}\n{lines}\n```"


_CITATION = (
    "The method: Tong, Song, Wang, Wang, *VideoMAE: Masked Autoencoders are Data-Efficient "
    "Learners for Self-Supervised Video Pre-Training*, NeurIPS 2022."
)
