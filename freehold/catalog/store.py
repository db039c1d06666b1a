"""Placeholder; the real store replaces this file."""


class ModelStore:
    pass
