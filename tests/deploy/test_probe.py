"""What is read of the machine, and how a container's limits count."""

import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from freehold.deploy import probe
from freehold.deploy.probe import Machine, read_machine
from freehold.engines import cores as engine_cores


@pytest.fixture
def machine_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for `/`."""

    def inside(path: str) -> Path:
        return tmp_path / path.lstrip("/")

    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    monkeypatch.setattr(probe, "Path", inside)
    monkeypatch.setattr(engine_cores, "Path", inside)
    return tmp_path


def test_this_machine_is_read_as_it_is() -> None:
    machine = read_machine()
    assert machine.cpu
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert 0 < machine.available_bytes <= machine.memory_bytes <= psutil.virtual_memory().total
    assert machine.cpu in str(machine)
    assert str(machine.cores) in str(machine)


def test_a_fingerprint_names_processor_and_cores_and_nothing_that_changes() -> None:
    machine = read_machine()
    assert machine.fingerprint == read_machine().fingerprint
    assert machine.fingerprint == replace(machine, memory_bytes=1, available_bytes=1).fingerprint
    others = {
        machine.fingerprint, replace(machine, cores=machine.cores + 1).fingerprint,
        replace(machine, cpu="another").fingerprint,
    }  # fmt: skip
    assert len(others) == 3
    assert machine.cpu not in machine.fingerprint


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", None), ("1048576", 1048576), ("1048576\n", 1048576), (str(2**80), None),
     ("", None), ("nonsense", None)],
)  # fmt: skip
def test_a_containers_memory_counts_where_it_is_less(
    machine_files: Path, limit: str, expected: int | None
) -> None:
    (machine_files / "sys/fs/cgroup/memory.max").write_text(limit)
    machine = read_machine()
    assert machine.memory_bytes == (expected or psutil.virtual_memory().total)
    assert machine.available_bytes <= machine.memory_bytes


def test_without_a_container_the_whole_machine_counts(machine_files: Path) -> None:
    machine: Machine = read_machine()
    assert machine.memory_bytes == psutil.virtual_memory().total
    assert machine.cpu, "also where the system does not tell its processor"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1),
     ("9900000 100000", 8), ("", 8), ("200000", 8)],
)  # fmt: skip
def test_a_containers_cores_count_where_they_are_fewer(
    machine_files: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (machine_files / "sys/fs/cgroup/cpu.max").write_text(quota)
    assert read_machine().cores == cores
