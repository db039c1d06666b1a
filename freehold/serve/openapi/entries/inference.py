from freehold.serve.openapi.codes import INFERENCE
from freehold.serve.openapi.entry import Entry
from freehold.serve.protocol.bodies import SHAPES
from freehold.serve.replies.chat import ChatCompletion, ChatCompletionChunk
from freehold.serve.replies.completions import Completion
from freehold.serve.replies.embeddings import EmbeddingList
from freehold.serve.replies.responses import Response, ResponseEvent

ENTRIES = [
    Entry(
        "post", "/v1/chat/completions", "chat_completions", "inference",
        "Answer a conversation", ChatCompletion, INFERENCE,
        SHAPES["chat/completions"],
        streams=ChatCompletionChunk,
    ),
    Entry(
        "post", "/v1/completions", "completions", "inference",
        "Continue a text", Completion, INFERENCE, SHAPES["completions"],
        streams=Completion,
    ),
    Entry(
        "post", "/v1/embeddings", "embeddings", "inference",
        "Embed texts", EmbeddingList, INFERENCE, SHAPES["embeddings"],
    ),
    Entry(
        "post", "/v1/responses", "responses", "inference",
        "Answer, in the shape of the Responses API", Response, INFERENCE,
        SHAPES["responses"],
        streams=ResponseEvent,
    ),
]  # fmt: skip
