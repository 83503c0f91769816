from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlalchemy_shards import (
    CompositePartitioner,
    HashPartitioner,
    IdGenerator,
    Keyspace,
    ListPartitioner,
    RangePartitioner,
    WorkerLease,
)
from sqlalchemy_shards.errors import ConfigurationError, MissingShardKey, UnknownShard
from sqlalchemy_shards.models.id_sequence import AHEAD_MILLISECONDS_MAX, IdSequence, SteadyTime
from sqlalchemy_shards.topology.generated_id import (
    FIRST_MILLISECOND,
    IDS_PER_MILLISECOND,
    LAST_MILLISECOND,
    bucket_of_id,
    parts_of,
)

HASHED = Keyspace(HashPartitioner(64))
NOW = datetime(2027, 3, 4, tzinfo=timezone.utc).timestamp()


def forks(test):
    """A test that forks; the test run itself may have threads, of which Python warns."""
    ignored = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() here")(ignored(test))


class Clock:
    """A clock that a test sets."""

    def __init__(self, seconds: float = NOW) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def in_forked_child(work) -> str:
    """What ``work`` returns, or the error that it raises, in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os.kill(os.getpid(), signal.SIGKILL)  # nothing of the test run is to be cleaned up here
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


# -- buckets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partitioner", "keys"),
    [
        (HashPartitioner(), [0, 1, 2**40, "a", b"b"]),
        (HashPartitioner(4096), [0, 1, 2**40]),
        (HashPartitioner(16, transform=lambda key: key[:2]), ["eu-1", "us-2"]),
        (RangePartitioner([100, 200]), [-5, 100, 199, 10**12]),
        (ListPartitioner({"west": ["Goa"]}, default="north"), ["Goa", "Delhi"]),
        (
            CompositePartitioner(
                ListPartitioner({"w": ["Goa"], "n": ["Delhi"]}), HashPartitioner(8)
            ),
            [("Goa", 1), ("Delhi", 2)],
        ),
    ],
)
def test_an_id_carries_the_bucket_of_its_key(partitioner, keys) -> None:
    next_id = IdGenerator(Keyspace(partitioner), worker=9)

    for key in keys:
        made = next_id(key)

        parts = key if isinstance(key, tuple) else (key,)
        assert bucket_of_id(made) == partitioner.bucket_of(parts)
        assert next_id.parts_of(made).worker == 9


def test_an_id_tells_when_it_was_made() -> None:
    made = IdGenerator(HASHED, worker=0, clock=Clock())(1)

    # The monotonic clock goes on where the clock stands still.
    late = IdGenerator.parts_of(made).time - datetime(2027, 3, 4, tzinfo=timezone.utc)
    assert timedelta() <= late < timedelta(minutes=1)


def test_a_key_without_a_bucket_has_no_id() -> None:
    next_id = IdGenerator(Keyspace(ListPartitioner({"west": ["Goa"]})), worker=0)

    with pytest.raises(UnknownShard):
        next_id("Delhi")
    with pytest.raises(MissingShardKey):
        next_id(None)


def test_a_keyspace_with_more_buckets_than_an_id_can_carry_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"4097 buckets.*at most 4096"):
        IdGenerator(Keyspace(HashPartitioner(4097)), worker=0)


def test_something_that_is_no_keyspace_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="takes a Keyspace"):
        IdGenerator(HashPartitioner(8), worker=0)  # type: ignore[arg-type]


def test_a_generator_of_a_named_keyspace_cannot_be_called_by_itself() -> None:
    with pytest.raises(ConfigurationError, match="by name only"):
        IdGenerator("default", worker=0)(1)


# -- uniqueness and order ----------------------------------------------------------------------


def test_many_ids_of_one_key_are_different_and_ascend() -> None:
    next_id = IdGenerator(HASHED, worker=0)

    made = [next_id(1) for _ in range(10_000)]

    assert made == sorted(set(made))


@given(
    readings=st.lists(st.integers(-4_000_000, 4_000_000), min_size=1, max_size=30),
    keys=st.lists(st.integers(0, 5), min_size=1, max_size=10),
)
def test_ids_never_repeat_nor_go_back_when_the_clock_does(readings, keys) -> None:
    clock = Clock()
    next_id = IdGenerator(HASHED, worker=3, clock=clock)
    made: dict[int, list[int]] = {}

    for reading in readings:
        clock.seconds = NOW + reading / 1000
        for key in keys:
            made.setdefault(HASHED.partitioner.bucket_of((key,)), []).append(next_id(key))

    for ids in made.values():
        assert ids == sorted(set(ids))


@given(
    steps=st.lists(
        st.tuples(st.integers(-5_000, 5_000), st.integers(0, 3_000)), min_size=1, max_size=50
    )
)
def test_the_steady_time_never_goes_back_and_follows_what_elapses(steps) -> None:
    wall, elapsed = 1_000_000, 0
    steady = SteadyTime(wall, elapsed)
    before = wall

    for step, passed in steps:
        wall, elapsed = wall + step, elapsed + passed
        now = steady.at(wall, elapsed)

        assert now >= max(wall, before + passed)
        before = now


@given(
    takes=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), min_size=1, max_size=2_000),
    buckets=st.integers(8, 16),
)
@settings(max_examples=50)
def test_a_sequence_gives_each_id_once_and_in_order(takes, buckets) -> None:
    """By structure: what a bucket takes next is always greater, and different of another's."""
    sequence = IdSequence(buckets, worker=5)
    now, made = FIRST_MILLISECOND + 10, []

    for bucket, passed in takes:
        now += passed
        taken = sequence.take(bucket, now)

        assert taken is not None
        assert parts_of(taken).bucket == bucket
        assert now <= parts_of(taken).milliseconds <= now + AHEAD_MILLISECONDS_MAX
        made.append(taken)
    assert len(set(made)) == len(made)


