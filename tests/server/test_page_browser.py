"""The gateway's page in a real browser: headless Chromium, driven by Playwright; without one, these are skipped."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from chromium import chromium, expect
from gateway_support import gateway
from test_page_data import PIPELINE
from test_page_people import ASKS, OTHER
from tool_node import tool_node

from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.server.gateway import KeyFile
from synaptic.server.ollama_api import ServeSettings
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page

WAIT = 60_000  # milliseconds: the machine may be busy
expect.set_options(timeout=WAIT)
MARKUP = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>'
SCRIPT: dict[str, Any] = {"dig": f"gold {MARKUP}", "write": f"## Found\n\nIt is **gold**. {MARKUP}\n\n- one\n- two"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


class Seen:
    """A page, and what went wrong on it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)

    async def open(self, view: str = "") -> None:
        await self.page.goto(f"{self.url}/#{view}")

    async def shows(self, text: str) -> None:
        await self.page.get_by_text(text).first.wait_for(timeout=WAIT)

    async def width(self) -> int:
        return await self.page.evaluate("document.documentElement.scrollWidth")


@asynccontextmanager
async def looking(
    tmp_path: Path,
    browser: Browser,
    backend: ScriptedBackend | None = None,
    *,
    keys: KeyFile | None = None,
    width: int = 1200,
    **context: Any,
) -> AsyncIterator[Seen]:
    files = {"two": PIPELINE, "asks": ASKS}
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    settings = ServeSettings(pipelines={name: tmp_path / f"{name}.yaml" for name in files}, keys=keys)
    async with gateway(backend=backend or ScriptedBackend(SCRIPT), serve=settings) as url:
        seen = Seen(await _page(browser, width, **context), url)
        yield seen
        await seen.page.context.close()
        assert seen.faults == []


async def _page(browser: Browser, width: int, **context: Any) -> Page:
    page = await (await browser.new_context(viewport={"width": width, "height": 800}, **context)).new_page()
    page.set_default_timeout(WAIT)
    return page


async def ask(seen: Seen, question: str, pipeline: str = "two") -> None:
    await seen.open("ask")
    await seen.page.get_by_label("Who answers").select_option(f"pipeline/{pipeline}")
    await seen.page.get_by_label("Question").fill(question)
    await seen.page.get_by_role("button", name="Ask", exact=True).click()


async def test_a_question_is_asked_watched_found_again_and_compared(tmp_path: Path, browser: Browser) -> None:
    async with looking(tmp_path, browser) as seen:
        page = seen.page
        await ask(seen, "What is there?")
        await page.get_by_role("heading", name="What is there?").wait_for()
        await page.get_by_role("button", name="write: succeeded").wait_for()  # of the graph
        await page.get_by_role("heading", name="Found").wait_for()  # of the answer
        await expect(page.locator(".answer li")).to_have_count(2)
        before = page.url
        await page.get_by_role("button", name="Run again", exact=True).click()
        await expect(page).not_to_have_url(before)
        await page.get_by_role("button", name="write: succeeded").wait_for()
        await expect(page.locator(".answer li")).to_have_count(2)
        await seen.open("history")
        rows = page.locator("tbody tr")
        await expect(page.locator("tbody tr")).to_have_count(2)
        await page.get_by_label("Search in all runs").fill("gold")
        await seen.shows("2 runs of 2")
        await rows.nth(0).get_by_role("checkbox").check()
        await rows.nth(1).get_by_role("checkbox").check()
        await page.get_by_role("button", name="Compare two").click()
        await page.get_by_role("heading", name="Two runs, side by side").wait_for()
        await expect(page.locator("details.step")).to_have_count(2)


