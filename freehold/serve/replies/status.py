from pydantic import BaseModel

from freehold.deploy.pool import PoolStatus
from freehold.serve.replies.fields import Count


class Status(BaseModel):
    version: str
    url: str
    pid: int
    rss_bytes: Count
    in_flight: Count
    tokens_out: Count
    ledger_writable: bool
    draining: bool
    pools: list[PoolStatus]
