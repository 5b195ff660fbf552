import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tiny_models import SIZES
from videomae.compute.cpu import CPU_CAPABILITIES
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, counted
from videomae.inference import cache as engine_cache
from videomae.inference import engines, exported, graphs
from videomae.inference.cache import cache_root
from videomae.inference.exported import Answer, Export, check_engine
from videomae.inference.predict import classify, embed
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.views import ViewMaker, find_processor
from videomae.rendering.actions import CLASSES, render_clip

TINY: dict[str, Any] = {**SIZES, "num_labels": 3}
EXPORTED = ["openvino", "onnxruntime"]
WRITERS = {"openvino": "_write_openvino", "onnxruntime": "_write_onnx"}


def make_model(**changes: Any) -> VideoMAEForVideoClassification:
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(VideoMAEConfig(**{**TINY, **changes})).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return model


def make_clips(count: int) -> Tensor:
    return torch.randn(count, 4, 3, 16, 16, generator=torch.Generator().manual_seed(count))


def logits(model: VideoMAEForVideoClassification, clips: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(clips).logits
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converting takes seconds: the tests of this file share what they convert."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def load(cache: Path) -> Callable[..., engines.Engine]:
    def load_it(engine: str, model: Any = None, **options: Any) -> engines.Engine:
        return engines.load(
            make_model() if model is None else model,
            engine=engine,
            **{"device": "cpu", "engine_cache_dir": cache, **options},
        )

    return load_it


@pytest.mark.parametrize("engine", EXPORTED)
def test_logits_are_those_of_torch_for_any_number_of_clips(
    engine: str, load: Callable[..., engines.Engine]
) -> None:
    ready, model = load(engine), make_model()
    for count in (1, 2, 5, 1):
        clips = make_clips(count)
        torch.testing.assert_close(ready(clips), logits(model, clips), atol=1e-4, rtol=1e-4)
    strided = make_clips(2).double().transpose(3, 4)
    torch.testing.assert_close(ready(strided), logits(model, strided.float()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("engine", EXPORTED)
def test_what_is_converted_once_is_read_from_then_on(
    engine: str, load: Callable[..., engines.Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(engine)
    logged: list[str] = []
    converted: list[str] = []
    monkeypatch.setattr(exported, WRITERS[engine], lambda *_: converted.append(engine))
    again = load(engine, tell=logged.append)
    assert (logged, converted) == ([], [])
    torch.testing.assert_close(again(make_clips(2)), logits(make_model(), make_clips(2)))


@pytest.mark.parametrize("engine", EXPORTED)
def test_several_threads_may_call_at_once(engine: str, load: Callable[..., engines.Engine]) -> None:
    ready, model = load(engine), make_model()
    batches = [make_clips(1 + number % 3) + number for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ready, batches))
    for batch, answer in zip(batches, found, strict=True):
        torch.testing.assert_close(answer, logits(model, batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("engine", EXPORTED)
def test_one_line_tells_what_runs(engine: str, load: Callable[..., engines.Engine]) -> None:
    text = load(engine).describe()
    threads = counted(torch.get_num_threads(), "thread")
    assert text.startswith(f"{engine} 202" if engine == "openvino" else f"{engine} 1.")
    assert text.endswith(f", cpu ({threads}), float32")


def test_videos_are_classified_and_embedded_as_by_torch(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOMAE_CACHE", str(cache))
    video = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3), dtype=np.uint8)
    model = make_model()
    for function in (classify, embed):
        found, expected = (
            function(video, model=model, engine=engine) for engine in ("openvino", "torch")
        )
        for name in ("scores", "logits") if function is classify else ("features",):
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), atol=1e-4, rtol=1e-4
            )


def test_conversion_is_logged_in_one_line(tmp_path: Path) -> None:
    logged: list[str] = []
    engine = engines.load(
        make_model(num_hidden_layers=1),
        engine="openvino",
        tokens=True,
        engine_cache_dir=tmp_path,
        tell=logged.append,
    )
    assert len(logged) == 1
    assert logged[0].startswith("converted for openvino (float32), once: ")
    assert logged[0].endswith(f"in {next((tmp_path / 'engines').iterdir())}")
    # Tokens of the encoder, and what is made of them, come the same way.
    with torch.no_grad():
        tokens = engine.model.videomae(make_clips(2), return_dict=True).last_hidden_state  # type: ignore[operator, union-attr]
    torch.testing.assert_close(engine(make_clips(2)), tokens, atol=1e-4, rtol=1e-4)
    means = engine.run(lambda pixels: engine.answer(pixels).mean(1), make_clips(2))
    torch.testing.assert_close(means, tokens.mean(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("engine", "file"),
    [
        ("openvino", "model.xml"),
        ("openvino", "model.bin"),
        ("onnxruntime", "model.onnx"),
        ("onnxruntime", "model.onnx.data"),
    ],
)
def test_a_damaged_copy_is_made_anew(
    engine: str,
    file: str,
    cache: Path,
    load: Callable[..., engines.Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(engine)
    name = Export(engine, Answer(make_model()), "float32", cache, print).entry_name()
    place, copied = cache_root(cache) / name, cache_root(tmp_path) / name
    shutil.copytree(place, copied)
    (copied / file).write_bytes((copied / file).read_bytes()[:100])

    def restore(_: Answer, folder: Path, clips: list[Tensor]) -> None:
        assert clips == []
        shutil.copytree(place, folder, dirs_exist_ok=True)

    monkeypatch.setattr(exported, WRITERS[engine], restore)
    logged: list[str] = []
    ready = load(engine, engine_cache_dir=tmp_path, tell=logged.append)
    assert f"{copied} cannot be read and is made anew (" in logged[0]
    assert logged[1].startswith(f"converted for {engine}")
    torch.testing.assert_close(ready(make_clips(1)), logits(make_model(), make_clips(1)))


def test_another_model_shape_or_precision_is_another_entry(tmp_path: Path) -> None:
    model = make_model()
    other = make_model()
    with torch.no_grad():
        other.classifier.bias[0] += 1e-6  # type: ignore[index, operator]
    export = Export("openvino", Answer(model), "float32", tmp_path, print)
    variants = [
        export,
        dataclasses.replace(export, answer=Answer(other)),
        dataclasses.replace(export, answer=Answer(model, tokens=True)),
        dataclasses.replace(export, answer=Answer(make_model(num_frames=8))),
        dataclasses.replace(export, dtype="bfloat16"),
        dataclasses.replace(export, dtype="int8"),
        dataclasses.replace(export, engine="onnxruntime"),
    ]
    names = [each.entry_name() for each in variants]
    assert len(set(names)) == len(variants)
    assert names[0] == dataclasses.replace(export).entry_name()
    calibrated = [export.entry_name([clip]) for clip in make_clips(2)]
    assert len(set(calibrated)) == 2
    assert all(name.startswith(f"{names[0]}-") for name in calibrated)
    assert all(engine_cache._OURS.fullmatch(name) for name in [*names, *calibrated])


def test_another_processor_version_or_code_is_another_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = Export("openvino", Answer(make_model()), "float32", tmp_path, print)
    names = {export.entry_name()}
    monkeypatch.setitem(CPU_CAPABILITIES, "cpu_name", "another one")
    names.add(export.entry_name())
    asked: list[str] = []
    monkeypatch.setattr(exported, "version_of", lambda name: asked.append(name) or "2030.1")
    names.add(export.entry_name())
    assert asked == ["torch", "openvino"]
    monkeypatch.setattr(graphs, "_CODE", ())
    names.add(export.entry_name())
    assert len(names) == 4


@pytest.mark.parametrize("engine", EXPORTED)
def test_wrong_clips_are_explained_as_by_the_model(
    engine: str, load: Callable[..., engines.Engine]
) -> None:
    ready = load(engine)
    with pytest.raises(ConfigError, match="the model was made for 4 frames of 16x16"):
        ready(torch.zeros(1, 8, 3, 16, 16))
    with pytest.raises(ConfigError, match="expected 5 axes"):
        ready(torch.zeros(4, 3, 16, 16))


@pytest.mark.parametrize(
    ("engine", "dtype", "missing", "expected"),
    [
        ("openvino", "auto", ["openvino"], r"engine='openvino' needs openvino; .*\[openvino\]"),
        (
            "onnxruntime",
            "auto",
            ["onnxruntime", "onnx", "onnxscript"],
            r"engine='onnxruntime' needs onnxruntime and onnx and onnxscript; .*\[onnx\]",
        ),
        ("openvino", "int8", ["nncf"], r"dtype='int8' needs nncf; pip install .*\[int8\]"),
    ],
)
def test_a_missing_extra_is_named(
    engine: str, dtype: str, missing: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else found(name)
    )
    with pytest.raises(ConfigError, match=expected):
        engines.load(make_model(), engine=engine, dtype=dtype, device="cpu")


def test_an_engine_names_the_precisions_it_has() -> None:
    expected = "engine='onnxruntime' does not compute in float16; use float32, or engine='torch'"
    with pytest.raises(ConfigError, match=expected):
        check_engine("onnxruntime", "float16", torch.device("cpu"))


def test_int8_asks_for_clips_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs clips to set its ranges by.*pass calibration="):
        engines.load(make_model(), engine="openvino", dtype="int8", engine_cache_dir=tmp_path)
    assert not cache_root(tmp_path).exists()


def test_calibration_takes_single_clips_and_batches_up_to_a_limit() -> None:
    given = [torch.zeros(4, 3, 8, 8), torch.ones(2, 4, 3, 8, 8, dtype=torch.bfloat16)]
    clips = exported._as_clips(iter(given))
    assert [tuple(clip.shape) for clip in clips] == [(4, 3, 8, 8)] * 3
    assert all(clip.dtype == torch.float32 for clip in clips)
    assert len(exported._as_clips([torch.zeros(400, 1, 1, 1, 1)])) == 300
    assert exported._as_clips(None) == []


REPORTING = """
import sys
from openvino_telemetry.utils.sender import TelemetrySender
reports = []
TelemetrySender.send = lambda self, backend, message: reports.append(message)
%s
print("reports:", len(reports))
"""
CONVERTING = """
import torch
from videomae.config import VideoMAEConfig
from videomae.inference import engines
from videomae.model.modeling import VideoMAEModel
sizes = {"image_size": 16, "num_hidden_layers": 1, "num_frames": 2}
model = VideoMAEModel(VideoMAEConfig.preset("micro", **sizes))
clips = torch.rand(2, 2, 3, 16, 16)
options = {"engine": "openvino", "dtype": "int8", "calibration": clips, "device": "cpu"}
engines.load(model, engine_cache_dir=sys.argv[1], **options)(clips)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("code", "silent"), [("import openvino", False), (CONVERTING, True)])
def test_openvino_reports_nothing_over_the_network(code: str, silent: bool, tmp_path: Path) -> None:
    ci = {"CI", "TF_BUILD", "JENKINS_URL"}  # by any of which it knows a CI job
    environment = {name: value for name, value in os.environ.items() if name not in ci}
    done = subprocess.run(
        [sys.executable, "-c", REPORTING % code, str(tmp_path / "cache")],
        env=environment | {"HOME": str(tmp_path)},  # where nobody has opted out
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    assert (done.stdout.splitlines()[-1] == "reports: 0") is silent


def motion_clips(count: int, first_seed: int) -> tuple[Tensor, Tensor]:
    """Pixels (count, T, C, H, W) and class numbers (count,) of rendered clips."""
    config = VideoMAEConfig.from_pretrained("actions-tiny")
    maker = ViewMaker(config, find_processor("actions-tiny", config))
    labels = [number % len(CLASSES) for number in range(count)]
    clips = [
        maker(render_clip(CLASSES[label], seed=first_seed + number))
        for number, label in enumerate(labels)
    ]
    return torch.cat(clips), torch.tensor(labels)


@pytest.mark.slow
def test_actions_tiny_answers_the_same_and_in_int8_as_well(cache: Path) -> None:
    options: dict[str, Any] = {"engine_cache_dir": cache, "device": "cpu", "tell": lambda _: None}
    clips, labels = motion_clips(108, first_seed=50_000)
    expected = engines.load("actions-tiny", engine="torch", dtype="float32", device="cpu")(clips)
    exact = engines.load("actions-tiny", engine="openvino", dtype="float32", **options)(clips)
    torch.testing.assert_close(exact, expected, atol=1e-4, rtol=1e-4)
    assert exact.argmax(-1).equal(expected.argmax(-1))

    calibration, _ = motion_clips(36, first_seed=90_000)
    options["dtype"] = "int8"
    quantised = engines.load("actions-tiny", engine="openvino", calibration=calibration, **options)
    found = quantised(clips)
    loss = (expected.argmax(-1) == labels).float().mean() - (
        found.argmax(-1) == labels
    ).float().mean()
    assert loss <= 0.01
    # From now on the clips are not needed, and int8 is nobody else's.
    again = engines.load("actions-tiny", **options)
    assert again.describe() == quantised.describe()
    assert again.describe().endswith("int8")
    np.testing.assert_array_equal(again(clips[:8]), found[:8])


SIGNALLED = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
from videomae.inference.runtimes import read_openvino
faulthandler.enable()  # which gives signals a stack of their own, as any program may
first, second = (read_openvino(Path(sys.argv[1], "model.xml"), "float32") for _ in range(2))
del first
gc.collect()
del second
gc.collect()
faulthandler.disable()
ballast = [bytearray(10_000) for _ in range(10_000)]
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="signals of POSIX")
def test_signals_are_heard_after_models_have_gone(
    load: Callable[..., engines.Engine], cache: Path
) -> None:
    """OpenVINO gives signals a stack of its own, and would leave one behind that is freed."""
    load("openvino")
    place = next(cache_root(cache).glob("openvino-*"))
    command = [sys.executable, "-c", SIGNALLED, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
