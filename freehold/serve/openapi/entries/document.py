from freehold.serve.openapi.entry import Entry

ENTRIES = [
    Entry("get", "/openapi.json", "openapi", "models", "This document", None),
]  # fmt: skip
