"""An engine without a model: it remembers what was computed into which block, as a real
one's memory would, and looks at every step that the scheduler plans."""

from collections import Counter
from collections.abc import Callable
from zlib import crc32

from freehold.core.binding import Priority
from freehold.engines.openvino.blocks import BlockPool
from freehold.engines.openvino.scheduler import Item, Kind, Limits, Scheduler, Step
from freehold.engines.openvino.sequence import Sequence

_VOCABULARY = 50


def _digest(before: int, token: int) -> int:
    return crc32(b"%d %d" % (before, token))


def _choice(adapter: str | None, digest: int) -> int:
    return crc32(f"{adapter} {digest}".encode()) % _VOCABULARY


def answer(prompt: list[int], length: int, adapter: str | None) -> list[int]:
    """What the model says to a prompt, with nobody beside it."""
    digest = 0
    for token in prompt:
        digest = _digest(digest, token)
    tokens = []
    for _ in range(length):
        tokens.append(_choice(adapter, digest))
        digest = _digest(digest, tokens[-1])
    return tokens


class Memory:
    """Each place of each block holds which token of whose it was written with."""

    def __init__(self, block_size: int) -> None:
        self._size = block_size
        self._places: dict[tuple[int, int], tuple[object, ...]] = {}
        self._computed: dict[str, tuple[int, int]] = {}  # admission, and the end so far
        self._digests: dict[str, list[int]] = {}

    def run(self, step: Step) -> list[int]:
        digests = [self._compute(item) for item in step.items]
        return [
            _choice(item.sequence.adapter, digest)
            for item, digest in zip(step.items, digests, strict=True)
            if item.chooses
        ]

    def _compute(self, item: Item) -> int:
        sequence, start, length, _ = item
        owner = sequence.salt or sequence.id  # who may read it, beside its adapter
        admission, end = self._computed.get(sequence.id, (0, 0))
        if admission == sequence.admissions:
            assert start == end, "every token once, in order"
        self._computed[sequence.id] = (sequence.admissions, start + length)
        digests = self._digests.setdefault(sequence.id, [])
        for token in sequence.tokens[len(digests) :]:
            digests.append(_digest(digests[-1] if digests else 0, token))
        for position in range(start + length):
            place = sequence.blocks[position // self._size], position % self._size
            entry = (owner, sequence.adapter, position, digests[position])
            if position >= start:
                self._places[place] = entry
            assert self._places.get(place) == entry, "reads what was computed for it"
        return digests[start + length - 1]


class Engine:
    """Drives a scheduler as the real engine does; time passes by `step_s` a step."""

    def __init__(self, blocks: int, block_size: int, limits: Limits, step_s: float = 0.05) -> None:
        self.pool = BlockPool(blocks, block_size)
        self.limits = limits
        self.scheduler = Scheduler(self.pool, limits)
        self.memory = Memory(block_size)
        self.live: dict[str, Sequence] = {}
        self.steps: list[tuple[Kind, list[str]]] = []
        self.preempted: list[Sequence] = []
        self.firsts: dict[str, int] = {}  # the step that brought a sequence's first token
        self.served: Counter[str] = Counter()  # tokens chosen, by tenant
        self.now_s = 1000.0
        self._step_s = step_s
        self._made = 0
        self._prompts: dict[str, list[int]] = {}

    def add(
        self,
        tenant: str,
        prompt: list[int] | int,
        answer_tokens: int,
        *,
        adapter: str | None = None,
        salt: str = "",
        priority: Priority = Priority.INTERACTIVE,
    ) -> Sequence:
        """A prompt given as a number has that many tokens, unlike any other's."""
        self._made += 1
        if isinstance(prompt, int):
            prompt = [self._made + 1000] * prompt
        sequence = Sequence(
            f"{tenant}{self._made}",
            tenant,
            prompt,
            len(prompt) + answer_tokens,
            adapter=adapter,
            salt=salt,
            priority=priority,
        )
        self.scheduler.add(sequence)
        self.live[sequence.id] = sequence
        self._prompts[sequence.id] = prompt
        return sequence

    def end(self, sequence: Sequence) -> None:
        """The client goes."""
        assert self.scheduler.abort(sequence.id)
        assert not self.scheduler.abort(sequence.id), "once"
        assert not sequence.blocks
        del self.live[sequence.id]

    def finish(self, sequence: Sequence) -> None:
        """A stop sequence was found."""
        self._look_at_answer(sequence)
        assert self.scheduler.finish(sequence.id)
        assert not self.scheduler.finish(sequence.id), "once"
        del self.live[sequence.id]

    def step(self, meanwhile: Callable[[Step], None] = lambda step: None) -> Step | None:
        self.now_s += self._step_s
        before = {one.id: one.admissions for one in self.live.values() if one.blocks}
        step = self.scheduler.plan(self.now_s)
        self.preempted += [
            self.live[name]
            for name, admissions in before.items()
            if not self.live[name].blocks or self.live[name].admissions != admissions
        ]
        self.scheduler.check()
        if step is None:
            assert not self.live, "there was work"
            return None
        self._look_at(step)
        tokens = self.memory.run(step)
        choosing = step.choosing
        meanwhile(step)
        full = self.scheduler.advance(step, tokens)
        self.steps.append((step.kind, [item.sequence.id for item in step.items]))
        for sequence in choosing:
            self.firsts.setdefault(sequence.id, len(self.steps))
            self.served[sequence.tenant] += 1
        for sequence in full:
            assert len(sequence.tokens) == sequence.max_total
            self._look_at_answer(sequence)
            del self.live[sequence.id]
        self.scheduler.check()
        return step

    def run(self, most_steps: int) -> int:
        """Until nothing is left to do; the number of steps that it took."""
        for number in range(most_steps + 1):
            if self.step() is None:
                assert self.pool.available == self.pool.count
                assert (self.scheduler.running, self.scheduler.waiting) == (0, 0)
                return number
        raise AssertionError(f"not done after {most_steps} steps: {list(self.live)}")

    def _look_at_answer(self, sequence: Sequence) -> None:
        prompt = sequence.tokens[: sequence.prompt_length]
        assert sequence.output == answer(prompt, len(sequence.output), sequence.adapter)
        assert prompt == self._prompts.pop(sequence.id)

    def _look_at(self, step: Step) -> None:
        running = [one for one in self.live.values() if one.blocks]
        assert len(running) == self.scheduler.running <= self.limits.max_running
        ready = {one.id for one in running if one.pending == 1}
        filling = {one.id for one in running} - ready
        last = self.steps[-1][0] if self.steps else Kind.DECODE
        if ready and (last is Kind.FILL or not filling):
            assert step.kind is Kind.DECODE, "running streams wait for one chunk at most"
        if filling and (last is Kind.DECODE or not ready):
            assert step.kind is Kind.FILL
        names = [item.sequence.id for item in step.items]
        assert len(names) == len(set(names))
        assert all(item.start == item.sequence.computed for item in step.items)
        assert all(item.length >= 1 for item in step.items)
        assert all(item.chooses == (item.length == item.sequence.pending) for item in step.items)
        if step.kind is Kind.DECODE:
            assert set(names) == ready
            assert all(item.length == 1 for item in step.items)
        else:
            assert set(names) <= filling
            self._look_at_chunk(step)

    def _look_at_chunk(self, step: Step) -> None:
        total = sum(item.length for item in step.items)
        rows: Counter[str | None] = Counter()
        for item in step.items:
            rows[item.sequence.adapter] += item.length
        assert 1 <= total <= self.limits.chunk_tokens
        assert len(rows) * max(rows.values()) <= 2 * total
