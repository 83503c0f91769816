"""`name` becomes `full_name`, while two versions run and only half of the shards are as far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .models import Customer1, Customer2, Customer3, Customer4

if TYPE_CHECKING:
    from .fleet import Fleet, Process


class Book:
    """What should be there, written by one process and read by all."""

    def __init__(self) -> None:
        self.customers: dict[int, str] = {}

    def work(self, *processes: Process) -> None:
        for process in processes:
            first = len(self.customers)
            added = {first + n: f"customer {first + n}" for n in range(16)}
            process.add(added)
            self.customers |= added
            process.rename(first // 2, f"renamed {first}")
            self.customers[first // 2] = f"renamed {first}"
            for reader in processes:
                assert reader.read() == self.customers


def test_a_column_is_renamed_step_by_step(fleet: Fleet) -> None:
    book = Book()
    one = fleet.start(Customer1)
    book.work(one)

    fleet.upgrade("r2", "s0", "s2")
    book.work(one, fleet.start(Customer1))
    fleet.upgrade("r2")
    two = fleet.start(Customer2)
    book.work(one, two)

    fleet.upgrade("r3", "s1", "s3")
    book.work(two, fleet.start(Customer2))
    fleet.upgrade("r3")
    three = fleet.start(Customer3)
    book.work(two, three)

    fleet.upgrade("r4", "s0")
    book.work(three, fleet.start(Customer3))
    fleet.upgrade("r4")
    four = fleet.start(Customer4)
    # Version 3 reads what version 4 writes, in the column that both have.
    book.work(three, four)

    fleet.upgrade("r5", "s1", "s2")
    book.work(four, fleet.start(Customer4))
    fleet.upgrade("r5")
    book.work(four)
