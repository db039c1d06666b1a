"""`/v1/feedback`: what those who asked say of the answers, where their tenant wants it."""

import asyncio
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from freehold.core.binding import Principal
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.feedback import Answered, Feedback, Rating
from freehold.core.ids import new_id, request_of
from freehold.core.subject import Owner
from freehold.secure.subjects import seal_content
from freehold.serve.gateway import Gateway
from freehold.serve.owner import owner
from freehold.serve.reading import body_of, parsed
from freehold.serve.request.personal import named_user, user_id
from freehold.serve.wire import Receive, Scope, Send, reply_json

_RATINGS = {"up": Rating.UP, "down": Rating.DOWN, 1: Rating.UP, -1: Rating.DOWN}


def _thumb(given: object) -> object:
    """Python takes `true` for 1."""
    if isinstance(given, bool):
        raise ValueError("must be up, down, 1 or -1")
    return given


class NewFeedback(BaseModel):
    """`request_id` is the id of the answer, or of its request as the header
    `x-freehold-request-id` has it. `correction` is what should have been answered. `user` says
    for whom, as in requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: Annotated[str, Field(pattern=r"^(req_|chatcmpl-|cmpl-|resp_)[0-9A-Z]{26}$")]
    rating: Annotated[Literal["up", "down", 1, -1], BeforeValidator(_thumb)]
    correction: Annotated[str, Field(min_length=1, max_length=32_768)] | None = None
    comment: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    @property
    def request(self) -> str:
        return request_of(self.request_id)

    @property
    def written(self) -> bytes | None:
        said = {"correction": self.correction, "comment": self.comment}
        return orjson.dumps(said) if any(said.values()) else None


class FeedbackTaker:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        said = parsed(NewFeedback, await body_of(gateway, scope, receive, principal, key))
        owner(gateway, scope, principal)
        check_wanted(gateway, principal.tenant_id)
        label = named_user(scope, said.user)
        await asyncio.to_thread(gateway.ledger.flush)
        taken = await asyncio.to_thread(self._take, principal, said, label)
        await reply_json(send, _shown(taken))

    def _take(self, principal: Principal, said: NewFeedback, label: str | None) -> Feedback:
        gateway, tenant_id = self._gateway, principal.tenant_id
        answered = gateway.store.answered(tenant_id, principal.environment, said.request)
        if answered is None or answered.account != principal.account:
            raise UserError(
                Code.NOT_FOUND,
                f"There is no request {said.request_id} of yours: send the id of an answer that "
                "you got, with the key that you asked with.",
                param="request_id",
            )
        person, owners = principal.account, [(tenant_id, principal.id)]
        if label is not None:
            person = user_id(gateway.keyring, tenant_id, label)
            owners.append((tenant_id, person))
        id, names, sealed = new_id("fbk"), tuple[str, ...](), None
        if said.written is not None:
            keys = gateway.subjects.keys(self._whom(answered, owners))
            sealed = seal_content(keys, said.written, id)
            names = tuple(name for name, _ in keys)
        new = Feedback(
            id=id,
            tenant_id=tenant_id,
            environment=principal.environment,
            request_id=said.request,
            alias=answered.alias,
            adapter_digest=answered.adapter_digest,
            rating=_RATINGS[said.rating],
            given_at_us=gateway.clock.wall_us(),
            given_by=person,
            data_keys=names,
            sealed=sealed,
        )
        gateway.store.put_feedback(tenant_id, new)
        return new

    def _whom(self, answered: Answered, owners: list[Owner]) -> list[Owner]:
        """A better answer may tell of those whom the request was about."""
        found = self._gateway.store.subject_keys(answered.data_keys)
        return list(dict.fromkeys([*owners, *((each.tenant_id, each.subject) for each in found)]))


def check_wanted(gateway: Gateway, tenant_id: str) -> None:
    """Raises `UserError(FORBIDDEN)` where the tenant takes none."""
    tenant = gateway.tenants.find(tenant_id)
    if tenant is None or not tenant.feedback:
        raise unwanted()


def unwanted() -> UserError:
    return UserError(
        Code.FORBIDDEN,
        "No feedback is taken for this tenant: whoever operates turns it on with "
        "`freehold tenant set TENANT --feedback on`.",
    )


def _shown(given: Feedback) -> dict[str, Any]:
    return {
        "id": given.id,
        "request_id": given.request_id,
        "rating": given.rating.value,
        "written": given.sealed is not None,
        "given_at": rfc3339(given.given_at_us),
    }
