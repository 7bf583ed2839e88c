"""The demo, scene by scene. Each says what it does, does it with real processes, and checks what came of it."""

from __future__ import annotations

import secrets
import time

from streamhub.cli.demo import checks, text
from streamhub.cli.demo.actors import Actor, Cast
from streamhub.cli.demo.narrator import Narrator

TEXT_RUN, COUNT_RUN = "chapter-1", "for-ever"
PACE_SECONDS = "0.03"

# Words of the text at which things happen.
CUT_AT = 45
BACK_AT = 85
KILL_AT = 130
# A slow machine must not let the first producer finish before it is killed.
HOLD_AT = 170


class Play:
    """One performance. ``failures`` holds what went wrong."""

    def __init__(self, cast: Cast, narrator: Narrator) -> None:
        self._cast = cast
        self._say = narrator
        mark = secrets.token_hex(2)  # the backend may hold an earlier demo's streams
        self._text_key, self._count_key = f"demo:{mark}:alice", f"demo:{mark}:count"
        self._words = text.words(text.load())
        self.failures: list[str] = []

    async def perform(self) -> None:
        """Play every scene."""
        producer, first, second = await self._begin()
        counter = await self._cast.role("the counting producer", "count", self._count_key, COUNT_RUN, PACE_SECONDS)
        listener = await self._cast.role("its subscriber", "subscribe", self._count_key, COUNT_RUN, "start")
        back = await self._cut_and_resume(first, second)
        await self._cancel(counter, listener)
        await self._take_over(producer, first)
        await self._check(first, second, back)

    async def _begin(self) -> tuple[Actor, Actor, Actor]:
        self._say.scene(f"A producer streams {len(self._words)} words; two subscribers read along.")
        producer = await self._producer("the producer", PACE_SECONDS, str(HOLD_AT))
        first = await self._subscriber("subscriber 1", "start")
        second = await self._subscriber("subscriber 2", "start")
        generation = await producer.until_fact("generation")
        self._say.line(
            f"the producer is process {producer.pid}, its stream {self._text_key!r}, generation {generation}"
        )
        self._say.line(f"subscribers 1 and 2 are the processes {first.pid} and {second.pid}")
        await first.until_words(12)
        self._say.quote("subscriber 1 reads", first)
        return producer, first, second

    async def _producer(self, name: str, pace: str, hold_after: str) -> Actor:
        return await self._cast.role(name, "produce", self._text_key, TEXT_RUN, pace, hold_after)

    async def _subscriber(self, name: str, after: str) -> Actor:
        return await self._cast.role(name, "subscribe", self._text_key, TEXT_RUN, after)

    async def _cut_and_resume(self, first: Actor, second: Actor) -> Actor:
        self._say.scene("Subscriber 2 is cut off in the middle, and comes back with its cursor.")
        await second.until_words(CUT_AT)
        await second.kill()
        self._say.line(f"kill -9 {second.pid}: all that is left of it is the offset of its last chunk, {second.offset}")
        self._say.quote("it had read", second)
        await first.until_words(BACK_AT)
        self._say.line(f"nobody else noticed: subscriber 1 is at word {first.words}")
        back = await self._subscriber("subscriber 2, again,", second.offset)
        await back.until_words(1)
        self._say.line(f"a new process, {back.pid}, subscribes after {second.offset}: what was missed, then live")
        self._say.quote("it goes on with", back)
        return back

    async def _cancel(self, counter: Actor, listener: Actor) -> None:
        self._say.scene("A third process cancels another stream's producer.")
        await counter.until_fact("generation")
        await listener.until_words(10)
        self._say.line(
            f"process {counter.pid} counts for ever in the stream {self._count_key!r}; it knows of no canceller"
        )
        command = ["cancel", self._count_key, "--reason", "enough", "--by", "demo", "--wait", "10", "--json"]
        self._say.line("$ streamhub " + " ".join(command))
        asked = time.monotonic()
        canceller = await self._cast.command("the canceller", command)
        await canceller.finish()
        self._expect(canceller.facts.get("state") == "cancelled", "the cancel was not carried out")
        await counter.finish()
        self._expect(counter.facts.get("cancelled") == "enough", "the counting producer was not cancelled")
        await listener.finish()
        self._expect(listener.facts.get("end") == "cancelled", "the subscriber did not learn of the cancel")
        gone = time.monotonic() - asked
        self._say.line(f"the producer stopped, its subscriber finished after {listener.words} numbers, in {gone:.1f} s")
        numbers = [f"{number} " for number in range(1, listener.words + 1)]
        self._complain("the counting's subscriber", listener.received, numbers)

    async def _take_over(self, producer: Actor, first: Actor) -> None:
        self._say.scene("The producer is killed; another process takes over and continues the text.")
        await first.until_words(KILL_AT)
        await producer.kill()
        killed = time.monotonic()
        self._say.line(
            f"kill -9 {producer.pid} at word {first.words}: no end was written; its lease runs out by itself"
        )
        self._say.quote("subscriber 1 waits after", first)
        read = first.words  # more may follow, and then the successor's
        successor = await self._producer("the successor", "0.01", "0")
        done = await successor.until_fact("done")
        waited = time.monotonic() - killed
        self._say.line(f"process {successor.pid} has the lease {waited:.1f} s later, and learns from history() that")
        self._say.line(f"{done} words are stored: it goes on with word {done + 1}, as {self._generation(successor)}")
        self._expect(done >= read, "the history holds fewer words than a subscriber has read")
        self._expect(await successor.finish() == 0, "the successor failed")

    def _generation(self, producer: Actor) -> str:
        return f"generation {producer.facts['generation']}"

    async def _check(self, first: Actor, second: Actor, back: Actor) -> None:
        self._say.scene("Did every word arrive, once and in order?")
        for actor in (first, back):
            await actor.finish()
            self._expect(actor.facts.get("end") == "completed", f"{actor.name} did not see the end")
        received = [*second.received, *back.received]
        self._complain("subscriber 1", first.received, self._words)
        self._complain("subscriber 2", received, self._words)
        self._say.line(f"subscriber 1 read {first.words} words from one process")
        self._say.line(f"subscriber 2 read {second.words} + {back.words} words from two processes")
        both = checks.generations(first.received)
        self._say.line(f"the words come from {len(both)} generations: {', '.join(both)}")
        self._expect(len(both) == 2, "there was no takeover")

    def _complain(self, name: str, received: list[checks.Received], words: list[str]) -> None:
        for fault in checks.faults(received, words):
            self._fail(f"{name}: {fault}")

    def _expect(self, fact: bool, otherwise: str) -> None:
        if not fact:
            self._fail(otherwise)

    def _fail(self, what: str) -> None:
        self.failures.append(what)
        self._say.failure(what)
