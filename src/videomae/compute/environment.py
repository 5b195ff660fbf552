"""Versions and hardware: what runs, figures and bug reports say about where they come from."""

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from videomae.compute.cpu import CPU_CAPABILITIES, num_cores
from videomae.version import __version__

_PACKAGES = (
    *("torch", "torchvision", "numpy", "av", "pillow", "safetensors", "huggingface_hub"),
    *("transformers", "accelerate", "decord", "torchcodec", "flash_attn"),
    *("openvino", "nncf", "onnxruntime", "onnx", "onnxscript", "executorch"),
)


def environment() -> dict[str, Any]:
    """Facts by name: versions, processor, cores, threads, memory, GPUs; nothing about the user.

    cores: those that this process may use; cpu_quota: how many of them its container lets it have,
    where it says so. memory_gb: the machine's, or its container's where that is less.
    """
    facts: dict[str, Any] = {
        "videomae": __version__,
        "python": platform.python_version(),
        # Neither platform.platform() nor .processor(), which start whatever is called uname.
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": CPU_CAPABILITIES.get("cpu_name") or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
    }
    quota, limit = container_limits()
    if quota is not None:
        facts["cpu_quota"] = quota
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        facts["memory_gb"] = round(min(memory, limit or memory) / 1e9, 1)
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            facts[name] = metadata.version(name)
    return facts


def container_limits(root: Path = Path("/sys/fs/cgroup")) -> tuple[float | None, int | None]:
    """Cores and bytes of memory that the container (a cgroup of version 2) allows; None: any."""

    def words(name: str) -> list[str]:
        with suppress(OSError, UnicodeDecodeError):
            return (root / name).read_text().split()
        return []

    quota, limit = words("cpu.max"), words("memory.max")
    numbers = len(quota) == 2 and all(word.isdigit() for word in quota)
    cores = round(int(quota[0]) / int(quota[1]), 2) if numbers else None
    return cores, int(limit[0]) if limit and limit[0].isdigit() else None
