"""The ways of PyTorch to make a graph of a model, all with any number of clips."""

import warnings

import pytest
import torch

import videomae


@pytest.fixture
def model(make, library):
    """A classifier in evaluation mode."""
    return make.classifier(library).eval()


def more(clips):
    """Another number of clips than the graph was made with."""
    return torch.cat([clips, clips.flip(0), clips[:1]])


def test_torch_export_takes_any_number_of_clips(model, clips):
    batch = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=16)}}
    graph = torch.export.export(model, (), {"pixel_values": clips}, dynamic_shapes=batch)
    many = more(clips)
    answer = graph.module()(pixel_values=many)
    torch.testing.assert_close(answer["logits"], model(many).logits)


def test_torch_export_of_pretraining_takes_a_plain_mask(make, clips, mask):
    model = make.pretrainer(videomae, num_hidden_layers=1).eval()
    graph = torch.export.export(model, (clips, mask))
    other = mask.flip(1)
    torch.testing.assert_close(
        graph.module()(clips, other).logits, model(clips, other).logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_jit_trace_takes_any_number_of_clips(model, clips):
    traced = torch.jit.trace(model, clips, strict=False)
    many = more(clips)
    torch.testing.assert_close(traced(many)["logits"], model(many).logits)


@pytest.mark.parametrize("dynamo", [False, True], ids=["tracing", "dynamo"])
def test_onnx_takes_any_number_of_clips(make, clips, tmp_path, dynamo):
    model = make.classifier(videomae).eval()
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    path = tmp_path / "model.onnx"
    batch = (
        {"dynamic_shapes": {"pixel_values": {0: "batch"}}}
        if dynamo
        else {"dynamic_axes": {"pixel_values": {0: "batch"}, "logits": {0: "batch"}}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (),
            path,
            kwargs={"pixel_values": clips},
            dynamo=dynamo,
            verbose=False,
            input_names=["pixel_values"],
            output_names=["logits"],
            **batch,
        )
    session = onnxruntime.InferenceSession(path)
    many = more(clips)
    (logits,) = session.run(["logits"], {"pixel_values": many.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(many).logits, rtol=1e-3, atol=1e-4)


def test_compile_makes_one_graph_of_a_classifier(make, clips):  # no graph of transformers'
    model = make.classifier(videomae).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(clips).logits, model(clips).logits)
    assert compiled(clips, output_hidden_states=True).hidden_states is not None


def test_compile_makes_one_graph_of_pretraining(make, clips, mask):
    model = make.pretrainer(videomae)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    output = compiled(clips, bool_masked_pos=mask)
    output.loss.backward()
    torch.testing.assert_close(output.loss, model(clips, mask).loss)
