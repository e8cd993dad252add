"""The scheduler, on a clock we move."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.simulated import Scheduler, Sequence
from serve_app.model_settings import Simulated

MODEL = Simulated(
    prefill_tokens_per_s=1_000.0, decode_ms=10.0, decode_ms_per_sequence=2.0, kv_tokens=4_096
)
Token = tuple[float, int, int]


def scheduler(max_num_seqs: int = 8, **settings: float) -> Scheduler:
    return Scheduler(MODEL.model_copy(update=settings), max_num_seqs, 2_048)


def play(engine: Scheduler, now_ms: float = 0.0) -> list[Token]:
    """Step until idle; return (when, arrival, number) of every token."""
    tokens: list[Token] = []
    while not engine.idle:
        served = engine.step(now_ms)
        tokens += [(now_ms, one.arrival, one.generated) for one in served]
        now_ms = now_ms if engine.due_ms is None else engine.due_ms
    return tokens


def test_a_lone_request() -> None:
    """The first token comes when the prompt is read, each further one a decode step later."""
    engine = scheduler()
    engine.add(Sequence(0, prompt_tokens=100, reply_tokens=3))
    assert play(engine) == [(100, 0, 1), (110, 0, 2), (120, 0, 3)]
    assert (engine.prompt_tokens, engine.generation_tokens, engine.used_blocks) == (100, 3, 0)


def test_a_batch_decodes_together() -> None:
    """Prompts share the prefill rate; each further sequence lengthens everybody's decode step."""
    engine = scheduler()
    for arrival in range(3):
        engine.add(Sequence(arrival, prompt_tokens=20, reply_tokens=2))
    assert play(engine) == [(60, n, 1) for n in range(3)] + [(74, n, 2) for n in range(3)]


def test_a_long_prompt_is_read_in_chunks() -> None:
    """A running sequence gets its token between two chunks of somebody's long prompt."""
    engine = scheduler()
    engine.add(Sequence(0, prompt_tokens=100, reply_tokens=4))
    engine.step(0)
    engine.add(Sequence(1, prompt_tokens=1_000, reply_tokens=1))
    assert play(engine) == [
        (100, 0, 1),
        (622, 0, 2),  # 512 tokens of the prompt and one decode
        (1_120, 0, 3),  # the other 488 and one decode
        (1_120, 1, 1),
        (1_130, 0, 4),
    ]


def test_a_full_batch_makes_wait() -> None:
    """No more than ``max_num_seqs`` run; the next one starts when one has finished."""
    engine = scheduler(max_num_seqs=1)
    for arrival in range(2):
        engine.add(Sequence(arrival, prompt_tokens=10, reply_tokens=2))
    assert play(engine) == [(10, 0, 1), (20, 0, 2), (30, 1, 1), (40, 1, 2)]


def test_the_urgent_overtake_only_in_the_line() -> None:
    """A smaller priority is admitted first, and does not interrupt who already runs."""
    engine = scheduler(max_num_seqs=1)
    for arrival, priority in enumerate((5, 5, 1)):
        engine.add(Sequence(arrival, 10, 1, priority))
        engine.step(0)
    assert [arrival for _, arrival, _ in play(engine)] == [0, 2, 1]


@pytest.mark.parametrize(
    ("priorities", "victim"),
    [
        ((0, 0), 1),  # the youngest
        ((1, 0), 0),  # the least urgent, though older
    ],
)
def test_a_full_cache_preempts(priorities: tuple[int, int], victim: int) -> None:
    """When blocks run out, the last by rank gives up its own, keeps its tokens, recomputes."""
    engine = scheduler(kv_tokens=64)
    pair = [Sequence(n, 32, 8, priority) for n, priority in enumerate(priorities)]
    for sequence in pair:
        engine.add(sequence)
    tokens = play(engine)
    last_ms = {arrival: at for at, arrival, _ in tokens}
    other = 1 - victim
    assert engine.preemptions == 1
    # Both wait 64 ms for their first token; the other then decodes alone.
    assert last_ms[other] == 64 + 7 * 10
    # The victim reads its prompt and its one token again, which gives the second of eight.
    assert last_ms[victim] == last_ms[other] + 33 + 6 * 10
    assert engine.prompt_tokens == 64  # recomputing is not counted twice


