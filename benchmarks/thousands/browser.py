"""A headless Chromium with an empty profile, driven through its DevTools protocol on the loopback interface."""

import asyncio
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

STARTS_IN_S, OPENS_IN_S = 60, 120
TIMES = """(() => {
  const [timing] = performance.getEntriesByType("navigation");
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return [timing.domContentLoadedEventEnd, paint ? paint.startTime : 0, timing.loadEventEnd];
})()"""
FRAME = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
"""The time when the next frame has been drawn."""


class Browser:
    """One page of a browser that ends with the block."""

    async def __aenter__(self) -> "Browser":
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--window-size=1400,1000", "--remote-debugging-port=0", f"--user-data-dir={self.profile.name}"]
        quiet = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(*command, "about:blank", stdout=quiet, stderr=quiet)
        file, end = Path(self.profile.name) / "DevToolsActivePort", time.monotonic() + STARTS_IN_S
        while not (file.is_file() and len(file.read_text().splitlines()) > 1):
            if time.monotonic() > end:
                raise RuntimeError("chromium did not start")
            await asyncio.sleep(0.05)
        port = file.read_text().splitlines()[0]
        self.session, self.numbers = aiohttp.ClientSession(), itertools.count(1)
        async with self.session.get(f"http://127.0.0.1:{port}/json") as answer:
            (target,) = [one for one in await answer.json() if one["type"] == "page"]
        self.socket = await self.session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)
        await self._call("Page.enable")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.session.close()
        self.process.terminate()
        await self.process.wait()
        self.profile.cleanup()

    async def open(self, page: Path) -> dict[str, float]:
        """Open a file; seconds from the start of the navigation to what happens, and the script's memory in MB."""
        began = time.monotonic()
        await self._call("Page.navigate", url=page.resolve().as_uri())
        await self._event("Page.loadEventFired")
        drawn = await self.value(FRAME)
        ready, paint, load = await self.value(TIMES)
        heap = await self._call("Runtime.getHeapUsage")
        steps = {"dom_content_loaded": ready, "first_paint": paint, "loaded": load, "drawn": drawn}
        figures = {f"{name}_s": milliseconds / 1e3 for name, milliseconds in steps.items()}
        return {**figures, "opened_s": time.monotonic() - began, "heap_mb": heap["usedSize"] / 1e6}

    async def seconds(self, script: str) -> float:
        """How long a script takes until its frame is drawn."""
        found = await self.value(f"(() => {{ const began = performance.now(); {script}; return began }})()")
        return float(await self.value(FRAME) - found) / 1e3

    async def value(self, expression: str) -> Any:
        """What an expression, or its promise, comes to; raises RuntimeError with what it throws."""
        given = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self._call("Runtime.evaluate", **given)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    async def _call(self, method: str, **given: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": given})
        return dict((await self._until(lambda message: message.get("id") == number))["result"])

    async def _event(self, name: str) -> None:
        await self._until(lambda message: message.get("method") == name)

    async def _until(self, wanted: Any) -> dict[str, Any]:
        while not wanted(message := await self.socket.receive_json(timeout=OPENS_IN_S)):
            pass
        return dict(message)
