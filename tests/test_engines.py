import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae import engines
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError
from videomae.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)

SIZES: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "num_labels": 3,
}


@pytest.fixture
def model() -> VideoMAEForVideoClassification:
    model = VideoMAEForVideoClassification(VideoMAEConfig(**SIZES)).eval()
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
    threads = torch.get_num_threads()
    version = torch.__version__.split("+")[0]
    assert text == f"torch {version}, cpu ({threads} threads), float32, sdpa attention"
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
    config = VideoMAEConfig(**SIZES, use_mean_pooling=False)
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
    with pytest.raises(ConfigError, match=r"engine='toch' is not one of auto, torch; did you mean"):
        engines.load(folder, engine="toch")
    with pytest.raises(ConfigError, match=r"dtype='float61' is not one of auto, float32, bfloat16"):
        engines.load(folder, dtype="float61")
    with pytest.raises(ConfigError, match=r"dtype='torch.int8' is not one of"):
        engines.load(folder, dtype=torch.int8)


@pytest.mark.parametrize("device", ["tpux", "cuda:99"])
def test_a_device_that_is_not_there_is_explained(device: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"device='{device}' cannot be used \(.+\); leave it out"
    ):
        engines.as_device(device)


def test_the_best_device_is_there() -> None:
    best = engines.as_device(None)
    assert engines.as_device("auto") == best
    assert best.type == ("cuda" if torch.cuda.is_available() else best.type)
    assert engines.as_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_a_cpu_gets_bfloat16_only_if_it_multiplies_in_it(
    capabilities: Mapping[str, Any], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert engines.best_dtype(torch.device("cpu")) == expected
    assert engines.as_dtype("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_gets_the_half_precision_it_has(
    native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    assert engines.best_dtype(torch.device("cuda")) == expected
    assert engines.best_dtype(torch.device("mps")) == torch.float16


@pytest.mark.gpu
def test_on_a_gpu_the_answers_are_the_same(folder: Path, clips: torch.Tensor) -> None:
    there = engines.load(folder, dtype="float32", device="cuda")
    assert there.device.type == "cuda"
    here = engines.load(folder, dtype="float32", device="cpu")
    torch.testing.assert_close(there(clips), here(clips), atol=1e-4, rtol=1e-4)
