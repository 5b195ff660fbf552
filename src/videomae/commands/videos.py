"""The commands on videos that need no model: probe, prepare, actions."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from videomae.commands.flags import Actions, Prepare, Probe
from videomae.commands.terminal import Screen, Shown, aligned, report
from videomae.errors import VideoError, complain, counted, say


def probe(command: Probe) -> int:
    """Show what each video is."""
    from videomae.video import reader
    from videomae.video.limits import VideoInfo
    from videomae.video.reader import BadVideo

    files = command.videos()

    def results() -> Iterator[VideoInfo | BadVideo]:
        for path in files:
            try:
                yield reader.probe(path, on_damage=command.on_damage)
            except VideoError as error:
                yield BadVideo(path, str(error))

    def show(info: VideoInfo) -> Shown:
        rate = f"{info.fps:.4g} fps" if info.fps else ""
        size = f"{info.width} x {info.height} px"
        record = {**asdict(info), "path": str(info.path)}
        aspect = Fraction(info.pixel_aspect).limit_denominator(100)
        notes = [
            f"pixels {aspect.numerator}:{aspect.denominator}" if aspect != 1 else "",
            f"HDR ({info.hdr})" if info.hdr else "",
            f"damaged places: {info.num_gaps}" if info.num_gaps else "",
        ]
        told = ", ".join(filter(None, notes))
        facts = (f"{info.num_frames} frames", rate, size, info.codec)
        return record, [(*facts, told) if told else facts]

    return report(results(), files, "probing", show, widths=(10, 8, 12), as_json=command.json)


def prepare(command: Prepare) -> int:
    """Write a manifest, and show what was found and what was left out."""
    from videomae.data.prepare import prepare

    with Screen("reading lists") as screen:
        result = prepare(command, on_progress=screen.update)
        screen.out.print(aligned(result.survey.summary()))
    for text in [*result.survey.left_out(), *result.survey.warnings()]:
        complain(text)
    written = (result.manifest, result.report)
    say(f"wrote {', '.join(str(path) for path in written if path)}")
    return 0 if result.manifest else complain("no video is usable")


def actions(command: Actions) -> int:
    """Render the built-in data set of people."""
    from videomae.rendering.actions import render_dataset

    with Screen("rendering", command.clips + command.test_clips) as screen:
        paths = render_dataset(command, on_progress=screen.advance)
    say(f"wrote {counted(len(paths), 'video')} into {command.output}")
    return 0


FUNCTIONS: dict[type, Callable[[Any], int]] = {Probe: probe, Prepare: prepare, Actions: actions}
