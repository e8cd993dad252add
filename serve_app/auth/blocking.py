"""When an address that shows wrong credentials is blocked, and for how long. Pure.

``store/lua/shared/blocking.lua`` does the same inside the store; a test holds the two equal.

    failure   a wrong credential; it counts for ``ttl_seconds``, at exactly that age no more
    round     ``max_failed_attempts`` failures that count; the last one begins a block
    block     30 s in the first round, doubling with each to 3600 s; what fails meanwhile is
              refused with the time left, does not count and prolongs nothing
    after it  the next round starts from no failures; rounds are remembered for a day
    success   forgets everything

The table of them has two parts, each bounded, each losing its oldest change first. Who was never
blocked is only in the first part: however many strangers fail once, none of them pushes a block
out of the second. That takes as many whole rounds as the part is long, each from an address of its
own. Nor do remembered blocks, however many, keep a new address from being counted.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Self

from serve_app.auth_settings import BruteForce

SECOND_US = 1_000_000
FIRST_BLOCK_S, LONGEST_BLOCK_S = 30, 3_600
ROUNDS_KEPT_S = 86_400
"""Seconds after a block's end for which its round still counts."""
BLOCKED_KEPT_US = (ROUNDS_KEPT_S + LONGEST_BLOCK_S) * SECOND_US
"""Time after which a change of somebody once blocked matters in no case; >= every ttl."""
LEAST_KEPT_US = 60 * SECOND_US
"""Time for which any change is kept, for other gateways to hear of a success."""
SPARE = 16
"""Old subjects that one step forgets at most, besides one for each that it may have added."""
UNKNOWN = "unknown"
_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=8_192)
def subject(address: str) -> str:
    """Return who answers for ``address``: an IPv4 address, or the /64 of an IPv6 one.

    An IPv4 address inside an IPv6 one is the IPv4 address. Whatever is no address is ``unknown``,
    and all of that is one subject.
    """
    try:
        if ":" not in address:
            return inet_ntop(AF_INET, inet_pton(AF_INET, address))
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return UNKNOWN
    if packed.startswith(_MAPPED):
        return inet_ntop(AF_INET, packed[len(_MAPPED) :])
    return inet_ntop(AF_INET6, packed[:8] + bytes(8)) + "/64"


@dataclass(frozen=True, slots=True)
class Record:
    """What is held against one subject; times are us of the store's clock.

    Attributes:
        rounds: blocks so far, each within a day of the one before.
        until_us: when the last one ends or ended; 0 without rounds.
        failures_us: the failures of the round that has begun, oldest first.
    """

    rounds: int = 0
    until_us: int = 0
    failures_us: tuple[int, ...] = ()


