"""The settings of `videomae serve`: what it runs, where it listens, and what it refuses."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from videomae.errors import ConfigError
from videomae.fields import Checked, Count, Limits, NotNegative, Positive
from videomae.settings import Dtype, EngineName


@dataclass(frozen=True)
class ServeSettings(Checked):
    """A model behind a page and an HTTP service."""

    model: str = "actions-tiny"
    """Classifier or pre-trained model: hub id, folder, weight file or shipped name."""
    pretrained: str | None = None
    """Pre-trained model that reconstructs; by default the shipped one beside a shipped model."""
    engine: EngineName = "auto"
    """The engine that runs the model; docs/engines.md says which suits what."""
    dtype: Dtype = "auto"
    """Precision; auto is the fastest that keeps the accuracy here."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the best that is there."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other machines in."""
    port: Annotated[int, Limits(0, 65535)] = 8000
    """Port to listen at; 0 takes a free one."""
    root_path: str = ""
    """Path under which a proxy shows the service, such as /videomae."""
    allow_origins: tuple[str, ...] = ()
    """Web sites whose pages may call the service (CORS); none by default."""
    tokens: Path | None = None
    """File of bearer tokens, one a line; then each request under /v1 needs one, and there is no
    page."""
    page: bool = True
    """Show the page at /; --no-page leaves the HTTP service alone."""
    examples: Path | None = None
    """Folder of short videos that the page offers; by default, and for a shipped model, rendered
    ones."""

    batch_size: Count = 8
    """Views that go through the model at once, of however many requests."""
    max_wait_ms: NotNegative = 4.0
    """Longest time that a clip waits for others to join its batch."""
    decoders: Count | None = None
    """Processes that decode uploads; by default one per core."""
    max_requests: Count = 64
    """Requests accepted at once; more are answered 429 with the time to come back."""

    max_upload_mb: Positive = 200.0
    """Largest upload, in MB."""
    max_request_seconds: Positive = 60.0
    """Longest time from the first byte of a request to its answer."""
    max_video_seconds: Positive = 3600.0
    """Longest video."""
    max_pixels: Count = 4096 * 2304
    """Largest frame, height x width."""
    max_frames: Count = 250_000
    """Most frames of a video."""
    max_views: Count = 30
    """Most views of a video, num_clips x num_crops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root_path and not re.fullmatch(r"(/[^/\s]+)+", self.root_path):
            raise ConfigError(
                f"root_path={self.root_path} is no path; write it like /videomae, without a / at "
                "its end"
            )
        if self.tokens is not None and not self.token_list():
            raise ConfigError(f"tokens={self.tokens} holds none; write one per line")

    def token_list(self) -> list[str]:
        """The bearer tokens, none where there is no file of them."""
        if self.tokens is None:
            return []
        try:
            text = self.tokens.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"tokens={self.tokens} cannot be read ({error}); name a file of UTF-8 text"
            ) from error
        return [line.strip() for line in text.splitlines() if line.strip()]
