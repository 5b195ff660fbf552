"""Versions and hardware: what runs, figures and bug reports say about where they come from."""

import os
import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

import torch

from videomae.compute.cores import container_limits, num_cores
from videomae.compute.cpu import CPU_CAPABILITIES
from videomae.version import __version__

_PACKAGES = (
    *("torch", "torchvision", "numpy", "av", "pillow", "safetensors", "huggingface_hub"),
    *("transformers", "accelerate", "decord", "torchcodec", "flash_attn"),
    *("openvino", "nncf", "onnxruntime", "onnx", "onnxscript", "executorch"),
)


def environment() -> dict[str, Any]:
    """Facts by name: versions, processor, cores, threads, memory, GPUs; nothing about the user.

    cores: those that this process may use; cpu_quota: of how many its container lets it have the
    time, where it says so. memory_gb: the machine's, or its container's where that is less.
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
