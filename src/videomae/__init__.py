"""VideoMAE, whole: pre-train, fine-tune, classify, embed and reconstruct video.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib

from videomae.version import __version__

TYPE_CHECKING = False  # to type checkers it is true; `typing` has it too, and takes time to import
if TYPE_CHECKING:
    import typing

    from videomae import errors, masking
    from videomae.config import VideoMAEConfig
    from videomae.footage.timeline import timeline
    from videomae.inference.predict import classify, embed
    from videomae.inference.reconstruct import reconstruct
    from videomae.model.modeling import (
        VideoMAEForPreTraining,
        VideoMAEForVideoClassification,
        VideoMAEModel,
        VideoMAEPreTrainedModel,
    )
    from videomae.processing.processors import (
        VideoMAEFeatureExtractor,
        VideoMAEImageProcessor,
        VideoMAEVideoProcessor,
    )
    from videomae.weights.saving import SaveConfigCallback

__all__ = [
    "SaveConfigCallback",
    "VideoMAEConfig",
    "VideoMAEFeatureExtractor",
    "VideoMAEForPreTraining",
    "VideoMAEForVideoClassification",
    "VideoMAEImageProcessor",
    "VideoMAEModel",
    "VideoMAEPreTrainedModel",
    "VideoMAEVideoProcessor",
    "__version__",
    "classify",
    "embed",
    "errors",
    "masking",
    "reconstruct",
    "timeline",
]

# The file where each public name lives; `errors` and `masking` are files themselves.
_HOMES = {
    "SaveConfigCallback": "weights.saving",
    "VideoMAEConfig": "config",
    "VideoMAEFeatureExtractor": "processing.processors",
    "VideoMAEForPreTraining": "model.modeling",
    "VideoMAEForVideoClassification": "model.modeling",
    "VideoMAEImageProcessor": "processing.processors",
    "VideoMAEModel": "model.modeling",
    "VideoMAEPreTrainedModel": "model.modeling",
    "VideoMAEVideoProcessor": "processing.processors",
    "classify": "inference.predict",
    "embed": "inference.predict",
    "errors": "errors",
    "masking": "masking",
    "reconstruct": "inference.reconstruct",
    "timeline": "footage.timeline",
}


def __getattr__(name: str) -> "typing.Any":
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{home}")
    return module if name == home else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
