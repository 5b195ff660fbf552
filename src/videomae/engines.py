"""How a loaded model runs: on which device, in which precision, by which engine."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from videomae.attention import best_implementation
from videomae.config import VideoMAEConfig, nearest
from videomae.errors import ConfigError, WeightsError
from videomae.hub import PathLike
from videomae.modeling import VideoMAEForVideoClassification, VideoMAEPreTrainedModel

ENGINES = ("auto", "torch")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Engine:
    """A model that is ready to run: call it with clips, get logits.

    name: which engine it is. model: in evaluation mode, on `device`, in `dtype`.

    ```python
    engine = load("motion-tiny")
    engine(pixel_values).argmax(-1)  # (B, T, C, H, W) float -> (B,)
    print(engine.describe())         # torch 2.14.1, cpu (2 threads), float32, sdpa attention
    ```
    """

    name: str
    model: VideoMAEPreTrainedModel
    device: torch.device
    dtype: torch.dtype

    @property
    def config(self) -> VideoMAEConfig:
        """The model's config."""
        return self.model.config

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Logits of clips: (B, T, C, H, W) of any float type, anywhere -> (B, K) float32, CPU."""
        return self.run(lambda pixels: self.model(pixels, return_dict=True).logits, pixel_values)

    def run(self, compute: Callable[[Tensor], Tensor], pixel_values: Tensor) -> Tensor:
        """`compute` of clips that were brought to the device and dtype, without gradients.

        Returns what `compute` returns, as float32 on the CPU. ConfigError where a GPU's memory is
        too small.
        """
        try:
            with torch.inference_mode():
                return compute(pixel_values.to(self.device).to(self.dtype)).float().cpu()
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{len(pixel_values)} clips at once do not fit into the memory of {self.device}; "
                "lower batch_size, or choose dtype='float16' or a smaller model"
            ) from error

    def describe(self) -> str:
        """One line on what runs where and how."""
        where = str(self.device)
        if self.device.type == "cpu":
            where = f"cpu ({torch.get_num_threads()} threads)"
        elif self.device.type == "cuda":
            where = f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        version, dtype = torch.__version__.split("+")[0], str(self.dtype).removeprefix("torch.")
        attention = self.config.attn_implementation
        if attention == "auto":
            tokens = self.config.grid.num_tokens
            attention = best_implementation(self.device.type, self.dtype, tokens)
        return f"{self.name} {version}, {where}, {dtype}, {attention} attention"


def load(
    path_or_model: PathLike | VideoMAEPreTrainedModel,
    *,
    engine: str = "auto",
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    model_class: type[VideoMAEPreTrainedModel] = VideoMAEForVideoClassification,
    **overrides: Any,
) -> Engine:
    """Get a model ready to run.

    Args:
        path_or_model: what `model_class.from_pretrained` takes, or a loaded model. A loaded model
            is never changed: where it is in training mode, or another device or dtype is asked
            for, a copy runs in its place.
        engine: "torch", or "auto", which chooses the fastest that is there; torch is the only one
            so far.
        dtype: "float32", "bfloat16", "float16", or "auto": what `best_dtype` says for a model that
            is loaded here, its own dtype for a model that came loaded.
        device: "cpu", "cuda:1", ... None or "auto" is the best that is there, or where a loaded
            model is.
        model_class: what to load; ignored for a loaded model.
        **overrides: further arguments of `model_class.from_pretrained`.

    Raises ConfigError for an unknown engine, dtype or device; WeightsError where nothing loads, and
    where part of the model is not in the checkpoint and would have to run untrained.
    """
    if engine not in ENGINES:
        raise ConfigError(
            f"engine={engine!r} is not one of {', '.join(ENGINES)}{nearest(engine, ENGINES)}"
        )
    if isinstance(path_or_model, VideoMAEPreTrainedModel):
        parameter = next(path_or_model.parameters())
        chosen_device = parameter.device if device in (None, "auto") else as_device(device)
        chosen_dtype = parameter.dtype if dtype == "auto" else as_dtype(dtype, chosen_device)
        model = path_or_model
        if model.training or (chosen_device, chosen_dtype) != (parameter.device, parameter.dtype):
            model = copy.deepcopy(model).eval().to(chosen_device, chosen_dtype)
    else:
        chosen_device = as_device(device)
        chosen_dtype = as_dtype(dtype, chosen_device)
        model = _trained(model_class, path_or_model, dtype=chosen_dtype, **overrides)
        model = model.to(chosen_device)
    return Engine("torch", model, chosen_device, chosen_dtype)


def _trained(
    model_class: type[VideoMAEPreTrainedModel], path: PathLike, **arguments: Any
) -> VideoMAEPreTrainedModel:
    """A model in evaluation mode with nothing in it newly initialised."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loaded: Any = model_class.from_pretrained(path, output_loading_info=True, **arguments)
    model, report = loaded
    if report.newly_initialised:
        raise WeightsError(
            f"{path} holds no trained classifier (it lacks "
            f"{', '.join(report.newly_initialised)}), so that its answers would be random; train "
            f"one with `videomae finetune --init {path} --data DIR`"
        )
    for warning in told:
        warnings.warn(warning.message, stacklevel=3)
    trained: VideoMAEPreTrainedModel = model.eval()
    return trained


def as_device(device: str | torch.device | None) -> torch.device:
    """The device of that name, once it is known to be there; None or "auto" is the best there is.

    Raises ConfigError for a name that torch does not know and for a device that is not there.
    """
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA fails an assertion
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={str(device)!r} cannot be used ({reason}); leave it out to take the best "
            f"that is there, {as_device(None)}"
        ) from error
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def as_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is `best_dtype`. ConfigError names the known ones."""
    if dtype == "auto":
        return best_dtype(device)
    chosen = DTYPES.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise ConfigError(
            f"dtype={str(dtype)!r} is not one of auto, {', '.join(DTYPES)}"
            f"{nearest(str(dtype), DTYPES)}"
        )
    return chosen


def best_dtype(device: torch.device) -> torch.dtype:
    """The precision in which a trained model runs fastest without losing accuracy.

    CUDA: bfloat16, or float16 on cards before Ampere. MPS: float16. CPU: bfloat16 where the
    processor multiplies in it, else float32, because emulated bfloat16 is slower than float32.
    """
    if device.type == "cuda":
        # Emulation would say yes on every card.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "mps":
        return torch.float16
    if device.type == "cpu" and cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 products (AMX, AVX-512 BF16, Arm)."""
    ask: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = ask()  # empty where torch is too old to tell
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
