"""The HTTP service: routes, what they take and what they answer."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, File, Form, Response, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from videomae.inference.reconstruct import Reconstruction
from videomae.serving.facts import (
    ClassifyAnswer,
    EmbedAnswer,
    ModelFacts,
    Prediction,
    VideoFacts,
    model_facts,
)
from videomae.serving.gate import Gate
from videomae.serving.page import add_page
from videomae.serving.problems import Refusal, answer_problems, responses
from videomae.serving.service import Service
from videomae.settings import Features, Mask, Rendering
from videomae.version import __version__

_MB = 10**6
_FORM_BYTES = 10_000  # of a body, besides the file


Upload = Annotated[UploadFile, File(description="mp4, mov, mkv, webm, avi, gif, ...")]
NumClips = Annotated[int, Form(ge=1, description="Clips along time, averaged")]
NumCrops = Annotated[int, Form(ge=1, description="Crops across each clip, averaged")]
PROBLEMS = responses(400, 401, 408, 413, 415, 422, 429, 503)
SHOWN = {"png": "image/png", "gif": "image/gif", "mp4": "video/mp4"}


def make_app(service: Service) -> FastAPI:
    """The service as an ASGI app; `service` is started and stopped with it."""
    settings = service.settings

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="videomae",
        version=__version__,
        summary="Labels, features and reconstructions of videos",
        lifespan=lifespan,
        # Files go to the disk, but other parts to memory.
        form_limits={"max_files": 1, "max_fields": 20, "max_part_size": 1000},
        docs_url=None,  # it would load its scripts from elsewhere
        redoc_url=None,
    )
    answer_problems(app)
    app.add_middleware(
        Gate,
        tokens=settings.token_list(),
        max_requests=settings.max_requests,
        max_bytes=round(settings.max_upload_mb * _MB) + _FORM_BYTES,
        max_seconds=settings.max_request_seconds,
        is_stopping=lambda: service.is_stopping,
        count=service.metrics.count,
    )
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allow_origins, allow_headers=["authorization"]
        )

    @contextlib.asynccontextmanager
    async def stored(file: UploadFile, num_views: int = 1) -> AsyncIterator[tuple[Path, str]]:
        """The upload as a file with a name of ours, and the client's name for errors."""
        if num_views > settings.max_views:
            raise Refusal(
                422,
                f"num_clips x num_crops is {num_views}; at most {settings.max_views} views of a "
                "video are computed here",
            )
        if not file.size:
            raise Refusal(422, "the upload is empty; send a video as the form field `file`")
        name = Path(file.filename or "").name or "upload"
        with tempfile.TemporaryDirectory(prefix="videomae-", ignore_cleanup_errors=True) as folder:
            path = Path(folder, "video")
            with path.open("wb") as out:
                await asyncio.to_thread(shutil.copyfileobj, file.file, out)
            await file.close()
            yield path, name

    @app.post("/v1/classify", responses=PROBLEMS | responses(404))
    async def classify(
        file: Upload,
        top_k: Annotated[int, Form(ge=1, description="Labels to give")] = 5,
        num_clips: NumClips = 1,
        num_crops: NumCrops = 1,
        frames: Annotated[bool, Form(description="Give the frames of the first view too")] = False,
    ) -> ClassifyAnswer:
        """Name what happens in a video."""
        async with stored(file, num_clips * num_crops) as (path, name):
            found, info, views = await service.classify(
                path, name=name, top_k=top_k, num_clips=num_clips, num_crops=num_crops
            )
            looked_at = await asyncio.to_thread(service.pictures, views[0]) if frames else None
        pairs = zip(found.labels, found.scores, strict=True)
        return ClassifyAnswer(
            predictions=[Prediction(label=label, score=score) for label, score in pairs],
            video=VideoFacts.of(info),
            are_shares=found.are_shares,
            model=settings.model,
            frames=looked_at,
        )

    @app.post("/v1/embed", responses=PROBLEMS)
    async def embed(
        file: Upload,
        features: Annotated[
            Features,
            Form(description="One vector per video, per time slice, or per tubelet"),
        ] = "pooled",
        num_clips: NumClips = 1,
        num_crops: NumCrops = 1,
    ) -> EmbedAnswer:
        """Describe a video by vectors."""
        async with stored(file, num_clips * num_crops) as (path, name):
            found, info = await service.embed(
                path, name=name, features=features, num_clips=num_clips, num_crops=num_crops
            )
        return EmbedAnswer(
            features=found.features.tolist(),
            shape=list(found.features.shape),
            video=VideoFacts.of(info),
            model=service.encoder.name,
        )

    @app.post(
        "/v1/reconstruct",
        response_class=Response,
        responses={
            200: {"description": "The clip", "content": {kind: {} for kind in SHOWN.values()}},
            **PROBLEMS,
            **responses(404),
        },
    )
    async def reconstruct(
        file: Upload,
        mask: Annotated[Mask, Form(description="Kind of mask")] = "tube",
        mask_ratio: Annotated[
            float, Form(gt=0, lt=1, description="Share of the clip that is hidden")
        ] = 0.9,
        seed: Annotated[int, Form(ge=0, lt=2**63, description="Another seed, another mask")] = 0,
        rendering: Annotated[
            Rendering,
            Form(description="paper borrows each hidden patch's brightness and contrast"),
        ] = "plain",
        format: Annotated[
            Literal["png", "gif", "mp4"], Form(description="A film strip, or moving")
        ] = "gif",
    ) -> Response:
        """Hide most of a clip and reconstruct it: original, masked, reconstructed side by side."""
        async with stored(file) as (path, name):
            found, _ = await service.reconstruct(
                path, name=name, mask=mask, mask_ratio=mask_ratio, seed=seed, rendering=rendering
            )
        content = await asyncio.to_thread(_encoded, found, format)
        headers = {"X-Loss": f"{found.loss:.6f}"}
        return Response(content, media_type=SHOWN[format], headers=headers)

    @app.get("/v1/model", responses=responses(401))
    async def model() -> ModelFacts:
        """What answers here."""
        return model_facts(service)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> dict[str, str]:
        if service.is_stopping:
            raise Refusal(503, "the service is stopping")
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    if settings.page and settings.tokens is None:
        add_page(app, service)
    return app


def _encoded(found: Reconstruction, format: str) -> bytes:
    """A clip as a file of a format. The folder is this call's own, as its client may go away: no
    other may then be removed while a thread still writes to it."""
    with tempfile.TemporaryDirectory(prefix="videomae-") as folder:
        return found.save(Path(folder, f"clip.{format}")).read_bytes()
