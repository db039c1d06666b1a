from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from freehold.serve.replies.fields import Count


class StillIn(BaseModel):
    """What was made of a forgotten person's words before, and holds them still: remove it."""

    kind: Literal["dataset", "adapter", "evaluation"]
    environment: str
    id: str
    name: str


class ForgottenSubject(BaseModel):
    """`data_keys`: how many it ever had, all of which are destroyed."""

    id: str
    data_keys: Count
    forgotten_at: datetime
    still_in: list[StillIn]
