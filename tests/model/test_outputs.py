import pytest
import torch

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
    assert output.keys() == ["logits"]
    assert output.loss is None
    assert "loss" not in output
    assert "logits" in output
    assert 0 not in output


def test_unpacking_gives_values() -> None:
    loss, logits = VideoMAEForPreTrainingOutput(loss=LOSS, logits=LOGITS)
    assert loss is LOSS
    assert logits is LOGITS


def test_as_a_mapping() -> None:
    output = ImageClassifierOutput(loss=LOSS, logits=LOGITS)
    assert output.items() == [("loss", LOSS), ("logits", LOGITS)]
    assert output.values() == [LOSS, LOGITS]
    assert dict(**output) == {"loss": LOSS, "logits": LOGITS}
    assert output.get("logits") is LOGITS
    assert output.get("attentions") is None
    assert output.get("attentions", 7) == 7


def test_an_absent_name_is_told_what_there_is() -> None:
    output = BaseModelOutput(last_hidden_state=LOGITS)
    with pytest.raises(KeyError, match="hidden_states; this output has last_hidden_state"):
        output["hidden_states"]
    with pytest.raises(IndexError):
        output[1]


def test_the_order_of_fields_is_that_of_transformers() -> None:
    states = (LOGITS,)
    for kind in (VideoMAEForPreTrainingOutput, ImageClassifierOutput):
        whole = kind(loss=LOSS, logits=LOGITS, hidden_states=states, attentions=states)
        assert whole.keys() == ["loss", "logits", "hidden_states", "attentions"]
    encoder = BaseModelOutput(LOGITS, states, states)
    assert encoder.keys() == ["last_hidden_state", "hidden_states", "attentions"]
