"""The models behind the service: from an uploaded file to labels, features or a clip."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from torch import Tensor

from videomae.errors import WeightsError
from videomae.hub import resolve_shipped
from videomae.inference import engines, predict
from videomae.inference.engines import Engine
from videomae.inference.predict import Classification, Embedding
from videomae.inference.reconstruct import Reconstruction, clip_mask, reconstruct_clip
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.processing.views import ViewMaker, shown
from videomae.rendering.actions import render_clip
from videomae.report import html
from videomae.report.reconstruction import to_frames
from videomae.serving.batching import Batcher
from videomae.serving.decoding import Decoders
from videomae.serving.problems import Refusal
from videomae.serving.settings import ServeSettings
from videomae.settings import Features, Rendering
from videomae.video.limits import VideoInfo, VideoLimits
from videomae.video.writer import write_video

JOBS = ("classify", "embed", "reconstruct", "model")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What /metrics shows, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kinds: dict[str, Any] = {"registry": self.registry, "namespace": "videomae"}
        self.requests = Counter("requests", "Requests by outcome", ["job", "outcome"], **kinds)
        self.waiting = Gauge("queue_length", "Videos that wait for the model", **kinds)
        self.batch = Histogram(
            "batch_views", "Views through the model at once", buckets=(1, 2, 4, 8, 16, 32), **kinds
        )
        self.decode = Histogram("decode_seconds", "Waiting and decoding", buckets=_SECONDS, **kinds)
        self.model = Histogram("model_seconds", "A batch's time", buckets=_SECONDS, **kinds)

    def count(self, job: str, status: int | None) -> None:
        """Count a request under /v1 by its end."""
        job = job if job in JOBS else "other"
        self.requests.labels(job, "gone" if status is None else str(status)).inc()


@dataclass(frozen=True)
class _Loaded:
    """A model that runs, and the processor of its frames."""

    name: str
    engine: Engine
    processor: Any

    def maker(self, num_clips: int = 1, num_crops: int = 1) -> ViewMaker:
        return ViewMaker(self.engine.config, self.processor, "config", num_clips, num_crops)


class Service:
    """Models, decoders and batches. Make one, enter `running`, and ask it from one event loop."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings, self.metrics, self.is_stopping = settings, Metrics(), False
        self.classifier, self.decoder = _load(settings)
        self.limits = VideoLimits(
            max_pixels=settings.max_pixels,
            max_duration_seconds=settings.max_video_seconds,
            max_frames=settings.max_frames,
            max_decode_seconds=settings.max_request_seconds,
        )
        self._decoders = Decoders(settings.decoders)
        # One thread, as the model takes all cores, or the device, for each batch.
        self._thread = ThreadPoolExecutor(1, "videomae-model")
        self._batchers: dict[str, Batcher] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.metrics.waiting.set_function(
            lambda: sum(batcher.num_waiting for batcher in self._batchers.values())
        )

    def stop(self) -> None:
        """Refuse new requests; those accepted are still answered."""
        self.is_stopping = True

    @property
    def encoder(self) -> _Loaded:
        """The model that /v1/embed describes videos with."""
        found = self.classifier or self.decoder
        assert found is not None
        return found

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """Answer inside; stop the decoders and the model's thread at the end."""
        try:
            await self._warm_up()
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            self._thread.shutdown()
            await asyncio.to_thread(self._decoders.close)

    async def _warm_up(self) -> None:
        """Answer a rendered clip, so that no client waits for imports and first products."""
        with TemporaryDirectory(prefix="videomae-") as folder:
            frames = render_clip("walk", seed=0)
            clip = await asyncio.to_thread(write_video, Path(folder, "clip.mp4"), frames, fps=16)
            maker = self.encoder.maker()
            every = [
                self._decoders.decode(clip, maker, VideoLimits(), name="clip")
                for _ in range(self._decoders.count)
            ]
            (views, _), *_ = await asyncio.gather(*every)
            if self.classifier is not None:
                await self._batcher("classify", self.classifier.engine)(views)

    async def classify(
        self, path: Path, *, name: str, top_k: int, num_clips: int, num_crops: int
    ) -> tuple[Classification, VideoInfo, Tensor]:
        """Label a file, and give its views; `name` stands for it in errors."""
        if self.classifier is None:
            raise Refusal(
                404, f"{self.settings.model} has no classes; ask /v1/embed or /v1/reconstruct"
            )
        engine = self.classifier.engine
        views, info = await self._decode(path, self.classifier.maker(num_clips, num_crops), name)
        logits = await self._batcher("classify", engine)(views)
        return predict.classification(logits, engine.config, top_k=top_k), info, views

    def pictures(self, view: Tensor) -> list[str]:
        """The frames of a view (T, C, H, W) of the classifier, as addresses that hold them."""
        assert self.classifier is not None
        frames = to_frames(shown(view, self.classifier.processor))
        return [html.embed_frame(frame) for frame in frames]

    async def embed(
        self, path: Path, *, name: str, features: Features, num_clips: int, num_crops: int
    ) -> tuple[Embedding, VideoInfo]:
        """Describe a file by vectors."""
        predict.check_features(features, num_clips, num_crops)
        views, info = await self._decode(path, self.encoder.maker(num_clips, num_crops), name)
        found = await self._batcher(f"embed {features}", self.encoder.engine, features)(views)
        return Embedding(None, found.mean(0).numpy()), info

    async def reconstruct(
        self, path: Path, *, name: str, mask: str, mask_ratio: float, seed: int,
        rendering: Rendering,
    ) -> tuple[Reconstruction, VideoInfo]:  # fmt: skip
        """Hide most of a clip of a file and reconstruct it."""
        if self.decoder is None:
            raise Refusal(
                404,
                "no pre-trained model is loaded, so nothing can be reconstructed; start the "
                "service with --pretrained MODEL",
            )
        engine = self.decoder.engine
        hidden = clip_mask(engine.config, mask, mask_ratio, seed)
        views, info = await self._decode(path, self.decoder.maker(), name)
        given = views, hidden, engine, self.decoder.processor, rendering
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, reconstruct_clip, *given), info

    async def _decode(self, path: Path, maker: ViewMaker, name: str) -> tuple[Tensor, VideoInfo]:
        with self.metrics.decode.time():
            return await self._decoders.decode(path, maker, self.limits, name=name)

    def _batcher(self, job: str, engine: Engine, features: Features | None = None) -> Batcher:
        """The batcher of a job, which starts when it is first asked for."""
        if job not in self._batchers:
            compute: Any = engine
            if features is not None:
                describe = functools.cache(functools.partial(_describing, engine, features))

                def compute(views: Tensor) -> Tensor:
                    # In the model's thread: some engines convert the model first, for seconds.
                    return describe()(views)

            batcher = Batcher(
                compute,
                executor=self._thread,
                batch_size=self.settings.batch_size,
                max_wait_seconds=self.settings.max_wait_ms / 1000,
                on_batch=self._count_batch,
            )
            self._batchers[job] = batcher
            self._tasks.append(asyncio.ensure_future(batcher.run()))
        return self._batchers[job]

    def _count_batch(self, num_views: int, seconds: float) -> None:
        self.metrics.batch.observe(num_views)
        self.metrics.model.observe(seconds)


def _describing(engine: Engine, features: Features) -> Callable[[Tensor], Tensor]:
    ready = engines.load(engine.model, engine=engine.name, dtype=engine.dtype, tokens=True)
    return functools.partial(ready.run, predict.describing(ready, features))


def _load(settings: ServeSettings) -> tuple[_Loaded | None, _Loaded | None]:
    """The classifier and the model with a decoder; at least one of them."""
    options: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype}
    pretrained = settings.pretrained
    classifier: _Loaded | None = None
    try:
        found = predict.ready_model(settings.model, None, None, engine=settings.engine, **options)
        classifier = _Loaded(settings.model, *found)
    except WeightsError:
        if pretrained is not None:
            raise
        pretrained = settings.model  # if it is no pre-trained model either, that says why
    if pretrained is None and resolve_shipped(f"{settings.model}-pretrain") is not None:
        pretrained = f"{settings.model}-pretrain"
    if pretrained is None:
        return classifier, None
    options |= {"engine": "torch", "kind": VideoMAEForPreTraining}
    return classifier, _Loaded(pretrained, *predict.ready_model(pretrained, None, None, **options))
