"""A real browser without a window: Debian's Chromium, driven by its own protocol."""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

_PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
_START_S = _PAGE_S = 30


class Page:
    """One page, in words of the person who looks at it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._last = self._loads = 0
        self.fetched: list[str] = []
        self.complaints: list[str] = []  # of its console, such as what a policy refused

    async def call(self, method: str, **given: Any) -> dict[str, Any]:
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": given})
        async with asyncio.timeout(_PAGE_S):
            while True:
                said = await self._socket.receive_json()
                self._note(said)
                if said.get("id") == self._last:
                    assert "error" not in said, said
                    found: dict[str, Any] = said["result"]
                    return found

    def _note(self, said: dict[str, Any]) -> None:
        if said.get("method") == "Network.requestWillBeSent":
            self.fetched.append(said["params"]["request"]["url"])
        elif said.get("method") == "Log.entryAdded":
            entry = said["params"]["entry"]
            self.complaints.append(f"{entry.get('url')}: {entry['text']}")
        elif said.get("method") == "Page.loadEventFired":
            self._loads += 1

    async def go(self, url: str) -> None:
        before = self._loads
        await self.call("Page.navigate", url=url)
        await self._loaded(before)

    async def value(self, script: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    async def click(self, selector: str) -> None:
        """And waits for where that leads."""
        before = self._loads
        script = (
            f"(it => it ? (setTimeout(() => it.click()), true) : false)"
            f"(document.querySelector({selector!r}))"
        )
        assert await self.value(script), f"there is no {selector}"
        await self._loaded(before)

    async def _loaded(self, before: int) -> None:
        async with asyncio.timeout(_PAGE_S):
            while self._loads == before:
                self._note(await self._socket.receive_json())

    async def text(self) -> str:
        return str(await self.value("document.body.innerText"))

    async def sized(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2, mobile=width < 600,
        )  # fmt: skip

    async def picture(self, file: Path) -> None:
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """Fails where there is none: `apt-get install chromium-headless-shell` brings one."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    assert program is not None, f"none of {', '.join(_PROGRAMS)} is installed"
    process = await asyncio.create_subprocess_exec(
        program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
        f"--user-data-dir={folder}", "about:blank", start_new_session=True,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _port(folder / "DevToolsActivePort")
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json") as listed:
                (page, *_) = [each for each in await listed.json() if each["type"] == "page"]
            async with http.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                made = Page(socket)
                for domain in ("Page", "Network", "Log", "Runtime"):
                    await made.call(f"{domain}.enable")
                yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its helpers too
        await process.wait()


async def _port(file: Path) -> int:
    """Where it listens, as it says once it does."""
    async with asyncio.timeout(_START_S):
        while not (file.exists() and "\n" in file.read_text()):
            await asyncio.sleep(0.05)
    return int(file.read_text().splitlines()[0])
