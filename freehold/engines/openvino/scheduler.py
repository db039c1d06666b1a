"""What the engine computes next: pure decisions between one step and the next.

A step either fills (chunks of what is known but not computed: prompts, and what was
preempted) or decodes (every filled sequence by one token). The two alternate while there
is work for both, so that a long prompt holds running streams up for one chunk at a time.

Nothing is ever lost: a sequence that must make room for others keeps its tokens, waits at
the head of its tenant's queue and is filled again, as far as the cache forgot it. The
oldest never makes room for want of blocks, so there is always progress.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from freehold.core.binding import Priority
from freehold.core.errors import Code, Fault, UserError
from freehold.engines.openvino.blocks import BlockPool
from freehold.engines.openvino.sequence import Sequence
from freehold.engines.openvino.turns import Turns


@dataclass(frozen=True, slots=True)
class Limits:
    """`turn_tokens` is what a preempted sequence may choose before its place can be
    claimed once more. Weights say what a token costs a tenant's counter."""

    max_running: int = 64
    chunk_tokens: int = 256
    patience_s: float = 2.0
    batch_patience_s: float = 10.0
    turn_tokens: int = 32
    prompt_weight: float = 1.0
    output_weight: float = 2.0


class Kind(StrEnum):
    FILL = "fill"
    DECODE = "decode"


class Item(NamedTuple):
    """Tokens `start` to `start + length` of a sequence; its blocks cover them."""

    sequence: Sequence
    start: int
    length: int
    chooses: bool  # reaches the end of what is known: the model chooses a token after it


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    kind: Kind
    items: list[Item]

    @property
    def choosing(self) -> list[Sequence]:
        """The sequences that get a token, in the order in which `advance` takes them."""
        return [item.sequence for item in self.items if item.chooses]


