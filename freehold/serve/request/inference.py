"""The model endpoints: admit a request, then let its Exchange answer it."""

from contextlib import AbstractContextManager, nullcontext

from freehold.core.binding import Binding, Principal, Route
from freehold.core.engine import EngineCall
from freehold.core.errors import Code, UserError
from freehold.core.promotion import GATED
from freehold.core.usage import Reservation
from freehold.deploy.pool import Pool
from freehold.secure.quota import Hold
from freehold.serve import admission, connection
from freehold.serve.gateway import Gateway
from freehold.serve.protocol.bodies import Body, admit, parse
from freehold.serve.protocol.endpoints import ENGINE_ENDPOINT, shaper_for
from freehold.serve.request import allowance, content, personal
from freehold.serve.request.exchange import Exchange
from freehold.serve.request.replay import Claim
from freehold.serve.wire import Receive, Scope, Send, read_body
from freehold.store.base import ClaimState


class Inference:
    """One a model endpoint; `endpoint` is its path under `/v1/`."""

    def __init__(self, gateway: Gateway, endpoint: str) -> None:
        self._gateway = gateway
        self._endpoint = endpoint

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        limit = gateway.settings.server.max_body_bytes
        raw = await read_body(scope, receive, limit, gateway.room, "server.max_body_bytes")
        try:
            principal = await admission.still(gateway, scope, principal, key)
            await self._answer(scope, send, principal, key, raw)
        finally:
            gateway.room.give_back(len(raw))

    async def _answer(
        self, scope: Scope, send: Send, principal: Principal, key: str, raw: bytes
    ) -> None:
        gateway = self._gateway
        body = parse(self._endpoint, raw)
        binding = admission.bind(gateway, principal, scope, self._endpoint, body)
        # From the same moment on: what the request is bound to stays until it has ended.
        with self._kept(binding):
            await self._exchange(scope, send, binding, body, key, raw)

    def _kept(self, binding: Binding) -> AbstractContextManager[None]:
        pool = self._gateway.pools.get(binding.route.pool)
        return nullcontext() if pool is None else pool.used(binding.route.adapter_digest)

    async def _exchange(
        self, scope: Scope, send: Send, binding: Binding, body: Body, key: str, raw: bytes
    ) -> None:
        gateway = self._gateway
        call = self._call(binding, body)
        claim = self._claim(scope, binding, key, raw)
        hold = await allowance.hold(gateway, binding, call, body.n, len(raw))
        try:
            sealed = await personal.sealed(gateway, scope, binding, body)
            met = await gateway.ledger.reserve(self._reservation(binding, claim, sealed))
            if met is not None and claim is not None and not met.claimed:
                await _repeat(send, claim, met)
                return
            kept = await content.begun(gateway, scope, binding, body, raw)
            await self._exchanged(scope, send, binding, body, call, claim, hold, len(raw), kept)
        finally:
            await gateway.limits.release(hold)

    async def _exchanged(
        self,
        scope: Scope,
        send: Send,
        binding: Binding,
        body: Body,
        call: EngineCall,
        claim: Claim | None,
        hold: Hold,
        size: int,
        kept: content.Content | None,
    ) -> None:
        gateway = self._gateway
        exchange = Exchange(
            gateway,
            binding,
            call,
            hold,
            shaper_for(self._endpoint, binding, body, gateway.clock),
            n=1 if "n" in call.body else body.n,
            claim=claim,
            connection=connection.of(scope),
            prompt_bytes=size,
            content=kept,
        )
        await exchange.run(send)

    def _call(self, binding: Binding, body: Body) -> EngineCall:
        """The engine's part of the request; refuses by name what it cannot do."""
        gateway = self._gateway
        if gateway.is_draining:
            raise UserError(
                Code.SHUTTING_DOWN, "The gateway is stopping: try again.", retry_after_s=5
            )
        if not gateway.peers.are_heard:
            raise UserError(
                Code.STORAGE_UNAVAILABLE,
                "The database has not answered for so long that keys may have been revoked "
                "meanwhile, so no request is served: try again.",
                retry_after_s=5,
            )
        pool = gateway.pools.get(binding.route.pool)
        if pool is None:
            raise UserError(
                Code.ENGINE_UNAVAILABLE, "No engine serves this model now.", retry_after_s=30
            )
        _check_adapter(binding.route, pool)
        engine_body = admit(body, pool.capabilities)
        gateway.quarantine.check(engine_body)
        return EngineCall(
            endpoint=ENGINE_ENDPOINT[self._endpoint],
            model=binding.route.engine_model,
            body=engine_body,
            request_id=binding.request_id,
            adapter=binding.route.adapter_digest,
            cache_salt=binding.cache_salt,
            tenant=f"{binding.route.tenant_id}/{binding.route.environment}",
            priority=binding.priority.value,
        )

    def _claim(self, scope: Scope, binding: Binding, key: str, raw: bytes) -> Claim | None:
        idempotency_key = admission.idempotency_key(scope)
        if idempotency_key is None:
            return None
        principal = binding.principal
        slot = self._gateway.keyring.keyed(
            "idempotency", principal.tenant_id, principal.id, self._endpoint, idempotency_key
        )
        # A person's next token is another, and must open what this one sealed.
        if principal.groups is not None:
            key = self._gateway.keyring.keyed("reply", principal.id)
        return Claim(slot, key, idempotency_key, raw)

    def _reservation(
        self, binding: Binding, claim: Claim | None, sealed: str | None
    ) -> Reservation:
        now_us = self._gateway.clock.wall_us()
        principal, route = binding.principal, binding.route
        return Reservation(
            request_id=binding.request_id,
            tenant_id=principal.tenant_id,
            environment=principal.environment.value,
            key_id=principal.id,
            alias=route.alias,
            endpoint=binding.endpoint,
            engine=route.engine,
            base_digest=route.base_digest,
            adapter_digest=route.adapter_digest,
            conversation_id=binding.conversation_id,
            priority=binding.priority.value,
            stream=binding.stream,
            created_at_us=now_us,
            policies=" ".join(binding.policies),
            account=principal.lineage,
            price=binding.price.written if binding.price is not None else None,
            personal=sealed,
            idempotency=claim.as_reserved(now_us) if claim else None,
        )


