"""A model as a file of each format, written from its traced computation; see `runtimes`.

Those of torch itself and of ExecuTorch, which need torch to run, are read here too.
"""

import contextlib
import copy
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from videomae.compute.devices import DTYPES
from videomae.inference.runtimes import FACTS, INPUT, Compute, Floats, openvino_core, unreported

OPSET = 20  # of ONNX; the first with Gelu
OPSETS = range(18, 24)
# A file of protobuf ends at 2 GB; the rest is for what is not weights.
MAX_ONNX_BYTES = 1_900_000_000
# Tensors of XNNPACK have no more axes; clips that are being cut into tubelets do.
_XNNPACK_MAX_AXES = 6


class InPrecision(nn.Module):
    """An answer computed in another precision, with float32 before and after it."""

    def __init__(self, answer: nn.Module, dtype: str) -> None:
        super().__init__()
        self.dtype = DTYPES[dtype]
        self.answer = copy.deepcopy(answer).to(self.dtype)

    def forward(self, pixel_values: Tensor) -> Tensor:
        answer: Tensor = self.answer(pixel_values.to(self.dtype))
        return answer.float()


def trace(
    answer: nn.Module, clip_shape: Sequence[int], *, dtype: str = "float32", one_clip: bool = False
) -> torch.export.ExportedProgram:
    """The computation for any number of clips (T, C, H, W), or for one clip at a time."""
    module = (
        answer if DTYPES.get(dtype, torch.float32) == torch.float32 else InPrecision(answer, dtype)
    )
    # Of any number: a single clip as the example would be a constant of the shape.
    example = torch.zeros(1 if one_clip else 2, *clip_shape)
    shapes = None if one_clip else {INPUT: {0: torch.export.Dim("batch", min=1, max=4096)}}
    with torch.no_grad():
        # Strict, else a plain `len(clips)` in the model ties it to the number of the example.
        return torch.export.export(module.eval(), (example,), dynamic_shapes=shapes, strict=True)


def write_openvino(
    answer: nn.Module,
    path: Path,
    clip_shape: Sequence[int],
    *,
    clips: Sequence[Tensor] = (),
    half: bool = False,
    facts: str | None = None,
) -> None:
    """Write a graph of OpenVINO to `path` (.xml) and its weights beside it (.bin).

    clips: those that set the ranges of int8; without them nothing is quantised. half: store the
    weights in float16.
    """
    openvino_core()  # before those that NNCF makes and drops, which then leave its stack in place
    program = trace(answer, clip_shape)
    # NNCF logs and draws bars on stdout, where results go.
    with contextlib.redirect_stdout(sys.stderr), unreported():
        import openvino

        graph = openvino.convert_model(program)
        # torch.export's ranges do not survive: only the number of clips is free.
        graph.reshape([-1, *clip_shape])
        if clips:
            import nncf

            graph = nncf.quantize(
                graph,
                nncf.Dataset([clip[None].numpy() for clip in clips]),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(clips),
            )
    if facts is not None:
        graph.set_rt_info(facts, [FACTS])
    # The compiled form is not kept: it doubles the size, and saves 0.1 to 0.3 s of each start.
    openvino.save_model(graph, path, compress_to_fp16=half)


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    *,
    output: str | None = None,
    opset: int = OPSET,
    facts: str | None = None,
) -> None:
    """Write a graph of ONNX, with large weights in a file beside it (.data)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code
        converted = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=None if output is None else [output],
            opset_version=opset,
            verbose=False,
        )
    assert converted is not None
    if facts is not None:
        converted.model.metadata_props[FACTS] = facts
    size = sum(each.nbytes for each in program.state_dict.values())
    converted.save(path, external_data=size > MAX_ONNX_BYTES)


def quantize_onnx(path: Path, quantized: Path) -> None:
    """Store the weights of linear maps in int8, channel by channel; all else stays as it is.

    The ranges of what goes into a product are taken from that itself when it runs, so that no
    clips are needed: nearer to float32, and faster, than ranges set by clips (docs/engines.md).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises steps that torch's exporter has done
    try:
        quantize_dynamic(path, quantized, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(before)


def write_torch(program: torch.export.ExportedProgram, path: Path, facts: str) -> None:
    """Write a program of torch.export (.pt2)."""
    torch.export.save(program, path, extra_files={FACTS: facts})


def read_torch(path: Path) -> Compute:
    """Clips -> answers by a program of torch.export."""
    module = torch.export.load(path).module()

    def compute(pixels: Floats) -> Floats:
        with torch.inference_mode():
            answer: Floats = module(torch.from_numpy(pixels)).numpy()
        return answer

    return compute


def write_executorch(
    answer: nn.Module,
    path: Path,
    clip_shape: Sequence[int],
    *,
    clips: Sequence[Tensor] = (),
    facts: str,
) -> None:
    """Write a program of ExecuTorch for XNNPACK (.pte), for one clip at a time.

    clips: those that set the ranges of int8, as for OpenVINO. The facts are a method of the name
    `videomae`.
    """
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = trace(answer, clip_shape, one_clip=True)
    if clips:
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        config = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
        quantizer = xnnpack_quantizer.XNNPACKQuantizer().set_global(config)
        prepared = prepare_pt2e(program.module(), quantizer)
        with torch.no_grad():
            for clip in clips:
                prepared(clip[None])
            converted = convert_pt2e(prepared)
            program = torch.export.export(converted, (clips[0][None],), strict=True)
    configs = [_within_axes(config) for config in ALL_PARTITIONER_CONFIGS]
    lowered = to_edge_transform_and_lower(
        program, partitioner=[XnnpackPartitioner(configs)], constant_methods={FACTS: facts}
    )
    path.write_bytes(lowered.to_executorch().buffer)


def _within_axes(config: Any) -> Any:
    """A rule of what XNNPACK computes, which leaves tensors of too many axes to plain kernels."""

    class WithinAxes(config):  # type: ignore[misc]
        def check_constraints(self, node: Any, program: Any) -> bool:
            values = (each.meta.get("val") for each in (node, *node.all_input_nodes))
            axes = [value.ndim for value in values if isinstance(value, Tensor)]
            return max(axes) <= _XNNPACK_MAX_AXES and super().check_constraints(node, program)

    return WithinAxes


def read_executorch(path: Path) -> Compute:
    """Clips -> answers by a program of ExecuTorch, one clip after the other."""
    from executorch.runtime import Runtime

    # The program must outlive its method.
    program = Runtime.get().load_program(path)
    method = program.load_method("forward")

    def compute(pixels: Floats) -> Floats:
        clips = torch.from_numpy(pixels)
        found = [method.execute([clip[None].contiguous()])[0].clone() for clip in clips]
        return cast(Floats, torch.cat(found).numpy())

    return compute
