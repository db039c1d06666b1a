"""Which tests share a process when several run them, and in which order these take them."""

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
_LONG = (_INSTALLATION,)


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


class Parts(LoadScopeScheduling):
    """A part goes to whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        return part(nodeid)
