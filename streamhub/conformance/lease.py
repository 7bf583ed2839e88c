"""Leases: one producer at a time, by the server's clock (L, the part that the lease manager alone must show)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import cancel_everywhere
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import SLACK, eventually
from streamhub.errors import BackendUnavailableError, LeaseHeldError
from streamhub.protocols import Backend, LeaseManager
from streamhub.types import Holder, Lease

HOUR = 3600.0
LONG = 60.0


def owner() -> str:
    """Return a fresh owner's name: one for each acquire, kept for its retries."""
    return secrets.token_hex(8)


async def try_acquire(backend: Backend, key: str, *, run: str = "run-1", ttl_seconds: float = LONG) -> Lease | None:
    """Acquire as a new owner; None if it is held."""
    try:
        return await backend.leases.acquire(key, owner=owner(), run=run, ttl_seconds=ttl_seconds)
    except LeaseHeldError:
        return None


async def holder_of(leases: LeaseManager, key: str) -> Holder | None:
    """Say who holds a lease."""
    (holder,) = await leases.holders([key])
    return holder


class LeaseTests(ContractTests):
    """L: leases."""

    # L1

    async def test_of_concurrent_acquisitions_exactly_one_wins(self, harness: Harness) -> None:
        """L1: "Of N concurrent acquisitions exactly one wins" [c]."""
        backends = [await harness.make() for _ in range(4)]
        for _ in range(10):
            key = harness.unique_key()
            attempts = await asyncio.gather(*(try_acquire(backends[number % 4], key) for number in range(20)))
            winners = [lease for lease in attempts if lease is not None]
            assert len(winners) == 1
            holder = await holder_of(backends[0].leases, key)
            assert holder is not None
            assert holder.generation == winners[0].generation

    async def test_of_concurrent_acquisitions_in_two_processes_exactly_one_wins(self, harness: Harness) -> None:
        """L1: the same between processes [c]."""
        backend = await harness.make()
        async with harness.process() as peer:

            async def attempt_there(key: str) -> Lease | None:
                try:
                    return await peer.call("leases.acquire", key, owner=owner(), run="there", ttl_seconds=LONG)
                except LeaseHeldError:
                    return None

            for _ in range(10):
                key = harness.unique_key()
                here = [try_acquire(backend, key) for _ in range(5)]
                there = [attempt_there(key) for _ in range(5)]
                attempts = await asyncio.gather(*here, *there)
                assert len([lease for lease in attempts if lease is not None]) == 1

    async def test_after_expiry_exactly_one_of_many_takes_over(self, harness: Harness) -> None:
        """L1: also when they wait for a dead producer's lease to run out [c]."""
        key = harness.unique_key()
        backends = [await harness.make() for _ in range(3)]
        ttl = harness.ttl_seconds(backends[0])
        dead = await try_acquire(backends[0], key, ttl_seconds=ttl)
        assert dead is not None
        won = asyncio.Event()

        async def wait_for_it(backend: Backend) -> Lease | None:
            while not won.is_set():
                if lease := await try_acquire(backend, key):
                    won.set()
                    return lease
                await asyncio.sleep(0.01)
            return await try_acquire(backend, key)

        attempts = await asyncio.gather(*(wait_for_it(backends[number % 3]) for number in range(9)))
        winners = [lease for lease in attempts if lease is not None]
        assert len(winners) == 1
        assert winners[0].generation > dead.generation

    async def test_leases_of_different_keys_are_independent(self, harness: Harness) -> None:
        """L1: a lease is of one key."""
        backend = await harness.make()
        keys = [harness.unique_key() for _ in range(10)]
        leases = [await try_acquire(backend, key) for key in keys]
        assert None not in leases
        found = await backend.leases.holders([keys[3], harness.unique_key("free"), keys[7], keys[3]])
        generations = [None if holder is None else holder.generation for holder in found]
        expected = [None if lease is None else lease.generation for lease in (leases[3], None, leases[7], leases[3])]
        assert generations == expected

    # L2

    async def test_the_others_learn_who_holds_the_lease(self, harness: Harness) -> None:
        """L2: "the others get LeaseHeldError(generation, run, expires_in)"; `holders` says the same."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        lease = await one.leases.acquire(key, owner="first", run="run:é/1", ttl_seconds=LONG)
        assert (lease.key, lease.owner, lease.run, lease.ttl_seconds) == (key, "first", "run:é/1", LONG)
        with pytest.raises(LeaseHeldError) as caught:
            await two.leases.acquire(key, owner="second", run="run-2", ttl_seconds=LONG)
        held = caught.value
        assert (held.key, held.generation, held.run) == (key, lease.generation, "run:é/1")
        assert LONG / SLACK < held.expires_in <= LONG
        holder = await holder_of(two.leases, key)
        assert holder is not None
        assert (holder.generation, holder.run) == (lease.generation, "run:é/1")
        assert LONG / SLACK < holder.expires_in <= LONG

    # L3

    async def test_renewed_lease_outlives_three_times_its_time(self, harness: Harness) -> None:
        """L3: "Begin each lease's time anew; True if it is still owned"; nobody else gets it meanwhile."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        ttl = harness.ttl_seconds(one)
        lease = await one.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=ttl)
        clock = asyncio.get_running_loop().time
        start = clock()
        while clock() - start < 3 * ttl:
            assert list(await one.leases.renew([lease])) == [True]
            assert await try_acquire(two, key) is None
            await asyncio.sleep(ttl / 6)
        assert list(await one.leases.renew([lease])) == [True]

    async def test_renewal_begins_the_whole_time_anew(self, harness: Harness) -> None:
        """L3: a renewal gives as much time as the acquisition did."""
        key = harness.unique_key()
        backend = await harness.make()
        ttl = 4 * harness.ttl_seconds(backend)
        lease = await backend.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=ttl)
        await eventually(
            lambda: holder_of(backend.leases, key), lambda held: held is None or held.expires_in < 0.8 * ttl
        )
        assert list(await backend.leases.renew([lease])) == [True]
        holder = await holder_of(backend.leases, key)
        assert holder is not None
        assert 0.8 * ttl < holder.expires_in <= ttl

    # L4

    async def test_lease_that_is_not_renewed_can_be_taken_within_its_time(self, harness: Harness) -> None:
        """L4: "can be taken over within the lease time-to-live"; its former owner has definitely lost it."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        ttl = harness.ttl_seconds(one)
        dead = await one.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=ttl)
        taken = await eventually(lambda: try_acquire(two, key), within=ttl * SLACK)
        assert taken is not None
        assert taken.generation > dead.generation
        assert list(await one.leases.renew([dead])) == [False]

    async def test_killed_processs_lease_can_be_taken_within_its_time(self, harness: Harness) -> None:
        """L4: the holder is killed (SIGKILL); before its time is over nobody gets the lease, after it anybody [c]."""
        key = harness.unique_key()
        backend = await harness.make()
        ttl = 2 * harness.ttl_seconds(backend)
        async with harness.process() as peer:
            dead: Lease = await peer.call("leases.acquire", key, owner=owner(), run="run-1", ttl_seconds=ttl)
            peer.kill()
            await peer.gone()
        assert await try_acquire(backend, key) is None
        taken = await eventually(lambda: try_acquire(backend, key), within=ttl * SLACK)
        assert taken is not None
        assert taken.generation > dead.generation

    async def test_expired_lease_is_not_revived_by_its_renewal(self, harness: Harness) -> None:
        """L4: "False if it is definitely lost or has expired", though nobody took it."""
        key = harness.unique_key()
        backend = await harness.make()
        ttl = harness.ttl_seconds(backend)
        lease = await backend.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=ttl)
        await eventually(lambda: holder_of(backend.leases, key), lambda held: held is None, within=ttl * SLACK)
        assert list(await backend.leases.renew([lease])) == [False]
        assert await holder_of(backend.leases, key) is None

    # L7

    async def test_release_lets_another_acquire_at_once(self, harness: Harness) -> None:
        """L7: "Give the lease up": the next acquisition, elsewhere, wins without waiting."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        lease = await one.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=LONG)
        await one.leases.release(lease)
        assert await holder_of(two.leases, key) is None
        later = await try_acquire(two, key)
        assert later is not None
        assert later.generation > lease.generation
        assert list(await one.leases.renew([lease])) == [False]

    async def test_release_is_harmless_when_repeated_or_stale(self, harness: Harness) -> None:
        """L7: "harmless when it is stale, or released already"."""
        key = harness.unique_key()
        backend = await harness.make()
        lease = await backend.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=LONG)
        for _ in range(3):
            await backend.leases.release(lease)
        later = await backend.leases.acquire(key, owner=owner(), run="run-2", ttl_seconds=LONG)
        await backend.leases.release(lease)
        assert list(await backend.leases.renew([later])) == [True]
        await backend.leases.release(Lease(harness.unique_key("never"), 3, "nobody", "run-1", LONG))

    # L11

    @pytest.mark.parametrize("skew", [HOUR, -HOUR])
    async def test_lease_time_is_the_servers(self, harness: Harness, skew: float) -> None:
        """L11: "Times are the server's": an hour of client clock skew neither frees a lease nor prolongs it."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        ttl = harness.ttl_seconds(one)
        lease = await one.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=ttl)
        with harness.skewed_clock(skew):
            with pytest.raises(LeaseHeldError) as caught:
                await two.leases.acquire(key, owner=owner(), run="run-2", ttl_seconds=LONG)
            assert 0 < caught.value.expires_in <= ttl
            assert list(await one.leases.renew([lease])) == [True]
            await one.leases.release(lease)
            skewed = await two.leases.acquire(key, owner=owner(), run="run-2", ttl_seconds=ttl)
        assert skewed.generation > lease.generation
        holder = await holder_of(one.leases, key)
        assert holder is not None
        assert 0 < holder.expires_in <= ttl
        taken = await eventually(lambda: try_acquire(one, key), within=ttl * SLACK)
        assert taken is not None
        assert taken.generation > skewed.generation

    @pytest.mark.parametrize("skew", [HOUR, -HOUR])
    async def test_lease_time_is_the_servers_for_a_skewed_process(self, harness: Harness, skew: float) -> None:
        """L11: the same for a process whose clock is an hour off all its life [c]."""
        key = harness.unique_key()
        backend = await harness.make()
        ttl = 2 * harness.ttl_seconds(backend)
        async with harness.process(clock_skew_seconds=skew) as peer:
            lease = await backend.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=LONG)
            with pytest.raises(LeaseHeldError) as caught:
                await peer.call("leases.acquire", key, owner=owner(), run="run-2", ttl_seconds=LONG)
            assert LONG / SLACK < caught.value.expires_in <= LONG
            await backend.leases.release(lease)
            theirs: Lease = await peer.call("leases.acquire", key, owner=owner(), run="run-2", ttl_seconds=ttl)
            assert theirs.generation > lease.generation
            taken = await eventually(lambda: try_acquire(backend, key), within=ttl * SLACK)
            assert taken is not None
            assert taken.generation > theirs.generation

    # L12

    async def test_acquire_retried_after_a_lost_reply_gives_the_same_lease(self, harness: Harness) -> None:
        """L12: "repeated with the same owner …, the call gives the same lease and generation"."""
        key = harness.unique_key()
        faults = Faults()
        backend = faulty(await harness.make(), faults)
        me = owner()
        faults.lose_reply("acquire")
        with pytest.raises(BackendUnavailableError):
            await backend.leases.acquire(key, owner=me, run="run-1", ttl_seconds=LONG)
        stored = await holder_of(backend.leases, key)
        assert stored is not None
        again = [await backend.leases.acquire(key, owner=me, run="run-1", ttl_seconds=LONG) for _ in range(3)]
        assert {lease.generation for lease in again} == {stored.generation}
        assert list(await backend.leases.renew(again)) == [True, True, True]

    async def test_acquire_sent_twice_at_once_gives_one_lease(self, harness: Harness) -> None:
        """L12: the retry may meet the first attempt."""
        one, two = await harness.make(), await harness.make()
        for _ in range(10):
            key, me = harness.unique_key(), owner()
            calls = [one.leases, two.leases] * 2
            both = await asyncio.gather(
                *(leases.acquire(key, owner=me, run="run-1", ttl_seconds=LONG) for leases in calls)
            )
            assert len({lease.generation for lease in both}) == 1
            assert list(await one.leases.renew([both[0]])) == [True]

    @pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
    async def test_acquire_cancelled_at_any_await_can_be_repeated(self, harness: Harness, late: bool) -> None:
        """L12: "a cancelled call may or may not have happened": repeated, it is one lease, and can be released."""
        leases = (await harness.make()).leases
        key = harness.unique_key()
        given: list[int] = []

        async def repeat() -> None:
            lease = await leases.acquire(key, owner="me", run="run-1", ttl_seconds=LONG)
            given.append(lease.generation)
            assert list(await leases.renew([lease])) == [True]
            await leases.release(lease)
            assert await holder_of(leases, key) is None

        await cancel_everywhere(
            lambda: leases.acquire(key, owner="me", run="run-1", ttl_seconds=LONG), repeat, late=late
        )
        assert given == sorted(set(given))

    async def test_acquire_retried_does_not_depose_its_own_producer(self, harness: Harness) -> None:
        """L12: "with its time begun anew": `void` and `above` of the retry change nothing for the same owner."""
        key, me = harness.unique_key(), owner()
        backend = await harness.make()
        ttl = 4 * harness.ttl_seconds(backend)
        lease = await backend.leases.acquire(key, owner=me, run="run-1", ttl_seconds=ttl, above=5, void=5)
        await eventually(
            lambda: holder_of(backend.leases, key), lambda held: held is None or held.expires_in < 0.8 * ttl
        )
        again = await backend.leases.acquire(key, owner=me, run="run-1", ttl_seconds=ttl, above=5, void=5)
        assert again.generation == lease.generation
        holder = await holder_of(backend.leases, key)
        assert holder is not None
        assert holder.expires_in > 0.8 * ttl
        assert list(await backend.leases.renew([lease])) == [True]

    async def test_acquire_repeated_after_its_lease_ended_is_a_new_one(self, harness: Harness) -> None:
        """L12: "while it holds the lease" only: afterwards the generation is greater than all given before."""
        key, me = harness.unique_key(), owner()
        backend = await harness.make()
        first = await backend.leases.acquire(key, owner=me, run="run-1", ttl_seconds=LONG)
        await backend.leases.release(first)
        second = await backend.leases.acquire(key, owner=me, run="run-1", ttl_seconds=harness.ttl_seconds(backend))
        assert second.generation > first.generation
        await eventually(lambda: holder_of(backend.leases, key), lambda held: held is None)
        third = await backend.leases.acquire(key, owner=me, run="run-1", ttl_seconds=LONG)
        assert third.generation > second.generation

    # L13

    async def test_lease_of_an_ended_run_counts_as_released(self, harness: Harness) -> None:
        """L13: "A lease of a generation <= `void` counts as released"; a later one does not."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        left = await one.leases.acquire(key, owner=owner(), run="run-1", ttl_seconds=LONG)
        with pytest.raises(LeaseHeldError):
            await two.leases.acquire(key, owner=owner(), run="run-2", ttl_seconds=LONG, void=left.generation - 1)
        new = await two.leases.acquire(
            key, owner=owner(), run="run-2", ttl_seconds=LONG, above=left.generation, void=left.generation
        )
        assert new.generation > left.generation
        assert list(await two.leases.renew([left, new])) == [False, True]
        with pytest.raises(LeaseHeldError) as caught:
            await one.leases.acquire(key, owner=owner(), run="run-3", ttl_seconds=LONG, void=left.generation)
        assert caught.value.generation == new.generation

    async def test_of_concurrent_acquisitions_of_a_void_lease_exactly_one_wins(self, harness: Harness) -> None:
        """L13: `void` names a generation, so it never voids the winner's lease [c]."""
        backends = [await harness.make() for _ in range(3)]
        for _ in range(10):
            key = harness.unique_key()
            left = await try_acquire(backends[0], key)
            assert left is not None
            outcomes = await asyncio.gather(
                *(
                    backend.leases.acquire(
                        key,
                        owner=owner(),
                        run="run-2",
                        ttl_seconds=LONG,
                        above=left.generation,
                        void=left.generation,
                    )
                    for backend in backends * 2
                ),
                return_exceptions=True,
            )
            _assert_one_winner(outcomes)

    async def test_lease_left_behind_by_an_ended_run_does_not_delay_the_next_one(self, harness: Harness) -> None:
        """L13: the producer could not release its lease; the next run begins at once, elsewhere."""
        key = harness.unique_key()
        faults = Faults()
        one = await harness.hub(faulty(await harness.make(), faults), lease_seconds=LONG)
        faults.fail("release", times=float("inf"))
        async with one.produce(key, run="first") as producer:
            await producer.send("a")
        assert await holder_of(one.leases, key) is not None
        two = await harness.hub(lease_seconds=LONG)
        async with asyncio.timeout(LONG / SLACK), two.produce(key, run="second") as producer:
            await producer.send("b")
        info = await two.info(key)
        assert info is not None
        assert (info.run, info.state) == ("second", "ended")


def _assert_one_winner(outcomes: Sequence[Lease | BaseException]) -> None:
    winners = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, LeaseHeldError)]
    assert (len(winners), len(refused)) == (1, len(outcomes) - 1), outcomes
