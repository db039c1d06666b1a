"""From a tenant's own data to what serves it."""
