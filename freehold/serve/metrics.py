"""What Prometheus sees: sums over all tenants, never a tenant's or a key's name."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from freehold.core.usage import Settlement

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BOUNDS = (*map(str, map(float, _SECONDS)), "+Inf")


class _Times:
    """A histogram of seconds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        reached, found = 0, []
        for bound, count in zip(_BOUNDS, self.counts, strict=True):
            reached += count
            found.append((bound, float(reached)))
        return found


class _Served:
    """The requests of one model at one endpoint."""

    __slots__ = ("duration", "outcomes", "ttft")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.duration, self.ttft = _Times(), _Times()


class _Requests:
    """Counted in plain numbers, by one thread, and made into metrics when somebody asks:
    the library's own counters took a twentieth of a gateway's time."""

    def __init__(self) -> None:
        self.served: dict[tuple[str, str], _Served] = {}
        self.tokens: dict[str, list[int]] = {}

    def describe(self) -> Sequence[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        labels = ("model", "endpoint")
        requests = CounterMetricFamily(
            "freehold_requests", "Settled requests", labels=(*labels, "outcome")
        )
        tokens = CounterMetricFamily("freehold_tokens", "Tokens", labels=("model", "kind"))
        ttft = HistogramMetricFamily("freehold_time_to_first_token_seconds", "TTFT", labels=labels)
        duration = HistogramMetricFamily(
            "freehold_request_duration_seconds", "From admission to settlement", labels=labels
        )
        for key, served in list(self.served.items()):
            for outcome, count in list(served.outcomes.items()):
                requests.add_metric((*key, outcome), count)
            duration.add_metric(key, served.duration.buckets(), served.duration.total_s)
            ttft.add_metric(key, served.ttft.buckets(), served.ttft.total_s)
        for model, (read, made) in list(self.tokens.items()):
            tokens.add_metric((model, "input"), read)
            tokens.add_metric((model, "output"), made)
        yield from (requests, tokens, ttft, duration)


class Metrics:
    """One registry a gateway, so that two in one process do not share figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = _Requests()
        self.registry.register(self._requests)
        self.refused = Counter(
            "freehold_refused",
            "Requests refused before dispatch",
            ("code",),
            registry=self.registry,
        )
        self.active = Gauge("freehold_active_requests", "In flight", registry=self.registry)
        self.replicas = Gauge(
            "freehold_replicas", "Engine processes", ("pool", "state"), registry=self.registry
        )
        self.queued = Gauge(
            "freehold_queued_requests", "Waiting for a replica", ("pool",), registry=self.registry
        )

    def count(self, model: str, endpoint: str, settlement: Settlement) -> None:
        served = self._requests.served.get((model, endpoint))
        if served is None:
            served = self._requests.served[model, endpoint] = _Served()
        outcome = settlement.outcome.value
        served.outcomes[outcome] = served.outcomes.get(outcome, 0) + 1
        tokens = self._requests.tokens.setdefault(model, [0, 0])
        tokens[0] += settlement.tokens_in
        tokens[1] += settlement.tokens_out
        served.duration.add(settlement.duration_us / 1e6)
        if settlement.ttft_us is not None:
            served.ttft.add(settlement.ttft_us / 1e6)

    def text(self) -> bytes:
        return generate_latest(self.registry)
