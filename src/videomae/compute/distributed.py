"""The device, precision and processes of a run.

Started by itself a run is one process; under `torchrun` or `accelerate launch` it is as many as
those start. No other file of the package asks for a rank.
"""

import contextlib
import itertools
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from videomae.compute.devices import as_device, as_dtype
from videomae.errors import ConfigError, needing

Item = TypeVar("Item")


@dataclass(frozen=True)
class Machine:
    """Device, precision and processes of a run. Weights stay float32; products run in `dtype`.

    rank: the number of this process among all, from 0. world: how many processes there are.
    """

    device: torch.device
    dtype: torch.dtype
    parallel: str = "ddp"
    rank: int = 0
    world: int = 1

    @classmethod
    def start(
        cls, device: str = "auto", dtype: str = "auto", *, parallel: str = "ddp"
    ) -> "Machine":
        """The best that is there where a choice is `auto`; ConfigError for what is not.

        With several processes each takes the GPU of its local rank, or they share the CPU.
        """
        rank, world = 0, num_processes()
        if world > 1:
            if device.startswith("cuda:"):
                raise ConfigError(
                    f"device={device!r} is one GPU for {world} processes; use device=cuda"
                )
            on_cpu = device == "cpu" or (device == "auto" and as_device(device).type == "cpu")
            # Meets the other processes, and makes the GPU of this one the current one.
            rank = int(_accelerate().PartialState(cpu=on_cpu).process_index)
        chosen = as_device(device)
        precision = as_dtype(dtype, chosen)
        if precision == torch.float16 and chosen.type == "cpu":
            raise ConfigError("training in float16 needs a GPU; use bfloat16 or float32")
        return cls(chosen, precision, parallel, rank, world)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def __str__(self) -> str:
        text = f"{self.device} in {str(self.dtype).removeprefix('torch.')}"
        return text if self.world == 1 else f"{self.world} processes on {text}"

    def autocast(self) -> torch.autocast:
        """Run the block's products in `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Scales the loss for gradients in float16, and leaves out steps where they overflow."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def place(self, model: nn.Module) -> nn.Module:
        """The model as it trains here: whole in each process, or split layer by layer (FSDP2)."""
        model.to(self.device)
        if self.world == 1:
            return model
        if self.parallel == "ddp":
            on_gpu = self.device.type == "cuda"
            return DistributedDataParallel(model, device_ids=[self.device] if on_gpu else None)
        # Here, as importing it takes most of a second, which nothing else needs.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        products = None if self.dtype == torch.float32 else self.dtype
        # What goes in keeps its type, as under `autocast`: rounded pixels are rounded targets.
        policy = MixedPrecisionPolicy(products, reduce_dtype=products, cast_forward_inputs=False)
        stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
        for layer in itertools.chain(*stacks):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        return model

    def sharing(self, network: Any, share: bool) -> contextlib.AbstractContextManager[None]:
        """Inside, gradients of a placed model go to the other processes, or are kept for later."""
        if isinstance(network, DistributedDataParallel) and not share:
            return network.no_sync()
        if hasattr(network, "set_requires_gradient_sync"):
            network.set_requires_gradient_sync(share)
        return contextlib.nullcontext()

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all processes; waits for the device and for the others."""
        if self.world == 1:
            return list(values)
        device = self.device if self.device.type == "cuda" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def gather(self, items: Iterable[Item]) -> list[Item]:
        """The items of all processes, those of the first one first."""
        own = list(items)
        if self.world == 1:
            return own
        every: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(every, own)
        return [item for part in every for item in part]

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.world > 1:
            on_gpu = self.device.type == "cuda"
            torch.distributed.barrier(device_ids=[self.device.index] if on_gpu else None)


# How a model may be spread over devices without a device for each module: names of accelerate.
SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")


def spread(
    model: Any,
    device_map: str | dict[str, Any],
    *,
    max_memory: dict[int | str, int | str] | None = None,
    offload_dir: Any = None,
    offload_buffers: bool = False,
) -> None:
    """Put the modules of a model on several devices, the CPU or the disk, as accelerate does.

    `device_map` has a device for each module, or is one of SPREADS and then fills the GPUs first;
    `max_memory` has the bytes of each device. Raises ConfigError where the model does not fit.
    """
    accelerate = _accelerate("device_map")
    parts = device_map
    try:
        if isinstance(parts, str):
            limits = {"max_memory": max_memory, "no_split_module_classes": model._no_split_modules}
            if parts != "sequential":
                limits["max_memory"] = accelerate.utils.get_balanced_memory(
                    model, low_zero=parts == "balanced_low_0", **limits
                )
            parts = accelerate.infer_auto_device_map(
                model, offload_buffers=offload_buffers, **limits
            )
        accelerate.dispatch_model(
            model, parts, offload_dir=offload_dir, offload_buffers=offload_buffers
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"device_map={device_map!r} does not fit this model: {error}") from error


def clip_gradients(parameters: list[nn.Parameter], largest: float | None) -> float:
    """Scale the gradients down to a norm of at most `largest`; the norm they had."""
    limit = float("inf") if largest is None else largest
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def num_processes() -> int:
    """The number of processes that the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of the random layers of a step, so that a resumed run needs no memory of it."""
    return random.Random(f"{seed} {step} {rank} layers").getrandbits(63)


def tracker_name(tracker: str) -> str | None:
    """The tracker that a choice means: "auto" is tensorboard where it is installed, else none.

    Raises ConfigError for one that is not installed.
    """
    if tracker == "auto":
        return "tensorboard" if find_spec("tensorboard") else None
    if tracker != "none" and find_spec(tracker) is None:
        raise ConfigError(f"tracker={tracker!r} is not installed: pip install {tracker}")
    return None if tracker == "none" else tracker


def open_tracker(tracker: str, folder: Path, description: str) -> Any:
    """Begin to report to tensorboard, wandb, trackio or mlflow; None for no tracker.

    The answer has `log(figures, step=...)` and `finish()`. For the main process alone.
    """
    name = tracker_name(tracker)
    if name is None:
        return None
    accelerate = _accelerate()
    places = accelerate.utils.ProjectConfiguration(logging_dir=str(folder))
    accelerator = accelerate.Accelerator(log_with=name, project_config=places)
    accelerator.init_trackers(
        "tensorboard" if name == "tensorboard" else "videomae",
        init_kwargs={"wandb": {"dir": str(folder), "notes": description}},
    )
    return accelerator.trackers[0]


def _accelerate(what: str = "training") -> Any:
    with needing(what):
        import accelerate
    return accelerate
