"""The shared-base engine: one base in memory, adapters beside it, all in one batch."""
