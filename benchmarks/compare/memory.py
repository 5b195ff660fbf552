"""Peak memory of a job, in a process of its own."""

import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from videomae.config import VideoMAEConfig

Build = Callable[[VideoMAEConfig], Callable[[], object]]  # the job of a model of that config


def peak_of(build: Build, config: VideoMAEConfig, device: torch.device) -> int:
    """Peak memory in bytes of building a job and doing it twice.

    On a CPU it counts what came on top of the imports: weights, activations, gradients, optimiser.
    On CUDA it is what torch had allocated. `build` is a function of a module, or a partial of one,
    that can be pickled.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        threads = torch.get_num_threads()
        return pool.submit(_peak_here, build, config, device, threads).result()


def _peak_here(build: Build, config: VideoMAEConfig, device: torch.device, threads: int) -> int:
    torch.set_num_threads(threads)
    # A small model goes before, so that everything is imported.
    build(VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_frames=2, num_labels=2))()
    before = peak_bytes()
    job = build(config)
    for _ in range(2):
        job()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return max(peak_bytes() - before, 1)


def peak_bytes() -> int:
    """The most memory that this process has had so far.

    Not `ru_maxrss` where there is better: on Linux a child starts with that of its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource  # not on Windows

        unit = 1 if platform.system() == "Darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