def test_a_bucket_runs_ahead_of_the_clock_by_a_second_at_most() -> None:
    sequence = IdSequence(8, worker=0)
    there_are = IDS_PER_MILLISECOND * (AHEAD_MILLISECONDS_MAX + 1)

    made = [sequence.take(2, FIRST_MILLISECOND) for _ in range(there_are)]

    assert None not in made
    assert sequence.take(2, FIRST_MILLISECOND) is None
    assert sequence.take(3, FIRST_MILLISECOND) is not None
    assert sequence.take(2, FIRST_MILLISECOND + 1) is not None


def test_two_workers_never_make_one_id() -> None:
    clock = Clock()
    generators = [IdGenerator(HASHED, worker=n, clock=clock) for n in (0, 1, 126, 127)]

    made = [next_id(1) for next_id in generators for _ in range(2_000)]

    assert len(set(made)) == len(made)


def test_clocks_that_stand_still_are_refused_in_the_end(monkeypatch) -> None:
    monkeypatch.setattr("sqlalchemy_shards.models.id_generator.WAITS_MAX", 2)
    next_id = IdGenerator(HASHED, worker=0, clock=Clock(), elapsed=lambda: 0.0)
    for _ in range(IDS_PER_MILLISECOND * (AHEAD_MILLISECONDS_MAX + 1)):
        next_id(1)

    with pytest.raises(ConfigurationError, match="clocks stand still"):
        next_id(1)


@pytest.mark.parametrize("year", [1970, 2024, 2090])
def test_a_clock_of_another_century_is_refused(year) -> None:
    clock = Clock(datetime(year, 12, 31, tzinfo=timezone.utc).timestamp())

    with pytest.raises(ConfigurationError, match="outside the years 2025 to 2089"):
        IdGenerator(HASHED, worker=0, clock=clock)(1)


def test_threads_share_a_generator() -> None:
    next_id = IdGenerator(HASHED, worker=0)

    with ThreadPoolExecutor(8) as threads:
        made = [*threads.map(lambda n: [next_id(n % 3) for _ in range(1_000)], range(8))]

    everything = [each for ids in made for each in ids]
    assert len(set(everything)) == len(everything)
    assert all(ids == sorted(ids) for ids in made)


