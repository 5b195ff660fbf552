"""Capabilities of the processor, and linear maps that suit it.

Letters: B clips, N tokens, D features.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AnyModule = TypeVar("AnyModule", bound=nn.Module)

# What torch knows of this processor: `avx512_bf16`, `cpu_name`, ...; empty in an old torch. Asked
# once and here, because a compiler cannot trace the question; telling it so with
# `assume_constant_result` imports torch._dynamo, which takes a second.
CPU_CAPABILITIES: dict[str, Any] = dict(getattr(torch.cpu, "get_capabilities", dict)())


def cpu_multiplies_bfloat16() -> bool:
    """Whether there are instructions for bfloat16 products (AMX, AVX-512 BF16, Arm)."""
    names = ("amx_bf16", "avx512_bf16", "bf16")
    return any(CPU_CAPABILITIES.get(name, False) for name in names)


def onednn_outruns_mkl() -> bool:
    """Whether oneDNN computes a float32 linear map faster than MKL, which torch takes by itself.

    On AMD processors with AVX-512, where MKL keeps to AVX2: 362 and 150 to 184 GFLOP/s for
    1568 x 768 x 3072 on Zen 5. With AVX2 alone MKL is the faster, 86 and 72 on Zen 3. Where the two
    were not measured the answer is no.
    """
    there = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    wide = bool(CPU_CAPABILITIES.get("avx512_f"))
    return there and wide and "AMD" in str(CPU_CAPABILITIES.get("cpu_name"))


class OneDnnLinear(nn.Linear):
    """A linear map that oneDNN computes where it can: float32, on a CPU, without gradients.

    The parameters are those of `nn.Linear`, neither packed nor copied: on Zen 3, oneDNN took no
    longer with weights as they are than with packed ones. Elsewhere it is `nn.Linear` itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        plain = x.dtype == self.weight.dtype == torch.float32 and x.device.type == "cpu"
        if not plain or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return F.linear(x, self.weight, self.bias)
        mapped: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, "none", [], ""
        )
        return mapped


def prepare_for_inference(model: AnyModule) -> AnyModule:
    """The model with linear maps that are fastest here, for use without gradients.

    Where torch's own are, that is the model itself. Elsewhere a copy comes back, which holds the
    very same parameters: names and state dict stay, a change of the weights shows in both, and only
    the rounding differs (in the order of 1e-6 of a ViT-B's logits).
    """
    if not onednn_outruns_mkl():
        return model
    tensors = [*model.parameters(), *model.buffers()]
    prepared = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for name, linear in list(prepared.named_modules()):
        if type(linear) is nn.Linear:
            parent = prepared.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _by_onednn(linear))
    return prepared


def _by_onednn(linear: nn.Linear) -> OneDnnLinear:
    """The same map around the same parameters."""
    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    made = OneDnnLinear(*sizes, device="meta").train(linear.training)
    made.weight, made.bias = linear.weight, linear.bias
    return made
