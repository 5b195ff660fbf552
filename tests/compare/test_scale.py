import pytest

from benchmarks.scale import Cluster, predict

CLUSTER = Cluster(
    gpus_per_node=8, inside_gbps=200, between_gbps=20, reached=0.5, clips_per_core=50, clip_mb=0.5
)


def test_one_node_by_hand() -> None:
    # 6 bytes of 1e9 weights, of which 7/8 are with others: 5.25 GB at 100 GB/s
    row = predict(8, 10, 100.0, 10**9, "fsdp", CLUSTER)
    assert row.exchanged_gb == pytest.approx(5.25)
    assert (row.hidden_ms, row.open_ms) == pytest.approx((100, 152.5))
    assert row.clips_per_second == pytest.approx(800)
    assert row.cores_per_gpu == pytest.approx(2)
    assert row.storage_gbps == pytest.approx(0.4)


def test_between_nodes_the_exchange_may_take_longer_than_the_step() -> None:
    # 8 bytes of 1e9 weights, 15/16 of them: 7.5 GB at 10 GB/s
    row = predict(16, 10, 100.0, 10**9, "ddp", CLUSTER)
    assert (row.hidden_ms, row.open_ms) == pytest.approx((750, 850))
    assert row.clips_per_second == pytest.approx(160 / 0.75)


def test_one_gpu_exchanges_nothing() -> None:
    assert predict(1, 10, 100.0, 10**9, "fsdp", CLUSTER).exchanged_gb == 0