SAMPLED = int(os.environ.get("SHARDS_TEST_IDS", "200000"))


def test_a_sample_of_a_hundred_million_ids_has_no_repeat() -> None:
    """A hundred million in 12 hours over all buckets; of each stretch, a part is really made."""
    sequence = IdSequence(1024, worker=1)
    steps, made, before = 100, 0, -1
    now = FIRST_MILLISECOND

    for _ in range(steps):
        now += 12 * 3_600_000 // steps
        batch = [sequence.take(n % 1024, now + n // 8192) for n in range(SAMPLED // steps)]

        made += len(set(batch))
        assert None not in batch
        assert min(batch) > before
        before = max(batch)
    assert made == SAMPLED // steps * steps
    assert parts_of(before).milliseconds < LAST_MILLISECOND


# -- processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [-1, 128, 1.0, "1", None, True])
def test_a_number_that_no_worker_can_have_is_refused(number) -> None:
    with pytest.raises(ConfigurationError, match="is no worker number"):
        IdGenerator(HASHED, worker=number)


def test_a_callable_is_asked_once_when_the_first_id_is_made() -> None:
    asked = []
    next_id = IdGenerator(HASHED, worker=lambda: asked.append(1) or 7)

    before = len(asked)
    made = [next_id(n) for n in range(3)]

    assert before == 0
    assert asked == [1]
    assert {parts_of(each).worker for each in made} == {7}


@forks
def test_a_forked_child_with_its_parents_number_is_refused() -> None:
    next_id = IdGenerator(HASHED, worker=4)

    said = in_forked_child(lambda: next_id(1))

    assert said.startswith("ConfigurationError: this process was forked from one that makes ids")


@forks
def test_a_forked_child_with_a_number_of_its_own_goes_on() -> None:
    parent = os.getpid()
    next_id = IdGenerator(HASHED, worker=lambda: 1 if os.getpid() == parent else 2)
    mine = next_id(1)

    theirs = int(in_forked_child(lambda: next_id(1)))

    assert theirs != mine
    assert parts_of(theirs).worker != parts_of(mine).worker


def test_a_generator_is_not_carried_into_another_process() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(IdGenerator(HASHED, worker=0))


def make_ids(worker: int) -> list[int]:
    next_id = IdGenerator(HASHED, worker=worker)
    return [next_id(n % 4) for n in range(1_000)]


@pytest.mark.slow
def test_processes_with_numbers_of_their_own_never_repeat_an_id() -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        made = [each for ids in pool.map(make_ids, range(3)) for each in ids]

    assert len(set(made)) == len(made) == 3_000


# -- numbers of one machine --------------------------------------------------------------------


def test_leases_of_one_directory_give_different_numbers(tmp_path) -> None:
    leases = [WorkerLease(range(10, 13), directory=tmp_path) for _ in range(3)]

    assert [lease() for lease in leases] == [10, 11, 12]
    assert [lease() for lease in leases] == [10, 11, 12]
    with pytest.raises(ConfigurationError, match="all 3 worker numbers"):
        WorkerLease(range(10, 13), directory=tmp_path)()


@forks
def test_a_forked_child_leases_another_number_which_ends_with_it(tmp_path) -> None:
    lease = WorkerLease(range(2), directory=tmp_path / "new")
    next_id = IdGenerator(HASHED, worker=lease)
    mine = parts_of(next_id(1)).worker

    numbers = [in_forked_child(lambda: parts_of(next_id(1)).worker) for _ in range(2)]

    assert mine == 0
    assert numbers == ["1", "1"]


@pytest.mark.parametrize("numbers", [[], [-1], [128]])
def test_a_lease_of_impossible_numbers_is_refused(numbers, tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="needs worker numbers"):
        WorkerLease(numbers, directory=tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="no worker number can be taken in"):
        WorkerLease([0], directory=tmp_path / "file" / "below")()
