"""Devices and precisions: by name, or the best that is there."""

import sys

import torch

from videomae.compute.cpu import cpu_multiplies_bfloat16
from videomae.errors import ConfigError, nearest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    if device.type == "cpu" and cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that were taken so far: of a CUDA device, else of this process; None: unknown.

    On other devices than CUDA ones and the CPU it is not known, nor is it on Windows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # bytes there, KiB elsewhere
