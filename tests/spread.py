"""How several processes share the tests and the cores between them."""

import os
import re

from xdist.scheduler import LoadScopeScheduling

# What waits for something dear stays together: the one running installation, and each engine
# of the contract. Everything else goes file by file.
_INSTALLATION = "the installation"
_SHARED = (
    (re.compile(r"tests/e2e/test_(clients|first_start)\.py::"), _INSTALLATION),
    (re.compile(r"tests/cli/test_measure\.py::test_a_real_model"), _INSTALLATION),
    (re.compile(r"tests/contract/.*\[remote\b"), _INSTALLATION),
    (re.compile(r"tests/contract/.*\[(?P<engine>llama_cpp|openvino|fake|vllm)\b"), "contract of "),
)
# What takes longest begins first, so that the last ones are short. The very first makes the
# first start of all, and the second wants nothing of it meanwhile.
_LONG = (
    _INSTALLATION,
    "tests/serve/test_faults.py",
    "tests/serve/test_adapters.py",
    "contract of openvino",
    "contract of llama_cpp",
    "tests/e2e/test_killed_gateway.py",
    "tests/e2e/test_embeddings.py",
    "tests/e2e/test_interrupted_start.py",
    "tests/deploy/test_formats.py",
    "tests/e2e/test_scarcity.py",
    "tests/serve/test_hostile_engines.py",
    "tests/serve/test_upstreams.py",
    "tests/serve/test_api.py",
    "tests/serve/test_slow_clients.py",
    "tests/catalog/test_hf.py",
    "tests/catalog/test_pull.py",
    "tests/cli/test_measure.py",
    "tests/serve/test_bad_input.py",
    "tests/store/test_crashes.py",
)


def part(nodeid: str) -> str:
    """The name of what the test is a part of."""
    for pattern, name in _SHARED:
        if found := pattern.match(nodeid):
            return name + found.groupdict().get("engine", "")
    return nodeid.partition("::")[0]


def place(nodeid: str) -> int:
    """Where in the order."""
    name = part(nodeid)
    return _LONG.index(name) if name in _LONG else len(_LONG)


def take_share_of_cores(process: str, count: int) -> None:
    """Engines compute on all cores that they may use. Two of them on the same ones wait for
    each other's threads, many times as long as the work takes."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores, number = sorted(os.sched_getaffinity(0)), int(process.removeprefix("gw"))
    os.sched_setaffinity(0, cores[number % len(cores) :: count])


class Parts(LoadScopeScheduling):
    """A part goes to whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        return part(nodeid)
