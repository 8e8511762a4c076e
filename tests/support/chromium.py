"""A headless Chromium of this machine, driven by Playwright; where there is none, the test says so and is skipped."""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright, expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

__all__ = ["chromium", "executable", "expect"]

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str | None:
    """Return where Chromium is."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run the browser during the block."""
    path = executable()
    if path is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=options)
        try:
            yield browser
        finally:
            await browser.close()