def _check_adapter(route: Route, pool: Pool) -> None:
    """Never the bare base instead of what the route names, and nothing that came to staging or
    prod without evidence."""
    digest = route.adapter_digest
    if digest is None:
        return
    if route.environment in GATED and route.passed_by is None:
        raise UserError(
            Code.ADAPTER_UNAVAILABLE,
            f"What {route.alias} leads to has passed no gate: ask its administrator.",
            param="model",
            retry_after_s=30,
        )
    why: str | None = "its engine takes none"
    if pool.adapters is not None:
        why = pool.adapters.why_not((route.tenant_id, route.environment), digest)
    if why is not None:
        raise UserError(
            Code.ADAPTER_UNAVAILABLE,
            f"The engine has no adapter for {route.alias} ({why.rstrip('.')}): ask its "
            "administrator.",
            param="model",
            retry_after_s=30,
        )


async def _repeat(send: Send, claim: Claim, met: ClaimState) -> None:
    """Answers a retry from what its first try left behind."""
    if met.mismatch:
        raise UserError(
            Code.IDEMPOTENCY_MISMATCH,
            "This Idempotency-Key was used with another body: take a new key for a new request.",
            param="Idempotency-Key",
        )
    if met.reply is None:
        raise UserError(
            Code.IDEMPOTENCY_IN_FLIGHT,
            "A request with this Idempotency-Key is still running: try again later.",
            param="Idempotency-Key",
            retry_after_s=2,
        )
    content = claim.open(met.reply)
    headers = [
        (b"x-freehold-replay-of", met.reply.request_id.encode()),
        (b"content-type", met.reply.content_type.encode()),
    ]
    await send(
        {
            "type": "http.response.start",
            "status": met.reply.status,
            "headers": [*headers, (b"content-length", b"%d" % len(content))],
        }
    )
    await send({"type": "http.response.body", "body": content})