async def test_what_models_write_is_text_whatever_it_looks_like(tmp_path: Path, browser: Browser) -> None:
    async with looking(tmp_path, browser) as seen:
        page = seen.page
        await ask(seen, f"What is {MARKUP}?")
        await page.get_by_role("heading", name="Found").wait_for()
        await page.locator("details.step summary").first.click()
        await page.locator("details.step", has_text="gold <img").first.wait_for()
        for view in ("runs", "history", "now"):
            await seen.open(view)
            await page.wait_for_timeout(200)
            assert await page.locator("main img, main script").count() == 0
            assert await page.evaluate("window.hurt") is None
        refused = await page.evaluate(
            "(() => { try { document.body.innerHTML = '<b>x</b>' } catch { return 'refused' } })()"
        )
        assert refused == "refused"  # the policy, should the page itself ever try
        seen.faults.clear()


async def test_a_live_run_lights_its_steps_streams_its_text_and_is_cancelled(tmp_path: Path, browser: Browser) -> None:
    backend = ScriptedBackend({"dig": Failure("stall", after_tokens=4), "write": "never"})
    async with looking(tmp_path, browser, backend) as seen:
        page = seen.page
        await ask(seen, "What is there?")
        await page.get_by_role("button", name="dig: running").wait_for()
        await page.get_by_role("button", name="write: waiting").wait_for()
        await page.locator("details.step", has_text="one two three four").wait_for()
        await page.get_by_role("link", name="Runs").click()
        await seen.shows("Being written")
        await page.locator("details.step", has_text="one two three four").wait_for()
        await page.get_by_role("button", name="Cancel").click()
        await page.locator(".pill", has_text="cancelled").wait_for()


async def test_what_a_run_asks_is_counted_and_answered_by_keyboard(tmp_path: Path, browser: Browser) -> None:
    async with looking(tmp_path, browser) as seen:
        page = seen.page
        await ask(seen, "Paris", "asks")
        await page.get_by_role("heading", name="Which Paris?").wait_for()
        await page.get_by_role("button", name="which: waits for a person").wait_for()
        await page.get_by_label("1 run waits for a person").wait_for()
        await page.get_by_role("link", name="Runs").click()
        await page.get_by_label("country").fill("x")
        await page.keyboard.press("Enter")
        await seen.shows("country")
        await page.locator(".toast").wait_for()
        seen.faults.clear()  # the browser tells of a 400
        await page.get_by_label("country").fill("Texas")
        await page.get_by_label("likes").fill("hats\nboots")
        await page.get_by_label("country").press("Enter")
        await page.get_by_role("heading", name="May the run go on with this output of write?").wait_for()
        await page.get_by_role("button", name="Change it").press("Enter")
        await page.keyboard.type("Changed: ")
        await page.get_by_role("button", name="Go on with this").click()
        await page.locator(".pill", has_text="succeeded").wait_for()
        await expect(page.get_by_label("run waits for a person")).to_be_hidden()
        await page.locator(".answer", has_text="Changed: ").wait_for()


async def test_a_run_of_another_program_is_seen_as_it_goes_on(tmp_path: Path, browser: Browser) -> None:
    async with looking(tmp_path, browser) as seen:
        await seen.open("runs")
        await seen.shows("No run is under way")
        process = await asyncio.create_subprocess_exec(sys.executable, str(OTHER), tmp_path / "two.yaml", "Where?", "1")
        await seen.page.get_by_role("button", name="write: running").wait_for()
        await seen.shows(f"process {process.pid}")
        await expect(seen.page.get_by_role("button", name="Cancel")).to_have_count(0)
        await seen.page.get_by_role("button", name="write: succeeded").wait_for()
        await seen.page.locator(".answer", has_text="one two three four").wait_for()
        await process.wait()


