from freehold.serve.feedback import NewFeedback
from freehold.serve.openapi.codes import OWNED, WITH_BODY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.feedback import GivenFeedback

ENTRIES = [
    Entry(
        "post", "/v1/feedback", "give_feedback", "feedback",
        "Say what an answer to oneself was worth; what the same person says last counts",
        GivenFeedback, WITH_BODY | OWNED, NewFeedback,
    ),
]  # fmt: skip
