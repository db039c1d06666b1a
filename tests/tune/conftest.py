"""Tests of what needs PyTorch, and of what it is compared with: `make test-tune`, in an
environment of its own. Elsewhere there are none."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]
