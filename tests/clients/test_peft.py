"""Low-rank adapters of peft: trained, saved, loaded again and merged."""

import copy

import pytest
import torch

peft = pytest.importorskip("peft", reason="needs the extra clients")


def adapted(model, *targets, **settings):
    """A copy with adapters that change something from the start."""
    config = peft.LoraConfig(
        r=4, lora_alpha=100, target_modules=list(targets), init_lora_weights=False, **settings
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return peft.get_peft_model(copy.deepcopy(model), config)


def test_adapter_is_trained_saved_loaded_and_merged(make, clips, tmp_path, library):
    base = make.classifier(library).eval()
    model = adapted(base, "query", "value", modules_to_save=["classifier"])
    labels = torch.tensor([0, 2])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = model(pixel_values=clips, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval()
    logits = model(clips).logits
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    torch.testing.assert_close(loaded(clips).logits, logits)
    merged = loaded.merge_and_unload()
    assert type(merged) is type(base)
    torch.testing.assert_close(merged(clips).logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["query", "dense", "projection", "classifier"])
def test_adapters_of_every_layer_have_the_effect_they_have_on_transformers(make, clips, target):
    transformers = pytest.importorskip("transformers", reason="needs the extra clients")
    import videomae

    clips = clips.double()  # so that small effects are told from rounding
    plain = make.classifier(transformers).double().eval()(clips).logits
    theirs, ours = (
        adapted(make.classifier(library), target).double().eval()(clips).logits
        for library in (transformers, videomae)
    )
    assert (theirs - plain).abs().max() > 1e-6
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_adapter_of_the_encoder_as_a_feature_extractor(make, clips, library):
    base = make(library, "VideoMAEModel").eval()
    model = adapted(base, "query", "value", task_type="FEATURE_EXTRACTION").eval()
    tokens = model(pixel_values=clips).last_hidden_state
    assert tokens.shape == (2, 32, 32)
    assert not torch.allclose(tokens, base(clips).last_hidden_state)


def test_adapter_of_pretraining(make, clips, mask, library):
    model = adapted(make.pretrainer(library), "query", "value")
    model(pixel_values=clips, bool_masked_pos=mask).loss.backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained
    assert all("lora_" in name for name in trained)
