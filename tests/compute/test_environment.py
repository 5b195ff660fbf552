from pathlib import Path

import pytest
import torch

from videomae.compute.environment import container_limits, environment


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        ("150000 100000\n", "1073741824\n", (1.5, 2**30)),
        ("max 100000\n", "max\n", (None, None)),
        (None, None, (None, None)),
        ("", "", (None, None)),
    ],
)
def test_limits_of_a_container(
    cpu: str | None, memory: str | None, expected: tuple[float | None, int | None], tmp_path: Path
) -> None:
    if cpu is not None and memory is not None:
        (tmp_path / "cpu.max").write_text(cpu)
        (tmp_path / "memory.max").write_text(memory)
    assert container_limits(tmp_path) == expected


def test_facts_are_those_of_torch_and_name_no_absent_package() -> None:
    facts = environment()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "decord" not in facts
    assert all(isinstance(name, str) and value is not None for name, value in facts.items())
