"""A headless Chromium for tests of the page: Debian's, driven with selenium.

Every browser has a profile of its own. What it logged and which addresses it asked for are read from its own logs, so
that a page that talks to anyone is found out.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
MISSING = "needs a browser: apt-get install chromium chromium-driver, and selenium from the test extra"
DESKTOP, PHONE = (1280, 900), (390, 844)


def need_browser() -> None:
    """Skip the test, saying why, where there is no browser."""
    pytest.importorskip("selenium", reason=MISSING)
    if not Path(CHROMIUM).exists() or not Path(DRIVER).exists():
        pytest.skip(MISSING)


class Browser:
    """A browser with the looks of the page at hand.

    Args:
        driver: selenium's.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self.requests: list[str] = []
        self.messages: list[str] = []

    def open(self, page: Path, fragment: str = "") -> None:
        """Load `page` anew at `fragment`, and wait until it has come to rest."""
        self.driver.get("about:blank")
        self._drain()
        self.requests.clear()
        self.messages.clear()
        self.driver.get(page.as_uri() + fragment)
        self.settle()

    def settle(self) -> None:
        """Wait until chunks are unpacked and drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; const look = () => document.querySelector('#rows').childElementCount <"
            " Math.min(40, parseInt(document.querySelector('#found').textContent.replace(',', ''))) ||"
            " [...document.querySelectorAll('.body:not([hidden]), .inside')]"
            ".some(n => n.textContent.startsWith('Unpacking'))"
            " ? setTimeout(look, 10) : requestAnimationFrame(() => setTimeout(done, 0)); setTimeout(look, 30);"
        )
        self._drain()

    def look(self, *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> None:
        """Take a screen's size and a colour scheme."""
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript function body."""
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        """The text of every element that `selector` finds."""
        return list(
            self.run("return [...document.querySelectorAll(arguments[0])].map(n => n.textContent)", selector)
        )

    def click(self, selector: str, at: int = 0) -> None:
        """Click the element that `selector` finds, and wait until the page has come to rest."""
        self.run("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, at)
        self.settle()

    def keys(self, *keys: str) -> None:
        """Press keys where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
        self.settle()

    @property
    def focused(self) -> str:
        """The accessible name or the text of what has the focus."""
        found = self.run(
            "const a = document.activeElement; return a.getAttribute('aria-label') || a.textContent || a.id"
        )
        return str(found).strip()

    @property
    def fragment(self) -> str:
        """The part of the address after the page's own."""
        return str(self.run("return location.hash"))

    def _drain(self) -> None:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.messages += [
            e["message"] for e in self.driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser, ended afterwards with its profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="harness-browser-")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)
