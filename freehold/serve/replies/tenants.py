from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from freehold.core.departure import OnDeparture
from freehold.core.tenant import IsolationClass


class Tenant(BaseModel):
    id: str
    name: str
    isolation: IsolationClass
    state: Literal["active", "disabled"]
    created_at: datetime
    disabled_at: datetime | None
    audit_content: bool
    feedback: bool
    on_departure: OnDeparture  # of its keys that chose nothing


class Held(BaseModel):
    kind: Literal["adapter", "dataset", "key", "policy", "role", "route"]
    id: str
    name: str
    environment: str  # `all` for a policy


class TenantAndHoldings(Tenant):
    holdings: list[Held]


class TenantList(BaseModel):
    data: list[Tenant]
