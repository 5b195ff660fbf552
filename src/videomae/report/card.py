"""The model card of a trained model: what it is, how it came about, how to use it.

A README.md as the model hub reads it, made from `templates/card.md.jinja`. Of the machine it was
trained on it shows no path but the last part of what the user gave.
"""

import math
import re
from collections.abc import Mapping, Sized
from html import escape
from pathlib import Path
from typing import Any, Protocol

from videomae.config import VideoMAEConfig
from videomae.hub import resolve_shipped
from videomae.settings import FinetuneSettings, PretrainSettings, TrainSettings
from videomae.version import __version__
from videomae.weights.pretrained import PretrainedModel

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
_NO_LICENCE = "# license: choose one before you share this model"
# More classes than this make a table that nobody reads.
_MAX_CLASS_ROWS = 50
_TASK = "video-classification"


class Evaluated(Protocol):
    """What a card shows of an evaluation; `evaluate.Evaluation` is one."""

    @property
    def num_videos(self) -> int: ...

    @property
    def num_views(self) -> int: ...

    @property
    def per_class(self) -> Mapping[str, float]: ...

    @property
    def bad(self) -> Sized: ...

    def figures(self) -> Mapping[str, float]: ...


def pretraining_card(settings: PretrainSettings, model: PretrainedModel) -> str:
    """The README.md of a pre-trained model, decoder included."""
    return _card(
        settings,
        model,
        tags=["videomae", "video", "masked-autoencoder"],
        problem=None,
        training=_table("setting", "value", _training_rows(settings) | _mask_rows(settings)),
        mask=settings.mask,
        mask_ratio=settings.mask_ratio,
        hidden_share=_share(settings.mask_ratio),
        num_hidden=int(settings.mask_ratio * model.config.grid.num_tokens),
    )


def finetuning_card(
    settings: FinetuneSettings, model: PretrainedModel, evaluation: Evaluated | None
) -> str:
    """The README.md of a fine-tuned model, with what it reached where it was evaluated."""
    figures = {} if evaluation is None else evaluation.figures()
    known = {key: figures[key] for key in FIGURE_NAMES if math.isfinite(figures.get(key, math.nan))}
    per_class = {} if evaluation is None else evaluation.per_class
    if len(per_class) > _MAX_CLASS_ROWS:
        per_class = {}
    labels = [_text(label) for _, label in sorted(model.config.id2label.items())]
    return _card(
        settings,
        model,
        _classifier_data(settings, known),
        tags=["videomae", "video"],
        problem=settings.problem,
        evaluation=evaluation,
        eval_data=_text(_printable((settings.eval_data or settings.data).name)),
        figures=_table("measure", "value", {FIGURE_NAMES[k]: _figure(k, known[k]) for k in known}),
        num_rated=len(per_class),
        per_class=_table("class", "%", {name: f"{v:.1f}" for name, v in per_class.items()}),
        training=_table("setting", "value", _training_rows(settings) | _label_rows(settings)),
        labels=labels,
        fold_labels=len(labels) > _MAX_CLASS_ROWS,
    )


def _card(
    settings: TrainSettings,
    model: PretrainedModel,
    about: dict[str, Any] | None = None,
    *,
    tags: list[str],
    **values: Any,
) -> str:
    """Fill in the template; `about` and `tags` are for the hub, `values` for the text."""
    from huggingface_hub import ModelCard, ModelCardData

    config, licence = model.config, _licence(settings.init)
    height, width = config.image_hw
    is_hub_id = settings.init is not None and _is_hub_id(settings.init)
    card_data = ModelCardData(
        library_name="transformers",
        license=licence,
        base_model=settings.init if is_hub_id else None,
        tags=tags,
        **about or {},
    )
    card = ModelCard.from_template(
        card_data,
        str(Path(__file__).parent / "templates" / "card.md.jinja"),
        data=_text(_data_name(settings)),
        sizes=_table("", "", _sizes(model)),
        config=config,
        clip_shape=f"{config.num_frames}, {config.num_channels}, {height}, {width}",
        stride=_stride_words(config),
        licence=licence,
        non_commercial=_NON_COMMERCIAL,
        made_from=_text(_init_name(settings.init) or ""),
        folder="path/to/this/folder",
        **values,
    )
    text = re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"
    return text if licence else text.replace("---\n", f"---\n{_NO_LICENCE}\n", 1)


def _classifier_data(settings: FinetuneSettings, figures: Mapping[str, float]) -> dict[str, Any]:
    """What the hub shows of a classifier: its task, and the figures it reached."""
    from huggingface_hub import EvalResult

    if settings.problem == "regression":  # the hub has no task of this kind
        return {}
    data = _printable((settings.eval_data or settings.data).name)
    results = [
        EvalResult(
            task_type=_TASK,
            dataset_type=data,
            dataset_name=data,
            metric_type="mAP" if key == "mean_ap" else "accuracy",
            metric_name=FIGURE_NAMES[key],
            metric_value=round(value / 100, 4),
        )
        for key, value in figures.items()
        if key in PERCENT
    ]
    if not results:
        return {"pipeline_tag": _TASK}
    return {
        "pipeline_tag": _TASK,
        "metrics": list(dict.fromkeys(result.metric_type for result in results)),
        "model_name": _printable(settings.output.absolute().name),
        "eval_results": results,
    }


