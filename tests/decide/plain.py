"""The simulation again, step by step and as plainly as it can be said: what the fast one is
compared with. Every step asks how long it takes; nothing is counted ahead."""

from dataclasses import dataclass, field

from freehold.core.plan import StepTimes
from freehold.decide.load.arrivals import Load
from freehold.decide.load.replica import Batching


@dataclass(frozen=True)
class Linear:
    """Times in a line: seconds of a step, of a token read, a pair of tokens, a token written,
    and a token of context."""

    step: float = 0.01
    read: float = 2e-5
    pair: float = 1e-10
    write: float = 1e-4
    look: float = 2e-8
    kv_tokens: int = 100_000

    def prefill_s(self, tokens: int, context_tokens: int) -> float:
        return self.step + tokens * self.read + self.pair * tokens * (context_tokens + tokens / 2)

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        return self.step + sequences * self.write + context_tokens * self.look


@dataclass
class Sequence:
    number: int
    prompt: int
    answer: int
    adapter: int
    unread: int
    written: int = 0


@dataclass
class PlainReplica:
    times: StepTimes
    batching: Batching
    at: float = 0.0
    waiting: list[Sequence] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)
    adapters: list[int] = field(default_factory=list)
    switched: int = 0
    owes_turn: bool = False
    first_at: dict[int, float] = field(default_factory=dict)
    done_at: dict[int, float] = field(default_factory=dict)

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.running)

    def step(self) -> None:
        self.switched += self._admit()
        writing = [each for each in self.running if not each.unread]
        room = self.batching.step_tokens
        if self.batching.mixes:
            room = max(room - len(writing), 1)
        elif self.owes_turn:
            room = 0
        else:
            writing = writing if all(not each.unread for each in self.running) else []
        read = 0
        pairs = 0.0
        finished_reading = []
        for each in self.running:
            if each.unread and room:
                taken = min(each.unread, room)
                pairs += taken * (each.prompt - each.unread + taken / 2)
                each.unread -= taken
                room -= taken
                read += taken
                if not each.unread:
                    finished_reading.append(each)
        self.at += self._lasts(read, pairs, writing)
        if read:
            self.at += self.switched * self.batching.adapter_switch_s
            self.switched = 0
        for each in finished_reading:
            self.first_at[each.number] = self.at
        for each in [*writing, *finished_reading]:
            each.written += 1
            if each.written == each.answer:
                self.done_at[each.number] = self.at
                self.running.remove(each)
        still = any(not each.unread for each in self.running)
        self.owes_turn = not self.batching.mixes and read > 0 and still

    def _admit(self) -> int:
        switched = 0
        while self.waiting and len(self.running) < self.batching.sequences:
            held = sum(each.prompt + each.answer for each in self.running)
            if held + self.waiting[0].prompt + self.waiting[0].answer > self.times.kv_tokens:
                break
            each = self.waiting.pop(0)
            self.running.append(each)
            if each.adapter >= 0:
                switched += each.adapter not in self.adapters
                if each.adapter in self.adapters:
                    self.adapters.remove(each.adapter)
                self.adapters = [*self.adapters, each.adapter][-self.batching.adapter_places :]
        return switched

    def _lasts(self, read: int, pairs: float, writing: list[Sequence]) -> float:
        context = sum(each.prompt + each.written for each in writing)
        if not read:
            return self.times.decode_s(len(writing), context)
        before = max(pairs / read - read / 2, 0.0)
        reading_s = self.times.prefill_s(read, before)  # type: ignore[arg-type]
        if not writing:
            return reading_s
        writing_s = self.times.decode_s(len(writing), context)
        once = min(self.times.prefill_s(1, 0), self.times.decode_s(1, 1))
        return max(reading_s, writing_s, reading_s + writing_s - once)


def plainly(
    load: Load, times: StepTimes, replicas: int, batching: Batching, cached_share: float = 0.0
) -> tuple[list[float], list[float]]:
    """When each request's first token comes, and its last."""
    fleet = [PlainReplica(times, batching) for _ in range(replicas)]
    rows = zip(
        load.at_s.tolist(),
        load.prompt.tolist(),
        load.answer.tolist(),
        load.adapter.tolist(),
        strict=True,
    )
    for number, (at, prompt, answer, adapter) in enumerate(rows):
        for replica in fleet:
            while replica.load and replica.at < at:
                replica.step()
        chosen = min(fleet, key=lambda each: each.load)
        chosen.at = max(chosen.at, at)
        unread = max(round(prompt * (1 - cached_share)), 1)
        chosen.waiting.append(Sequence(number, prompt, answer, adapter, unread))
    for replica in fleet:
        while replica.load:
            replica.step()
    first = {number: at for each in fleet for number, at in each.first_at.items()}
    done = {number: at for each in fleet for number, at in each.done_at.items()}
    return [first[n] for n in range(len(load))], [done[n] for n in range(len(load))]
