"""Selenium's commands for a Firefox that runs with --marionette: geckodriver's work."""

from __future__ import annotations

import itertools
import json
import socket

from selenium.common.exceptions import WebDriverException

# Selenium's names, and Marionette's after "WebDriver:": Firefox's remote/marionette/driver.sys.mjs.
NAMES = {
    "newSession": "NewSession",
    "get": "Navigate",
    "refresh": "Refresh",
    "getCurrentUrl": "GetCurrentURL",
    "w3cGetCurrentWindowHandle": "GetWindowHandle",
    "newWindow": "NewWindow",
    "switchToWindow": "SwitchToWindow",
    "close": "CloseWindow",
    "findElement": "FindElement",
    "findElements": "FindElements",
    "findChildElement": "FindElement",
    "findChildElements": "FindElements",
    "getActiveElement": "GetActiveElement",
    "w3cGetActiveElement": "GetActiveElement",
    "clickElement": "ElementClick",
    "clearElement": "ElementClear",
    "sendKeysToElement": "ElementSendKeys",
    "getElementAttribute": "GetElementAttribute",
    "getElementTagName": "GetElementTagName",
    "getElementText": "GetElementText",
    "getElementProperty": "GetElementProperty",
    "getElementRect": "GetElementRect",
    "getElementValueOfCssProperty": "GetElementCSSValue",
    "isElementEnabled": "IsElementEnabled",
    "isElementSelected": "IsElementSelected",
    "actions": "PerformActions",
    "w3cExecuteScript": "ExecuteScript",
    "w3cExecuteScriptAsync": "ExecuteAsyncScript",
}


class Marionette:
    """A connection to Firefox, as Selenium's `command_executor`."""

    w3c = True

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")
        self._numbers = itertools.count(1)
        self._read()  # what it calls itself

    def execute(self, command: str, parameters: dict) -> dict:
        """Selenium's `command`; raises WebDriverException for what Firefox refuses."""
        own = {name: value for name, value in parameters.items() if name != "sessionId"}
        if command == "newSession":
            own = own["capabilities"]["alwaysMatch"] if "capabilities" in own else own
        elif command.startswith("findChild"):
            own["element"] = own.pop("id")
        elif command == "sendKeysToElement":
            own = {"id": own["id"], "text": own["text"]}
        result = self.send(f"WebDriver:{NAMES[command]}", own)
        if command == "newSession":
            return {"value": result}
        return result if isinstance(result, dict) and "value" in result else {"value": result}

    def send(self, name: str, parameters: dict):
        """The answer to one of Marionette's own commands."""
        number = next(self._numbers)
        message = json.dumps([0, number, name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, answered, error, result = self._read()
        assert answered == number
        if error:
            raise WebDriverException(f"{error['error']}: {error['message']}")
        return result

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self._socket.close()

    def _read(self):
        length = b""
        while not length.endswith(b":"):
            length += self._file.read(1)
        return json.loads(self._file.read(int(length[:-1])))
