"""TLS towards clients: what new connections are greeted with, and what follows the files.

A file that is missing or cannot be read never leaves a check out: the start ends there, and
a gateway that runs goes on with what it had.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.config.schema import ServerSettings
from freehold.config.trust import add_authorities
from freehold.core.errors import Code, UserError
from freehold.serve.tasks import ended

_log = logging.getLogger(__name__)

_LOOK_S = 2.0
# Forward secrecy and authenticated encryption; TLS 1.3 has nothing else.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class Files:
    """Where what TLS is served with lies. `known` is a certificate, as PEM, of a client that
    is let in beside those of the authorities."""

    certificate: Path
    key: Path | None
    client_ca: Path | None
    required: bool
    known: str | None = None

    @classmethod
    def of(cls, server: ServerSettings, known: str | None = None) -> "Files | None":
        """None where plain HTTP is served."""
        if server.tls_certificate is None:
            return None
        return cls(
            _path(server.tls_certificate),
            None if server.tls_key is None else _path(server.tls_key),
            None if server.client_ca is None else _path(server.client_ca),
            server.client_certificates == "required",
            known,
        )

    def state(self) -> tuple[Any, ...]:
        """Changes when a file does, also when links to folders are exchanged."""
        return tuple(_state(each) for each in (self.certificate, self.key, self.client_ca))


def context_of(files: Files) -> ssl.SSLContext:
    """Raises `UserError(CONFIG_INVALID)`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS)
    made.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    try:
        # An empty password, or an encrypted key would ask for one on the terminal.
        made.load_cert_chain(files.certificate, files.key, password="")
    except OSError as error:  # of which ssl.SSLError is one
        shown = f"{files.certificate}" + (f" and {files.key}" if files.key else "")
        why = getattr(error, "reason", None) or error.strerror or "no certificate and its key"
        raise UserError(
            Code.CONFIG_INVALID,
            f"TLS cannot be served with {shown} ({why}): correct server.tls_certificate and "
            "server.tls_key.",
        ) from None
    if files.client_ca is not None:
        add_authorities(made, files.client_ca, "server.client_ca")
        if files.known is not None:
            made.load_verify_locations(cadata=files.known)
        made.verify_mode = ssl.CERT_REQUIRED if files.required else ssl.CERT_OPTIONAL
        # A resumed connection would be let in for what was verified then.
        made.options |= ssl.OP_NO_TICKET
        made.num_tickets = 0
    return made


class Certificates:
    """Follows the files of one server. For the event loop's thread."""

    def __init__(self, files: Files, on_change: Callable[[], None]) -> None:
        """Raises `UserError(CONFIG_INVALID)`. `on_change` hears of it when new connections
        are greeted otherwise from now on."""
        self._files = files
        self._on_change = on_change
        self._state = files.state()
        self.context = _Live(context_of(files))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        await ended(self._task)

    def look(self) -> None:
        state = self._files.state()
        if state == self._state:
            return
        self._state = state
        try:
            self.context.now = context_of(self._files)
        except UserError as error:  # half written, perhaps: the next change is looked at
            _log.error("tls_not_reloaded", extra={"reason": error.message})
            return
        _log.info("tls_reloaded")
        self._on_change()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()


class _Live(ssl.SSLContext):
    """Hands each new connection to the context of now: a listening socket keeps the one that
    it was opened with."""

    now: ssl.SSLContext

    def __new__(cls, first: ssl.SSLContext) -> "_Live":
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made.now = first
        return made

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self.now.wrap_bio(*arguments, **named)


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _state(path: Path | None) -> tuple[int, ...] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
