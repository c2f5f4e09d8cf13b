"""The order of tasks that access the same data, worked out by hand, and as StarPU keeps it."""

from __future__ import annotations

from dahl.starpu.dependencies import dependencies

A, B = 1, 2


def test_a_read_waits_for_the_last_write_and_a_write_for_it_and_all_reads() -> None:
    found = dependencies([[(A, "w")], [(A, "r")], [(A, "r")], [(A, "w")]])
    assert found.within == {(0, 1): (A,), (0, 2): (A,), (0, 3): (), (1, 3): (), (2, 3): ()}


def test_what_a_task_updates_it_reads_from_the_last_write() -> None:
    found = dependencies([[(A, "w"), (B, "w")], [(A, "r")], [(A, "rw"), (B, "r")]])
    assert found.within == {(0, 1): (A,), (0, 2): (A, B), (1, 2): ()}


def test_reads_do_not_wait_for_one_another() -> None:
    assert dependencies([[(A, "r")], [(A, "r")]]).within == {}


def test_a_task_that_updates_its_data_waits_for_itself_in_the_next_submission() -> None:
    found = dependencies([[(A, "rw")], [(A, "r"), (B, "w")]])
    assert found.within == {(0, 1): (A,)}
    assert found.following == {(0, 0): (A,), (1, 0): (), (1, 1): ()}


def test_a_task_with_the_same_data_twice_does_not_wait_for_itself() -> None:
    assert dependencies([[(A, "r"), (A, "w")]]).within == {}
