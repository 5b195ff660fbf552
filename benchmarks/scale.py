"""What pre-training on many GPUs would take: communication, decoding and storage, as arithmetic.

    python -m benchmarks.scale --preset base --clips 32 --step-ms 400

Nothing is measured here: `--step-ms` is a step of one GPU as `videomae bench train` prints it there
(without it, the model's multiplications at an assumed share of the peak). docs/scale.md says what
is assumed and where each number comes from.
"""

import argparse
from dataclasses import dataclass

import torch

from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.settings import PretrainSettings
from videomae.training.estimate import clip_cost


@dataclass(frozen=True)
class Cluster:
    """Assumptions; bandwidths in GB/s per GPU and direction, of which collectives reach a share."""

    gpus_per_node: int = 8
    inside_gbps: float = 450.0  # NVLink of an H100, by its data sheet
    between_gbps: float = 50.0  # one 400 Gb/s network card per GPU
    reached: float = 0.7
    peak_tflops: float = 989.0  # H100, bfloat16, by its data sheet
    used: float = 0.35
    clips_per_core: float = 53.7  # a second, files made small (benchmarks/loader.md)
    clip_mb: float = 0.43  # of such a file; it is read whole


@dataclass(frozen=True)
class Prediction:
    """A step whose exchange between GPUs is hidden behind computing, or not at all."""

    exchanged_gb: float  # sent by each GPU in a step
    hidden_ms: float
    open_ms: float
    clips_per_second: float  # where it is hidden
    cores_per_gpu: float
    storage_gbps: float


def predict(
    num_gpus: int, clips: int, step_ms: float, num_parameters: int, parallel: str, cluster: Cluster
) -> Prediction:
    """The step of `num_gpus` GPUs with `clips` clips each.

    FSDP2 sends weights twice and gradients once, in bfloat16; DDP sums gradients in float32, which
    sends them twice. Each time all but a GPU's own part goes over the slowest link.
    """
    bytes_each = 3 * 2 if parallel == "fsdp" else 2 * 4
    exchanged = bytes_each * num_parameters * (num_gpus - 1) / num_gpus / 1e9
    inside = num_gpus <= cluster.gpus_per_node
    link = cluster.reached * (cluster.inside_gbps if inside else cluster.between_gbps)
    exchange_ms = 1e3 * exchanged / link
    hidden = max(step_ms, exchange_ms)
    per_second = num_gpus * clips / (hidden / 1e3)
    cores = per_second / num_gpus / cluster.clips_per_core
    storage = per_second * cluster.clip_mb / 1e3
    return Prediction(exchanged, hidden, step_ms + exchange_ms, per_second, cores, storage)


def computed_ms(config: VideoMAEConfig, clips: int, cluster: Cluster) -> float:
    """A step's time by its multiplications: backward takes twice what forward does."""
    settings = PretrainSettings(mask="tube", mask_ratio=0.9)
    operations = 2 * 3 * clip_cost(config, settings) * clips
    return 1e3 * operations / (cluster.used * cluster.peak_tflops * 1e12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--clips", type=int, default=32, help="per GPU and step")
    parser.add_argument("--step-ms", type=float, help="measured on one GPU")
    parser.add_argument("--parallel", choices=["ddp", "fsdp"], default="fsdp")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    asked = parser.parse_args()
    config, cluster = VideoMAEConfig.preset(asked.preset, use_mean_pooling=False), Cluster()
    with torch.device("meta"):
        count = VideoMAEForPreTraining(config).num_parameters()
    step_ms = asked.step_ms or computed_ms(config, asked.clips, cluster)
    print(f"{asked.preset}, {count / 1e6:.0f} M parameters, a step of one GPU: {step_ms:.0f} ms\n")
    print("| GPUs | sent by each, GB | step, ms | clips/s | cores per GPU | storage, GB/s |")
    print("|--:" * 6 + "|")
    for num_gpus in asked.gpus:
        row = predict(num_gpus, asked.clips, step_ms, count, asked.parallel, cluster)
        print(
            f"| {num_gpus} | {row.exchanged_gb:.2f} | {row.hidden_ms:.0f} to {row.open_ms:.0f} "
            f"| {row.clips_per_second:,.0f} | {row.cores_per_gpu:.1f} | {row.storage_gbps:.1f} |"
        )


if __name__ == "__main__":
    main()
