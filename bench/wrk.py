"""One chat completion, again and again: the load of wrk on a gateway."""

import json
import subprocess
import tempfile

import peers

_BODY = {
    "model": "bench",
    "messages": [{"role": "user", "content": "Hello, how are you?"}],
    "max_tokens": 32,
}
# requests, microseconds, errors, and the 50th and 99th percentile in microseconds
_DONE = """
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %f %f\\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read +
    summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


def load(peer: peers.Peer, connections: int, seconds: int) -> tuple[int, float, float, float]:
    """Requests done, requests a second, and the median and 99th percentile latency in
    milliseconds. One that failed ends the benchmark."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write('wrk.method = "POST"\n')
        for name, value in {"content-type": "application/json", **peer.headers}.items():
            script.write(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n")
        script.write(f"wrk.body = {json.dumps(json.dumps(_BODY))}\n{_DONE}")
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
    return int(requests), requests / (duration_us / 1e6), p50_us / 1e3, p99_us / 1e3
