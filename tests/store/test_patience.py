"""A time limit that tells the store's silence from our own."""

import asyncio
import threading
import time

import pytest

from serve_app.store.patience import Patience
from tests.stores import timed


async def test_silence_ends_at_the_limit() -> None:
    """Whoever does not answer is given up, not much later than said."""
    with timed() as took, pytest.raises(TimeoutError):
        async with Patience(0.05):
            await asyncio.Event().wait()
    assert 0.05 <= took[0] < 0.25


async def test_an_answer_that_lay_there_while_we_were_busy_counts() -> None:
    """The event loop stood still past the limit; the answer had come in time."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    async def ask() -> str:
        async with Patience(0.03):
            return await answer

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)  # it asks
    threading.Timer(0.01, loop.call_soon_threadsafe, [answer.set_result, "here"]).start()
    time.sleep(0.05)  # noqa: ASYNC251 - this is the stall
    assert await asking == "here"


async def test_an_answer_in_several_steps_counts_while_the_loop_is_busy() -> None:
    """Each turn of the loop serves many others; what is there is read all the same."""
    loop = asyncio.get_running_loop()
    busy = True

    def work() -> None:
        time.sleep(0.015)
        if busy:
            loop.call_soon(work)

    async def ask() -> str:
        async with Patience(0.03):
            for _ in range(4):
                await asyncio.sleep(0)  # one turn each, as sending and reading take
            return "here"

    loop.call_soon(work)
    try:
        assert await ask() == "here"
    finally:
        busy = False


async def test_turns_are_bounded_in_time() -> None:
    """A loop that never gets done does not make the limit endless."""
    loop = asyncio.get_running_loop()
    busy = True

    def work() -> None:
        time.sleep(0.02)
        if busy:
            loop.call_soon(work)

    loop.call_soon(work)
    with timed() as took, pytest.raises(TimeoutError):
        async with Patience(0.05):
            await asyncio.Event().wait()
    busy = False
    assert took[0] < 0.3


async def test_a_cancelled_wait_is_cancelled() -> None:
    """A client that hangs up is not mistaken for a store that is silent."""

    async def wait() -> None:
        async with Patience(5):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
