"""`videomae space`: a folder that a Hugging Face Space runs as it is."""

import shutil
from pathlib import Path

from huggingface_hub import ModelCardData

from videomae.commands.flags import Space
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.hub import resolve_shipped
from videomae.report.card import origin
from videomae.report.html import render
from videomae.version import __version__

PORT = 7860  # where a Space is looked for
_TEMPLATES = ("README.md", "app.py", "Dockerfile", "requirements.txt")


def write_space(space: Space) -> Path:
    """Write the files of a Space, and copy the model where it is a folder.

    Raises ConfigError for a folder that is not empty or lies in what is copied into it, and for
    examples that are no folder; WeightsError for what is no model.
    """
    folder = space.output
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"output={folder} is there already; name a folder that is new or empty")
    if space.examples is not None and not space.examples.is_dir():
        raise ConfigError(f"examples={space.examples} is no folder; name a folder of short videos")
    VideoMAEConfig.from_pretrained(space.model)
    is_local = Path(space.model).is_dir() and resolve_shipped(space.model) is None
    for copied in (Path(space.model) if is_local else None, space.examples):
        if copied is not None and folder.resolve().is_relative_to(copied.resolve()):
            raise ConfigError(f"output={folder} lies in {copied}, which is copied; name another")
    name, licence, hub_id = origin(space.model)
    front = ModelCardData(
        title=space.title,
        sdk="docker",
        app_port=PORT,
        license=licence,
        models=[hub_id] if hub_id else None,
        short_description=f"{name} looks at your video"[:60],
    )
    folder.mkdir(parents=True, exist_ok=True)
    if is_local:
        shutil.copytree(space.model, folder / "model")
    if space.examples is not None:
        shutil.copytree(space.examples, folder / "examples")
    for file in _TEMPLATES:
        text = render(
            f"space/{file}.jinja",
            front=front.to_yaml(),
            model="model" if is_local else space.model,
            examples=space.examples is not None,
            space=space,
            name=name,
            port=PORT,
            version=__version__,
        )
        (folder / file).write_text(text, encoding="utf-8")
    return folder
