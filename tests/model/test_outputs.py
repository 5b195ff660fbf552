import copy
import dataclasses
import io
import pickle
from collections import OrderedDict

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from videomae.model.outputs import (
    BaseModelOutput,
    ImageClassifierOutput,
    VideoMAEForPreTrainingOutput,
)

LOSS, LOGITS = torch.tensor(0.5), torch.zeros(2, 3)


def test_fields_by_name_index_and_slice() -> None:
    output = ImageClassifierOutput(loss=LOSS, logits=LOGITS)
    assert output.logits is output["logits"] is output[1] is LOGITS
    assert output[-1] is LOGITS
    assert output[:1] == (LOSS,)
    assert output[:2] == output.to_tuple() == (LOSS, LOGITS)


def test_absent_fields_do_not_count() -> None:
    output = ImageClassifierOutput(logits=LOGITS)
    assert output[0] is LOGITS
    assert len(output) == 1
    assert list(output) == ["logits"]
    assert output.loss is None
    assert "loss" not in output
    assert "logits" in output
    assert 0 not in output


def test_a_loop_gives_names_and_to_tuple_values() -> None:
    output = VideoMAEForPreTrainingOutput(loss=LOSS, logits=LOGITS)
    assert list(output) == ["loss", "logits"]
    loss, logits = output.to_tuple()
    assert loss is LOSS
    assert logits is LOGITS


def test_as_a_dict() -> None:
    output = ImageClassifierOutput(loss=LOSS, logits=LOGITS)
    assert isinstance(output, OrderedDict)
    assert list(output.items()) == [("loss", LOSS), ("logits", LOGITS)]
    assert dict(output) == dict(**output) == {"loss": LOSS, "logits": LOGITS}
    assert output.get("logits") is LOGITS
    assert output.get("attentions") is None
    assert output.get("attentions", 7) == 7


def test_a_field_is_changed_by_either_way() -> None:
    output = ImageClassifierOutput(logits=LOGITS)
    output.logits = LOSS
    assert output["logits"] is LOSS
    output["logits"] = LOGITS
    assert output.logits is LOGITS
    output.loss = LOSS
    assert output["loss"] is LOSS
    output.loss = None
    assert "loss" not in output


def test_an_absent_name_is_told_what_there_is() -> None:
    output = BaseModelOutput(last_hidden_state=LOGITS)
    with pytest.raises(KeyError, match="hidden_states; this output has last_hidden_state"):
        output["hidden_states"]
    with pytest.raises(IndexError):
        output[1]
    with pytest.raises(AttributeError, match="BaseModelOutput has no field 'logits'"):
        output.logits  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError, match="the fields last_hidden_state, hidden_states, attentions"):
        BaseModelOutput(logits=LOGITS)
    with pytest.raises(TypeError, match=r"the fields last_hidden_state, .*, got 4 values"):
        BaseModelOutput(LOGITS, None, None, LOGITS)


def test_the_order_of_fields_is_that_of_transformers() -> None:
    states = (LOGITS,)
    for kind in (VideoMAEForPreTrainingOutput, ImageClassifierOutput):
        whole = kind(attentions=states, hidden_states=states, logits=LOGITS, loss=LOSS)
        assert list(whole) == ["loss", "logits", "hidden_states", "attentions"]
        assert list(kind(LOSS, LOGITS, states, states)) == list(whole)
    encoder = BaseModelOutput(LOGITS, states, states)
    assert list(encoder) == ["last_hidden_state", "hidden_states", "attentions"]


def test_made_anew_as_a_dict_would_be() -> None:
    """As torch and accelerate do, to move, gather or convert what is inside."""
    output = ImageClassifierOutput(loss=LOSS, logits=LOGITS)
    for again in (
        type(output)({name: value.double() for name, value in output.items()}),
        type(output)((name, value.double()) for name, value in output.items()),  # type: ignore[misc]
        dataclasses.replace(output, loss=LOSS.double(), logits=LOGITS.double()),
        pytree.tree_map(Tensor.double, output),
    ):
        assert type(again) is ImageClassifierOutput
        assert list(again) == ["loss", "logits"]
        assert again.logits.dtype == again.loss.dtype == torch.float64


def test_copied_pickled_and_printed() -> None:
    output = ImageClassifierOutput(logits=LOGITS, hidden_states=(LOGITS, LOGITS))
    for again in (copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        assert type(again) is ImageClassifierOutput
        assert list(again) == ["logits", "hidden_states"]
        assert torch.equal(again.hidden_states[1], LOGITS)
    assert repr(output).startswith("ImageClassifierOutput(loss=None, logits=tensor([[0., 0., 0.]")


def test_paths_into_an_output_are_those_of_transformers() -> None:
    for module in (transformers.modeling_outputs.ImageClassifierOutput, ImageClassifierOutput):
        leaves, _ = pytree.tree_flatten_with_path(module(logits=LOGITS, hidden_states=(LOSS,)))
        assert [pytree.keystr(path) for path, _ in leaves] == ["['logits']", "['hidden_states'][0]"]


class Scaled(nn.Module):
    """Puts its clips out, and what it made them of."""

    def forward(self, x: Tensor) -> ImageClassifierOutput:
        inner = BaseModelOutput(last_hidden_state=2 * x, hidden_states=(x,))
        return ImageClassifierOutput(logits=inner[0], hidden_states=inner.hidden_states)


@pytest.mark.parametrize("strict", [True, False])
def test_exported_and_saved_programs_give_them(strict: bool) -> None:
    program = torch.export.export(Scaled(), (LOGITS,), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for each in (program, torch.export.load(file)):
        output = each.module()(LOGITS + 1)
        assert type(output) is ImageClassifierOutput
        assert torch.equal(output.logits, LOGITS + 2)


def test_compiled_modules_give_them() -> None:
    torch._dynamo.reset()
    output = torch.compile(Scaled(), fullgraph=True, backend="eager")(LOGITS + 1)
    assert type(output) is ImageClassifierOutput
    assert list(output) == ["logits", "hidden_states"]
