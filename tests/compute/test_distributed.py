import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from videomae.compute.distributed import (
    Machine,
    clip_gradients,
    open_tracker,
    spread,
    step_seed,
    tracker_name,
)
from videomae.errors import ConfigError


def test_float16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="training in float16 needs a GPU"):
        Machine.start("cpu", "float16")


def test_each_run_of_a_process_chooses_anew() -> None:
    assert str(Machine.start("cpu", "float32")) == "cpu in float32"
    machine = Machine.start("cpu", "bfloat16")
    assert str(machine) == "cpu in bfloat16"
    with machine.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.bfloat16


def test_one_process_is_all_there_is() -> None:
    machine = Machine.start("cpu", "float32", parallel="fsdp")
    assert (machine.rank, machine.world, machine.is_main) == (0, 1, True)
    assert machine.sum(1.5, 2) == [1.5, 2]
    assert machine.gather(iter("ab")) == ["a", "b"]
    machine.wait()


def test_one_gpu_cannot_be_given_to_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="device='cuda:0' is one GPU for 2 processes; use device"):
        Machine.start("cuda:0", "float32")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_of_several_processes_each_takes_the_gpu_that_became_its_own(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[dict[str, bool]] = []

    def join(**options: bool) -> SimpleNamespace:
        joined.append(options)
        return SimpleNamespace(process_index=1)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", join)
    current = "videomae.compute.distributed.as_device"
    monkeypatch.setattr(current, lambda _: torch.device("cuda", 1 if joined else 0))
    machine = Machine.start(device, "float32")
    assert (machine.rank, machine.world, machine.device) == (1, 2, torch.device("cuda", 1))
    assert joined == [{"cpu": False}]


def test_clipping_tells_the_norm_that_was() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([weight], None) == 5
    assert torch.equal(weight.grad, torch.tensor([3.0, 4.0]))
    assert clip_gradients([weight], 0.5) == 5
    torch.testing.assert_close(weight.grad, torch.tensor([0.3, 0.4]))


def test_steps_and_processes_have_seeds_of_their_own() -> None:
    seeds = {step_seed(s, t, r) for s in range(3) for t in range(3) for r in range(3)}
    assert len(seeds) == 27
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3) < 2**63


def test_a_tracker_that_is_not_installed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tracker='trackio' is not installed: pip install"):
        open_tracker("trackio", tmp_path, "")
    assert tracker_name("auto") == "tensorboard"
    assert tracker_name("none") is None
    assert open_tracker("none", tmp_path, "") is None


@pytest.mark.parametrize(
    "device_map", ["auto", "sequential", {"0": "cpu", "1": "disk", "2": "disk"}]
)
def test_a_model_is_spread_by_accelerate(
    device_map: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = (torch.nn.Linear(3, 4), torch.nn.Linear(4, 2), torch.nn.Linear(2, 2))
    model = torch.nn.Sequential(*layers)
    model._no_split_modules = ["Linear"]
    clip = torch.randn(2, 3)
    expected = model(clip)
    with pytest.raises(ConfigError, match="does not fit this model: "):
        spread(copy.deepcopy(model), "auto", max_memory={"cpu": 70})
    spread(model, device_map, max_memory={"cpu": 120}, offload_dir=tmp_path)
    assert model[2].weight.is_meta
    torch.testing.assert_close(model(clip), expected)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConfigError, match=r'device_map needs more packages: pip install "videomae'):
        spread(model, device_map)