def _figure(key: str, value: float) -> str:
    return f"{value:.1f} %" if key in PERCENT else f"{value:.4g}"


def _sizes(model: PretrainedModel) -> dict[str, str]:
    config = model.config
    total = model.num_parameters()
    encoder = sum(p.numel() for p in model.get_submodule("videomae").parameters())
    (height, width), (patch_height, patch_width) = config.image_hw, config.patch_hw
    return {
        "parameters": f"{total / 1e6:.1f} M, {encoder / 1e6:.1f} M of them in the encoder",
        "encoder": f"{config.num_hidden_layers} layers, {config.hidden_size} features, "
        f"{config.num_attention_heads} heads",
        "clip": f"{config.num_frames} frames of {height} x {width} px, {_stride_words(config)}",
        "token": f"{config.tubelet_size} frames of {patch_height} x {patch_width} px; "
        f"{config.grid.num_tokens:,} of a clip",
    }


def _stride_words(config: VideoMAEConfig) -> str:
    stride = config.frame_stride
    if stride is None:
        return "spread over the whole video"
    return "one after the other" if stride == 1 else f"one of every {stride} frames of the video"


def _training_rows(settings: TrainSettings) -> dict[str, str]:
    return {
        "videos": f"{_data_name(settings)}, split {settings.split}",
        "start": _init_name(settings.init) or f"from scratch ({settings.preset})",
        "epochs": f"{settings.epochs}, {settings.num_warmup_epochs:g} of them warm-up",
        "videos per step": str(settings.batch_size),
        "clips of each video": str(settings.num_repeats),
        "peak learning rate": f"{settings.peak_lr:.3g}, then a cosine",
        "weight decay": f"{settings.weight_decay:g} (AdamW, second beta {settings.beta2:g})",
        "largest gradient norm": f"{settings.clip_grad:g}" if settings.clip_grad else "any",
        "crops": ", ".join(f"{scale:g}" for scale in settings.crop_scales),
        "mirrored": "half of the clips" if settings.flip else "no",
        "seed": str(settings.seed),
        "made with": f"videomae {__version__}",
    }


def _mask_rows(settings: PretrainSettings) -> dict[str, str]:
    rows = {"hidden": f"{_share(settings.mask_ratio)}, {settings.mask} mask"}
    if settings.decoder_mask_ratio is not None:
        rows["not decoded either"] = f"{_share(settings.decoder_mask_ratio)}, running cells"
    target = "pixels of each tubelet, without its mean and contrast"
    return rows | {"target": target if settings.norm_pix_loss else "pixels"}


def _label_rows(settings: FinetuneSettings) -> dict[str, str]:
    """Regularisation, where there was some."""
    area = " to ".join(f"{share:g}" for share in settings.crop_area)
    operations, magnitude = settings.rand_augment_ops, settings.rand_augment_magnitude
    smoothing = settings.label_smoothing if settings.problem == "single_label" else 0
    is_whole, decay = settings.train_only == "all", settings.layer_decay
    rows: list[tuple[Any, str, str]] = [  # whether it was used, its name, what it was
        (True, "trained", "all layers" if is_whole else "the classifier alone"),
        (
            is_whole and decay != 1,
            "learning rate of a layer",
            f"{decay:g} of that of the one above",
        ),
        (settings.crop == "random_resized", "crops", f"of any shape, {area} of the frame"),
        (settings.drop_path_rate, "stochastic depth", f"{settings.drop_path_rate:g}"),
        (settings.classifier_dropout, "dropout", f"{settings.classifier_dropout:g}"),
        (smoothing, "label smoothing", f"{smoothing:g}"),
        (operations, "RandAugment", f"{operations} operations, magnitude {magnitude:g}"),
        (settings.erase_prob, "erased", f"{_share(settings.erase_prob)} of the clips"),
        (settings.mixes, "mixup, cutmix", f"{settings.mixup_alpha:g}, {settings.cutmix_alpha:g}"),
        (settings.ema_decay, "mean of weights", f"decay {settings.ema_decay:g}"),
        (settings.class_weights != "none", "class weights", settings.class_weights),
    ]
    return {name: text for used, name, text in rows if used}


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


def _table(name: str, value: str, rows: Mapping[str, str]) -> str:
    """A table of two columns; empty without rows."""
    lines = [f"| {name} | {value} |", "| --- | --- |"]
    lines += [f"| {_text(key)} | {_text(text)} |" for key, text in rows.items()]
    return "\n".join(lines) if rows else ""
