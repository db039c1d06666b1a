"""Freehold: machines that you control, as a private multi-tenant LLM service."""

__version__ = "0.1.0"
