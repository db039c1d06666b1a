"""Requests a second and latency of one gateway process in front of a static upstream.

`python bench/gateway.py` runs Freehold, LiteLLM and Portkey one after the other, in
rounds, with wrk on one thread; of each figure the median of the rounds is kept.
"""

import statistics
from pathlib import Path

import machine
import peers
import wrk

_ROUNDS, _SECONDS, _WARM_S = 3, 6, 3
_CONNECTIONS = (1, 32)


def main() -> None:
    peers.need("nginx", "wrk", "node", "npm")
    found: dict[tuple[str, str, str, str], list[float]] = {}
    with peers.nginx() as upstream:
        for number in range(_ROUNDS):
            for start in peers.EVERY:
                with start(upstream) as peer:
                    print(f"round {number + 1} of {_ROUNDS}: {peer.system}", flush=True)
                    wrk.load(peer, 8, _WARM_S)
                    for connections in _CONNECTIONS:
                        _, *figures = wrk.load(peer, connections, _SECONDS)
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
