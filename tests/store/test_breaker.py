"""When a server is left in peace and when it is asked again, on a clock that we move."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.store.breaker import MOVES, PROBE_S, Breaker, Event, Position
from serve_app.store.states import AWAY, COMMAND_REFUSED, OK, REFUSING

STATES = (*AWAY, *REFUSING, COMMAND_REFUSED)


def test_every_move_is_in_the_table() -> None:
    """Each position knows what each event makes of it; a move that is not there does not exist."""
    wanted = {(at, event) for at in get_args(Position) for event in get_args(Event)}
    assert set(MOVES) == wanted
    assert set(MOVES.values()) == set(get_args(Position))


@pytest.mark.parametrize("state", AWAY)
def test_one_failure_is_enough_where_nothing_can_be_had(state: str) -> None:
    """Whoever comes next is refused at once, until a probe is answered."""
    breaker = Breaker()
    breaker.failed(state, began_s=1.0)
    assert (breaker.is_cut, breaker.state) == (True, state)
    breaker.well(now_s=2.0)
    assert (breaker.is_cut, breaker.state) == (False, OK)


@pytest.mark.parametrize("state", REFUSING)
def test_calls_go_through_to_a_server_that_answers(state: str) -> None:
    """It refuses some of what it is asked, so each call tries for itself; the state is known."""
    breaker = Breaker()
    breaker.failed(state, began_s=1.0)
    assert (breaker.is_cut, breaker.state, breaker.position) == (False, state, "limping")


def test_a_server_that_comes_back_ill_is_let_through() -> None:
    """It was away and now refuses writes: what only reads works again."""
    breaker = Breaker()
    breaker.failed("unreachable", began_s=1.0)
    breaker.failed("loading", began_s=2.0)
    assert (breaker.is_cut, breaker.state) == (True, "loading")
    breaker.failed("out_of_memory", began_s=3.0)
    assert (breaker.is_cut, breaker.state) == (False, "out_of_memory")


def test_old_news_are_no_news() -> None:
    """A call that was sent before the server was seen well, and fails after, tells nothing."""
    breaker = Breaker()
    breaker.failed("timeout", began_s=1.0)
    breaker.well(now_s=2.0)
    breaker.failed("timeout", began_s=1.9)
    assert not breaker.is_cut
    breaker.failed("timeout", began_s=2.0)
    assert breaker.is_cut


def test_one_late_answer_among_many_is_no_silence() -> None:
    """Who has answered somebody else meanwhile is busy, not away; the late call fails alone."""
    breaker = Breaker()
    breaker.answered(now_s=1.5)
    breaker.failed("timeout", began_s=1.4)
    assert (breaker.is_cut, breaker.state) == (False, OK)
    breaker.failed("timeout", began_s=1.6)
    assert breaker.is_cut


def test_an_answer_does_not_hide_what_is_refused() -> None:
    """Reads are answered while writes are refused: the state is told all the same."""
    breaker = Breaker()
    breaker.answered(now_s=1.5)
    breaker.failed("out_of_memory", began_s=1.4)
    assert breaker.state == "out_of_memory"


def test_the_first_probe_goes_out_at_once_the_next_one_waits() -> None:
    """A hiccup costs a moment, and a server that stays away is asked five times a second."""
    breaker = Breaker()
    assert breaker.wait_s(now_s=7.0) == 0.0
    breaker.probing(now_s=7.0)
    assert breaker.wait_s(now_s=7.05) == pytest.approx(PROBE_S - 0.05)
    assert breaker.wait_s(now_s=7.0 + PROBE_S) == 0.0


@given(st.lists(st.sampled_from((*STATES, OK))))
def test_the_state_is_what_happened_last(told: list[str]) -> None:
    """Whatever comes in whatever order: cut means away, limping refusing, whole well."""
    breaker = Breaker()
    last = OK
    for now_s, state in enumerate(told):
        if state == OK:
            breaker.well(now_s)
        else:
            breaker.failed(state, began_s=now_s)
        last = last if state == COMMAND_REFUSED else state
        assert breaker.state == last
        assert breaker.is_cut == (last in AWAY)
        assert (breaker.position == "limping") == (last in REFUSING)
