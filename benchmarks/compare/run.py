"""The parts of `videomae bench`, in the same turns with transformers and others.

    python -m benchmarks.compare.run forward --batch-sizes 1

From a checkout, with the parts and the flags of `videomae bench`. What is not installed is named
and left out.
"""

from collections.abc import Sequence
from functools import partial
from importlib import import_module

import tyro

from benchmarks.compare import baselines
from benchmarks.compare.baselines import is_there
from videomae.commands import bench
from videomae.commands.bench import Session
from videomae.commands.flags import Bench
from videomae.processing.processors import VideoMAEImageProcessor


def has(session: Session, package: str) -> bool:
    """True for a package that is installed; one that is not is named among what is left out."""
    if not is_there(package):
        session.left_out.append(f"{package} is not installed")
    return is_there(package)


def forward(session: Session) -> None:
    """Beside the model of transformers, with the same weights."""
    if has(session, "transformers"):
        session.others = {**baselines.transformers_calls(session)}
    bench.forward(session)
    if session.others:
        build = partial(baselines.transformers_forward_job, session.device, session.dtype)
        session.figures["peak_bytes"]["transformers"] = session.peak("transformers", build)


def train(session: Session) -> None:
    """Beside the model of transformers, and one written as one would write it down."""
    if has(session, "transformers"):
        session.others["transformers"] = baselines.transformers_trained
    session.others["plain"] = baselines.plain_trained
    bench.train(session)


def decode(session: Session) -> None:
    """Beside decord and torchcodec, out of a real film."""
    session.scene = baselines.film_scene
    decoders = {"decord": baselines.by_decord, "torchcodec": baselines.by_torchcodec}
    session.others = {name: read for name, read in decoders.items() if has(session, name)}
    bench.decode(session)


def process(session: Session) -> None:
    """Beside the processors of transformers, with the same mean and std."""
    if has(session, "transformers"):
        ours = VideoMAEImageProcessor()
        settings = {"image_mean": list(ours.image_mean), "image_std": list(ours.image_std)}
        session.others = {**baselines.transformers_processors(**settings)}
    bench.process(session)


def end_to_end(session: Session) -> None:
    """Beside transformers, as its documentation reads and classifies a file."""
    session.scene = baselines.film_scene
    if has(session, "transformers"):
        session.others["transformers"] = import_module("benchmarks.compare.transformers_reader")
    bench.end_to_end(session)


PARTS: dict[str, bench.Part] = {
    "forward": forward,
    "train": train,
    "decode": decode,
    "process": process,
    "end-to-end": end_to_end,
    "scaling": bench.scaling,
}


def main(arguments: Sequence[str] | None = None) -> None:
    program = "python -m benchmarks.compare.run"
    asked = tyro.cli(
        Bench,
        prog=program,
        description=__doc__,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    bench.bench(asked, PARTS, program=program)


if __name__ == "__main__":
    main()
