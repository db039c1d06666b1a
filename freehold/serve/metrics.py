"""What Prometheus sees: sums over all tenants, never a tenant's or a key's name."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from freehold.core.usage import Settlement

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """One registry a gateway, so that two in one process do not share figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # The series of (alias, endpoint, outcome): looking them up costs more than counting.
        self._found: dict[
            tuple[str, str, str], tuple[Counter, Counter, Counter, Histogram, Histogram]
        ] = {}
        labels = ("model", "endpoint")
        self.requests = Counter(
            "freehold_requests", "Settled requests", (*labels, "outcome"), registry=self.registry
        )
        self.refused = Counter(
            "freehold_refused",
            "Requests refused before dispatch",
            ("code",),
            registry=self.registry,
        )
        self.tokens = Counter(
            "freehold_tokens", "Tokens", ("model", "kind"), registry=self.registry
        )
        self.ttft = Histogram(
            "freehold_time_to_first_token_seconds",
            "TTFT",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "freehold_request_duration_seconds",
            "From admission to settlement",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.active = Gauge("freehold_active_requests", "In flight", registry=self.registry)
        self.replicas = Gauge(
            "freehold_replicas", "Engine processes", ("pool", "state"), registry=self.registry
        )
        self.queued = Gauge(
            "freehold_queued_requests", "Waiting for a replica", ("pool",), registry=self.registry
        )

    def count(self, alias: str, endpoint: str, settlement: Settlement) -> None:
        outcome = settlement.outcome.value
        found = self._found.get((alias, endpoint, outcome))
        if found is None:
            found = self._found[alias, endpoint, outcome] = (
                self.requests.labels(alias, endpoint, outcome),
                self.tokens.labels(alias, "input"),
                self.tokens.labels(alias, "output"),
                self.duration.labels(alias, endpoint),
                self.ttft.labels(alias, endpoint),
            )
        requests, tokens_in, tokens_out, duration, ttft = found
        requests.inc()
        tokens_in.inc(settlement.tokens_in)
        tokens_out.inc(settlement.tokens_out)
        duration.observe(settlement.duration_us / 1e6)
        if settlement.ttft_us is not None:
            ttft.observe(settlement.ttft_us / 1e6)

    def text(self) -> bytes:
        return generate_latest(self.registry)
