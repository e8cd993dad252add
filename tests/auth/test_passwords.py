"""Passwords: what one may be, how it is hashed, and what a flood of them costs."""

import asyncio
import json
import os
import statistics
import threading
import time
import unicodedata
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher, extract_parameters

from serve_app.auth.users.passwords import (
    HASHER,
    MAX_ESCAPED_BYTES,
    NICE,
    THREAD_NAME,
    Passwords,
    dummy,
    normalised,
)
from serve_app.errors import RateLimited
from tests.accounts import PASSWORD, QUICK

SLOW = PasswordHasher(time_cost=20, memory_cost=19_456, parallelism=1)
"""A hash of some hundred milliseconds: a loop that waits for one is caught."""


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(threads=1, max_waiting=16, hasher=QUICK)
    yield made
    made.close()


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("12345678", id="eight"),
        pytest.param("        ", id="spaces"),
        pytest.param("пароль-密码-🔑", id="any script"),
        pytest.param("a\0b\nc\td\x7f", id="control characters"),
        pytest.param("x" * 1_024, id="the longest"),
        pytest.param("密" * 1_024, id="the longest, three bytes each"),
        pytest.param("🔑" * 597, id="the longest, as escaped JSON"),
    ],
)
async def test_what_a_password_may_be(passwords: Passwords, password: str) -> None:
    """8 to 1024 characters of any kind; each of them counts."""
    with passwords.place() as place:
        stored = await place.hash(normalised(password))
        assert await place.verify(stored, password)
        assert not await place.verify(stored, password[:-1])
        assert not await place.verify(stored, password + " ")


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("", id="none"),
        pytest.param("1234567", id="seven"),
        pytest.param("u\u0308" * 7, id="seven when composed"),
        pytest.param("x" * 1_025, id="too long"),
        pytest.param("🔑" * 598, id="too long for the body of a login"),
    ],
)
def test_what_a_password_may_not_be(password: str) -> None:
    """Too short or too long, and the rule is told."""
    with pytest.raises(ValueError, match="a password has"):
        normalised(password)


def test_what_can_be_set_fits_into_a_login() -> None:
    """The longest password, escaped, leaves room for the longest name in 8 KB."""
    body = json.dumps({"username": "n" * 128, "password": "x"})
    assert len(body) + MAX_ESCAPED_BYTES <= 8_192


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_an_accent_is_an_accent(passwords: Passwords, form: str) -> None:
    """A password fits however the machine composes its letters."""
    with passwords.place() as place:
        stored = await place.hash(normalised(unicodedata.normalize("NFD", "grüße-äöü")))
        assert await place.verify(stored, unicodedata.normalize(form, "grüße-äöü"))


def test_the_parameters() -> None:
    """Argon2id, one lane, and no less than OWASP asks for: 19 MiB and two passes."""
    costs = extract_parameters(HASHER.hash(PASSWORD))
    assert (costs.type.name, costs.parallelism) == ("ID", 1)
    assert costs.memory_cost >= 19_456
    assert costs.time_cost >= 2
    assert (costs.salt_len, costs.hash_len) == (16, 32)


def test_the_dummy_costs_what_a_hash_costs() -> None:
    """Nobody's hash has the parameters of a real one."""
    assert extract_parameters(dummy(HASHER)) == extract_parameters(HASHER.hash(PASSWORD))


async def test_two_hashes_of_one_password_differ(passwords: Passwords) -> None:
    """Each hash has a salt of its own."""
    with passwords.place() as place:
        assert await place.hash(PASSWORD) != await place.hash(PASSWORD)


@pytest.mark.parametrize("stored", [None, "", "plain text"])
async def test_what_is_no_hash_is_nobodys(passwords: Passwords, stored: str | None) -> None:
    """No password fits where there is no hash, or none that can be read."""
    with passwords.place() as place:
        assert not await place.verify(stored, PASSWORD)
        assert not await place.verify(stored, "")


async def test_other_parameters_are_noticed(passwords: Passwords) -> None:
    """A hash made with other parameters fits still, and is to be made anew."""
    older = PasswordHasher(time_cost=2, memory_cost=128, parallelism=1).hash(PASSWORD)
    with passwords.place() as place:
        assert await place.verify(older, PASSWORD)
        assert passwords.outdated(older)
        assert not passwords.outdated(await place.hash(PASSWORD))


async def test_nobodys_password_takes_as_long() -> None:
    """A wrong password takes as long whether there is such a user or not: medians within half."""
    passwords = Passwords(threads=1, max_waiting=1)
    took_s: dict[bool, list[float]] = {True: [], False: []}
    with passwords.place() as place:
        stored = await place.hash(PASSWORD)
        for _ in range(15):
            for known in (True, False):
                began_s = time.perf_counter()
                assert not await place.verify(stored if known else None, "wrong horse")
                took_s[known].append(time.perf_counter() - began_s)
    passwords.close()
    known_s, unknown_s = (statistics.median(took_s[known]) for known in (True, False))
    assert 1 / 1.5 < unknown_s / known_s < 1.5


async def test_the_threads_step_back(passwords: Passwords) -> None:
    """Whoever hashes has a lower priority than everything else in the process."""
    with passwords.place() as place:
        await place.hash(PASSWORD)
    threads = [one for one in threading.enumerate() if one.name.startswith(THREAD_NAME)]
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert {os.getpriority(os.PRIO_PROCESS, one.native_id or 0) for one in threads} == {
        min(ours + NICE, 19)
    }


async def test_a_place_is_given_back_however_it_ends(passwords: Passwords) -> None:
    """Places taken are lent again: after a hash, after an error, after a hang-up."""
    for _ in range(40):
        with pytest.raises(ZeroDivisionError), passwords.place():
            raise ZeroDivisionError

    async def leaving() -> None:
        with passwords.place() as place:
            await place.hash(PASSWORD)

    for _ in range(40):
        task = asyncio.create_task(leaving())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await leaving()


async def test_a_flood_is_bounded() -> None:
    """Of 200 at once, as many are hashed as have places; the rest hear when to come again."""
    passwords = Passwords(threads=1, max_waiting=3, hasher=SLOW)
    with passwords.place() as place:
        began_s = time.perf_counter()
        await place.hash(PASSWORD)
        hash_s = time.perf_counter() - began_s
    ended: list[RateLimited | None] = []

    async def one() -> None:
        try:
            with passwords.place() as place:
                assert not await place.verify(None, PASSWORD)
        except RateLimited as err:
            ended.append(err)
        else:
            ended.append(None)

    await asyncio.gather(*(one() for _ in range(200)))
    passwords.close()
    refused = [err for err in ended[:196] if err is not None]
    assert len(refused) == 196
    assert ended[196:] == [None] * 4
    assert {err.refused_by for err in refused} == {"login"}
    assert all(hash_s / 4 < (err.retry_after_s or 0) < 4 * 4 * hash_s for err in refused)


async def test_the_event_loop_never_hashes() -> None:
    """While passwords are hashed everything else goes on."""
    passwords = Passwords(threads=1, max_waiting=3, hasher=SLOW)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def one() -> None:
        with passwords.place() as place:
            assert not await place.verify(None, PASSWORD)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(one() for _ in range(4)))
    ticking.cancel()
    passwords.close()
    assert ticks > 40  # of about 1,000; a loop that hashes itself comes to 5
