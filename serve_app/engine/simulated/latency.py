"""Continuous batching in virtual time, without clock, await or I/O.

A step begins where the last one ended and lasts as long as its work: the prompt tokens it reads
at ``prefill_tokens_per_s``, plus ``decode_ms`` and ``decode_ms_per_sequence`` for each further
sequence that decodes. What it computed exists when it ends.

Rank is (priority, arrival): the smallest is served first and preempted last.

Source: vLLM 0.32, v1/core/sched/scheduler.py; Yu et al., Orca (OSDI 2022); Kwon et al.,
PagedAttention (SOSP 2023).
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from serve_app.model_settings import Simulated

CHUNK_TOKENS = 512
"""Prompt tokens one step reads at most (chunked prefill), so that decoding goes on meanwhile."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside the engine.

    Attributes:
        arrival: arrival number, unique in one engine.
        prompt_tokens: tokens of the prompt (>= 1).
        reply_tokens: tokens after which it is finished (>= 1).
        priority: smaller is more urgent.
        generated: reply tokens so far; they survive a preemption.
        cached: tokens whose keys and values are in the KV cache.
        blocks: KV blocks it holds.
    """

    arrival: int
    prompt_tokens: int
    reply_tokens: int
    priority: int = 0
    generated: int = 0
    cached: int = 0
    blocks: int = 0

    @property
    def known_tokens(self) -> int:
        """Return the tokens that must be in the cache before the next one can be made."""
        return self.prompt_tokens + self.generated

    @property
    def decoding(self) -> bool:
        """Return whether only its newest token is still to be computed."""
        return self.generated > 0 and self.known_tokens - self.cached == 1

    @property
    def finished(self) -> bool:
        """Return whether the reply is complete."""
        return self.generated >= self.reply_tokens


def rank(sequence: Sequence) -> tuple[int, int]:
    """Return the place of a sequence; the smallest goes first."""
    return sequence.priority, sequence.arrival


@dataclass(slots=True)
class Scheduler:
    """The state of one engine: who waits, who runs, what the step under way computes.

    Raises ValueError when the KV cache is smaller than one block.

    Attributes:
        waiting: sequences without blocks, by rank.
        running: the batch, by rank.
        used_blocks: KV blocks held by the batch.
        due_ms: when the step under way ends; None when nothing is under way.
        preemptions: sequences that lost their blocks, since the start.
        prompt_tokens: tokens of prompts read to the end, since the start.
        generation_tokens: tokens generated, since the start.
    """

    model: Simulated
    max_num_seqs: int
    max_model_len: int
    waiting: list[Sequence] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)
    used_blocks: int = 0
    due_ms: float | None = None
    preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    _plan: dict[Sequence, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.total_blocks:
            block_tokens = self.model.kv_block_tokens
            raise ValueError(f"kv_tokens must be at least kv_block_tokens ({block_tokens})")

    @property
    def total_blocks(self) -> int:
        """Return how many whole blocks the KV cache has."""
        return self.model.kv_tokens // self.model.kv_block_tokens

    @property
    def context_tokens(self) -> int:
        """Return the tokens, prompt and reply, beyond which a sequence can never finish."""
        return min(self.max_model_len, self.total_blocks * self.model.kv_block_tokens)

    @property
    def kv_usage(self) -> float:
        """Return the share of the KV cache in use, 0 to 1."""
        return self.used_blocks / self.total_blocks

    @property
    def idle(self) -> bool:
        """Return whether there is nothing to do before the next ``add``."""
        return self.due_ms is None and not self.waiting

    def add(self, sequence: Sequence) -> None:
        """Put a new sequence into the line; it may join the batch when the next step begins.

        Raises:
            ValueError: prompt and reply exceed ``context_tokens``; nothing is left behind.
        """
        if sequence.prompt_tokens + sequence.reply_tokens > self.context_tokens:
            raise ValueError(f"{sequence} exceeds {self.context_tokens} tokens")
        insort(self.waiting, sequence, key=rank)

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is; its blocks are free at once. Never raises."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._free(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def step(self, now_ms: float) -> list[Sequence]:
        """End the step that is due and begin the next; return who got a token, by rank.

        Returns nothing while the step under way is not due. A late call loses no time: the next
        step begins when the last one ended, so a caller catches up by calling again.
        """
        if self.due_ms is None:
            self._begin(now_ms)
            return []
        if now_ms < self.due_ms:
            return []
        served = self._end()
        self._begin(self.due_ms)
        return served

    def _end(self) -> list[Sequence]:
        """Make what the step computed true; release who is finished."""
        served = [seq for seq in self.running if self._compute(seq, self._plan.get(seq, 0))]
        self.generation_tokens += len(served)
        for sequence in served:
            if sequence.finished:
                self._free(sequence)
        self.running = [seq for seq in self.running if not seq.finished]
        return served

    def _compute(self, sequence: Sequence, tokens: int) -> bool:
        """Cache ``tokens`` more of a sequence; return whether that gave a new reply token."""
        sequence.cached += tokens
        if not tokens or sequence.cached < sequence.known_tokens:
            return False
        if not sequence.generated:
            self.prompt_tokens += sequence.prompt_tokens
        sequence.generated += 1
        return True

    def _begin(self, at_ms: float) -> None:
        """Choose the work of the step that starts at ``at_ms`` and when it will be done."""
        if not self._grow():
            self._admit()
        self._plan = dict(self._share())
        decoding = sum(seq.decoding for seq in self._plan)
        prefill_tokens = sum(self._plan.values()) - decoding
        lasts_ms = prefill_tokens * 1_000 / self.model.prefill_tokens_per_s
        if decoding:
            lasts_ms += self.model.decode_ms + (decoding - 1) * self.model.decode_ms_per_sequence
        self.due_ms = at_ms + lasts_ms if self._plan else None

    def _share(self) -> Iterator[tuple[Sequence, int]]:
        """Yield who computes how many tokens: one if decoding, else what the chunk has left."""
        chunk = CHUNK_TOKENS
        for sequence in self.running:
            if sequence.decoding:
                yield sequence, 1
            elif chunk:
                tokens = min(chunk, sequence.known_tokens - sequence.cached)
                chunk -= tokens
                yield sequence, tokens

    def _grow(self) -> bool:
        """Give every sequence the blocks for its next token; return whether one was preempted."""
        before = self.preemptions
        at = 0
        while at < len(self.running):
            sequence = self.running[at]
            if self._needs(sequence) <= sequence.blocks:
                at += 1
            elif self.used_blocks < self.total_blocks:
                sequence.blocks += 1
                self.used_blocks += 1
            else:
                self._preempt()
        return self.preemptions > before

    def _admit(self) -> None:
        """Move the head of the line into the batch while a seat and all its blocks are free."""
        while self.waiting and len(self.running) < self.max_num_seqs:
            needs = self._needs(self.waiting[0])
            if self.used_blocks + needs > self.total_blocks:
                return
            sequence = self.waiting.pop(0)
            sequence.blocks = needs
            self.used_blocks += needs
            insort(self.running, sequence, key=rank)

    def _preempt(self) -> None:
        """Send the last of the batch back to the line, where its rank puts it in front."""
        sequence = self.running.pop()
        self._free(sequence)
        sequence.cached = 0
        insort(self.waiting, sequence, key=rank)
        self.preemptions += 1

    def _free(self, sequence: Sequence) -> None:
        self.used_blocks -= sequence.blocks
        sequence.blocks = 0

    def _needs(self, sequence: Sequence) -> int:
        """Return the blocks that hold everything a sequence must have cached."""
        return -(-sequence.known_tokens // self.model.kv_block_tokens)
