"""What the service answers with, as OpenAPI shows it."""

from typing import Any

from pydantic import BaseModel, Field

from videomae.report.card import origin
from videomae.serving.service import Service
from videomae.version import __version__
from videomae.video.limits import VideoInfo


class VideoFacts(BaseModel):
    """What an uploaded video is."""

    num_frames: int = Field(examples=[250])
    fps: float | None = Field(examples=[25.0])
    duration_seconds: float | None = Field(examples=[10.0])
    width: int = Field(examples=[640])
    height: int = Field(examples=[360])
    codec: str = Field(examples=["h264"])

    @classmethod
    def of(cls, info: VideoInfo) -> "VideoFacts":
        return cls(**{name: getattr(info, name) for name in cls.model_fields})


class Prediction(BaseModel):
    label: str = Field(examples=["sit_down"])
    score: float = Field(description="A probability; of a regression, a value", examples=[0.92])


class ClassifyAnswer(BaseModel):
    """The most likely labels of a video, best first."""

    predictions: list[Prediction]
    are_shares: bool = Field(description="Scores are probabilities; False of a regression")
    video: VideoFacts
    model: str = Field(examples=["actions-tiny"])
    frames: list[str] | None = Field(
        None, description="If asked for: pictures as data addresses, as the model sees them"
    )


class EmbedAnswer(BaseModel):
    """A video as numbers: (D,) pooled, (f, D) per_time, (N, D) tokens."""

    features: list[Any] = Field(examples=[[0.12, -0.7, 1.3]])
    shape: list[int] = Field(examples=[[3]])
    video: VideoFacts
    model: str = Field(examples=["actions-tiny"])


class ModelFacts(BaseModel):
    """The models behind the service, and what it takes."""

    model: str = Field(examples=["actions-tiny"])
    pretrained: str | None = Field(examples=["actions-tiny-pretrain"])
    labels: list[str] = Field(examples=[["sit_down", "stand_up"]])
    num_frames: int = Field(examples=[16])
    frame_stride: int | None = Field(examples=[2])
    image_size: list[int] = Field(description="Height and width", examples=[[224, 224]])
    hidden_size: int = Field(examples=[768])
    num_parameters: int = Field(examples=[86_500_000])
    engine: str = Field(examples=["torch 2.14.1, cpu (2 threads), float32, sdpa attention"])
    dtype: str = Field(examples=["float32"])
    licence: str | None = Field(description="None: unknown", examples=["apache-2.0"])
    limits: dict[str, float]
    version: str = Field(examples=[__version__])


def model_facts(service: Service) -> ModelFacts:
    """What a service runs, for /v1/model and the page."""
    settings, loaded = service.settings, service.encoder
    config = loaded.engine.config
    stride = config.frame_stride
    return ModelFacts(
        model=loaded.name,
        pretrained=service.decoder.name if service.decoder else None,
        labels=[] if service.classifier is None else list((config.id2label or {}).values()),
        num_frames=config.num_frames,
        frame_stride=stride,
        image_size=list(config.image_hw),
        hidden_size=config.hidden_size,
        num_parameters=sum(each.numel() for each in loaded.engine.model.parameters()),
        engine=loaded.engine.describe(),
        dtype=str(loaded.engine.dtype).removeprefix("torch."),
        licence=origin(loaded.name)[1],
        limits={
            name: getattr(settings, name)
            for name in (
                "max_upload_mb", "max_request_seconds", "max_video_seconds", "max_pixels",
                "max_frames", "max_views", "max_requests",
            )
        },
        version=__version__,
    )  # fmt: skip
