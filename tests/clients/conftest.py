"""Tiny models of both libraries and rendered clips, for other software that uses the models.

Where a test takes `library`, it runs with transformers too, so that what is asked for is right.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from videomae.rendering.actions import render_clip

SIZES: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "id2label": {0: "throw", 1: "walk", 2: "open_door"},
    "label2id": {"throw": 0, "walk": 1, "open_door": 2},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.clients)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(params=["transformers", "videomae"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    """One of the two libraries."""
    return pytest.importorskip(request.param, reason="needs the extra clients")


class Makers:
    """Makes models of either library with the same sizes and, for a seed, the same weights."""

    def __call__(self, library: ModuleType, name: str, **fields: Any) -> Any:
        """The model of that class, in training mode as all new models are."""
        peer = pytest.importorskip("transformers", reason="needs the extra clients")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            theirs = getattr(peer, name)(peer.VideoMAEConfig(**SIZES | fields))
            for parameter in theirs.parameters():  # so that nothing is zero or one
                torch.nn.init.normal_(parameter, std=0.1)
        if library is peer:
            return theirs
        model = getattr(library, name)(library.VideoMAEConfig(**SIZES | fields))
        model.load_state_dict(theirs.state_dict())
        return model.train()

    def classifier(self, library: ModuleType, **fields: Any) -> Any:
        return self(library, "VideoMAEForVideoClassification", **fields)

    def pretrainer(self, library: ModuleType, **fields: Any) -> Any:
        return self(library, "VideoMAEForPreTraining", **fields)

    def processor(self, library: ModuleType, name: str = "VideoMAEImageProcessor") -> Any:
        size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        return getattr(library, name)(**size, image_mean=[0.5] * 3, image_std=[0.5] * 3)


@pytest.fixture
def make() -> Makers:
    """Models and processors of either library."""
    return Makers()


@pytest.fixture(scope="session")
def frames() -> list[Any]:
    """Twelve clips of 4 frames (4, 32, 32, 3), of the three classes in turn."""
    names = list(SIZES["id2label"].values())
    return [render_clip(names[i % 3], seed=i, size=32, num_frames=4) for i in range(12)]


@pytest.fixture
def clips() -> torch.Tensor:
    """Two clips of noise (2, 4, 3, 32, 32)."""
    return torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def mask() -> torch.Tensor:
    """Hides 24 of the 32 tubelets of each of two clips."""
    return (torch.arange(32) % 4 > 0).expand(2, 32).clone()
