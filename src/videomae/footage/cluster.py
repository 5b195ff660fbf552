"""Many videos through a model on a Ray cluster: decoded on CPU workers, computed by actors.

The machine that starts the job gets the answers and writes them, so that workers need nothing but
the videos, the model and this package. A block that is lost with a worker or its node is made again
by those that are left; one that comes twice counts once.
"""

import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Video
from videomae.errors import ConfigError, VideoMAEError, needing
from videomae.footage.jobs import Found, Job, read_video
from videomae.processing.views import ViewMaker

_VIDEOS_PER_TASK = 16  # what is read again where a worker is lost
_DECODING_BYTES = 2**30  # with torch, frames of full size, and views
_MAX_TASKS = 4096  # the scheduler holds each


class Cluster:
    """A job on a Ray cluster at an address; "auto": the one this machine knows, or a new one.

    Raises ConfigError where Ray is missing, cannot be reached, or has too few CPUs.
    """

    def __init__(self, job: Job, address: str) -> None:
        with needing("--ray", extra="ray"):
            import ray
            import ray.data
        # Workers run in folders of their own.
        model = str(Path(job.model).absolute()) if Path(job.model).exists() else job.model
        self._ray, self._job = ray, replace(job, model=model)
        if not ray.is_initialized():
            where = None if address == "auto" else address
            try:
                ray.init(where, log_to_driver=False, logging_level="WARNING")
            except Exception as error:  # of many kinds
                raise ConfigError(
                    f"there is no Ray cluster at {address} ({error}); start one with `ray start "
                    "--head`, or give --ray without an address to compute on this machine"
                ) from error
        found = ray.cluster_resources()
        self._gpus, cpus = int(found.get("GPU", 0)), int(found.get("CPU", 0))
        if cpus < 1 + (not self._gpus):
            raise ConfigError(
                f"the Ray cluster has {cpus} CPUs and {self._gpus} GPUs; expected at least one CPU "
                "to decode, and a GPU or another CPU for the model"
            )
        self._most = self._gpus or max(cpus // 2, 1)
        self._place = {"num_gpus": 1, "num_cpus": 0} if self._gpus else {"num_cpus": 1}

    def facts(self) -> tuple[dict[str, Any], VideoMAEConfig]:
        """What the parts are made by, and the model's config, from where the model will run."""

        def ask(job: Job) -> tuple[dict[str, Any], ViewMaker]:
            loaded = job.load()
            return loaded.facts(), loaded.maker

        answer = self._ray.remote(**self._place)(ask).remote(self._job)
        try:
            facts, self._maker = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, VideoMAEError):
                raise error.cause from None  # without the traceback of the worker
            raise
        return facts, self._maker.config

    def compute(self, videos: Sequence[tuple[int, Video]]) -> Iterator[Found]:
        """Run numbered videos through the model; answers come in any order."""
        data, maker, job = self._ray.data, self._maker, self._job
        # The bar of the job says all; a warning that Ray's own is off says nothing.
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        views = (maker.num_views, maker.config.num_frames, maker.config.num_channels)
        nothing = np.zeros((1, *views, *maker.config.image_hw), np.float32)

        def decode(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
            for number, video in zip(batch["number"], batch["video"], strict=True):
                for found in read_video(int(number), pickle.loads(video), maker, job):
                    row = {name: np.array([known]) for name, known in vars(found).items()}
                    row["value"] = np.array([""])
                    if isinstance(found.value, str):
                        yield {**row, "value": np.array([found.value]), "pixels": nothing}
                    else:
                        yield {**row, "pixels": found.value[None].numpy()}

        rows = [{"number": n, "video": pickle.dumps(_absolute(video))} for n, video in videos]
        tasks = min(math.ceil(len(rows) / _VIDEOS_PER_TASK), _MAX_TASKS)
        answers = (
            data.from_items(rows, override_num_blocks=max(tasks, 1))
            # Unlike needs also keep Ray from decoding in the worker that has the model.
            .map_batches(decode, batch_size=1, num_cpus=1, memory=_DECODING_BYTES)
            .map_batches(
                _Model,
                batch_size=max(job.batch_size // maker.num_views, 1),
                compute=data.ActorPoolStrategy(min_size=1, max_size=self._most),
                fn_constructor_args=(job,),
                **self._place,
            )
        )
        for batch in answers.iter_batches(batch_size=None, batch_format="numpy"):
            outputs, reasons = batch.pop("outputs"), batch.pop("value").tolist()
            known = zip(*(column.tolist() for column in batch.values()), strict=True)
            for output, reason, row in zip(outputs, reasons, known, strict=True):
                where = dict(zip(batch, row, strict=True))
                yield Found(value=reason or torch.from_numpy(output.copy()), **where)


def _absolute(video: Video) -> Video:
    return video if video.is_remote else replace(video, path=str(Path(video.path).absolute()))


class _Model:
    """A model that is loaded once per actor."""

    def __init__(self, job: Job) -> None:
        self._loaded = job.load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pixels = torch.from_numpy(np.asarray(batch.pop("pixels")).copy())  # (B, V, T, C, H, W)
        outputs = self._loaded.compute(pixels.flatten(0, 1))
        return {**batch, "outputs": outputs.view(*pixels.shape[:2], *outputs.shape[1:]).numpy()}
