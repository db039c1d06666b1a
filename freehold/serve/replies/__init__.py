"""What the gateway answers, as types: one file a resource, as in `admin/`.

The OpenAPI document is made of them; answers themselves are built as plain objects,
where each is built, and a test holds every operation against these.
"""
