"""The arguments of `from_pretrained` and `save_pretrained`: what they ask for, or why not."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

from videomae import hub
from videomae.compute.distributed import SPREADS
from videomae.config import RENAMED, VideoMAEConfig
from videomae.errors import ConfigError, nearest
from videomae.weights.checkpoint import Checkpoint

# What transformers takes besides. Without advice it does not change which model comes out.
_FOREIGN = {
    **dict.fromkeys(("low_cpu_mem_usage", "weights_only", "disable_mmap", "offload_state_dict")),
    **dict.fromkeys(("tqdm_class", "_fast_init", "adapter_name")),
    **dict.fromkeys(
        ("quantization_config", "load_in_8bit", "load_in_4bit"),
        "int8 is an engine of classify and embed: docs/engines.md",
    ),
    **dict.fromkeys(("gguf_file", "from_tf", "from_flax"), "give a .safetensors or PyTorch file"),
    **dict.fromkeys(
        ("distributed_config", "device_mesh", "tp_plan", "tp_size"),
        "shard the loaded model with torch's fully_shard",
    ),
    "adapter_kwargs": "put adapters on the loaded model with peft.PeftModel.from_pretrained",
    "return_unused_kwargs": "every keyword is used, or is an error",
    "key_mapping": "rename the tensors, and pass them as state_dict= with config=",
    **dict.fromkeys(
        (
            *("use_kernels", "kernel_config", "allow_all_kernels", "experts_implementation"),
            *("fusion_config", "generation_config"),
        ),
        "leave it out",
    ),
}


def check_overrides(overrides: dict[str, Any], arguments: Iterable[str]) -> None:
    """Take out what means nothing here; ConfigError for what is no config field then.

    The nearest name may be one of the `arguments`.
    """
    hub.take_arguments(overrides)
    hub.drop_foreign(overrides, _FOREIGN)
    known = {*(field.name for field in dataclasses.fields(VideoMAEConfig)), *RENAMED}
    for name in overrides:
        if name not in known:
            raise ConfigError(
                f"VideoMAEConfig has no field {name!r}, and from_pretrained no such argument"
                f"{nearest(name, {*known, *arguments})}"
            )


def as_dtype(
    asked: torch.dtype | str | None, config: VideoMAEConfig, checkpoint: Checkpoint
) -> torch.dtype:
    """The dtype that is asked for, or that of the config or the file; ConfigError for no float."""
    if asked is None or asked == "auto":
        own = next(iter(checkpoint.state.values())).dtype if asked else torch.float32
        asked = config.dtype or own
    if isinstance(asked, str):
        asked = getattr(torch, asked.removeprefix("torch."), asked)
    if not isinstance(asked, torch.dtype) or not asked.is_floating_point:
        raise ConfigError(
            f"dtype={asked!r} is not a floating point type; use float32, bfloat16, float16 or auto"
        )
    return asked


def whole_device(device_map: Any) -> torch.device | None:
    """The one device for the whole model; None where it is to be spread over several.

    Raises ConfigError for what is neither.
    """
    if isinstance(device_map, dict) and set(device_map) == {""}:
        device_map = device_map[""]
    if isinstance(device_map, dict) or device_map in SPREADS:
        return None
    try:
        device = torch.device("cpu" if device_map is None else device_map)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(
            f"device_map={device_map!r} cannot be used ({str(error).splitlines()[0]}); expected a "
            f"device that is there, such as 'cpu', one of {', '.join(SPREADS)}, or a device for "
            "each module"
        ) from error
    return device
