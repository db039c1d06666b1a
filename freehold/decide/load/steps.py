"""How long the steps of an engine take, ready to be asked for millions of times."""

from freehold.core.plan import StepTimes

_PARTS = 64  # of the KV memory, in each of which a step's time is taken as linear in the context


class Steps:
    """`StepTimes`, with what was asked kept. A step that reads and writes at once takes what
    both take, less what a step takes however little it does (mostly reading the weights),
    which happens once. Never less than the longer of both."""

    def __init__(self, times: StepTimes, longest_prompt: int) -> None:
        self._times = times
        self._longest = max(longest_prompt, 1)
        self.kv_tokens = times.kv_tokens
        self._width = max(times.kv_tokens // _PARTS, 1)
        self._lines: dict[tuple[int, int], tuple[float, float]] = {}
        self._prefills: dict[int, tuple[float, float]] = {}
        self._once = min(times.prefill_s(1, 0), times.decode_s(1, 1))

    def line(self, sequences: int, context: int) -> tuple[float, float]:
        """(a, b): one token for each takes a + b * context, near this context."""
        part = context // self._width
        found = self._lines.get((sequences, part))
        if found is None:
            low = part * self._width
            begin = self._times.decode_s(sequences, low)
            slope = (self._times.decode_s(sequences, low + self._width) - begin) / self._width
            found = self._lines[sequences, part] = (begin - slope * low, slope)
        return found

    def decode_s(self, sequences: int, context: int) -> float:
        begin, slope = self.line(sequences, context)
        return begin + slope * context

    def prefill_s(self, tokens: int, context: float) -> float:
        """As a line in the context too, between none and the longest prompt."""
        found = self._prefills.get(tokens)
        if found is None:
            begin = self._times.prefill_s(tokens, 0)
            slope = (self._times.prefill_s(tokens, self._longest) - begin) / self._longest
            found = self._prefills[tokens] = (begin, slope)
        return found[0] + found[1] * context

    def mixed_s(self, tokens: int, before: float, sequences: int, context: int) -> float:
        reading = self.prefill_s(tokens, before)
        if not sequences:
            return reading
        writing = self.decode_s(sequences, context)
        return max(reading, writing, reading + writing - self._once)
