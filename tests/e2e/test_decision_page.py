"""The page of a decision in a real browser, from a file and without a network."""

from pathlib import Path

from typer.testing import CliRunner

from freehold.cli.main import app
from tests.browser import Page, browser

_WORK = """
name: "<img src=x onerror=alert(1)><script>document.title='run'</script>"
requests_per_day: 300k
prompt: 800
answer: 200
region: us
models: [llama-3.1-8b, mistral-7b-v0.1, gpt-5-mini]
rules: {users_a_month: 1000}
"""
_SHOWN = "[...document.querySelectorAll('.option')].filter(it => it.checkVisibility())"


async def _open(page: Page, file: Path, width: int) -> None:
    await page.call(
        "Network.emulateNetworkConditions",
        offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1,
    )  # fmt: skip
    await page.sized(width, 900)
    await page.go(file.as_uri())


async def test_the_page_opens_from_a_file_without_a_network_and_shows_what_is_asked(
    tmp_path: Path,
) -> None:
    work, file = tmp_path / "work.yaml", tmp_path / "page.html"
    work.write_text(_WORK)
    ran = CliRunner().invoke(app, ["decide", str(work), "--html", str(file)])
    assert ran.exit_code == 0, ran.stderr
    async with browser(tmp_path / "profile") as page:
        await _open(page, file, 1100)
        assert "The answer" in await page.text()
        assert (await page.value("document.title")).startswith("<img src=x")
        assert await page.value("document.querySelectorAll('script, img').length") == 0

        # One option is opened.
        parts = "document.querySelector('.option table').checkVisibility()"
        assert await page.value(parts) is False
        await page.value("document.querySelector('.option summary').click()")
        assert await page.value(parts) is True

        # Those of one way are shown, and all again.
        every = await page.value(f"{_SHOWN}.length")
        await page.value("document.querySelector('#show-owned').click()")
        ways = await page.value(f"{_SHOWN}.map(it => it.className)")
        assert ways
        assert set(ways) == {"option owned"}
        assert len(ways) < every
        await page.value("document.querySelector('#show-all').click()")
        assert await page.value(f"{_SHOWN}.length") == every

        # The lines of the chart are drawn, and each has a colour.
        drawn = "getComputedStyle(document.querySelector('polyline.owned')).stroke"
        assert (await page.value(drawn)).startswith(("rgb", "color"))

        # On a phone nothing is wider than it, whatever is opened.
        await _open(page, file, 390)
        await page.value("document.querySelectorAll('details').forEach(it => it.open = true)")
        assert await page.value("document.documentElement.scrollWidth") <= 390

        assert page.complaints == []
        assert {url.partition(":")[0] for url in page.fetched} == {"file"}
