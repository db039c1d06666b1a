"""Requests a second and latency of one gateway process in front of a static upstream.

`python bench/gateway.py` runs Freehold, LiteLLM and Portkey one after the other, in
rounds, with wrk on one thread; of each figure the median of the rounds is kept.
"""

import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import machine
import peers

_ROUNDS, _SECONDS, _WARM_S = 3, 6, 3
_CONNECTIONS = (1, 32)
BODY = {
    "model": "bench",
    "messages": [{"role": "user", "content": "Hello, how are you?"}],
    "max_tokens": 32,
}
_DONE = """
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %f %f\\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read +
    summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


def measure(peer: peers.Peer, connections: int, seconds: int) -> tuple[float, float, float]:
    """Requests a second, and the median and 99th percentile latency in milliseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write('wrk.method = "POST"\n')
        for name, value in {"content-type": "application/json", **peer.headers}.items():
            script.write(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n")
        script.write(f"wrk.body = {json.dumps(json.dumps(BODY))}\n{_DONE}")
        script.flush()
        ended = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "10",
             "-s", script.name, f"{peer.url}/v1/chat/completions"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    line = next(line for line in ended.stdout.splitlines() if line.startswith("RESULT"))
    requests, duration_us, errors, p50_us, p99_us = map(float, line.split()[1:])
    if errors:
        raise SystemExit(f"{peer.system}: {errors:.0f} of {requests:.0f} requests failed")
    return requests / (duration_us / 1e6), p50_us / 1e3, p99_us / 1e3


def main() -> None:
    peers.need("nginx", "wrk", "node", "npm")
    found: dict[tuple[str, str, str, str], list[float]] = {}
    with peers.nginx() as upstream:
        for number in range(_ROUNDS):
            for start in peers.EVERY:
                with start(upstream) as peer:
                    print(f"round {number + 1} of {_ROUNDS}: {peer.system}", flush=True)
                    measure(peer, 8, _WARM_S)
                    for connections in _CONNECTIONS:
                        figures = measure(peer, connections, _SECONDS)
                        case = f"{connections} connections"
                        for metric, value in zip(
                            ("requests/s", "p50 ms", "p99 ms"), figures, strict=True
                        ):
                            key = (peer.system, peer.version, case, metric)
                            found.setdefault(key, []).append(value)
    rows = [machine.Row(*key, statistics.median(values)) for key, values in found.items()]
    machine.keep("gateway", rows + _ratios(rows))


def _ratios(rows: list[machine.Row]) -> list[machine.Row]:
    value = {(row.system, row.case, row.metric): row.value for row in rows}
    own = next(row.version for row in rows if row.system == "freehold")
    return [
        machine.Row(
            "freehold", own, case, f"{metric}, times {other}'s",
            value["freehold", case, metric] / value[other, case, metric],
        )
        for other in ("litellm", "portkey")
        for case, metric in (("32 connections", "requests/s"), ("1 connections", "p50 ms"))
    ]  # fmt: skip


if __name__ == "__main__":
    Path(machine.RESULTS).mkdir(exist_ok=True)
    main()
