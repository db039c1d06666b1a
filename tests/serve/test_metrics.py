"""What Prometheus is told."""

from prometheus_client.parser import text_string_to_metric_families

from freehold.core.usage import Outcome
from freehold.serve.metrics import Metrics
from tests.store.making import settlement

_ORDER = ("model", "endpoint", "outcome", "kind", "code", "le")


def _told(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, tuple(sample.labels[name] for name in _ORDER if name in sample.labels)): (
            sample.value
        )
        for family in families
        for sample in family.samples
    }


def test_requests_tokens_and_times_add_up() -> None:
    metrics = Metrics()
    for number, duration_us in enumerate((4_000, 5_000, 6_000, 2_000_000, 400_000_000)):
        outcome = Outcome.CLIENT_GONE if number == 4 else Outcome.OK
        ended = settlement(
            f"req_{number}", 10, outcome=outcome, duration_us=duration_us,
            ttft_us=None if number == 4 else 1_000,
        )  # fmt: skip
        metrics.count("big", "chat/completions", ended)
    metrics.count("small", "embeddings", settlement("req_x", 0))
    told = _told(metrics)
    where = ("big", "chat/completions")
    assert told["freehold_requests_total", (*where, "ok")] == 4
    assert told["freehold_requests_total", (*where, "client_gone")] == 1
    assert told["freehold_tokens_total", ("big", "input")] == 15
    assert told["freehold_tokens_total", ("big", "output")] == 50
    assert told["freehold_tokens_total", ("small", "output")] == 0
    buckets = {
        labels[-1]: value
        for (name, labels), value in told.items()
        if name == "freehold_request_duration_seconds_bucket" and labels[:2] == where
    }
    assert (buckets["0.005"], buckets["0.01"], buckets["1.0"]) == (2, 3, 3)
    assert (buckets["2.5"], buckets["300.0"], buckets["+Inf"]) == (4, 4, 5)
    assert told["freehold_request_duration_seconds_sum", where] == 402.015
    assert told["freehold_time_to_first_token_seconds_count", where] == 4


def test_before_any_request_there_is_nothing_to_add_up() -> None:
    metrics = Metrics()
    metrics.refused.labels("forbidden").inc()
    told = _told(metrics)
    assert told["freehold_refused_total", ("forbidden",)] == 1
    assert not [name for name, _ in told if name.startswith("freehold_requests")]
