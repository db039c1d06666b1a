"""Whom Freehold believes when it calls others."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.config.schema import UpstreamSettings
from freehold.config.trust import outgoing
from freehold.core.engine import CHAT, EngineCall
from freehold.core.errors import FreeholdError, UserError
from freehold.engines.remote import RemoteClient
from freehold.secure.authority import Authority
from freehold.secure.oidc import Provider, Trusted
from tests.secure.test_oidc import Time


@contextlib.asynccontextmanager
async def _company(folder: Path, *hosts: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A service with a certificate of the company's own authority; what it is asked for."""
    issued = Authority(folder / "tls").server(hosts)
    (folder / "server.pem").write_bytes(issued.certificate + issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        writer.write(b"HTTP/1.1 404 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}", asked


async def _call(url: str, trust: ssl.SSLContext) -> None:
    settings = UpstreamSettings.model_validate(
        {"name": "a", "base_url": url, "models": [{"alias": "q", "upstream_name": "q"}]}
    )
    client = RemoteClient(settings, trust)
    try:
        with contextlib.suppress(FreeholdError):
            await client.whole(EngineCall(CHAT, "req_1", {"model": "q", "messages": []}, "q"))
    finally:
        await client.close()


async def _fetch(url: str, trust: ssl.SSLContext) -> None:
    with pytest.raises(UserError):
        await Provider(Trusted(url, ("a",)), Time(), trust)._key("x")


@pytest.mark.parametrize("ask", [_call, _fetch])
async def test_a_company_s_service_is_asked_when_its_authority_is_named_and_else_not(
    ask: object, tmp_path: Path
) -> None:
    async with _company(tmp_path, "localhost") as (url, asked):
        await ask(url, outgoing(None))  # type: ignore[operator]
        assert asked == []
        await ask(url, outgoing(str(tmp_path / "tls" / "ca.pem")))  # type: ignore[operator]
        assert len(asked) == 1


@pytest.mark.parametrize("ask", [_call, _fetch])
async def test_a_certificate_for_another_name_is_not_believed(ask: object, tmp_path: Path) -> None:
    async with _company(tmp_path, "elsewhere.example") as (url, asked):
        await ask(url, outgoing(str(tmp_path / "tls" / "ca.pem")))  # type: ignore[operator]
        assert asked == []


@pytest.mark.parametrize("content", [None, b"", b"noise", b"-----BEGIN CERTIFICATE-----\nMII"])
def test_an_authority_that_is_lost_stops_the_start(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be used as network\.ca_file"):
        outgoing(str(file))
