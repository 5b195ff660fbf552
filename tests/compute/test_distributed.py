import pytest
import torch

from videomae.compute.distributed import Machine, step_seed
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
    monkeypatch.setattr("videomae.compute.distributed.as_device", torch.device)
    with pytest.raises(ConfigError, match="device='cuda:0' is one GPU for 2 processes; use device"):
        Machine.start("cuda:0", "float32")


def test_clipping_tells_the_norm_that_was() -> None:
    machine = Machine.start("cpu", "float32")
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert machine.clip([weight], None) == 5
    assert torch.equal(weight.grad, torch.tensor([3.0, 4.0]))
    assert machine.clip([weight], 0.5) == 5
    torch.testing.assert_close(weight.grad, torch.tensor([0.3, 0.4]))


def test_steps_and_processes_have_seeds_of_their_own() -> None:
    seeds = {step_seed(s, t, r) for s in range(3) for t in range(3) for r in range(3)}
    assert len(seeds) == 27
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3) < 2**63


def test_an_unknown_tracker_is_an_error(tmp_path: object) -> None:
    machine = Machine.start("cpu", "float32")
    with pytest.raises(ConfigError, match="tracker='trackio' is not installed: pip install"):
        machine.open_tracker("trackio", tmp_path, "")  # type: ignore[arg-type]
