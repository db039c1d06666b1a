"""A route of the real small model is evaluated, and the page is opened in a real browser."""

import json
from pathlib import Path

import pytest

from tests.browser import browser
from tests.installation import Installation

MODEL = "smollm2-135m-instruct"
_SUITE = """
name: "<img src=x onerror=alert(1)>"
least: 1
request: {max_tokens: 12}
examples:
  - {ask: "Repeat this word: blue", checks: [{regex: "[a-z]"}], must_pass: true}
  - {ask: "What is 2 + 2?", expected: "no such number"}
  - ask: Give me a form.
    checks: [{json_schema: {type: object}}]
canaries: [{before: The code of the vault is, secret: 7731-9904-5512}]
"""
_SHOWN = "[...document.querySelectorAll('.case')].filter(it => it.checkVisibility())"


@pytest.mark.slow
async def test_the_real_small_model_is_evaluated_and_its_page_opens_without_a_network(
    installation: Installation, tmp_path: Path
) -> None:
    suite, file = tmp_path / "suite.yaml", tmp_path / "page.html"
    suite.write_text(_SUITE)
    asked = ("eval", MODEL, "--suite", str(suite), "--html", str(file), "--json")
    ran = installation.run(*asked, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert found["candidate"]["model_digest"].startswith("sha256:")
    said, total, form = (each["candidate"] for each in found["examples"])
    assert said["passed"]
    assert said["text"]
    assert total["why"] == ["exact: is not “no such number”"]
    assert form["passed"] is False
    assert found["canaries"][0]["extracted"]["passed"] == 0
    assert found["tokens_out"] > 0
    assert file.stat().st_mode & 0o077 == 0

    async with browser(tmp_path / "profile") as page:
        await page.call(
            "Network.emulateNetworkConditions",
            offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1,
        )  # fmt: skip
        await page.sized(1100, 900)
        await page.go(file.as_uri())
        assert "33.3 % of 3 examples" in await page.text()
        assert await page.value("document.querySelectorAll('script, img').length") == 0
        assert await page.value(f"{_SHOWN}.length") == 3
        await page.value("document.querySelector('#show-right').click()")
        assert await page.value(f"{_SHOWN}.map(it => it.className)") == ["case right"]
        await page.sized(390, 900)
        await page.go(file.as_uri())
        await page.value("document.querySelectorAll('details').forEach(it => it.open = true)")
        assert await page.value("document.documentElement.scrollWidth") <= 390
        assert page.complaints == []
        assert {url.partition(":")[0] for url in page.fetched} == {"file"}
