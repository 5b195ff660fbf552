"""`videomae doctor`: what is here, what will be used and why, and whether it works."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.constants import HF_HUB_CACHE

from videomae.commands.flags import Doctor
from videomae.commands.terminal import Screen, aligned
from videomae.compute.cpu import cpu_multiplies_bfloat16
from videomae.compute.devices import as_device, best_dtype
from videomae.compute.environment import environment
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, say, to_json
from videomae.hub import check_writable, fetch, read_json
from videomae.inference import engines
from videomae.inference.cache import cache_root
from videomae.inference.predict import classify
from videomae.model.attention import best_implementation
from videomae.rendering.actions import render_clip
from videomae.video.container import ffmpeg_facts
from videomae.video.reader import VideoReader
from videomae.video.writer import write_video

# The clip that is asked about; what it gets in float32 lies beside the shipped model.
KNOWN_CLIP: dict[str, Any] = {"action": "lie_down", "seed": (7, 1, 5), "split": "test"}
_SCORE_TOLERANCE = 0.02  # bfloat16 changes it by less
_MAX_LEVELS = 8  # the mean difference of pixels (0 to 255) after H.264, which loses some
_BIG = "base"  # the size whose engine is told beside that of the shipped model


def doctor(command: Doctor) -> int:
    """Print facts, choices, checks and a verdict; 1 where something that is needed is broken."""
    release, decoders = ffmpeg_facts()
    facts = environment() | {"ffmpeg": release}
    missing = [name for name, there in decoders.items() if not there]
    report: dict[str, Any] = {
        "environment": facts,
        "device": str(as_device(None)),
        "choices": choices(),
        "decoders": [name for name, there in decoders.items() if there],
        "missing_decoders": missing,
        "places": places(),
        "checks": {name: _tried(check) for name, check in CHECKS.items()},
    }
    broken = [name for name, found in report["checks"].items() if not found["ok"]]
    locked = [name for name, place in report["places"].items() if place["reason"]]
    report["verdict"] = "all is well"
    if broken:
        report["verdict"] = f"broken: {', '.join(broken)}"
    elif locked:
        report["verdict"] = f"works, but there is no place to write {' and '.join(locked)}"
    if command.json:
        say(to_json(report))
    else:
        _show(report)
    return 1 if broken else 0


def choices() -> dict[str, str]:
    """What `auto` takes here, and why: precision, and per size of model engine and attention."""
    device = as_device(None)
    dtype = best_dtype(device)
    name = str(dtype).removeprefix("torch.")
    why = "the fastest that keeps the accuracy there"
    if device.type == "cpu":
        can = "multiplies" if cpu_multiplies_bfloat16() else "does not multiply"
        why = f"this processor {can} in bfloat16"
    found = {"precision": f"{name}: {why}"}
    for size, config in (
        ("actions-tiny", VideoMAEConfig.from_pretrained("actions-tiny")),
        (f"ViT-B ({_BIG})", VideoMAEConfig.preset(_BIG)),
    ):
        engine, reason = engines.choose(config, device, name)
        attention = best_implementation(device.type, dtype, config.grid.num_tokens)
        with_attention = f", {attention} attention" if engine == "torch" else ""
        found[size] = f"{engine}{with_attention}: {reason}"
    return found


def places() -> dict[str, dict[str, Any]]:
    """Folders that are written to: where, how large, and why they cannot be written, if so."""
    folders = {
        "converted models": cache_root(),
        "models of the hub": Path(HF_HUB_CACHE),
        "temporary files": Path(tempfile.gettempdir()),
    }
    found = {}
    for name, folder in folders.items():
        reason = None
        try:
            check_writable(folder)
        except ConfigError as error:
            reason = _without_home(str(error))
        size = None if name == "temporary files" else _num_bytes(folder)
        found[name] = {"path": _without_home(str(folder)), "bytes": size, "reason": reason}
    return found


def _num_bytes(folder: Path) -> int:
    # Links are not followed: the hub's cache has its files once, and links to them.
    return sum(
        (Path(place) / name).lstat().st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


def _without_home(path: str) -> str:
    home = str(Path.home())
    return path.replace(home, "~") if home != "/" else path


def _decode() -> str:
    """Write a rendered clip as a video, and read it back."""
    clip = render_clip(**KNOWN_CLIP)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "clip.mp4", clip)
        with VideoReader(path) as reader:
            count = reader.info.num_frames
            frames = reader.read(range(count))
    if frames.shape != clip.shape:
        raise ValueError(f"{clip.shape} was written, {frames.shape} was read")
    levels = np.abs(frames.astype(int) - clip).mean()
    if levels > _MAX_LEVELS:
        raise ValueError(f"pixels came back {levels:.1f} levels of 255 off, on average")
    return f"{count} frames written and read, {levels:.1f} levels of 255 off on average"


def _classify() -> str:
    """Classify a rendered clip with the shipped model."""
    said: list[str] = []
    clip = render_clip(**KNOWN_CLIP)
    found = classify(clip, tell=said.append)
    label, score = found.labels[0], found.scores[0]
    known = read_json(fetch("actions-tiny", "results.json"))["known_clip"]
    if label != known["label"] or abs(score - known["score"]) > _SCORE_TOLERANCE:
        right = f"{known['label']} ({known['score']:.3f})"
        raise ValueError(f"actions-tiny answers {label} ({score:.3f}), and {right} is right")
    return f"{label}, {score:.3f}, as it should be; {said[0]}"


CHECKS: dict[str, Callable[[], str]] = {"decode a video": _decode, "classify a clip": _classify}


def _tried(check: Callable[[], str]) -> dict[str, Any]:
    """Whether a check went well, and its words; whatever it raises is its answer."""
    try:
        return {"ok": True, "words": check()}
    except Exception as error:
        return {"ok": False, "words": _without_home(f"{type(error).__name__}: {error}")}


def _show(report: dict[str, Any]) -> None:
    out = Screen("", hidden=True).out

    def section(title: str, rows: dict[str, str]) -> None:
        out.print(title)
        out.print(aligned((f"  {name}", value) for name, value in rows.items()))
        out.print()

    facts = report["environment"]
    words = {name: ", ".join(v) if isinstance(v, list) else str(v) for name, v in facts.items()}
    section("here", words)
    section("what auto takes", {"device": report["device"], **report["choices"]})
    missing = ", ".join(report["missing_decoders"])
    decoders = {"read": ", ".join(report["decoders"])} | ({"not read": missing} if missing else {})
    section("kinds of video", decoders)
    section(
        "places",
        {
            name: place["reason"]
            or place["path"] + (f", {place['bytes'] / 1e6:,.0f} MB" if place["bytes"] else "")
            for name, place in report["places"].items()
        },
    )
    checks = report["checks"].items()
    section("checks", {name: ("" if c["ok"] else "FAILED: ") + c["words"] for name, c in checks})
    out.print(report["verdict"])
