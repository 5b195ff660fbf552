import re

import pytest
import torch
from torch import Tensor

from tiny_models import LARGER
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.model.merging import Merged, merge
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification

CONFIG = VideoMAEConfig(**{**LARGER, "num_hidden_layers": 3, "num_labels": 5})


def classifier() -> VideoMAEForVideoClassification:
    model = VideoMAEForVideoClassification(CONFIG)
    torch.nn.init.normal_(model.classifier.weight)  # type: ignore[arg-type]
    return model.eval()


def clips(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 3, 32, 32)


def test_the_most_alike_tokens_become_their_mean_by_size() -> None:
    tokens = torch.tensor([[[1.0], [4.0], [8.0], [5.0], [0.0]]])
    sizes = torch.tensor([[[1.0], [2.0], [1.0], [1.0], [1.0]]])
    keys = torch.tensor([[[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.2, 1.0], [-1.0, 0.3]]])
    # Numbers 0, 2, 4 may go: 0 is most like 1 (cosine 0.995), 2 most like 3 (0.98).
    once = merge(Merged(tokens, sizes, torch.arange(5)[None]), keys, 1)
    assert once.tokens.flatten().tolist() == [8, 0, 3, 5]  # (1 + 2 * 4) / 3
    assert once.sizes.flatten().tolist() == [1, 1, 3, 1]
    assert once.places.tolist() == [[2, 2, 0, 3, 1]]
    both = merge(Merged(tokens, sizes, torch.arange(5)[None]), keys, 99)  # half, rounded down
    assert both.tokens.flatten().tolist() == [0, 3, 6.5]
    assert both.places.tolist() == [[1, 1, 2, 2, 0]]
    twice = merge(once, keys[:, :4], 1)
    assert twice.sizes.sum() == sizes.sum()
    expected = (tokens * sizes).sum() / sizes.sum()
    torch.testing.assert_close((twice.tokens * twice.sizes).sum() / twice.sizes.sum(), expected)


def test_merging_none_changes_nothing_to_the_bit() -> None:
    model, pixels = classifier(), clips()
    with torch.no_grad():
        expected = model(pixels).logits
        model.set_merge_tokens(5)
        assert not torch.equal(model(pixels).logits, expected)
        model.set_merge_tokens(0)
        assert torch.equal(model(pixels).logits, expected)
    assert "merge_tokens" not in model.config.to_dict()
    with pytest.raises(ConfigError, match=re.escape("merge_tokens=-1 must be 0 or more")):
        model.set_merge_tokens(-1)


def test_equal_tokens_are_merged_without_a_loss() -> None:
    model = classifier()
    for table in (model.videomae.embeddings,):
        table.position_embeddings = torch.zeros_like(table.position_embeddings)
    still = clips(1)[:, :1, :, :8, :8].repeat(2, 4, 1, 4, 4)  # all 32 tubelets of a clip alike
    with torch.no_grad():
        expected = model(still).logits
        model.set_merge_tokens(8)
        torch.testing.assert_close(model(still).logits, expected)


def test_outputs_keep_their_shapes_and_gradients_flow() -> None:
    model = classifier().train()
    model.set_merge_tokens(10)
    output = model.videomae(clips())
    assert output.last_hidden_state.shape == (2, 32, 24)
    different = [len(tokens.unique(dim=0)) for tokens in output.last_hidden_state]
    assert max(different) <= 32 - 10 - 10 - 6  # at most half: 32, 22, 12, 6
    model(clips(), labels=torch.tensor([0, 1])).loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_visible_tokens_of_a_masked_clip_are_merged_too() -> None:
    model = VideoMAEForPreTraining(CONFIG.copy(use_mean_pooling=False)).eval()
    mask = torch.arange(32).expand(2, -1) >= 16
    model.set_merge_tokens(4)
    with torch.no_grad():
        assert model(clips(), mask).logits.shape == (2, 16, 2 * 8 * 8 * 3)


@pytest.mark.parametrize("asked", ["output_hidden_states", "output_attentions"])
def test_states_of_merged_tokens_are_refused(asked: str) -> None:
    model = classifier()
    model.set_merge_tokens(4)
    with pytest.raises(ConfigError, match=re.escape("set_merge_tokens(0)")):
        model(clips(), **{asked: True})
