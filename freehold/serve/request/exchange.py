"""One accepted request, from its reservation to its one settlement.

However it ends (answered, refused by the engine, client gone, engine dead or hung,
gateway shut down), `run` settles it exactly once, with the tokens made until then.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import orjson

from freehold.core.binding import Binding
from freehold.core.engine import EngineCall
from freehold.core.errors import Code, Fault, FreeholdError, UserError
from freehold.core.limit import Use
from freehold.core.usage import Outcome, Settlement, StoredReply
from freehold.deploy.pool import Lease, Pool
from freehold.secure.quota import Hold
from freehold.serve import errors
from freehold.serve.connection import Connection
from freehold.serve.gateway import Gateway
from freehold.serve.limits.limits import rate_headers
from freehold.serve.protocol.assemble import Assembler
from freehold.serve.protocol.meter import BYTES_A_TOKEN, Meter
from freehold.serve.protocol.shape import Shaper
from freehold.serve.request import answer as answers
from freehold.serve.request.content import Content
from freehold.serve.request.replay import Claim
from freehold.serve.wire import Header, Send, reply

_COUNT_S = 1.0
_OUTCOMES = {
    Code.ENGINE_FAILED: Outcome.ENGINE_FAILED,
    Code.ENGINE_UNAVAILABLE: Outcome.ENGINE_FAILED,
    Code.ADAPTER_UNAVAILABLE: Outcome.ENGINE_FAILED,
    Code.IDENTITY_MISMATCH: Outcome.ENGINE_FAILED,
    Code.UPSTREAM_REFUSED: Outcome.ENGINE_FAILED,
    Code.ENGINE_TIMEOUT: Outcome.ENGINE_TIMEOUT,
    Code.CLIENT_TOO_SLOW: Outcome.CLIENT_TOO_SLOW,
    Code.SHUTTING_DOWN: Outcome.SHUTDOWN,
    Code.INTERNAL: Outcome.FAILED,
    Code.STORAGE_UNAVAILABLE: Outcome.FAILED,
}
_STREAM_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Exchange:
    def __init__(
        self,
        gateway: Gateway,
        binding: Binding,
        call: EngineCall,
        hold: Hold,
        shaper: Shaper,
        *,
        n: int,
        claim: Claim | None,
        connection: Connection | None,
        prompt_bytes: int,
        content: Content | None = None,
    ) -> None:
        self.binding = binding
        self.meter = Meter(tokens_in=prompt_bytes // BYTES_A_TOKEN)
        # Read by the watch (`serve/watch.py`): on whom this waits, and since when.
        self.waits_for_client = False
        self.waiting_since_s = gateway.clock.monotonic_s()
        self.has_first_token = False
        self._gateway = gateway
        self._pool: Pool = gateway.pools[binding.route.pool]
        self._call = call
        self._hold = hold
        self._asked = answers.Asked(self._pool, binding, call, gateway.quarantine, [])
        self._shaper = shaper
        self._n = n
        self._claim = claim
        self._content = content
        self._connection = connection
        self._begun_s = self.waiting_since_s
        self._stopped: UserError | None = None
        self._task: asyncio.Task[Any] | None = None
        self._has_begun_reply = False
        self._reported: dict[str, Any] | None = None  # the first chunk: whose weights it is
        self._settlement: Settlement | None = None
        self._settled: asyncio.Future[None] | None = None

    # stopping from outside

    def stop(self, error: UserError) -> None:
        """Ends the exchange as if it had raised `error`; the first stop counts."""
        if self._stopped is None and self._settled is None and self._task is not None:
            self._stopped = error
            self._task.cancel()

    def client_gone(self) -> None:
        self.stop(_ClientGone())

    # the way through

    async def run(self, send: Send) -> None:
        """Answers the client. Raises `UserError` only when nothing was sent yet."""
        self._task = asyncio.current_task()
        self._gateway.watch.add(self)
        if self._connection is not None:
            self._connection.when_gone(self.client_gone)
        try:
            await self._answer(send)
        except asyncio.CancelledError:
            if self._stopped is None or self._task is None:
                await self._fail(send, UserError(Code.SHUTTING_DOWN, "The gateway is stopping."))
                raise
            self._task.uncancel()
            await self._fail(send, self._stopped)
        except FreeholdError as error:
            await self._fail(send, error)
        finally:
            self._gateway.watch.remove(self)
            if self._settled is None:
                self._settle(Outcome.FAILED, Code.INTERNAL)
            if self._settlement is not None:  # last of all, so that no client waits for it
                self._gateway.observe(self.binding, self._settlement)

    async def _answer(self, send: Send) -> None:
        if self.binding.stream:
            await self._stream(send)
        elif self._pool.capabilities.answers_whole:
            await self._pass_whole(send)
        else:
            await self._assemble(send)

    def _opened(self) -> AbstractAsyncContextManager[answers.Opened]:
        if self._n > 1:
            return answers.fanned_out(self._asked, self._n)
        return answers.opened(self._asked)

    async def _stream(self, send: Send) -> None:
        async with self._opened() as answer:
            chunks = await answer.read()
            while chunks is not None:
                self._see(chunks)
                content = self._shaper.chunk(chunks)
                if content:
                    if not self._has_begun_reply:
                        await self._begin(send)
                    await self._send(send, content)
                self.waits_for_client = False
                self.waiting_since_s = self._gateway.clock.monotonic_s()
                chunks = await answer.read()
        if not self._has_begun_reply:
            await self._begin(send)
        tail = self._shaper.end(self.meter)
        await self._finish(200, "text/event-stream; charset=utf-8", tail)
        await send({"type": "http.response.body", "body": tail})

    async def _assemble(self, send: Send) -> None:
        """The client has seen nothing yet, so an engine that dies in the middle is
        worth one more try; what the first try made is not billed."""
        before = replace(self.meter)
        try:
            content = await self._assembled()
        except UserError as error:
            is_held = self._gateway.quarantine.holds(self._call.body)
            if error.code is not Code.ENGINE_FAILED or is_held:
                raise
            self.meter = before
            content = await self._assembled()
        await self._reply_whole(send, content)

    async def _assembled(self) -> dict[str, Any]:
        assembler = Assembler()
        async with self._opened() as answer:
            while (chunks := await answer.read()) is not None:
                self._see(chunks)
                assembler.add(chunks)
                self.waiting_since_s = self._gateway.clock.monotonic_s()
        return assembler.whole()

    async def _pass_whole(self, send: Send) -> None:
        content = await answers.whole(self._asked)
        self._check_identity(content)
        usage = content.get("usage")
        if isinstance(usage, dict):
            self.meter.take(usage)
        await self._reply_whole(send, content)

    async def _reply_whole(self, send: Send, content: dict[str, Any]) -> None:
        body = orjson.dumps(self._shaper.whole(content, self.meter))
        if self._claim is not None:
            self._claim.keep(body)
        if self._content is not None:
            self._content.keep(body)
        await self._finish(200, "application/json", b"")
        self._has_begun_reply = True
        await reply(send, 200, body, self._identity_headers())

    @property
    def _lease(self) -> Lease | None:
        return self._asked.leases[-1] if self._asked.leases else None

    def _see(self, chunks: list[dict[str, Any]]) -> None:
        for chunk in chunks:
            self._check_identity(chunk)
        self.meter.see(chunks, self._gateway.clock.monotonic_s())
        self.has_first_token = True

    def _check_identity(self, content: dict[str, Any]) -> None:
        """Each chunk says which weights made it: those of the route, or it is no answer."""
        base, adapter = self.binding.route.base_digest, self.binding.route.adapter_digest
        is_other = base is not None and content.get("model", base) != base
        if self._pool.capabilities.adapters and content.get("adapter") != adapter:
            is_other = True
        if is_other:
            raise UserError(
                Code.IDENTITY_MISMATCH,
                "The engine answered with other weights than the route names: "
                "its answer was discarded.",
            )
        if self._reported is None:
            self._reported = content

    async def _begin(self, send: Send) -> None:
        self._has_begun_reply = True
        headers = [*_STREAM_HEADERS, *self._identity_headers()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send(self, send: Send, content: bytes) -> None:
        if self._claim is not None:
            self._claim.keep(content)
        if self._content is not None:
            self._content.keep(content)
        self.waits_for_client = True
        await send({"type": "http.response.body", "body": content, "more_body": True})

    def _identity_headers(self) -> list[Header]:
        route = self.binding.route
        able = self._pool.capabilities
        is_proved = able.proves_weights and (able.proves_adapters or route.adapter_digest is None)
        proof = b"proved" if is_proved else b"claimed"
        headers = [(b"x-freehold-engine", route.engine.encode()), (b"x-freehold-weights", proof)]
        reported = self._reported or {}
        if self._lease is not None and self._lease.base_digest is not None:
            # An engine that names none in its chunks has named it when it started.
            base = reported.get("model", self._lease.base_digest)
            headers.append((b"x-freehold-model-digest", base.encode()))
        adapter = reported.get("adapter")
        if adapter is not None and self._pool.capabilities.adapters:
            headers.append((b"x-freehold-adapter-digest", adapter.encode()))
        return headers + rate_headers(self._hold) if self._hold.rates else headers

    # the end

    async def _finish(self, status: int, content_type: str, tail: bytes) -> None:
        """Settles a good answer; returns when that is on the disk, so that a client
        which saw the end of its answer can rely on the record of it."""
        replay = None
        if self._content is not None:
            self._content.keep(tail)
        if self._claim is not None:
            self._claim.keep(tail)
            replay = self._claim.reply(self.binding.request_id, status, content_type)
        settled = self._settle(Outcome.OK, None, replay)
        await self._gateway.limits.closed(self._hold)
        await settled

    async def _fail(self, send: Send, error: FreeholdError) -> None:
        code = error.code
        if isinstance(error, _ClientGone):
            outcome, kept = Outcome.CLIENT_GONE, None
        else:
            outcome, kept = _OUTCOMES.get(code, Outcome.REFUSED), code
        if code is Code.ENGINE_TIMEOUT and self._lease is not None:
            self._lease.suspect()
        if isinstance(error, Fault):
            self._gateway.log_fault(self.binding.request_id, error)
        await self._count_prompt(outcome)
        if self._settled is None:
            settled = self._settle(outcome, kept)
            await self._gateway.limits.closed(self._hold)
            await asyncio.wait([settled])
        if outcome is Outcome.CLIENT_GONE:
            return
        if outcome is Outcome.CLIENT_TOO_SLOW and self._connection is not None:
            self._connection.abort()
            return
        if not self._has_begun_reply:
            raise error
        body = self._shaper.error(errors.body_of(error))
        await send({"type": "http.response.body", "body": body})

    async def _count_prompt(self, outcome: Outcome) -> None:
        """An answer cut short carries no counts: the prompt is counted by asking
        the engine, or from its size when the engine cannot say."""
        if self.meter.is_exact:
            return
        if outcome is Outcome.REFUSED and not self.meter.tokens_out:
            self.meter.tokens_in = 0
            return
        if self._lease is None:  # it only waited: no engine has seen it
            self.meter.tokens_in = 0
            return
        if outcome in (Outcome.ENGINE_FAILED, Outcome.ENGINE_TIMEOUT):
            return
        try:
            async with asyncio.timeout(_COUNT_S):
                count = await self._lease.client.count_prompt_tokens(self._call)
        except (TimeoutError, UserError):
            return
        if count is not None:
            self.meter.tokens_in = count

    def _settle(
        self, outcome: Outcome, code: Code | None, replay: StoredReply | None = None
    ) -> "asyncio.Future[None]":
        gateway, meter = self._gateway, self.meter
        now_s = gateway.clock.monotonic_s()
        duration_us = int((now_s - self._begun_s) * 1e6)
        ttft_us, price = None, self.binding.price
        if meter.first_token_s is not None:
            ttft_us = int((meter.first_token_s - self._begun_s) * 1e6)
        settlement = Settlement(
            request_id=self.binding.request_id,
            outcome=outcome,
            tokens_in=meter.tokens_in,
            tokens_out=meter.tokens_out,
            tokens_cached=meter.tokens_cached,
            estimated=not meter.is_exact,
            ttft_us=ttft_us,
            duration_us=duration_us,
            settled_at_us=gateway.clock.wall_us(),
            error_code=code.value if code else None,
            cost=None if price is None else price.cost(*meter.tokens),
            content=self._content.kept() if self._content else None,
            claim_slot=self._claim.slot if self._claim else None,
            replay=replay,
        )
        if self._connection is not None:
            self._connection.when_gone(None)  # whether it reads the end is its own matter
        self._settlement = settlement
        self._settled = gateway.ledger.settle(settlement)
        used = Use(1, meter.tokens_in + meter.tokens_out, settlement.cost)
        gateway.limits.settle(self._hold, self.binding.principal, used)
        return self._settled


class _ClientGone(UserError):
    def __init__(self) -> None:
        super().__init__(Code.CLIENT_TOO_SLOW, "The client closed the connection.")
