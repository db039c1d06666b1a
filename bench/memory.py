"""The memory of one gateway process while it answers 200,000 requests.

`python bench/memory.py` puts the same load on each gateway and looks at its resident
memory meanwhile. The peers get the same time, and so fewer requests where they are slower.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import machine
import peers
import psutil
import wrk

_REQUESTS, _CONNECTIONS, _BURST_S, _LOOK_S = 200_000, 32, 5, 1.0
_LONGEST_S = 240  # for Freehold; the peers get what it took


def main() -> None:
    peers.need("nginx", "wrk", "node", "npm")
    rows: list[machine.Row] = []
    seconds = 0.0
    with peers.nginx() as upstream:
        for start in peers.EVERY:
            with start(upstream) as peer:
                print(f"{peer.system} ...", flush=True)
                seen, done, took = _under_load(peer, seconds or _LONGEST_S)
                if peer.system == "freehold":
                    seconds = took
                    if done < _REQUESTS:
                        raise SystemExit(f"only {done:,} requests in {_LONGEST_S} seconds")
                rows += _rows(peer, seen, done)
    machine.keep("memory", rows)


def _under_load(peer: peers.Peer, seconds: float) -> tuple[list[float], int, float]:
    """Resident megabytes, one look a second, the requests done, and the seconds taken.
    Freehold stops at the wanted number of requests, the others with their time."""
    done = 0
    begun = time.monotonic()
    with _looking(peer.pid) as seen:
        while done < _REQUESTS and time.monotonic() - begun < seconds:
            done += wrk.load(peer, _CONNECTIONS, _BURST_S)[0]
        took = time.monotonic() - begun
    return seen, done, took


@contextmanager
def _looking(pid: int) -> Iterator[list[float]]:
    """Looks at the gateway and the processes that it started."""
    seen: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_S):
            top = psutil.Process(pid)
            processes = [top, *top.children(recursive=True)]
            seen.append(sum(process.memory_info().rss for process in processes) / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _rows(peer: peers.Peer, seen: list[float], done: int) -> list[machine.Row]:
    tenth = max(1, len(seen) // 10)
    figures = {
        "requests": float(done),
        "MB after a tenth of them": seen[tenth],
        "MB after half of them": seen[len(seen) // 2],
        "MB after all of them": seen[-1],
        "MB at most": max(seen),
    }
    case = f"{_CONNECTIONS} connections"
    return [
        machine.Row(peer.system, peer.version, case, metric, value)
        for metric, value in figures.items()
    ]


if __name__ == "__main__":
    main()
