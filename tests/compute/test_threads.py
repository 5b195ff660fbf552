import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from videomae.compute import threads
from videomae.compute.threads import alone, num_threads, shared


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads._helpers.cache_clear()  # so many as there are cores
    monkeypatch.setattr(threads, "num_cores", lambda: 2)
    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    yield
    threads._helpers.cache_clear()


def seen_by_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.parametrize(("torch_has", "cores", "expected"), [(8, 2, 2), (1, 2, 1), (2, 2, 2)])
def test_threads_are_those_of_torch_up_to_the_cores(
    torch_has: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "num_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_has)
    assert num_threads() == expected


@pytest.mark.parametrize(
    ("asked", "expected"), [("", 4), ("3", 3), ("64", 4), ("0", 4), ("2,1", 4)]
)
def test_without_torch_threads_are_those_that_it_would_take(
    asked: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "num_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.delitem(sys.modules, "torch")
    assert num_threads() == expected
    with alone(), shared() as each:
        assert each(str, [1, 2]) == ["1", "2"]


def test_a_thread_alone_leaves_the_others_as_they_are() -> None:
    own, others = torch.get_num_threads(), seen_by_a_new_thread()
    with alone():
        assert torch.get_num_threads() == 1
        assert seen_by_a_new_thread() == others
    assert torch.get_num_threads() == own
    with ThreadPoolExecutor(1, initializer=alone) as pool:  # for good
        assert pool.submit(torch.get_num_threads).result() == 1
    assert (torch.get_num_threads(), seen_by_a_new_thread()) == (own, others)


def test_parts_are_made_by_several_threads_and_come_in_order() -> None:
    together = threading.Barrier(2)  # passed only by two that work at once

    def work(item: int) -> tuple[int, int, int]:
        if item < 2:
            together.wait(timeout=60)
        return 10 * item, torch.get_num_threads(), threading.get_ident()

    with shared() as each:
        made = each(work, range(20))
        assert torch.get_num_threads() == 1
    assert [value for value, _, _ in made] == list(range(0, 200, 10))
    assert {count for _, count, _ in made} == {1}
    assert len({thread for *_, thread in made}) == 2


def test_a_thread_that_gets_no_core_delays_nothing() -> None:
    freed = threading.Event()
    busy = [threads._helpers(os.getpid()).submit(freed.wait, 60) for _ in range(2)]
    try:
        with shared() as each:
            made = each(lambda _: threading.get_ident(), range(5))
    finally:
        freed.set()
    assert set(made) == {threading.get_ident()}
    assert all(future.result() for future in busy)


def test_what_a_part_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(item: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return item

    for count in (1, 2):
        monkeypatch.setattr(threads, "num_threads", lambda count=count: count)
        with pytest.raises(ValueError, match="seven"), shared() as each:
            each(work, range(8))
    with shared() as each:
        assert each(work, range(3)) == [0, 1, 2]
        assert each(work, []) == []
