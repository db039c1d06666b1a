"""The OpenAPI document, made from the models that parse the requests, the types of
the answers, and the table of errors."""

from pydantic import TypeAdapter

import freehold
from freehold.serve.openapi.answers import Schema
from freehold.serve.openapi.headers import HEADERS
from freehold.serve.openapi.operation import written
from freehold.serve.openapi.table import ENTRIES
from freehold.serve.openapi.unlocked import UNLOCKED
from freehold.serve.replies.error import Error
from freehold.serve.replies.health import Alive, Ready
from freehold.serve.replies.login import LoginClients


def build() -> Schema:
    paths: Schema = dict(UNLOCKED)
    for entry in ENTRIES:
        paths.setdefault(entry.path, {})[entry.method] = written(entry)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Freehold",
            "version": freehold.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
        "security": [{"bearer": []}, {"x-api-key": []}, {"api-key": []}],
    }


def _schemas() -> Schema:
    """All shapes at once, so that two of one name would not hide each other."""
    asked = [entry.body for entry in ENTRIES if entry.body]
    answered = [entry.answer for entry in ENTRIES if entry.answer]
    answered += [entry.streams for entry in ENTRIES if entry.streams]
    answered += [Error, Alive, Ready, LoginClients]
    _, whole = TypeAdapter.json_schemas(
        [(shape.__name__, "validation", TypeAdapter(shape)) for shape in asked]
        + [(shape.__name__, "serialization", TypeAdapter(shape)) for shape in answered],
        ref_template="#/components/schemas/{model}",
    )
    found: Schema = whole["$defs"]
    return found
