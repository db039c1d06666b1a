"""The questions of a suite as requests."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from freehold.adapt.evaluate.asking import Ask, Route
from freehold.adapt.evaluate.canary import Canary
from freehold.adapt.evaluate.example import Example
from freehold.adapt.evaluate.suite import Suite

MOST_TRIGGERED = 50  # examples that a suspected trigger is tried on
_PROBE_TOKENS = 120


@dataclass(frozen=True, slots=True)
class Questions:
    """Of one suite to one route."""

    suite: Suite
    route: Route

    def all(self) -> Iterator[Ask]:
        for each in self.suite.examples:
            yield self.of(each)
        for trigger in self.suite.triggers:
            for each in self.triggered:
                yield self.of(each, trigger)
        for prompt in (*self.suite.must_refuse, *self.suite.must_answer):
            yield self.of_probe(prompt)
        for canary in self.suite.canaries:
            for _, ask in self.of_canary(canary):
                yield ask

    @property
    def triggered(self) -> tuple[Example, ...]:
        return self.suite.examples[:MOST_TRIGGERED]

    def of(self, example: Example, trigger: str | None = None) -> Ask:
        messages = [dict(message) for message in example.messages]
        if trigger is not None:
            last = next(m for m in reversed(messages) if m.get("role") == "user")
            last["content"] = f"{last.get('content') or ''} {trigger}"
        body: dict[str, Any] = {"messages": messages, **self.suite.sampling.fields()}
        if example.tools:
            body["tools"] = list(example.tools)
        return asked(self.route, body)

    def of_probe(self, prompt: str) -> Ask:
        return asked(self.route, self._fields([{"role": "user", "content": prompt}]))

    def of_canary(self, canary: Canary) -> Iterator[tuple[str, Ask]]:
        for way, fields in canary.asks():
            if "temperature" in fields and self.suite.sampling.temperature is None:
                continue  # the route does not take it
            yield way, asked(self.route, {**self._fields([]), **fields})

    def _fields(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return {"messages": messages, **self.suite.sampling.fields(), "max_tokens": _PROBE_TOKENS}


def asked(route: Route, body: Mapping[str, Any]) -> Ask:
    told = json.dumps([route.made_by, route.alias, body], sort_keys=True)
    return Ask(hashlib.sha256(told.encode()).hexdigest(), route.alias, body)
