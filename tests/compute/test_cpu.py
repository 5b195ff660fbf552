import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from videomae.compute import cpu
from videomae.compute.cpu import (
    OneDnnLinear,
    cpu_multiplies_bfloat16,
    onednn_outruns_mkl,
    prepare_for_inference,
    take_fastest_products,
)
from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEForVideoClassification

ZEN_5 = {"cpu_name": "AMD EPYC 9575F 64-Core Processor", "avx512_f": True, "avx512_bf16": True}
ZEN_3 = {"cpu_name": "AMD EPYC 7763 64-Core Processor", "avx512_f": False}
XEON = {"cpu_name": "Intel(R) Xeon(R) Platinum 8480+", "avx512_f": True, "amx_bf16": True}
ARM = {"cpu_name": "Neoverse-V2", "bf16": True}


def pretend(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    monkeypatch.setattr(cpu, "CPU_CAPABILITIES", found)


@pytest.mark.parametrize(
    ("found", "onednn", "bfloat16"),
    [
        (ZEN_5, True, True),
        (ZEN_3, False, False),
        (XEON, False, True),
        (ARM, False, True),
        ({}, False, False),  # a torch that cannot tell
    ],
)
def test_what_a_processor_is_good_at(
    found: dict[str, Any], onednn: bool, bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, found)
    assert onednn_outruns_mkl() is onednn
    assert cpu_multiplies_bfloat16() is bfloat16


def test_a_compiler_knows_what_the_processor_is_good_at(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ZEN_5)

    def double(x: Tensor) -> Tensor:
        return 2 * x if cpu_multiplies_bfloat16() else x

    compiled = torch.compile(double, fullgraph=True, backend="eager")
    assert compiled(torch.ones(1)).item() == 2


def test_asking_the_processor_imports_no_compiler() -> None:
    code = "import sys, videomae.compute.cpu; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def classifier() -> VideoMAEForVideoClassification:
    config = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_labels=5)
    return VideoMAEForVideoClassification(config).eval()


def clips(model: VideoMAEForVideoClassification) -> Tensor:
    config = model.config
    return torch.randn(2, config.num_frames, config.num_channels, *config.image_hw)


def test_a_model_stays_as_it_is_where_torch_is_fastest(
    classifier: VideoMAEForVideoClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, ZEN_3)
    assert prepare_for_inference(classifier) is classifier


def test_a_prepared_model_answers_the_same_from_the_same_parameters(
    classifier: VideoMAEForVideoClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, ZEN_5)
    prepared, pixels = prepare_for_inference(classifier), clips(classifier)
    assert prepared is not classifier
    assert not any(isinstance(module, OneDnnLinear) for module in classifier.modules())
    assert not any(type(module) is nn.Linear for module in prepared.modules())
    assert not any(module.training for module in prepared.modules())
    own, theirs = prepared.state_dict(keep_vars=True), classifier.state_dict(keep_vars=True)
    assert list(own) == list(theirs)
    assert all(own[name] is theirs[name] for name in own)
    with torch.inference_mode():
        torch.testing.assert_close(
            prepared(pixels).logits, classifier(pixels).logits, atol=1e-6, rtol=1e-5
        )
        classifier.classifier.bias.add_(1)  # shows at once: nothing was copied
        torch.testing.assert_close(
            prepared(pixels).logits, classifier(pixels).logits, atol=1e-6, rtol=1e-5
        )


def asked_onednn(profile: torch.profiler.profile) -> int:
    counts = {event.key: event.count for event in profile.key_averages()}
    return int(counts.get("mkldnn::_linear_pointwise", 0))


@pytest.mark.parametrize("bias", [True, False])
def test_without_gradients_onednn_is_asked_and_agrees(bias: bool) -> None:
    linear = OneDnnLinear(24, 16, bias=bias)
    x = torch.randn(2, 5, 24)
    expected = nn.Linear.forward(linear, x)
    with torch.no_grad(), torch.profiler.profile() as profile:
        torch.testing.assert_close(linear(x), expected)
    assert asked_onednn(profile) == 1


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 5, 24), (2, 3, 5, 24)])
def test_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    linear, x = OneDnnLinear(24, 16, bias=bias), torch.randn(shape, requires_grad=True)
    inputs, grad = (x, *linear.parameters()), torch.randn(*shape[:-1], 16)
    expected = torch.autograd.grad(nn.Linear.forward(linear, x), inputs, grad)
    with torch.profiler.profile() as profile:
        found = torch.autograd.grad(linear(x), inputs, grad)
    torch.testing.assert_close(found, expected)
    assert asked_onednn(profile) == 3


def test_onednn_gets_no_weights_with_gaps_between_their_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, given = torch.ops.mkldnn._linear_pointwise, list[Tensor]()

    def spy(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        given.append(weight)
        mapped: Tensor = real(x, weight, *rest)
        return mapped

    linear, x = OneDnnLinear(24, 16), torch.randn(5, 30)[:, :24]
    linear.weight = nn.Parameter(torch.randn(16, 30)[:, :24])
    expected = torch.autograd.grad(nn.Linear.forward(linear, x).sum(), linear.weight)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", spy)
    torch.testing.assert_close(torch.autograd.grad(linear(x).sum(), linear.weight), expected)
    assert len(given) == 2  # the weights, and for their gradient x
    assert all(each.is_contiguous() or each.t().is_contiguous() for each in given)


def test_no_gradient_is_computed_for_what_is_frozen() -> None:
    linear, x = OneDnnLinear(24, 16), torch.randn(2, 24)
    linear.weight.requires_grad_(False)
    with torch.profiler.profile() as profile:
        linear(x).sum().backward()
    assert linear.weight.grad is None
    assert linear.bias.grad is not None
    assert asked_onednn(profile) == 1


def test_a_training_model_learns_the_same_with_the_products_of_onednn(
    classifier: VideoMAEForVideoClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, ZEN_5)
    fast, pixels, labels = copy.deepcopy(classifier), clips(classifier), torch.tensor([0, 3])
    take_fastest_products(fast)
    assert not any(type(module) is nn.Linear for module in fast.modules())
    for model in (classifier, fast):
        loss: Any = model(pixels, labels=labels).loss
        loss.backward()
    grads = ([each.grad for each in model.parameters()] for model in (fast, classifier))
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-4)


def test_elsewhere_the_map_is_that_of_torch() -> None:
    linear, x = OneDnnLinear(24, 16), torch.randn(2, 5, 24)
    with torch.no_grad():
        double = copy.deepcopy(linear).double()
        torch.testing.assert_close(double(x.double()), nn.Linear.forward(double, x.double()))
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x).dtype == torch.bfloat16
        assert copy.deepcopy(linear).to("meta")(x.to("meta")).is_meta
    compiled = torch.compile(linear, fullgraph=True, backend="eager")
    with torch.profiler.profile() as profile:
        torch.testing.assert_close(compiled(x), nn.Linear.forward(linear, x))
    assert not asked_onednn(profile)
