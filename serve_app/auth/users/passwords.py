"""Passwords: hashed slowly on purpose, beside the event loop, a few at a time.

Argon2id with 19 MiB, two passes and one lane: what OWASP's cheat sheet asks for, and one core busy
for 25 to 30 ms on a cloud machine. The threads that hash run at a lower priority than the rest of
the process, and only so many passwords may wait for them: a flood of logins costs idle time and
19 MiB a thread, and nobody else's requests. In turn, a login waits while engines use every core,
which is why it is not made to cost more.

A password is 8 to 1024 characters of any kind, as NIST SP 800-63B has it: no rules about which.
It is normalised to NFC (as RFC 8265's OpaqueString is), so that an ``ü`` typed on one machine is
the ``ü`` of another.
"""

import asyncio
import base64
import json
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from serve_app.errors import RateLimited

T = TypeVar("T")
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
MIN_CHARS, MAX_CHARS = 8, 1_024
MAX_ESCAPED_BYTES = 7_168
"""Bytes of a password as escaped JSON: what can be set fits into the body of a login."""

NICE = 10
"""How much lower the priority of the hashing threads is; 19 is the lowest."""

THREAD_NAME = "password"
FIRST_GUESS_S = 0.03
SMOOTHING = 0.5


def normalised(password: str) -> str:
    """Return a new password in the form in which it is hashed.

    Raises:
        ValueError: it is too short or too long.
    """
    text = unicodedata.normalize("NFC", password)
    if not MIN_CHARS <= len(text) <= MAX_CHARS:
        raise ValueError(f"a password has {MIN_CHARS} to {MAX_CHARS} characters")
    if len(json.dumps(text)) > MAX_ESCAPED_BYTES:
        raise ValueError(f"a password has at most {MAX_ESCAPED_BYTES} bytes as escaped JSON")
    return text


def dummy(hasher: PasswordHasher) -> str:
    """Return a hash that no password has and that takes as long to verify as a real one."""
    salt, digest = (
        base64.b64encode(bytes(size)).rstrip(b"=").decode()
        for size in (hasher.salt_len, hasher.hash_len)
    )
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


class Passwords:
    """The threads that hash, and the places before them.

    Args:
        threads: passwords hashed at once.
        max_waiting: callers that may wait for that.
        hasher: the Argon2 parameters for new hashes; a hash names its own.
    """

    def __init__(self, *, threads: int, max_waiting: int, hasher: PasswordHasher = HASHER) -> None:
        self._hasher, self._dummy = hasher, dummy(hasher)
        self._threads, self._places = threads, threads + max_waiting
        self._taken = 0
        self._hash_s = FIRST_GUESS_S
        self._pool = ThreadPoolExecutor(threads, THREAD_NAME, initializer=_step_back)

    @contextmanager
    def place(self) -> Iterator["Place"]:
        """Lend a place at the hashing threads; without one nothing is hashed.

        Raises:
            RateLimited: all are taken; it says when those before will be done.
        """
        if self._taken >= self._places:
            raise RateLimited(
                "Too many logins at once; try again shortly.",
                retry_after_s=self._hash_s * self._taken / self._threads,
                refused_by="login",
            )
        self._taken += 1
        try:
            yield Place(self)
        finally:
            self._taken -= 1

    def close(self) -> None:
        """End the threads; what still waits is cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def outdated(self, stored: str) -> bool:
        """Return whether ``stored`` was made with other parameters than a new hash."""
        return self._hasher.check_needs_rehash(stored)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` does in a hashing thread; once begun it runs to its end."""
        done, took_s = await asyncio.wrap_future(self._pool.submit(_timed, work))
        self._hash_s += SMOOTHING * (took_s - self._hash_s)
        return done

    def hashed(self, password: str) -> str:
        """Return the hash of ``password``; slow."""
        return self._hasher.hash(password)

    def fits(self, stored: str | None, password: str) -> bool:
        """Return whether ``password`` has the hash ``stored``; None is nobody's. Slow."""
        try:
            return self._hasher.verify(stored or self._dummy, password)
        except (VerifyMismatchError, InvalidHashError):
            return False


class Place:
    """One place at the hashing threads, lent by :meth:`Passwords.place`."""

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def hash(self, password: str) -> str:
        """Return the hash of a new, normalised password."""
        return await self._passwords.run(lambda: self._passwords.hashed(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Return whether ``password`` has the hash ``stored``.

        None, for a user who is not there, takes as long as any other wrong password.
        """
        text = unicodedata.normalize("NFC", password)
        return await self._passwords.run(lambda: self._passwords.fits(stored, text))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began_s = time.perf_counter()
    return work(), time.perf_counter() - began_s


def _step_back() -> None:
    """Lower the priority of this thread, where each has its own and a sandbox lets it."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(nice + NICE, 19))
