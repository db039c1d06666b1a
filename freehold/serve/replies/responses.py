from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from freehold.serve.replies.chat import CachedTokens, TokenLogprob
from freehold.serve.replies.fields import Count


class OutputText(BaseModel):
    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[TokenLogprob]


class OutputRefusal(BaseModel):
    type: Literal["refusal"]
    refusal: str


class OutputMessage(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[Annotated[OutputText | OutputRefusal, Field(discriminator="type")]]


class OutputCall(BaseModel):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"]


class OutputTokensDetails(BaseModel):
    reasoning_tokens: Count


class InputTokensDetails(CachedTokens):
    cache_write_tokens: Count


class ResponseUsage(BaseModel):
    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    output_tokens_details: OutputTokensDetails
    total_tokens: Count


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseError(BaseModel):
    code: str
    message: str


class Response(BaseModel):
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[Annotated[OutputMessage | OutputCall, Field(discriminator="type")]]
    previous_response_id: None
    store: Literal[False]
    usage: ResponseUsage | None
    # As the request had them.
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: Count
    top_p: float | None
    truncation: str
    user: str | None


class ResponseEvent(BaseModel):
    """One event of OpenAI's Responses API; its fields depend on its type."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: Count