CLEAN = Record()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one failure did.

    Attributes:
        record: what is held against the subject now.
        left_us: time left of the block that refused it; 0 if it counted.
        block_us: length of the block that it began; 0 if none.
    """

    record: Record
    left_us: int = 0
    block_us: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as the store holds it.

    Attributes:
        changed_us: when it last changed; never the same for two changes, never going back.
    """

    changed_us: int
    record: Record

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the entry that ``text`` holds: numbers in the order of the attributes."""
        changed_us, rounds, until_us, *failures_us = map(int, text.split())
        return cls(changed_us, Record(rounds, until_us, tuple(failures_us)))

    def to_text(self) -> str:
        """Return the entry as the store writes it."""
        record = self.record
        numbers = (self.changed_us, record.rounds, record.until_us, *record.failures_us)
        return " ".join(map(str, numbers))


NOTHING = Entry(0, CLEAN)


def block_us(rounds: int) -> int:
    """Return how long the block of the given round (from 1) lasts."""
    return min(FIRST_BLOCK_S << min(rounds - 1, 7), LONGEST_BLOCK_S) * SECOND_US


def fail(record: Record, at_us: int, rules: BruteForce) -> Verdict:
    """Return what a failure at ``at_us`` does; one told late counts as the last that was told."""
    at_us = max(at_us, *record.failures_us[-1:], 0)
    if at_us < record.until_us:
        return Verdict(record, left_us=record.until_us - at_us)
    remembered = at_us < record.until_us + ROUNDS_KEPT_S * SECOND_US
    rounds, until_us = (record.rounds, record.until_us) if remembered else (0, 0)
    since_us = at_us - rules.ttl_seconds * SECOND_US
    failures_us = (*(one for one in record.failures_us if one > since_us), at_us)
    if len(failures_us) < rules.max_failed_attempts:
        return Verdict(Record(rounds, until_us, failures_us))
    length_us = block_us(rounds + 1)
    return Verdict(Record(rounds + 1, at_us + length_us), block_us=length_us)


def fail_all(record: Record, failures_us: Iterable[int], rules: BruteForce) -> Verdict:
    """Return what several failures do, one after the other: the last block of those begun."""
    said, begun_us = Verdict(record), 0
    for at_us in failures_us:
        said = fail(said.record, at_us, rules)
        begun_us = said.block_us or begun_us
    return Verdict(said.record, said.left_us, begun_us)


@dataclass(frozen=True, slots=True)
class Note:
    """What one gateway has to say of a subject: perhaps a success, then failures.

    Attributes:
        cleared: whether a valid credential came first.
        ages_us: how long ago each failure was, oldest first.
    """

    subject: str
    cleared: bool = False
    ages_us: tuple[int, ...] = ()


@dataclass(slots=True)
class Table:
    """Entries by subject, in two parts that do not push each other out; last change last."""

    suspects: OrderedDict[str, Entry] = field(default_factory=OrderedDict)
    blocked: OrderedDict[str, Entry] = field(default_factory=OrderedDict)

    def get(self, name: str) -> Entry:
        """Return the entry of a subject; NOTHING if there is none."""
        return self.suspects.get(name) or self.blocked.get(name) or NOTHING

    def put(self, name: str, entry: Entry) -> None:
        """Write an entry into the part it belongs to; call :meth:`forget` after."""
        here, there = self.suspects, self.blocked
        if entry.record.rounds:
            here, there = there, here
        there.pop(name, None)
        here[name] = entry
        here.move_to_end(name)

    def next_change_us(self, now_us: int) -> int:
        """Return the time that the next change is given: now, but after every change before."""
        last = [next(reversed(part.values())) for part in (self.suspects, self.blocked) if part]
        return max(now_us, *(entry.changed_us + 1 for entry in last), 0)

    def forget(self, most: int, budget: int, *, now_us: int = 0, ttl_us: int = 0) -> None:
        """Drop the oldest of each part beyond ``most``, and what is too old to matter.

        At most ``budget`` of each part. ``now_us`` 0: nothing is too old.
        """
        suspect_us = max(ttl_us, LEAST_KEPT_US)
        for part, kept_us in ((self.suspects, suspect_us), (self.blocked, BLOCKED_KEPT_US)):
            for _ in range(min(budget, len(part))):
                oldest = next(iter(part.values()))
                if len(part) <= most and oldest.changed_us > now_us - kept_us:
                    break
                part.popitem(last=False)

    def note(
        self, notes: Sequence[Note], now_us: int, rules: BruteForce, most: int
    ) -> list[tuple[Verdict, Entry]]:
        """Write down what a gateway says; return what each note did and left."""
        told = []
        changed_us = self.next_change_us(now_us)
        for note in notes:
            entry = self.get(note.subject)
            record = CLEAN if note.cleared else entry.record
            said = fail_all(record, [now_us - age_us for age_us in note.ages_us], rules)
            if note.cleared or said.record != entry.record:
                entry = Entry(changed_us, said.record)
                changed_us += 1
                self.put(note.subject, entry)
            told.append((said, entry))
        ttl_us = rules.ttl_seconds * SECOND_US
        self.forget(most, len(notes) + SPARE, now_us=now_us, ttl_us=ttl_us)
        return told
