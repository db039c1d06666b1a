"""Requests that come, and what replicas make of them."""
