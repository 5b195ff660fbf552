"""The page at /: one file and its script, which ask the service's own addresses.

Gradio was looked at: it takes uploads, paths and addresses by doors of its own, past the limits of
the service, and holds Pillow below 13.
"""

from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from videomae.errors import ConfigError
from videomae.hub import resolve_shipped
from videomae.rendering.actions import render_clip
from videomae.report import html
from videomae.serving.facts import ModelFacts, model_facts
from videomae.serving.problems import Refusal
from videomae.serving.service import Service
from videomae.serving.settings import ServeSettings
from videomae.video.folder import find_videos
from videomae.video.writer import write_video

_RENDERED = ("sit_down", "throw", "lie_down")  # of what the shipped models know
_MAX_EXAMPLES, _MAX_EXAMPLE_MB = 6, 20
_SCRIPT = Path(html.__file__).parent / "templates" / "serve.js"


@dataclass(frozen=True)
class Example:
    """A video that the page offers: its name there, its bytes, and their media type."""

    name: str
    content: bytes
    media_type: str = "video/mp4"


def add_page(app: FastAPI, service: Service) -> None:
    """Show the page at /, with example clips that are rendered here."""
    facts = model_facts(service)
    examples = find_examples(service.settings)
    tabs = {"about": "The model"}
    if service.decoder is not None:
        tabs = {"reconstruct": "Hide and reconstruct", **tabs}
    if service.classifier is not None:
        tabs = {"classify": "What is it?", **tabs}

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        text = html.render(
            "serve.html",
            facts=facts,
            about=_about(facts),
            tabs=tabs,
            examples=[each.name for each in examples],
            address=str(request.base_url),
        )
        return HTMLResponse(text)

    @app.get("/serve.js", include_in_schema=False)
    async def script() -> Response:
        return Response(_SCRIPT.read_text(encoding="utf-8"), media_type="text/javascript")

    @app.get("/examples/{number}", include_in_schema=False)
    async def example(number: int) -> Response:
        if not 0 <= number < len(examples):
            raise Refusal(404, f"there is no example {number}")
        return Response(examples[number].content, media_type=examples[number].media_type)


def find_examples(settings: ServeSettings) -> list[Example]:
    """The videos that the page offers: those of a folder, or rendered ones for a shipped model."""
    if settings.examples is not None:
        files = [path for path in find_videos(settings.examples) if path.is_file()]
        if not files:
            raise ConfigError(f"examples={settings.examples} holds no video")
        small = [each for each in files if each.stat().st_size <= _MAX_EXAMPLE_MB * 1e6]
        return [
            Example(path.stem, path.read_bytes(), guess_type(path)[0] or "video/mp4")
            for path in small[:_MAX_EXAMPLES]
        ]
    if resolve_shipped(settings.model) is None:
        return []
    with TemporaryDirectory(prefix="videomae-") as folder:
        examples = []
        for seed, action in enumerate(_RENDERED):
            clip = render_clip(action, seed=seed, split="test")
            path = write_video(Path(folder, f"{action}.mp4"), clip, fps=16)
            examples.append(Example(action, path.read_bytes()))
        return examples


def _about(facts: ModelFacts) -> dict[str, str]:
    height, width = facts.image_size
    return {
        "model": facts.model,
        "reconstructs": facts.pretrained or "nothing",
        "parameters": f"{facts.num_parameters / 1e6:.1f} million",
        "looks at": f"{facts.num_frames} frames of {width} × {height} px",
        "runs by": facts.engine,
        "licence": facts.licence or "unknown",
        "videomae": facts.version,
    }
