"""Builds the concrete things and hands them to each other. Nobody else does."""
