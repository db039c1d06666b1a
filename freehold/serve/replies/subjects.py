from datetime import datetime

from pydantic import BaseModel

from freehold.serve.replies.fields import Count


class ForgottenSubject(BaseModel):
    """`data_keys`: how many it ever had, all of which are destroyed."""

    id: str
    data_keys: Count
    forgotten_at: datetime
