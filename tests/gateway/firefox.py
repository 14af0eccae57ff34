"""Firefox without a window, for the page: Debian's package firefox-esr, and no driver beside it."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.remote.file_detector import UselessFileDetector

from tests.gateway.browser import WIDE
from tests.gateway.marionette import Marionette
from tests.gateway.running import wait_for

PREFERENCES = {
    "app.update.enabled": False,
    "browser.download.always_ask_before_handling_new_types": False,
    "browser.download.folderList": 2,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.events.testing.asyncClipboard": True,
    "dom.max_script_run_time": 0,  # seconds, which a busy machine takes where a quiet one does not
    "marionette.port": 0,  # a free one
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.proxy.allow_hijacking_localhost": True,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.type": 0,
    "ui.prefersReducedMotion": 1,
}
_LOOK = """
const [width, height, look] = arguments;
const browser = gBrowser.selectedBrowser;
for (const [side, length] of Object.entries({ width, height }))
  for (const kind of ["", "min-", "max-"]) browser.style.setProperty(kind + side, `${length}px`);
browser.browsingContext.prefersColorSchemeOverride = look;
"""
_SEEN = """
const media = ["(prefers-color-scheme: dark)", "(prefers-reduced-motion: reduce)"];
return [innerWidth, innerHeight, ...media.map((query) => matchMedia(query).matches)];
"""
_FORGET = """
const [url, done] = arguments;
const whose = Services.scriptSecurityManager.createContentPrincipalFromOrigin(url);
const what = Ci.nsIClearDataService.CLEAR_DOM_STORAGES;
Services.clearData.deleteDataFromPrincipal(whose, true, what, { onDataDeleted: done });
"""
_COMPLAINTS = """
const all = Services.console.getMessageArray().filter((one) => one instanceof Ci.nsIScriptError);
Services.console.reset();
const told = all.filter((one) => one.sourceName.startsWith("http")).map((one) => one.errorMessage);
// By a reload or a next page, also of a script: none has a time limit here.
const left = /aborted due to page navigation\\.$|^Script terminated by timeout/;
const looked = /^Layout was forced before/; // by who looks at a page while it loads, as tests do
return told.filter((text) => !left.test(text) && !looked.test(text));
"""


def missing() -> str | None:
    """What is not on PATH of what it takes, or None."""
    found = shutil.which("firefox-esr") or shutil.which("firefox")
    return None if found else "not on PATH: firefox: apt-get install firefox-esr"


class Firefox(webdriver.Remote):
    """A browser with a new profile in `folder`; use `with`. What it can do is `Browser`'s."""

    def __init__(self, folder: Path) -> None:
        lines = [f"user_pref({_js(name)}, {_js(value)});" for name, value in PREFERENCES.items()]
        folder.mkdir(exist_ok=True)
        (folder / "user.js").write_text("\n".join(lines))
        port = folder / "MarionetteActivePort"
        program = shutil.which("firefox-esr") or shutil.which("firefox")
        flags = ["--headless", "--marionette", "--remote-allow-system-access", "--no-remote"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([program, *flags, "--profile", str(folder)], **quiet)
        wait_for(lambda: port.exists() and port.read_text(), 60)
        self._marionette = Marionette(int(port.read_text()))
        super().__init__(command_executor=self._marionette, options=webdriver.FirefoxOptions())
        self.file_detector = UselessFileDetector()  # it reads the files itself

    def quit(self) -> None:
        """End it."""
        self._marionette.close()
        self._process.terminate()
        self._process.wait()

    def look_like(
        self, size: tuple[int, int] = WIDE, dark: bool = False, still: bool = True
    ) -> None:
        """A screen of that size, and what the user wishes to see."""
        self._inside(_LOOK, *size, "dark" if dark else "light")
        motion = "Services.prefs.setIntPref('ui.prefersReducedMotion', arguments[0])"
        self._inside(motion, int(still))
        wait_for(lambda: self.execute_script(_SEEN) == [*size, dark, still])  # by another process

    def screenshot(self) -> bytes:
        """What the screen shows, as PNG."""
        return base64.b64decode(
            self._marionette.send("WebDriver:TakeScreenshot", {"full": False})["value"]
        )

    def complaints(self) -> list[str]:
        """The console's warnings and errors since the last time."""
        return self._inside(_COMPLAINTS)

    def requested(self) -> list[str]:
        """Nothing: which addresses are asked for is watched in Chromium."""
        return []

    def forget(self, url: str) -> None:
        """Forget what pages of that address have stored."""
        self._inside(_FORGET, url, wait=True)

    def allow_clipboard(self, url: str) -> None:
        """Pages copy and paste without asking here anyway."""

    def speak(self, language: str) -> None:
        """The language that the browser tells pages."""
        self._prefer("intl.accept_languages", language)

    def download_to(self, folder: Path) -> None:
        """Where the files go that the page offers."""
        self._prefer("browser.download.dir", str(folder))

    def offline(self, off: bool) -> None:
        """Whether nothing can be reached."""
        script = "Services.prefs.setIntPref('network.proxy.type', arguments[0])"
        self._inside(script, 1 if off else 0)  # a proxy that is not there, or none

    def keep_nothing(self, nothing: bool) -> None:
        """Whether pages may not keep anything, as with cookies blocked."""
        script = "Services.prefs.setIntPref('network.cookie.cookieBehavior', arguments[0])"
        self._inside(script, 2 if nothing else 5)

    def _prefer(self, name: str, text: str) -> None:
        self._inside("Services.prefs.setStringPref(...arguments)", name, text)

    def _inside(self, script: str, *arguments, wait: bool = False):
        """What a script of the browser's own returns, or hands to its last argument for `wait`."""
        kind = "ExecuteAsyncScript" if wait else "ExecuteScript"
        self._marionette.send("Marionette:SetContext", {"value": "chrome"})
        try:
            what = {"script": script, "args": list(arguments)}
            return self._marionette.send(f"WebDriver:{kind}", what)["value"]
        finally:
            self._marionette.send("Marionette:SetContext", {"value": "content"})


def _js(value: str | int | bool) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
