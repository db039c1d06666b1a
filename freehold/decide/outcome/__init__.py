"""Decisions that are kept, and whether they still hold."""
