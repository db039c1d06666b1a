"""Where events go."""

import ssl
from pathlib import Path

from freehold.config.schema import EventSettings
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.serve.events.webhooks import Webhook


def build_webhooks(settings: EventSettings) -> list[Webhook]:
    """Raises `UserError(CONFIG_INVALID)` for files that cannot be read."""
    return [
        Webhook(
            each.url,
            _secret_in(each.secret_file),
            each.severity,
            None if each.ca_file is None else _trusting(each.ca_file),
        )
        for each in settings.webhooks
    ]


def _secret_in(name: str) -> Secret:
    try:
        found = Path(name).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        found = ""
    if not found:
        raise UserError(
            Code.CONFIG_INVALID,
            f"events.webhooks: {name} cannot be read or is empty: put the secret into it that the "
            "receiver knows.",
        )
    return Secret(found)


def _trusting(name: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=Path(name).expanduser())
    except OSError:  # of which ssl.SSLError is one
        raise UserError(
            Code.CONFIG_INVALID, f"events.webhooks: {name} holds no certificates in PEM."
        ) from None
