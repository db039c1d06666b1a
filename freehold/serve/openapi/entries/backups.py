from freehold.core.errors import Code
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.backups import BackupList, MadeBackup

ENTRIES = [
    Entry(
        "get", "/admin/v1/backups", "list_backups", "administration",
        "The backups in the folder of the settings, oldest first", BackupList,
    ),
    Entry(
        "post", "/admin/v1/backups", "make_backup", "administration",
        "Back all of the installation up, locked for the recipient of the settings",
        MadeBackup, frozenset({Code.CONFLICT, Code.DISK_FULL}), status=201,
    ),
]  # fmt: skip
