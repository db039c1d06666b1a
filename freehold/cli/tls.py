"""The certificate that is served with, examined before anything is loaded."""

import ssl

from freehold.config.schema import ServerSettings
from freehold.core.errors import Code, UserError


def check(server: ServerSettings) -> None:
    """Raises `UserError(CONFIG_INVALID)` for files that TLS cannot be served with: a
    server that finds out later would already have said that it serves."""
    certificate, key = server.tls_certificate, server.tls_key
    if certificate is None:
        if key is not None:
            raise UserError(
                Code.CONFIG_INVALID,
                "server.tls_key is of no use alone: set server.tls_certificate.",
            )
        return
    files = certificate if key is None else f"{certificate} and {key}"
    try:
        # An empty password, or an encrypted key would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:  # of which ssl.SSLError is one
        why = getattr(error, "reason", None) or error.strerror or "no certificate and its key"
        raise UserError(
            Code.CONFIG_INVALID,
            f"TLS cannot be served with {files} ({why}): correct server.tls_certificate and "
            "server.tls_key.",
        ) from None