class Scheduler:
    """Owns every sequence from `add` until it is full, finished or aborted.

    One thread calls it: `plan`, compute, `advance`, and in between whatever came up. A
    planned step that was never computed may be planned again.
    """

    def __init__(self, blocks: BlockPool, limits: Limits) -> None:
        self._blocks = blocks
        self._limits = limits
        self._turns = Turns(limits.patience_s, limits.batch_patience_s)
        self._sequences: dict[str, Sequence] = {}
        self._running: dict[str, Sequence] = {}
        self._planned: Step | None = None
        self._arrivals = 0
        self._fills = 0  # filling steps so far
        self._filled_last = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._sequences) - len(self._running)

    def add(self, sequence: Sequence) -> None:
        """Raises `UserError` when it could not be computed even alone."""
        if sequence.id in self._sequences:
            raise Fault(f"sequence {sequence.id} is in the scheduler already")
        self._refuse_impossible(sequence)
        self._arrivals += 1
        sequence.arrival = self._arrivals
        sequence.chain = self._blocks.chain(sequence.salt, sequence.adapter)
        self._sequences[sequence.id] = sequence
        self._turns.wait(sequence)

    def abort(self, sequence_id: str) -> bool:
        """Forgets a sequence wherever it is, also while a step with it is computed.
        False when there is none, as after its end."""
        sequence = self._sequences.pop(sequence_id, None)
        if sequence is None:
            return False
        if self._running.pop(sequence_id, None) is None:
            self._turns.remove(sequence)
        else:
            self._release(sequence)
            self._turns.leave(sequence)
        return True

    def finish(self, sequence_id: str) -> bool:
        """Ends a sequence whose answer is whole. What it computed stays findable."""
        return self.abort(sequence_id)

    def plan(self, now_s: float) -> Step | None:
        """The next step, None when there is nothing to do. Admits and preempts."""
        self._turns.tick(now_s)
        self._admit(now_s)
        ready: list[Sequence] = []
        filling: list[Sequence] = []
        for sequence in self._running.values():
            (ready if sequence.pending == 1 else filling).append(sequence)
        items: list[Item] = []
        kind = Kind.DECODE
        if ready and (self._filled_last or not filling):
            items = self._decode(ready)
        if not items:
            kind = Kind.FILL
            items = self._fill([one for one in filling if one.id in self._running])
        self._planned = Step(kind, items) if items else None
        return self._planned

    def advance(self, step: Step, tokens: Iterable[int]) -> list[Sequence]:
        """Notes that a step was computed, and the token chosen for each of `choosing`
        (any for one that was aborted meanwhile). Returns those that are full with it:
        they have ended as by `finish`."""
        if step is not self._planned:
            raise Fault("a step was advanced that is not the one planned last")
        chosen = list(tokens)
        if len(chosen) != sum(item.chooses for item in step.items):
            raise Fault("a step was advanced with more or fewer tokens than it chose")
        self._planned = None
        self._filled_last = step.kind is Kind.FILL
        self._fills += self._filled_last
        place = 0
        full = []
        for sequence, start, length, chooses in step.items:
            place += chooses
            if self._running.get(sequence.id) is not sequence:
                continue
            self._compute(sequence, start + length)
            if self._filled_last:
                self._turns.tenant(sequence).filled = self._fills
            if chooses:
                sequence.tokens.append(chosen[place - 1])
                sequence.turn += 1
                self._turns.charge(sequence, self._limits.output_weight)
                if sequence.is_full:
                    full.append(sequence)
        for sequence in full:
            self.finish(sequence.id)
        return full

    def check(self) -> None:
        """Raises `Fault` unless every block and sequence is where it should be."""
        self._blocks.check(sequence.blocks for sequence in self._sequences.values())
        waiting = [sequence.id for sequence in self._turns]
        if sorted([*waiting, *self._running]) != sorted(self._sequences):
            raise Fault("a sequence is lost, or both waiting and running")

    def _refuse_impossible(self, sequence: Sequence) -> None:
        room = self._blocks.count * self._blocks.block_size
        if not sequence.tokens:
            raise UserError(Code.INVALID_VALUE, "The prompt has no tokens; send some text.")
        if sequence.prompt_length >= sequence.max_total:
            raise UserError(
                Code.CONTEXT_LENGTH_EXCEEDED,
                f"The prompt has {sequence.prompt_length} tokens and the limit for prompt and "
                f"answer together is {sequence.max_total}; shorten the prompt.",
            )
        if sequence.max_total > room:
            raise UserError(
                Code.CONTEXT_LENGTH_EXCEEDED,
                f"The prompt of {sequence.prompt_length} tokens and an answer of up to "
                f"{sequence.max_total - sequence.prompt_length} need more than the {room} "
                "tokens that the engine has memory for; shorten the prompt or lower "
                "max_tokens.",
            )

    # admission

    def _admit(self, now_s: float) -> None:
        has_claimed = False
        while (sequence := self._turns.next(now_s)) is not None:
            if len(self._running) < self._limits.max_running and self._enter(sequence, now_s):
                continue
            if has_claimed or not self._claim(sequence, now_s):
                return
            has_claimed = True

    def _enter(self, sequence: Sequence, now_s: float) -> bool:
        """Admits a sequence if blocks for all its known tokens are free, and one more for
        each that runs, so that admitting it does not soon preempt another."""
        size = self._blocks.block_size
        found: list[int] = []
        if sequence.chain is not None:  # one token must be left to compute, to choose the next
            full = (len(sequence.tokens) - 1) // size
            found = self._blocks.find(sequence.chain.keys(sequence.tokens, full))
        fresh = self._blocks.blocks_for(len(sequence.tokens)) - len(found)
        table = self._blocks.take(found, fresh, spare=len(self._running))
        if table is None:
            return False
        sequence.blocks = table
        sequence.computed = len(found) * size
        sequence.turn = 0
        sequence.due = self._fills + -(-sequence.pending // self._limits.chunk_tokens)
        self._turns.admit(sequence, now_s)
        if sequence.admissions == 0:
            sequence.cached_tokens = sequence.computed
            self._turns.charge(sequence, sequence.pending * self._limits.prompt_weight)
        sequence.admissions += 1
        self._running[sequence.id] = sequence
        return True

    def _claim(self, sequence: Sequence, now_s: float) -> bool:
        """Preempts one that runs for one that waited too long, if the waiting one may."""
        priorities = self._turns.may_claim_from(now_s)
        if not priorities:
            return False
        claimant = self._turns.tenant(sequence)

        def is_open(other: Sequence) -> bool:
            tenant = self._turns.tenant(other)
            has_more = tenant.running > 1 or tenant is claimant
            had_turn = other.turn >= self._limits.turn_tokens
            is_first = other.admissions == 1
            return (
                other.priority in priorities
                and (had_turn or (is_first and has_more))
                and (has_more or tenant.served > claimant.served)
            )

        candidates = [other for other in self._running.values() if is_open(other)]
        if not candidates:
            return False
        self._preempt(max(candidates, key=self._by_running))
        return True

    def _by_running(self, sequence: Sequence) -> tuple[int, float, str, bool, int]:
        tenant = self._turns.tenant(sequence)
        is_batch = sequence.priority is Priority.BATCH
        return tenant.running, tenant.served, tenant.name, is_batch, sequence.arrival

    # composition

    def _decode(self, ready: list[Sequence]) -> list[Item]:
        size = self._blocks.block_size
        for sequence in ready:
            if sequence.computed == len(sequence.blocks) * size:
                self._grow(sequence)
        return [
            Item(sequence, sequence.computed, 1, True)
            for sequence in ready
            if sequence.id in self._running
        ]

    def _grow(self, sequence: Sequence) -> None:
        """A block more, if need be that of another; or else it makes room itself."""
        while sequence.id in self._running:
            if self._blocks.available:
                sequence.blocks.append(self._blocks.allocate())
                return
            self._preempt(self._least_worthy())

    def _least_worthy(self) -> Sequence:
        """The last to come of the tenant with the most blocks, but never the oldest."""
        held: Counter[str] = Counter()
        for sequence in self._running.values():
            held[sequence.tenant] += len(sequence.blocks)
        oldest = min(self._running.values(), key=lambda one: one.arrival)
        others = (one for one in self._running.values() if one is not oldest)
        return max(others, key=lambda one: (held[one.tenant], *self._by_running(one)[1:]))

    def _fill(self, filling: list[Sequence]) -> list[Item]:
        """Chunks for whoever was filled longest ago among the tenants, and of its
        sequences the one that is due first: a short prompt passes a long one that came
        shortly before. Others join, of the same adapter first: adapters are computed as
        rows as long as the longest, so of others only what leaves half of them used."""
        filling.sort(key=lambda one: (self._turns.tenant(one).filled, one.due, one.arrival))
        first = filling[0].adapter if filling else None
        filling.sort(key=lambda one: one.adapter != first)
        items: list[Item] = []
        rows: Counter[str | None] = Counter()
        total = longest = 0
        for sequence in filling:
            length = min(sequence.pending, self._limits.chunk_tokens - total)
            if length == 0:
                break
            row = rows[sequence.adapter] + length
            slots = len(rows) + (sequence.adapter not in rows)
            if slots * max(longest, row) > 2 * (total + length):
                continue
            rows[sequence.adapter] = row
            longest = max(longest, row)
            total += length
            chooses = length == sequence.pending
            items.append(Item(sequence, sequence.computed, length, chooses))
        return items

    # a sequence's life

    def _compute(self, sequence: Sequence, end: int) -> None:
        """Its tokens up to `end` are computed; blocks full with that become findable."""
        size = self._blocks.block_size
        if sequence.chain is not None:
            for index in range(sequence.computed // size, end // size):
                key = sequence.chain.key(sequence.tokens, index)
                self._blocks.register(sequence.blocks[index], key)
        sequence.computed = end

    def _preempt(self, sequence: Sequence) -> None:
        del self._running[sequence.id]
        self._release(sequence)
        self._turns.wait(sequence, first=True)
        self._turns.leave(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._blocks.free(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0
