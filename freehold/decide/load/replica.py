"""One replica of an engine that batches continuously, in simulated time.

A step starts with admission: requests that wait join in their order while the batch has room
and the whole of prompt and answer fits into what is left of the KV memory; the first that does
not fit holds up the others. Then one token is written for each that has its prompt read, and
what is left of the step's tokens goes to prompts, again in order (chunked prefill, as in
Agrawal et al., Sarathi-Serve, OSDI 2024; iteration-level batching is Orca's, Yu et al., OSDI
2022). A request's first token comes with the step that ends its prompt.

Between two steps at which anything changes, the context grows by the same number of tokens a
step, so that k steps of a + b * context seconds take k * (a + b * context) + b * sequences *
k * (k - 1) / 2, and many are taken at once.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil, inf, sqrt

from freehold.decide.load.steps import Steps


@dataclass(frozen=True, slots=True)
class Batching:
    """How an engine makes its batches. `step_tokens` are read and written in a step at most.
    `mixes`: both in one pass; else in turns, a step of prompts and then one of answers, where only
    what is read counts. An adapter that is not
    among the last `adapter_places` used costs `adapter_switch_s`."""

    sequences: int = 256
    step_tokens: int = 2048
    mixes: bool = True
    adapter_places: int = 8
    adapter_switch_s: float = 0.0


class Requests:
    """What all replicas work on: plain lists, as single numbers are read from them."""

    def __init__(
        self, prompt: list[int], answer: list[int], adapter: list[int], cached_share: float
    ) -> None:
        self.answer = answer
        self.adapter = adapter
        # At least one token of a prompt is read, however much of it is found again.
        self.unread = [max(round(each * (1 - cached_share)), 1) for each in prompt]
        self.whole = [p + a for p, a in zip(prompt, answer, strict=True)]
        self.prompt = prompt
        self.admitted_at = [0.0] * len(prompt)
        self.first_at = [0.0] * len(prompt)
        self.done_at = [0.0] * len(prompt)


class Replica:
    """`at` is where its next step begins. `load` counts what it has not finished."""

    __slots__ = (
        "_adapters",
        "_batching",
        "_blocked",
        "_context",
        "_finishing",
        "_kv_free",
        "_owes_turn",
        "_reading",
        "_requests",
        "_step",
        "_steps",
        "_switch_s",
        "_waiting",
        "_writing",
        "at",
        "busy_s",
        "kv_token_s",
        "load",
        "sequence_s",
    )

    def __init__(self, steps: Steps, batching: Batching, requests: Requests) -> None:
        self._steps, self._batching, self._requests = steps, batching, requests
        self._waiting: deque[int] = deque()
        self._reading: deque[list[int]] = deque()  # number, and tokens that are left to read
        self._finishing: list[tuple[int, int]] = []  # a heap: last step, number
        self._adapters: OrderedDict[int, None] = OrderedDict()
        self._step = self._writing = self._context = self.load = 0
        self._kv_free = steps.kv_tokens
        self._switch_s = 0.0
        self._blocked = False  # what waits can join only once something ends
        self._owes_turn = False  # it has just read, and what is written comes next
        self.at = self.busy_s = self.kv_token_s = self.sequence_s = 0.0

    def add(self, number: int, at: float) -> None:
        """At a time that it was advanced to."""
        if self.at < at:
            self.at = at
        self._waiting.append(number)
        self.load += 1

    def advance(self, until: float) -> None:
        """Takes every step that begins before."""
        while self.at < until and self.load:
            if self._waiting and not self._blocked:
                self._admit()
            if self._reading and not self._owes_turn:
                self._read()
            else:
                self._write(until)

    def changes_at(self) -> float:
        """When the next step begins in which `load` may change, if nothing new comes."""
        if self._reading or (self._waiting and not self._blocked):
            return self.at
        if not self._writing:
            return inf
        begin, slope = self._steps.line(self._writing, self._context)
        count = self._finishing[0][0] - self._step - 1
        return self.at + self._span(count, begin + slope * self._context, slope)

    def _admit(self) -> None:
        requests, waiting, reading = self._requests, self._waiting, self._reading
        while waiting and len(reading) + self._writing < self._batching.sequences:
            number = waiting[0]
            need = requests.whole[number]
            if need > self._kv_free:
                break
            self._kv_free -= need
            waiting.popleft()
            requests.admitted_at[number] = self.at
            reading.append([number, requests.unread[number]])
            if requests.adapter[number] >= 0:
                self._use_adapter(requests.adapter[number])
        self._blocked = bool(waiting)

    def _use_adapter(self, adapter: int) -> None:
        if adapter in self._adapters:
            self._adapters.move_to_end(adapter)
            return
        self._adapters[adapter] = None
        self._switch_s += self._batching.adapter_switch_s
        if len(self._adapters) > self._batching.adapter_places:
            self._adapters.popitem(last=False)

    def _read(self) -> None:
        """One step, with prompts in it."""
        requests, reading, writing = self._requests, self._reading, self._writing
        batching = self._batching
        room = max(batching.step_tokens - writing, 1) if batching.mixes else batching.step_tokens
        total, pairs = 0, 0.0  # tokens, and pairs of tokens that attend to one another
        ended = []
        while room and reading:
            first = reading[0]
            number, left = first
            taken = left if left < room else room
            pairs += taken * (requests.prompt[number] - left + taken / 2)
            total += taken
            room -= taken
            if taken < left:
                first[1] = left - taken
                break
            reading.popleft()
            ended.append(number)
        # As one prompt with as many pairs, as the time of attention goes by them.
        before = max(pairs / total - total / 2, 0.0)
        if batching.mixes:
            lasted = self._steps.mixed_s(total, before, writing, self._context)
        else:
            lasted = self._steps.prefill_s(total, before)
        lasted += self._switch_s
        self._switch_s = 0.0
        if batching.mixes:
            self._pass(lasted, 1)
        else:
            self._spend(lasted)
        for number in ended:
            requests.first_at[number] = self.at
            if requests.answer[number] > 1:
                self._writing += 1
                self._context += requests.prompt[number] + 1
                heappush(self._finishing, (self._step + requests.answer[number] - 1, number))
            else:
                self._end(number)
        self._owes_turn = not batching.mixes and self._writing > 0

    def _write(self, until: float) -> None:
        """As many steps as begin before `until` and end with the first request that does; one
        where prompts wait for their turn."""
        count = 1 if self._reading else self._finishing[0][0] - self._step
        self._owes_turn = False
        begin, slope = self._steps.line(self._writing, self._context)
        first_s = begin + slope * self._context
        lasted = self._span(count, first_s, slope)
        if count > 1 and self.at + lasted > until:
            fewer = min(self._count(until - self.at, first_s, slope), count)
            if fewer < count:
                count, lasted = fewer, self._span(fewer, first_s, slope)
        self._pass(lasted, count)

    def _span(self, count: int, first_s: float, slope: float) -> float:
        return count * first_s + slope * self._writing * (count * (count - 1) / 2)

    def _count(self, seconds: float, first_s: float, slope: float) -> int:
        """The least number of steps that together take so long: the root of `_span`."""
        half = slope * self._writing / 2
        if half * seconds < 1e-9 * first_s * first_s:
            return max(ceil(seconds / first_s), 1)
        linear = first_s - half
        return max(ceil((sqrt(linear * linear + 4 * half * seconds) - linear) / (2 * half)), 1)

    def _spend(self, lasted: float) -> None:
        self.at += lasted
        self.busy_s += lasted
        self.kv_token_s += lasted * (self._steps.kv_tokens - self._kv_free)
        self.sequence_s += lasted * (self._writing + len(self._reading))

    def _pass(self, lasted: float, count: int) -> None:
        """Steps in which each that writes has a token."""
        self._spend(lasted)
        self._step += count
        self._context += count * self._writing
        finishing = self._finishing
        while finishing and finishing[0][0] <= self._step:
            number = heappop(finishing)[1]
            self._writing -= 1
            self._context -= self._requests.whole[number]
            self._end(number)

    def _end(self, number: int) -> None:
        self._requests.done_at[number] = self.at
        self._kv_free += self._requests.whole[number]
        self._blocked = False
        self.load -= 1
