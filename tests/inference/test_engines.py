import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_models import SIZES
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError, counted
from videomae.inference import engines
from videomae.inference.exported import Export
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VideoMAEPreTrainedModel,
)

TINY: dict[str, Any] = {**SIZES, "num_labels": 3}


@pytest.fixture
def model() -> VideoMAEForVideoClassification:
    model = VideoMAEForVideoClassification(VideoMAEConfig(**TINY)).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return model


@pytest.fixture
def folder(model: VideoMAEForVideoClassification, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randn(2, 4, 3, 16, 16)


def test_a_path_is_loaded_and_gives_the_models_logits(
    folder: Path, model: VideoMAEForVideoClassification, clips: torch.Tensor
) -> None:
    engine = engines.load(folder, dtype="float32", device="cpu")
    with torch.no_grad():
        expected = model(clips).logits
    torch.testing.assert_close(engine(clips), expected)
    assert (engine.name, engine.device, engine.dtype) == (
        "torch",
        torch.device("cpu"),
        torch.float32,
    )
    assert engine.config.num_labels == 3
    assert not engine.model.training


def test_arguments_of_from_pretrained_pass_through(folder: Path) -> None:
    engine = engines.load(folder, attn_implementation="eager", device="cpu")
    assert engine.config.attn_implementation == "eager"


def test_one_line_tells_what_was_chosen(folder: Path) -> None:
    text = engines.load(folder, dtype="float32", device="cpu").describe()
    threads = counted(torch.get_num_threads(), "thread")
    version = torch.__version__.split("+")[0]
    assert text == f"torch {version}, cpu ({threads}), float32, sdpa attention"
    eager = engines.load(folder, dtype="float32", device="cpu", attn_implementation="eager")
    assert eager.describe().endswith("float32, eager attention")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_on_a_cpu_and_answers_in_float32(
    dtype: str, folder: Path, clips: torch.Tensor
) -> None:
    engine = engines.load(folder, dtype=dtype, device="cpu")
    logits = engine(clips)
    assert next(engine.model.parameters()).dtype == getattr(torch, dtype)
    assert logits.dtype == torch.float32
    reference = engines.load(folder, dtype="float32", device="cpu")(clips)
    torch.testing.assert_close(logits, reference, atol=0.05, rtol=0.05)


def test_a_loaded_model_that_fits_is_used_itself(model: VideoMAEForVideoClassification) -> None:
    engine = engines.load(model)
    assert engine.model is model
    assert engines.load(engine.model, device="auto").model is model


def test_a_loaded_model_is_never_changed(
    model: VideoMAEForVideoClassification, clips: torch.Tensor
) -> None:
    half = engines.load(model, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert model.dtype == torch.float32

    model.train()
    still = engines.load(model)
    assert not still.model.training
    assert all(part.training for part in model.modules())
    torch.testing.assert_close(still(clips), still(clips))


def test_gradients_and_foreign_dtypes_stay_outside(model: VideoMAEForVideoClassification) -> None:
    clips = torch.randn(1, 4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    assert not engines.load(model)(clips).requires_grad


def test_too_small_a_memory_is_explained(model: VideoMAEForVideoClassification) -> None:
    def compute(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(ConfigError, match="2 clips at once do not fit into the memory of cpu;"):
        engines.load(model).run(compute, torch.zeros(2, 1))


def test_an_untrained_head_is_refused_without_further_warnings(tmp_path: Path) -> None:
    config = VideoMAEConfig(**TINY, use_mean_pooling=False)
    VideoMAEForPreTraining(config).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the error says it all
        with pytest.raises(
            WeightsError, match=r"holds no trained classifier \(it lacks .*head"
        ) as e:
            engines.load(tmp_path)
    assert f"videomae finetune --init {tmp_path} --data DIR" in str(e.value)
    assert isinstance(engines.load(tmp_path, model_class=VideoMAEModel).model, VideoMAEModel)


def test_warnings_of_loading_are_passed_on(folder: Path) -> None:
    with pytest.warns(UserWarning, match="trust_remote_code has no effect"):
        engines.load(folder, trust_remote_code=True)


def test_unknown_choices_are_named(folder: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"engine='opnvino' is not one of auto, torch, .*; did you mean 'openvino'",
    ):
        engines.load(folder, engine="opnvino")
    with pytest.raises(ConfigError, match=r"dtype='float61' is not one of auto, float32, bfloat16"):
        engines.load(folder, dtype="float61")
    with pytest.raises(ConfigError, match=r"dtype='torch.int16' is not one of"):
        engines.load(folder, dtype=torch.int16)


@pytest.mark.parametrize("engine", ["torch", "compile"])
def test_int8_is_not_for_every_engine(engine: str, folder: Path) -> None:
    expected = f"engine='{engine}' does not compute in int8; use engine='openvino', or dtype='auto'"
    with pytest.raises(ConfigError, match=expected):
        engines.load(folder, engine=engine, dtype=torch.int8)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_converted_models_run_on_a_cpu(engine: str, model: VideoMAEForVideoClassification) -> None:
    with pytest.raises(ConfigError, match=f"engine='{engine}' runs on a CPU, and device is meta;"):
        engines.load(model, engine=engine, device="meta")


def test_openvino_does_not_pretend_to_compute_in_bfloat16(
    model: VideoMAEForVideoClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videomae.compute.cpu.CPU_CAPABILITIES", {})
    with pytest.raises(ConfigError, match="does not multiply in bfloat16, so that openvino would"):
        engines.load(model, engine="openvino", dtype="bfloat16")


@pytest.mark.parametrize(
    ("native", "own", "expected"),
    [
        (True, torch.bfloat16, "bfloat16"),
        (False, torch.bfloat16, "float32"),
        (True, torch.float16, "float32"),
        (True, torch.float32, "float32"),
    ],
)
def test_openvino_keeps_the_precision_of_a_loaded_model_where_it_can(
    native: bool,
    own: torch.dtype,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("videomae.compute.cpu.CPU_CAPABILITIES", {"bf16": native})
    found = engines._precision("openvino", "auto", torch.device("cpu"), own)
    assert found == expected
    # One that is loaded by name takes what is fastest here.
    best = engines._precision("openvino", "auto", torch.device("cpu"), None)
    assert best == ("bfloat16" if native else "float32")
    assert engines._precision("onnxruntime", "auto", torch.device("cpu"), None) == "float32"


def test_auto_takes_openvino_where_it_is_there_and_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    base, tiny = VideoMAEConfig.preset("base"), VideoMAEConfig(**TINY)
    there = ["openvino"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in there or None)
    monkeypatch.setattr(engines, "cpu_multiplies_bfloat16", lambda: True)
    assert engines.fastest(base, cpu, "bfloat16") == "openvino"
    assert engines.fastest(tiny, cpu, "bfloat16") == "torch"  # converting would never pay
    monkeypatch.setattr(engines, "onednn_outruns_mkl", lambda: False)
    assert engines.fastest(base, cpu, "float32") == "torch"  # as fast
    monkeypatch.setattr(engines, "onednn_outruns_mkl", lambda: True)
    assert engines.fastest(base, cpu, "float32") == "openvino"
    assert engines.fastest(tiny, cpu, "float32") == "torch"
    assert engines.fastest(base, cpu, "float16") == "torch"
    assert engines.fastest(base, torch.device("cuda"), "bfloat16") == "torch"
    assert engines.fastest(tiny, cpu, "int8") == "openvino"  # nothing else computes in it
    there.clear()
    assert engines.fastest(base, cpu, "bfloat16") == "torch"
    there.append("openvino")
    monkeypatch.setattr(engines, "cpu_multiplies_bfloat16", lambda: False)
    assert engines.fastest(base, cpu, "bfloat16") == "torch"


def test_auto_converts_when_it_is_first_called_and_not_before(
    folder: Path, clips: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "fastest", lambda *_: "openvino")
    made: list[str] = []

    def convert(export: Export) -> Any:
        made.append(export.engine)
        return lambda pixels: export.answer(torch.from_numpy(pixels)).numpy()

    monkeypatch.setattr(Export, "read_or_convert", convert)
    engine = engines.load(folder, device="cpu", dtype="float32", engine_cache_dir=tmp_path)
    assert (engine.name, made) == ("openvino", [])
    assert engine.model.dtype == torch.float32  # for those that run the model by themselves
    with torch.no_grad():
        expected = engine.model(clips).logits
    torch.testing.assert_close(engine(clips), expected)
    engine(clips)
    assert made == ["openvino"]


def test_a_decoder_is_run_by_torch_and_that_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    model = VideoMAEForPreTraining(VideoMAEConfig(**TINY, use_mean_pooling=False)).eval()
    logged: list[str] = []
    assert engines.load(model, engine="openvino", tell=logged.append).name == "torch"
    assert logged == ["openvino cannot run a decoder with its masks; torch runs it"]
    assert engines.load(model, tell=logged.append).name == "torch"
    assert len(logged) == 1  # auto promises nothing
    engines.load(model, engine="compile")
    assert capsys.readouterr().err == (
        "videomae: compile cannot run a decoder with its masks; torch runs it\n"
    )


@pytest.mark.parametrize(
    "kind", [VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification]
)
def test_tokens_of_any_model_and_what_is_made_of_them(
    kind: type[VideoMAEPreTrainedModel], clips: torch.Tensor
) -> None:
    model = kind(VideoMAEConfig(**TINY, use_mean_pooling=False)).eval()
    encoder: Any = getattr(model, "videomae", model)
    engine = engines.load(model, tokens=True)
    with torch.no_grad():
        expected = encoder(clips, return_dict=True).last_hidden_state
    torch.testing.assert_close(engine(clips), expected)
    means = engine.run(lambda pixels: engine.answer(pixels).mean(1), clips)
    torch.testing.assert_close(means, expected.mean(1))


class Stub:
    """In place of torch.compile, which takes half a minute."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __call__(self, answer: Any, fullgraph: bool) -> Any:
        assert fullgraph

        def run(pixels: torch.Tensor) -> torch.Tensor:
            if self.error is not None:
                raise self.error
            found: torch.Tensor = answer(pixels)
            return found

        return run


def test_compiling_is_logged_once_per_size_of_batch(
    model: VideoMAEForVideoClassification, clips: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", Stub())
    monkeypatch.setattr(engines, "_WORTH_LOGGING_SECONDS", -1)
    logged: list[str] = []
    engine = engines.load(model, engine="compile", tell=logged.append)
    assert logged == []
    for batch in (clips, clips, clips[:1]):
        torch.testing.assert_close(engine(batch), model(batch).logits)
    assert [text.split(":")[0] for text in logged] == [
        "torch.compile for batches of 2",
        "torch.compile for batches of 1",
    ]
    threads = counted(torch.get_num_threads(), "thread")
    assert engine.describe().startswith("torch.compile ")
    assert engine.describe().endswith(f"cpu ({threads}), float32, sdpa attention")


def test_a_machine_without_a_compiler_is_explained(
    model: VideoMAEForVideoClassification, clips: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", Stub(RuntimeError("No working C++ compiler found\n...")))
    engine = engines.load(model, engine="compile")
    with pytest.raises(
        ConfigError, match=r"\(No working C\+\+ compiler found\); on a CPU it needs"
    ):
        engine(clips)


@pytest.mark.slow
def test_compiled_logits_are_those_of_torch(
    model: VideoMAEForVideoClassification, clips: torch.Tensor
) -> None:
    engine = engines.load(model, engine="compile", tell=lambda _: None)
    with torch.no_grad():
        for batch in (clips[:1], clips):
            torch.testing.assert_close(engine(batch), model(batch).logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="the model was made for 4 frames"):
        engine(torch.zeros(3, 8, 3, 16, 16))


@pytest.mark.gpu
def test_on_a_gpu_the_answers_are_the_same(folder: Path, clips: torch.Tensor) -> None:
    there = engines.load(folder, dtype="float32", device="cuda")
    assert there.device.type == "cuda"
    here = engines.load(folder, dtype="float32", device="cpu")
    torch.testing.assert_close(there(clips), here(clips), atol=1e-4, rtol=1e-4)


def test_a_model_that_merges_tokens_runs_by_torch() -> None:
    model = VideoMAEForVideoClassification(VideoMAEConfig.preset("micro")).eval()
    model.set_merge_tokens(8)
    engine = engines.load(model, dtype="float32", device="cpu")
    assert engine.name == "torch"
    config = model.config
    clip = torch.randn(1, config.num_frames, 3, *config.image_hw)
    with torch.no_grad():
        torch.testing.assert_close(engine(clip), model(clip).logits)
    with pytest.raises(ConfigError, match="compile cannot run a model that merges tokens"):
        engines.load(model, engine="compile", dtype="float32", device="cpu")
