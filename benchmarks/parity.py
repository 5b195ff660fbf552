"""How far our numbers lie from those of transformers: same random weights, same clip, float32.

    python -m benchmarks.parity                # small, base and large; a few minutes, 6 GB
    python -m benchmarks.parity --sizes small

Every parameter is random, biases, norms and the mask token too, so that a lost one would show. Both
models hold the very same tensors. Prints the largest absolute difference anywhere in each output,
beside the largest hidden state itself, and fails above 1e-5 (1e-4 for large).
"""

import argparse
import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import videomae
from videomae.masking import tube_mask

CLASSES = ("VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification")
COLUMNS = ("logits", "hidden states", "attentions", "loss")
LARGEST = "largest hidden state"
TOLERANCE = {"small": 1e-5, "base": 1e-5, "large": 1e-4}


def randomize(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.mul_(0.3).add_(1)
            elif parameter.ndim > 1 and not name.endswith("mask_token"):
                parameter.mul_(0.02)  # as models start: larger ones give larger hidden states
            else:
                parameter.mul_(0.1)


def make_pair(name: str, size: str, generator: torch.Generator) -> tuple[Any, Any]:
    """Our model and that of transformers around one set of tensors."""
    config = videomae.VideoMAEConfig.preset(
        size, num_labels=400, use_mean_pooling=name == "VideoMAEForVideoClassification"
    )
    theirs = getattr(transformers, name)(transformers.VideoMAEConfig(**config.to_dict())).eval()
    randomize(theirs, generator)
    with torch.device("meta"):
        ours = getattr(videomae, name)(config).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return ours, theirs


@contextmanager
def compared_attentions(ours: Any, theirs: Any) -> Iterator[list[float]]:
    """Differences of the weights of each encoder layer, which are dropped as soon as compared.

    Those of ViT-L for one clip are 3.8 GB, so they are held once, not twice. Run theirs first.
    """
    waiting: list[Tensor] = []
    differences: list[float] = []

    def keep(_: nn.Module, __: Any, output: Any) -> Any:
        waiting.append(output[1])

    def compare(_: nn.Module, __: Any, output: Any) -> Any:
        differences.append((waiting.pop(0) - output[1]).abs().max().item())
        return output[0], None

    hooks = [
        layer.attention.attention.register_forward_hook(hook)
        for model, hook in ((theirs, keep), (ours, compare))
        for layer in getattr(model, "videomae", model).encoder.layer
    ]
    try:
        yield differences
    finally:
        for hook in hooks:
            hook.remove()


def largest_difference(ours: Any, theirs: Any) -> float:
    if isinstance(ours, Tensor):
        assert ours.shape == theirs.shape
        return float((ours - theirs).abs().max())
    return largest([largest_difference(a, b) for a, b in zip(ours, theirs, strict=True)])


def largest(values: Iterable[float]) -> float:
    """The largest, or nan where one is, which max() of Python passes over."""
    return float(torch.tensor(list(values)).max())


@torch.no_grad()
def compare(name: str, ours: Any, theirs: Any, implementation: str) -> dict[str, float]:
    """The largest difference of each output of one forward pass."""
    generator = torch.Generator().manual_seed(1)
    config = ours.config
    shape = (1, config.num_frames, config.num_channels, *config.image_hw)
    inputs: dict[str, Any] = {
        "pixel_values": torch.randn(shape, generator=generator),
        "output_hidden_states": True,
    }
    if name == "VideoMAEForPreTraining":
        inputs["bool_masked_pos"] = tube_mask(config.grid, 0.9, generator=generator)
    if name == "VideoMAEForVideoClassification":
        inputs["labels"] = torch.tensor([7])
    ours.set_attn_implementation(implementation)
    theirs.set_attn_implementation(implementation)
    if implementation == "eager":  # the only one that has weights to compare
        with compared_attentions(ours, theirs) as attentions:
            expected, got = theirs(**inputs), ours(**inputs, output_attentions=True)
    else:
        attentions, expected, got = [], theirs(**inputs), ours(**inputs)
    answer = "last_hidden_state" if name == "VideoMAEModel" else "logits"
    result = {
        "logits": largest_difference(got[answer], expected[answer]),
        "hidden states": largest_difference(got.hidden_states, expected.hidden_states),
        LARGEST: max(state.abs().max().item() for state in expected.hidden_states),
    }
    if attentions:
        assert len(attentions) == config.num_hidden_layers
        result["attentions"] = largest(attentions)
    if "loss" in got:
        result["loss"] = largest_difference(got.loss, expected.loss)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(TOLERANCE), choices=TOLERANCE)
    failed = False
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, float32, CPU\n")
    print("| size | model | attention | " + " | ".join([*COLUMNS, LARGEST]) + " |")
    print("|---|---|---|" + "---|" * (len(COLUMNS) + 1))
    for size in parser.parse_args().sizes:
        for name in CLASSES:
            ours, theirs = make_pair(name, size, torch.Generator().manual_seed(0))
            for implementation in ("eager", "sdpa"):
                result = compare(name, ours, theirs, implementation)
                state = result.pop(LARGEST)
                cells = [f"{result[key]:.1e}" if key in result else "" for key in COLUMNS]
                row = [size, name, implementation, *cells, f"{state:.1f}"]
                print(f"| {' | '.join(row)} |", flush=True)
                failed |= not largest(result.values()) <= TOLERANCE[size]
            del ours, theirs
            gc.collect()
    print("\nabove tolerance" if failed else "\nall within tolerance")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
