"""What a file of weights claims, held against what it holds."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from videomae.errors import WeightsError
from videomae.weights.keys import some

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_records(path: Path) -> None:
    """Raise WeightsError where a zip file of torch.save is no longer what was written.

    torch writes a CRC-32 of each record and does not look at it again, so that a flipped bit in a
    tensor would pass. 0 stands in files that were written without. One reading: 0.3 s per GB.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for record in archive.infolist():
                    if record.compress_type != zipfile.ZIP_STORED:  # 1 kB could become 1 MB
                        raise zipfile.BadZipFile("it is compressed, which torch.save never does")
                    if record.CRC:
                        with archive.open(record) as content:
                            while content.read(1 << 20):
                                pass  # at its end, the checksum is compared
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{path} is damaged: it is not what was written ({error}); get it anew"
            ) from error


def check_dense(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError where a tensor does not hold the numbers that its shape claims.

    A pickle may ask for any size, with one number for all places, or for no memory at all.
    """
    for key, tensor in state.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested
        if not plain or tensor.is_meta:
            raise WeightsError(
                f"{path} holds {key} as a sparse, quantised, nested or empty tensor; expected "
                "plain ones: save them with torch.save({'model': model.state_dict()}, ...)"
            )
        held, claimed = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size()
        if claimed > held:
            raise WeightsError(
                f"{path} holds {key} of shape {tuple(tensor.shape)} in {held:,} bytes, expected "
                f"{claimed:,}; get it anew, or save contiguous tensors"
            )
    # Two names may share their numbers; a thousand would make gigabytes of a small file.
    storages = [tensor.untyped_storage() for tensor in state.values()]
    held = sum({each.data_ptr(): each.nbytes() for each in storages}.values())
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if claimed > 2 * held:
        raise WeightsError(
            f"{path} holds tensors of {claimed:,} bytes in {held:,}: they share their numbers; "
            "save each with its own"
        )


def check_floats(state: Mapping[str, Tensor], source: str) -> None:
    """Raise WeightsError where a weight is of a dtype that no model is trained in."""
    if odd := [key for key, tensor in state.items() if tensor.dtype not in _FLOATS]:
        raise WeightsError(
            f"{source} holds {some(f'{key} as {state[key].dtype}' for key in odd)}; expected "
            "float32, float16, bfloat16 or float64: take the model as it was before it was "
            "quantised or converted"
        )


def check_answer(answer: Tensor) -> Tensor:
    """The answer of a model; WeightsError where a number in it is not finite."""
    if not _is_finite(answer):
        raise WeightsError(
            "the model answers with numbers that are not finite: its weights are damaged, or too "
            "large for this precision; use dtype='float32', or get the model anew"
        )
    return answer


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise WeightsError where a number is not finite: every answer of the model would be none."""
    floats = {name: each for name, each in tensors.items() if each.is_floating_point()}
    if odd := [name for name, each in floats.items() if not _is_finite(each)]:
        dtype = str(tensors[odd[0]].dtype).removeprefix("torch.")
        raise WeightsError(
            f"{source} has numbers that are not finite in {dtype}: {some(odd)}; get the file anew, "
            "or take a checkpoint from before the loss became nan"
            + ("; or load it with dtype=float32" if dtype == "float16" else "")
        )


def _is_finite(tensor: Tensor) -> bool:
    # The sum shows it at a fortieth of the time that looking at each number takes; finite numbers
    # may have a sum that is not, and are then looked at.
    return bool(tensor.sum(dtype=torch.float32).isfinite() or tensor.isfinite().all())