class Relay:
    """Passes connections on, until they are cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


async def test_it_catches_up_after_the_connection_broke(tmp_path: Path, browser: Browser) -> None:
    backend = ScriptedBackend({"dig": "one two three", "write": Reply(text="a b c d e f g h", token_delay=0.25)})
    async with looking(tmp_path, browser, backend) as seen:
        relay = Relay(int(seen.url.rpartition(":")[2]))
        async with await asyncio.start_server(relay.connected, "127.0.0.1", 0) as server:
            seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            await ask(seen, "What is there?")
            await seen.page.get_by_role("button", name="write: running").wait_for()
            relay.cut()
            await seen.shows("reconnecting")
            await seen.page.get_by_role("button", name="write: succeeded").wait_for()
            await seen.shows("a b c d e f g h")
            await seen.page.close()
            relay.cut()
        seen.faults.clear()  # the browser tells of the cut


async def test_now_shows_the_nodes_and_a_model_answers(tmp_path: Path, browser: Browser) -> None:
    async with tool_node() as node:
        settings = Settings(nodes=[{"url": node.url, "name": "desk"}, {"url": "http://127.0.0.1:9", "name": "attic"}])
        async with gateway(settings) as url:
            seen = Seen(await _page(browser, 1200), url)
            await seen.open()
            await seen.page.locator("article", has_text="desk").get_by_text("up").wait_for()
            await seen.page.locator("article.down", has_text="attic").wait_for()
            await seen.open("ask")
            await seen.page.get_by_label("Who answers").select_option(node.model)
            await seen.page.get_by_label("Question").fill("one two three")
            await seen.page.keyboard.press("Control+Enter")
            await seen.page.locator(".answer", has_text="one two three").nth(1).wait_for()
            await seen.page.context.close()
            assert seen.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_in_both_colours(tmp_path: Path, browser: Browser, scheme: str) -> None:
    async with looking(tmp_path, browser, width=360, color_scheme=scheme, reduced_motion="reduce") as seen:
        await ask(seen, "What is there, and why is it there, and who put it there in the first place?")
        await seen.page.get_by_role("button", name="write: succeeded").wait_for()
        assert await seen.page.evaluate("document.documentElement.dataset.theme") == scheme
        for view in ("now", "runs", "history", "ask"):
            await seen.page.get_by_role("link", name=view.capitalize()).click()
            await seen.page.locator(f"nav a[aria-current=page][href='#{view}']").wait_for()
            await seen.page.wait_for_timeout(150)
            assert await seen.width() == 360, view


async def test_it_is_used_by_keyboard(tmp_path: Path, browser: Browser) -> None:
    async with looking(tmp_path, browser) as seen:
        page = seen.page
        await ask(seen, "What?")
        box = page.get_by_role("button", name="dig: succeeded")
        await box.wait_for()
        await box.focus()
        await page.keyboard.press("Enter")
        await page.locator("details.step[open]").wait_for()
        await seen.open("now")
        await page.keyboard.press("Tab")
        nameless = "e => !e.textContent.trim() && !e.ariaLabel && !e.labels?.length"
        names = await page.evaluate(
            f"[...document.querySelectorAll('button, a, input, select')].filter({nameless}).length"
        )
        assert names == 0  # each has a name that is read out


async def test_a_key_is_asked_for_and_kept_for_the_tab(tmp_path: Path, browser: Browser) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.add("boss", scopes=("models", "pipelines", "admin"))
    async with looking(tmp_path, browser, keys=keys) as seen:
        await seen.open("history")
        await seen.page.get_by_label("Key, made with").fill(key)
        await seen.page.keyboard.press("Enter")
        await seen.shows("No run is recorded yet.")
        await seen.shows("live")
        seen.faults.clear()  # the browser tells of every 401


async def test_a_graph_with_countless_ways_through_it_is_drawn_and_a_broken_address_shown(
    tmp_path: Path, browser: Browser
) -> None:
    """Forty stages of two steps, each behind both of the stage before: a million millions of ways."""
    rows = [
        {"id": f"{name}{stage}", "needs": [f"{one}{stage - 1}" for one in "ab" if stage], "stage": stage, "times": "1"}
        for stage in range(40)
        for name in "ab"
    ]
    async with looking(tmp_path, browser) as seen:
        await seen.open("%")
        await seen.shows("tokens a second")
        async with asyncio.timeout(WAIT / 1000):
            drawn = "rows => new Graph({plan: rows}, false, () => 0).edges.length"
            assert await seen.page.evaluate(drawn, rows) == 39 * 4
        skip = [{**rows[0], "needs": []}, {**rows[2], "needs": ["a0"]}, {**rows[4], "needs": ["a0", "a1"]}]
        assert await seen.page.evaluate(drawn, skip) == 2  # the third is implied
