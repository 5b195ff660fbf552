"""classify and embed as a batch job: answers about many videos, in a folder of Parquet parts."""

import re
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from videomae.commands.terminal import Screen, names_file, stopped_by_sigterm
from videomae.data.inputs import list_inputs
from videomae.data.manifest import Video
from videomae.errors import ConfigError, complain, say, to_json
from videomae.footage.batch import run_job
from videomae.footage.jobs import Job


def run_batch(
    task: Literal["classify", "embed"],
    command: Any,
    files: list[Path],
    *,
    look_at: Callable[[Path], None] | None = None,
    again: str = "--resume",
) -> int:
    """Write answers into a folder of Parquet parts, and show a bar and one line about them.

    `look_at` is called with the path of the first video. `again` is what goes on with work that
    was broken off, for which 130 is returned.
    """
    output = command.output
    if names_file(output) or output.is_file():
        kinds = ".csv" if task == "classify" else ".npz or .csv"
        raise ConfigError(f"--output {output}: name a file that ends in {kinds}, or a folder")
    found = re.fullmatch(r"(\d+)/(\d+)", command.shard)
    if found is None:
        raise ConfigError(f"--shard {command.shard}: expected 2/8 for the second of 8")
    own = {name: getattr(command, name) for name in vars(command) if name in Job.__annotations__}
    seconds = {"window_seconds": "video", "hop_seconds": "half"}
    own |= {name: None for name, word in seconds.items() if own[name] == word}
    job = Job(task, **own)
    videos = [Video(str(path)) for path in files]
    videos += (
        list_inputs(command.input, allow_addresses=command.allow_addresses) if command.input else []
    )
    if look_at is not None:
        look_at(Path(videos[0].path))
    what = "classifying" if task == "classify" else "embedding"
    # Ray reports lost machines on stdout, which is for the one line of the job.
    elsewhere = redirect_stdout(sys.stderr) if command.ray else nullcontext()
    try:
        with (
            Screen(what, len(videos), as_json=command.json) as screen,
            stopped_by_sigterm(),
            elsewhere,
        ):
            summary = run_job(
                videos,
                output,
                job,
                shard=(int(found[1]), int(found[2])),
                resume=command.resume,
                part_size=command.part_size,
                ray=command.ray,
                tell=complain if sys.stderr.isatty() else None,
                on_progress=screen.advance,
            )
    except KeyboardInterrupt:
        if not output.exists():
            return complain("interrupted before anything was done", code=130)
        return complain(f"interrupted; {output} has what is done, and {again} goes on", code=130)
    say(to_json(asdict(summary)) if command.json else f"{output}: {summary}")
    if summary.first_reason:
        complain(summary.first_reason)
    return 1 if summary.num_bad else 0
