from datetime import datetime
from typing import Literal

from pydantic import BaseModel


class GivenFeedback(BaseModel):
    """`written` says whether a better answer or a comment came with it."""

    id: str
    request_id: str
    rating: Literal["up", "down"]
    written: bool
    given_at: datetime