def test_the_preempted_go_first() -> None:
    """A preempted sequence is back in the batch before those that arrived after it."""
    engine = scheduler(kv_tokens=64)
    for arrival in range(3):
        engine.add(Sequence(arrival, 32, 8))
    order = [arrival for _, arrival, number in play(engine) if number == 8]
    assert order == [0, 1, 2]


def test_an_aborted_sequence_leaves_at_once() -> None:
    """Its seat and blocks serve the next one when the step under way has ended."""
    engine = scheduler(max_num_seqs=1)
    first, second = Sequence(0, 10, 100), Sequence(1, 10, 1)
    engine.add(first)
    engine.step(0)
    engine.add(second)
    engine.abort(first)
    assert (engine.running, engine.used_blocks) == ([], 0)
    assert play(engine) == [(20, 1, 1)]


def test_aborting_twice_or_late_is_harmless() -> None:
    """Who is not there any more takes nothing away from the others."""
    engine = scheduler()
    sequence = Sequence(0, 10, 1)
    engine.add(sequence)
    play(engine)
    engine.abort(sequence)
    assert (engine.used_blocks, engine.idle) == (0, True)


def test_what_can_never_fit_is_not_taken() -> None:
    """Prompt and reply beyond the context or the cache are refused and leave nothing behind."""
    engine = scheduler(kv_tokens=60)  # three whole blocks
    with pytest.raises(ValueError, match="48 tokens"):
        engine.add(Sequence(0, 40, 9))
    assert engine.idle
    engine.add(Sequence(1, 40, 8))
    assert len(play(engine)) == 8


def test_a_late_caller_loses_no_time() -> None:
    """Steps begin when the last one ended, however late ``step`` is called."""
    engine = scheduler()
    engine.add(Sequence(0, 10, 3))
    engine.step(0)
    assert [len(engine.step(1_000)) for _ in range(4)] == [1, 1, 1, 0]
    assert engine.idle


SEQUENCES = st.lists(
    st.tuples(
        st.integers(1, 60),  # prompt
        st.integers(1, 30),  # reply
        st.integers(0, 2),  # priority
        st.integers(0, 40),  # steps after which it arrives
        st.none() | st.integers(0, 60),  # steps after which it is aborted
    ),
    min_size=1,
    max_size=12,
)


@given(sequences=SEQUENCES, max_num_seqs=st.integers(1, 6), block=st.integers(1, 20))
def test_whatever_comes(sequences, max_num_seqs, block) -> None:
    """Blocks add up, bounds hold, replies are complete and, among equals, first come first served.

    Replies are those of everybody who was not aborted; time never goes back.
    """
    engine = scheduler(max_num_seqs, kv_tokens=128, kv_block_tokens=block)
    arrivals = sorted(sequences, key=lambda one: one[3])
    made = [Sequence(n, p, r, prio) for n, (p, r, prio, _, _) in enumerate(arrivals)]
    first_ms: dict[Sequence, float] = {}
    now_ms, turn = 0.0, 0
    while not engine.idle or turn <= 100:
        for sequence, (_, _, _, arrives, aborts) in zip(made, arrivals, strict=True):
            if arrives == turn:
                engine.add(sequence)
            if aborts == turn:
                engine.abort(sequence)
        before = {one: one.generated for one in made}
        for sequence in engine.step(now_ms):
            assert sequence.generated == before[sequence] + 1
            first_ms.setdefault(sequence, now_ms)
        assert engine.used_blocks == sum(one.blocks for one in made) <= engine.total_blocks
        assert len(engine.running) <= max_num_seqs
        assert engine.due_ms is None or engine.due_ms >= now_ms
        now_ms, turn = engine.due_ms or now_ms, turn + 1
    kept = [one for one, told in zip(made, arrivals, strict=True) if told[4] is None]
    assert all(one.generated == one.reply_tokens for one in kept)
    assert engine.used_blocks == 0
    for priority in range(3):
        equals = [first_ms[one] for one in kept if one.priority == priority]
        assert all(earlier <= later for earlier, later in pairwise(equals))
