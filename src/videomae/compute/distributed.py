"""What a run computes on: device, precision and processes, by way of accelerate.

Started by itself a run is one process; under `torchrun` or `accelerate launch` it is as many as
those start. No other file of the package asks for a rank.
"""

import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from videomae.compute.devices import as_device, as_dtype
from videomae.errors import ConfigError
from videomae.model.modeling import VideoMAEPreTrainedModel

if TYPE_CHECKING:
    from accelerate import Accelerator

Item = TypeVar("Item")

_PRECISIONS = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Machine:
    """Device, precision and processes of a run. Weights stay float32; products run in `dtype`."""

    accelerator: "Accelerator"
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def start(
        cls, device: str = "auto", dtype: str = "auto", *, parallel: str = "ddp"
    ) -> "Machine":
        """The best that is there where a choice is `auto`; ConfigError for what is not.

        With several processes each takes the GPU of its local rank, or they share the CPU.
        """
        accelerate = _accelerate()
        chosen = as_device(device)
        if chosen.type == "cuda" and chosen.index is not None and num_processes() > 1:
            raise ConfigError(
                f"device={device!r} is one GPU for {num_processes()} processes; use device=cuda"
            )
        precision = as_dtype(dtype, chosen)
        if precision == torch.float16 and chosen.type == "cpu":
            raise ConfigError("training in float16 needs a GPU; use bfloat16 or float32")
        if parallel == "fsdp" and num_processes() == 1:
            parallel = "ddp"  # nothing to split a model over
        # accelerate keeps device and precision for the whole process, and refuses others later;
        # a second run in this process may want others.
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=num_processes() == 1)
        # Its launcher says by environment what these arguments say; ours count.
        for name in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP"):
            os.environ.pop(name, None)
        accelerator = accelerate.Accelerator(
            cpu=chosen.type == "cpu",
            mixed_precision=_PRECISIONS[precision],
            fsdp_plugin=_split_plugin(accelerate) if parallel == "fsdp" else None,
            step_scheduler_with_optimizer=False,
        )
        place = chosen if chosen.index is not None else accelerator.device
        return cls(accelerator, place, precision)

    @property
    def rank(self) -> int:
        """The number of this process among all, from 0."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """How many processes there are."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def __str__(self) -> str:
        text = f"{self.device} in {str(self.dtype).removeprefix('torch.')}"
        return text if self.world == 1 else f"{self.world} processes on {text}"

    def autocast(self) -> Any:
        """Run the block's products in `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def place(
        self, model: VideoMAEPreTrainedModel, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, Any]:
        """Model and optimiser as they train here: spread over the processes, in their precision."""
        wrapped, moved = self.accelerator.prepare(model.to(self.device), optimizer)
        return wrapped, moved

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all processes; waits for the device and for the others."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._sum_device())
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def _sum_device(self) -> torch.device:
        return self.device if self.device.type == "cuda" else torch.device("cpu")

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
        self.accelerator.wait_for_everyone()

    def clip(self, parameters: list[nn.Parameter], largest: float | None) -> float:
        """Scale the gradients down to a norm of at most `largest`; the norm they had."""
        norm: Any = self.accelerator.clip_grad_norm_(
            parameters, float("inf") if largest is None else largest
        )
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return float(norm)

    def open_tracker(self, tracker: str, folder: Path, description: str) -> None:
        """Begin to report to tensorboard, wandb, trackio or mlflow, in the main process.

        "auto" is tensorboard where it is installed, else nothing. ConfigError for one that is not.
        """
        chosen = "tensorboard" if tracker == "auto" else tracker
        if chosen == "none" or (tracker == "auto" and find_spec("tensorboard") is None):
            return
        if find_spec(chosen) is None:
            raise ConfigError(f"tracker={tracker!r} is not installed: pip install {chosen}")
        self.accelerator.log_with = _accelerate().tracking.filter_trackers([chosen], str(folder))
        self.accelerator.project_configuration.logging_dir = str(folder)
        self.accelerator.init_trackers(
            "tensorboard" if chosen == "tensorboard" else "videomae",
            init_kwargs={"wandb": {"dir": str(folder), "notes": description}},
        )

    def track(self, values: Mapping[str, float], *, step: int) -> None:
        """Hand figures to the tracker, if there is one."""
        self.accelerator.log(dict(values), step=step)

    def finish(self) -> None:
        """Close the tracker, and meet the other processes for the last time."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.wait()

    @property
    def scales_loss(self) -> bool:
        """Whether float16 gradients are scaled, and steps with overflow left out by the scaler."""
        return self.dtype == torch.float16


def num_processes() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def step_seed(seed: int, step: int, rank: int) -> int:
    """What the random layers of a step start from, so that a resumed run needs no memory of it."""
    return random.Random(f"{seed} {step} {rank} layers").getrandbits(63)


def _accelerate() -> Any:
    try:
        import accelerate
    except ImportError:
        raise ConfigError('training needs more packages: pip install "videomae[train]"') from None
    return accelerate


def _split_plugin(accelerate: Any) -> Any:
    """FSDP2: each layer's weights, gradients and optimiser state lie split over the processes."""
    return accelerate.FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["VideoMAELayer"],
        reshard_after_forward=True,
    )


def describe_devices() -> dict[str, Any]:
    """What environment.json says of the hardware."""
    found: dict[str, Any] = {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": num_processes(),
    }
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["cuda"] = torch.version.cuda
    return found
