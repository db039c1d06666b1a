"""Models from a Hugging Face hub: resumable, and checked against the hub's digests."""

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freehold.catalog import admit, checkpoint
from freehold.catalog.blobs import digest_of
from freehold.catalog.fetched import Fetched, Progress
from freehold.core.errors import Code, UserError

_ASK_S = 5  # a machine behind an air gap must notice within seconds
_SILENCE_S, _TRIES, _PIECE = 15, 4, 1024 * 1024
_PARTIAL_CONTENT, _NOTHING_MISSING = 206, 416
_PARTIAL = ".partial"
_MAX_WITHOUT_GGUF_BYTES = 2_000_000_000
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)


def fetch(rest: str, into: Path, progress: Progress, _size_bytes: int) -> Fetched:
    """`org/repo` or `org/repo/file`."""
    parts = rest.split("/", 2)
    repo = "/".join(parts[:2])
    if not _REPO.match(repo):
        raise _not_found(rest, "write hf:org/repo or hf:org/repo/file")
    progress(f"Asking the hub for {repo}", 0, 0)
    info = _ask(repo, rest)
    files = {file.rfilename: file for file in info.siblings or ()}
    wanted = _wanted(files, parts[2:], rest)
    for name in wanted:
        _download(info, files[name], into, progress, rest)
    shutil.rmtree(into / _PARTIAL)
    licence = getattr(info.card_data, "license", None)
    return Fetched(
        licence=licence if isinstance(licence, str) else None,
        note=f"hub revision {info.sha}",
    )


def _ask(repo: str, rest: str) -> Any:
    """What the hub says of a repository. The name resolver has time-outs of its own,
    many times ours, so the question runs beside and is left behind when it is late."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi

    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(HfApi().model_info(repo, timeout=_ASK_S, files_metadata=True))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            answer.append(error)

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(_ASK_S + 1)
    if not answer:
        raise _unreachable()
    if isinstance(answer[0], BaseException):
        raise _translated(answer[0], rest)
    return answer[0]


def _wanted(files: dict[str, Any], named: list[str], rest: str) -> list[str]:
    """The one file that was named, else all that a model needs."""
    if named:
        if named[0] not in files:
            raise _not_found(rest, "that repository has no such file")
        if not admit.choose(named):
            raise _not_found(rest, "name a GGUF or safetensors file")
        return named
    wanted = admit.choose(files)
    weights = [name for name in wanted if name.endswith((".gguf", ".safetensors"))]
    ggufs = [name for name in weights if name.endswith(".gguf")]
    if len(ggufs) > 1:
        raise _not_found(rest, f"it holds {len(ggufs)} GGUF files, add the one you want")
    if not weights:
        raise _not_found(rest, "it holds no GGUF or safetensors file")
    total = sum(files[name].size or 0 for name in weights)
    is_checkpoint = {checkpoint.CONFIG, checkpoint.VOCABULARY} <= set(wanted)
    if not ggufs and not is_checkpoint and total > _MAX_WITHOUT_GGUF_BYTES:
        raise _not_found(rest, "it holds safetensors only: name a repository with its GGUF")
    return ggufs or wanted


def _download(info: Any, file: Any, into: Path, progress: Progress, rest: str) -> None:
    """One file, complete and checked. The hub's library starts over after each break,
    so the transfer is ours; its session brings proxies, certificates and the token."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    name, size = file.rfilename, file.size or 0
    # A revision never changes, so what is there of it can be kept.
    key = hashlib.sha256(f"{info.sha}/{name}".encode()).hexdigest()[:24]
    partial = into / _PARTIAL / key
    partial.parent.mkdir(mode=0o700, exist_ok=True)
    there = partial.stat().st_size if partial.exists() else 0
    if size - there > shutil.disk_usage(into).free:
        raise UserError(
            Code.DISK_FULL,
            f"{name} needs {size // 2**20} MiB, more than the disk of {into} has free: "
            "free some space and try again.",
        )
    for left in range(_TRIES - 1, -1, -1):
        try:
            _go_on(info, name, partial, lambda done: progress(f"Fetching {name}", done, size))
            break
        except (httpx2.HTTPError, HfHubHTTPError) as error:
            found = _translated(error, rest)
            is_broken = isinstance(found, UserError) and found.code is Code.SOURCE_UNREACHABLE
            if not is_broken or not left:
                raise found from None
            time.sleep(1)
    stored = file.lfs.sha256 if file.lfs else None
    if stored and digest_of(partial) != f"sha256:{stored}":
        partial.unlink()
        raise UserError(
            Code.DIGEST_MISMATCH,
            f"{name} came from the hub with another digest than the hub states: try again.",
        )
    target = into / name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(target)


def _go_on(info: Any, name: str, partial: Path, told: Callable[[int], None]) -> None:
    """Appends what is missing."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import get_session, hf_raise_for_status

    url = hf_hub_url(info.id, name, revision=info.sha)
    with partial.open("ab") as kept:
        done = kept.tell()
        headers = build_hf_headers()
        headers["accept-encoding"] = "identity"
        if done:
            headers["range"] = f"bytes={done}-"
        with get_session().stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=_SILENCE_S
        ) as response:
            if response.status_code == _NOTHING_MISSING:
                return
            hf_raise_for_status(response)
            if done and response.status_code != _PARTIAL_CONTENT:
                done = kept.truncate(0)
            for piece in response.iter_bytes(_PIECE):
                kept.write(piece)
                done += len(piece)
                told(done)


def _translated(error: BaseException, rest: str) -> BaseException:
    """Our error for one of the hub's; what is not about the hub stays as it is."""
    import httpx2
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return _unreachable()
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, EntryNotFoundError) or (
        isinstance(error, HfHubHTTPError) and status in (401, 403, 404)
    ):
        return _not_found(
            rest, "the hub does not show it: check the name, or `hf auth login` for a gated model"
        )
    if isinstance(error, HfHubHTTPError | httpx2.HTTPError | ConnectionError | TimeoutError):
        return _unreachable()
    return error


def _not_found(rest: str, why: str) -> UserError:
    return UserError(Code.SOURCE_NOT_FOUND, f"hf:{rest[:120]} cannot be pulled: {why}.")


def _unreachable() -> UserError:
    return UserError(
        Code.SOURCE_UNREACHABLE,
        "The model hub cannot be reached: check the network, then pull again to go on from there.",
    )
