from collections.abc import Mapping
from typing import Any

import pytest
import torch

from videomae.compute.devices import as_device, as_dtype, best_dtype
from videomae.errors import ConfigError


@pytest.mark.parametrize("device", ["tpux", "cuda:99"])
def test_a_device_that_is_not_there_is_explained(device: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"device='{device}' cannot be used \(.+\); leave it out"
    ):
        as_device(device)


def test_the_best_device_is_there() -> None:
    best = as_device(None)
    assert as_device("auto") == best
    assert best.type == ("cuda" if torch.cuda.is_available() else best.type)
    assert as_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_a_cpu_gets_bfloat16_only_if_it_multiplies_in_it(
    capabilities: Mapping[str, Any], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videomae.compute.cpu.CPU_CAPABILITIES", capabilities)
    assert best_dtype(torch.device("cpu")) == expected
    assert as_dtype("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_gets_the_half_precision_it_has(
    native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    assert best_dtype(torch.device("cuda")) == expected
    assert best_dtype(torch.device("mps")) == torch.float16
