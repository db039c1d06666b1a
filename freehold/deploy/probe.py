"""Reads the machine: what it is, and how much of it this process may use."""

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from freehold.engines.cores import usable_cores


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    cores: int
    memory_bytes: int
    available_bytes: int

    @property
    def fingerprint(self) -> str:
        """Names machines on which a measurement means the same."""
        text = f"{self.cpu}|{self.cores}|{platform.machine()}|{platform.system()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_bytes / 2**30:.0f} GiB"


def read_machine() -> Machine:
    memory = psutil.virtual_memory()
    limit = _container_limit()
    total = min(memory.total, limit) if limit else memory.total
    return Machine(_cpu_name(), usable_cores(), total, min(memory.available, total))


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _container_limit() -> int | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
