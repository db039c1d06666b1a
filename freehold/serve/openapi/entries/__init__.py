"""The table of operations as the document shows them: one file a resource, as in `admin/`."""
