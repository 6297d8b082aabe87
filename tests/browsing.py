"""A real browser without a window, for tests of pages: what it shows, complains of, asks the network."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
WAIT = 60  # seconds, of a machine that has much to do


def missing(reason):
    """Skip a test; in CI, where the browser has to be, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}: browser tests have to run in CI")
    pytest.skip(reason)


def program(names):
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """A driver with what tests of a page ask."""

    def __init__(self, folder):
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        options.binary_location = program(BROWSERS)
        for each in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(each)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(program(DRIVERS)))
        self.folder, self.pages = folder, 0

    def open(self, html, width=1300, height=900, dark=False):
        """Open a page from a file of its own, in a window of that width."""
        self.look(width, height, dark)
        self.pages += 1
        file = self.folder / f"page{self.pages}.html"
        file.write_text(html, encoding="utf-8")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(file.as_uri())

    def look(self, width=1300, height=900, dark=False):
        """Set the window and the colours that its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script, *given):
        return self.driver.execute_script(script, *given)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def until(self, script):
        """Wait until a script returns something true, and return it."""
        end = time.monotonic() + WAIT
        while not (found := self.run(f"return {script}")):
            assert time.monotonic() < end, f"never true: {script}\n{self.driver.get_log('browser')}"
            time.sleep(0.02)
        return found

    def complaints(self):
        """Return what the browser said of the page: errors, refusals of its content policy."""
        return [each["message"] for each in self.driver.get_log("browser")]

    def requests(self):
        """Return the addresses that the page asked for, itself aside."""
        events = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        page = self.driver.current_url
        asked = [
            each["params"]["request"]["url"]
            for each in events
            if each["method"] == "Network.requestWillBeSent" and each["params"]["documentURL"] == page
        ]
        return [url for url in asked if url != page]

    def key(self, name):
        """Press a key where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.driver).send_keys(getattr(Keys, name)).perform()

    def hover(self, element, right, down):
        """Move the pointer to a place in an element, from its upper left corner."""
        from selenium.webdriver.common.action_chains import ActionChains

        size = element.size
        offset = right - size["width"] // 2, down - size["height"] // 2
        ActionChains(self.driver, 0).move_to_element_with_offset(element, *offset).perform()
