"""The three open paths: alive, ready, metrics."""

from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, Send, reply_json


class Health:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def alive(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The process answers; says nothing of engines, so that a supervisor does
        not restart a gateway because a model still loads."""
        await reply_json(send, {"status": "ok"})

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200 when a request could be served now, else 503 and the reason."""
        gateway = self._gateway
        reasons = []
        if gateway.is_draining:
            reasons.append("draining")
        trouble = gateway.ledger.trouble or gateway.ledger.lacks_room()
        if trouble is not None:
            reasons.append(trouble.message)
        if not gateway.peers.are_heard:
            reasons.append("the database does not answer")
        # Those of single tenants keep nobody else from being served.
        shared = [pool for pool in gateway.pools.values() if pool.own is None]
        waiting = sum(not pool.is_ready for pool in shared)
        if waiting:
            reasons.append(f"{waiting} of {len(shared)} pools have no ready replica")
        status = 503 if reasons else 200
        body = {"status": "unready" if reasons else "ready", "reasons": reasons}
        await reply_json(send, body, status)

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        gateway.metrics.active.set(len(gateway.watch))
        gateway.metrics.replicas.clear()
        gateway.metrics.queued.clear()
        for pool in gateway.pools.values():
            name = pool.own.shared if pool.own else pool.name
            status = pool.status()
            gateway.metrics.queued.labels(name).inc(status.queued)
            for replica in status.replicas:
                gateway.metrics.replicas.labels(name, replica.state).inc()
        text = gateway.metrics.text()
        headers = [
            (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
