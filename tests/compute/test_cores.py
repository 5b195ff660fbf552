import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from videomae.compute import cores
from videomae.compute.cores import (
    container_limits,
    cores_per_process,
    heed_quota,
    num_cores,
)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend cores that the system lets this process run on, and a quota."""

    def pretend(count: int | None, quota: float | None = None) -> None:
        monkeypatch.setattr(os, "process_cpu_count", lambda: count, raising=False)
        monkeypatch.setattr(cores, "container_limits", lambda: (quota, None))

    return pretend


@pytest.mark.parametrize(
    ("count", "quota", "expected"),
    [
        (8, None, 8),
        (None, None, 1),  # the system does not know
        (64, 2.0, 2),
        (64, 1.5, 2),
        (64, 0.1, 1),
        (2, 8.0, 2),
        (None, 8.0, 1),
    ],
)
def test_cores_are_the_least_of_affinity_and_quota(
    count: int | None, quota: float | None, expected: int, limits: Callable[..., None]
) -> None:
    limits(count, quota)
    assert num_cores() == expected


def test_an_older_python_asks_the_affinity_and_then_the_count(
    limits: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(7)
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert num_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert num_cores() == 64


@pytest.mark.parametrize(
    ("count", "quota", "processes", "expected"),
    [
        (8, None, None, 8),
        (8, 3.0, "1", 3),
        (64, None, "8", 8),
        (64, 12.0, "8", 1),
        (2, None, "8", 1),
        (8, None, "0", 8),
        (8, None, "two", 8),
    ],
)
def test_processes_of_one_machine_share_its_cores(
    count: int,
    quota: float | None,
    processes: str | None,
    expected: int,
    limits: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits(count, quota)
    environment = {} if processes is None else {"LOCAL_WORLD_SIZE": processes}
    monkeypatch.setattr(os, "environ", environment)
    assert cores_per_process() == expected


@pytest.mark.parametrize(
    ("quota", "already", "expected"),
    [(1.5, None, "2"), (1.5, "4", "4"), (None, None, None), (64.0, None, None)],
)
def test_a_program_heeds_the_quota_unless_told_otherwise(
    quota: float | None,
    already: str | None,
    expected: str | None,
    limits: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits(8, quota)
    environment = {} if already is None else {"OMP_NUM_THREADS": already}
    monkeypatch.setattr(os, "environ", environment)
    heed_quota()
    assert environment.get("OMP_NUM_THREADS") == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_on_one_core_counts_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import sys; from videomae.compute.cores import num_cores\n"
        "print(num_cores(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        ("150000 100000\n", "1073741824\n", (1.5, 2**30)),
        ("max 100000\n", "max\n", (None, None)),
        ("", "", (None, None)),
        ("100000 0\n", "x\n", (None, None)),
        (None, None, (None, None)),
    ],
)
def test_limits_of_a_container_of_version_2(
    cpu: str | None, memory: str | None, expected: tuple[float | None, int | None], tmp_path: Path
) -> None:
    if cpu is not None and memory is not None:
        write(tmp_path, cpu__max=cpu, memory__max=memory)
    write(tmp_path, own="0::/\n")
    assert container_limits(tmp_path, tmp_path / "own") == expected
    assert container_limits(tmp_path, tmp_path / "absent") == expected


@pytest.mark.parametrize(
    ("quota", "memory", "expected"),
    [
        ("250000\n", "1073741824\n", (2.5, 2**30)),
        ("-1\n", "9223372036854771712\n", (None, None)),  # as version 1 says "no limit"
    ],
)
def test_limits_of_a_container_of_version_1(
    quota: str, memory: str, expected: tuple[float | None, int | None], tmp_path: Path
) -> None:
    write(tmp_path / "cpu", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000\n")
    write(tmp_path / "memory", memory__limit_in_bytes=memory)
    write(tmp_path, own="9:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n3:pids:/\n0::/\n")
    assert container_limits(tmp_path, tmp_path / "own") == expected


def test_groups_around_the_own_one_hold_too_and_others_do_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "pod", cpu__max="200000 100000", memory__max="max")
    write(root / "pod" / "own", cpu__max="max 100000", memory__max="4096")
    write(root / "pod" / "other", cpu__max="50000 100000", memory__max="1024")
    write(tmp_path, cpu__max="10000 100000", own="0::/pod/own\n")  # outside of the tree
    assert container_limits(root, tmp_path / "own") == (2.0, 4096)


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/../../outside\n"])
def test_a_place_that_is_not_shown_leaves_the_root_of_the_tree(text: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, cpu__max="300000 100000")
    write(tmp_path, own=text, cpu__max="10000 100000")
    assert container_limits(root, tmp_path / "own") == (3.0, None)
