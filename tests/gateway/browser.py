"""Chromium without a window, for the page: Debian's packages chromium and chromium-driver."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDE = (1280, 800)
PHONE = (390, 844)
_QUIET = (
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
)

# What Chrome does where its setting for cookies is to block them, which is read at its start alone.
_KEEPS_NOTHING = """
const refuse = () => { throw new DOMException("Access is denied", "SecurityError"); };
for (const name of ["localStorage", "sessionStorage"])
  Object.defineProperty(window, name, { get: refuse });
IDBFactory.prototype.open = refuse;
"""


def missing() -> str | None:
    """What is not on PATH of what it takes, or None."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not on PATH: {', '.join(names)}: apt-get install chromium-driver" if names else None


class Browser(webdriver.Chrome):
    """A browser with a new profile in `folder`; use `with`."""

    def __init__(self, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (*_QUIET, f"--user-data-dir={folder}", "--window-size={},{}".format(*WIDE)):
            options.add_argument(flag)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        super().__init__(options=options, service=Service(shutil.which("chromedriver")))
        self.set_script_timeout(120)  # axe-core takes long where all is busy

    def look_like(
        self, size: tuple[int, int] = WIDE, dark: bool = False, still: bool = True
    ) -> None:
        """A screen of that size, a phone's if it is narrow, and what the user wishes to see."""
        phone = size[0] < 600
        screen = {"width": size[0], "height": size[1], "mobile": phone}
        screen["deviceScaleFactor"] = 2 if phone else 1
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if still else ""}
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, motion]})

    def screenshot(self) -> bytes:
        """What the screen shows, as WebP."""
        how = {"format": "webp", "quality": 90}
        return base64.b64decode(self.execute_cdp_cmd("Page.captureScreenshot", how)["data"])

    def complaints(self) -> list[str]:
        """The console's warnings and errors since the last time."""
        return [one["message"] for one in self.get_log("browser") if one["level"] != "DEBUG"]

    def requested(self) -> list[str]:
        """The addresses that were asked for since the last time, but the browser's own pages."""
        entries = (json.loads(entry["message"]) for entry in self.get_log("performance"))
        addresses = [
            entry["message"]["params"]["request"]["url"]
            for entry in entries
            if entry["message"]["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in addresses if not address.startswith("chrome://")]

    def forget(self, url: str) -> None:
        """Forget what pages of that address have stored."""
        what = {"origin": url, "storageTypes": "indexeddb,local_storage"}
        self.execute_cdp_cmd("Storage.clearDataForOrigin", what)

    def allow_clipboard(self, url: str) -> None:
        """Let the pages of that address copy and paste without asking."""
        allowed = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        self.execute_cdp_cmd("Browser.grantPermissions", {"origin": url, "permissions": allowed})

    def speak(self, language: str) -> None:
        """The language that the browser tells pages."""
        agent = {"userAgent": self.execute_script("return navigator.userAgent")}
        self.execute_cdp_cmd("Network.setUserAgentOverride", {**agent, "acceptLanguage": language})

    def download_to(self, folder: Path) -> None:
        """Where the files go that the page offers."""
        where = {"behavior": "allow", "downloadPath": str(folder)}
        self.execute_cdp_cmd("Browser.setDownloadBehavior", where)

    def offline(self, off: bool) -> None:
        """Whether nothing can be reached."""
        how = {"offline": off, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.execute_cdp_cmd("Network.enable", {})
        self.execute_cdp_cmd("Network.emulateNetworkConditions", how)

    def keep_nothing(self, nothing: bool) -> None:
        """Whether pages may not keep anything, as with cookies blocked."""
        if nothing:
            what = {"source": _KEEPS_NOTHING}
            self._kept = self.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", what)
        else:
            self.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", self._kept)

    @contextlib.contextmanager
    def before_pages(self, script: str):
        """Run a script at the beginning of each page that this tab loads."""
        command = "Page.addScriptToEvaluateOnNewDocument"
        added = self.execute_cdp_cmd(command, {"source": script})
        try:
            yield
        finally:
            self.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    def leave_room(self, url: str, size: int | None) -> None:
        """How many bytes the pages of that address may keep; None for the usual."""
        room = {"quotaSize": size} if size else {}
        self.execute_cdp_cmd("Storage.overrideQuotaForOrigin", {"origin": url, **room})
