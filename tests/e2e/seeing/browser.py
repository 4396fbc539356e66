"""The report in a real browser, light and dark: no complaint on the console, no request to anywhere, readable, also without scripts.

    browser.py STEPMILL          the test; 77 = there is no browser here
    browser.py --shoot PAGE OUT  pictures of a page: OUT-light.png, OUT-dark.png
"""
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """A headless Chromium, spoken to through a pipe in its DevTools protocol."""

    def __init__(self):
        self.home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()

        def wire():
            a, b = os.dup(to_read), os.dup(to_write)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
             f"--user-data-dir={self.home.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(3, 4, to_read, to_write), preexec_fn=wire)
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.home.cleanup()

    def receive(self, deadline):
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.back], [], [], left)[0]:
                raise TimeoutError("the browser says nothing")
            part = os.read(self.back, 1 << 20)
            if not part:
                raise EOFError("the browser has gone")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            got = self.receive(deadline)
            if got.get("id") == self.number:
                assert "error" not in got, (method, got["error"])
                return got["result"]
            self.events.append(got)

    def wait_for(self, name):
        deadline = time.monotonic() + 60
        while not any(e.get("method") == name for e in self.events):
            self.events.append(self.receive(deadline))

    def open(self, path, scheme, scripts=True):
        """A new page; what happened while it was loaded is in events."""
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Runtime", "Log", "Page"):
            self.call(domain + ".enable")
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setDeviceMetricsOverride", width=1160, height=900, deviceScaleFactor=1, mobile=False)
        if not scripts:
            self.call("Emulation.setScriptExecutionDisabled", value=True)
        self.events = []
        self.call("Page.navigate", url="file://" + path)
        self.wait_for("Page.loadEventFired")

    def evaluate(self, code):
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def shoot(self, path, height):
        self.call("Emulation.setDeviceMetricsOverride", width=1160, height=height, deviceScaleFactor=1, mobile=False)
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


# Contrast of every text with what is behind it, as WCAG counts it: the least, and where it is.
CONTRAST = """(() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m; };
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126*r + 0.7152*g + 0.0722*b; };
  let least = [99, ''];
  for (const e of document.querySelectorAll('h1,h2,p,td,th,dt,dd,span,summary,b,footer,svg text')) {
    if (!e.textContent.trim() || (e.tagName !== 'text' && ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))) continue;
    let behind = null;
    for (let p = e; p && !behind; p = p.parentElement) behind = p instanceof SVGElement ? null : parse(getComputedStyle(p).backgroundColor);
    const a = light(parse(getComputedStyle(e)[e instanceof SVGElement ? 'fill' : 'color']).slice(0, 3)), b = light((behind || [255, 255, 255]).slice(0, 3));
    const c = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (c < least[0]) least = [c, e.outerHTML.slice(0, 120)];
  }
  return least;
})()"""


def make_run(stepmill, folder):
    with open(os.path.join(folder, "docs.jsonl"), "w", encoding="utf-8") as f:
        f.writelines('{"id":%d}\n' % i for i in range(400))
    with open(os.path.join(folder, "p.yaml"), "w", encoding="utf-8") as f:
        f.write("stepmill: 1\nname: browsed\nmax_errors: 9\nsteps:\n  docs: {type: read_jsonl, path: docs.jsonl, columns: {id: int64}, batch_size: 20}\n"
                "  work: {type: command, from: docs, argv: [sh, -c, \"while read l; do case $l in *99}) echo no;; *) echo '{}';; esac; done\"], replicas: 3, on_error: isolate}\n"
                "  out: {type: write_jsonl, from: work, path: out.jsonl}\n")
    subprocess.run([stepmill, "run", "p.yaml", "--run", "r", "--quiet"], cwd=folder, check=True, timeout=60)
    return os.path.join(folder, "r/report.html")


def test(stepmill):
    with tempfile.TemporaryDirectory() as folder:
        page = make_run(stepmill, folder)
        browser = Browser()
        try:
            ground = {}
            for scheme in ("light", "dark"):
                browser.open(page, scheme)
                asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
                assert [u for u in asked if not u.startswith("data:")] == ["file://" + page], asked
                said = [e for e in browser.events if e.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")]
                assert not said, said
                ground[scheme] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
                least, where = browser.evaluate(CONTRAST)
                assert least >= 4.5, (scheme, least, where)
                assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
                assert browser.evaluate("document.querySelectorAll('svg').length") == 2
                assert browser.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.getAttribute('aria-label'))"), "by keyboard"
            assert ground["light"] != ground["dark"], ground
            browser.open(page, "light", scripts=False)
            assert "work" in browser.evaluate("document.body.innerText") and "What would make it faster" in browser.evaluate("document.body.innerText")
            browser.call("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=True)
            assert browser.evaluate("document.documentElement.scrollWidth <= 380"), "on a telephone, too"
            assert browser.evaluate("[...document.querySelectorAll('.k i')].every(e => e.getBoundingClientRect().width === 12)"), "the legend's colours are as large there"
        finally:
            browser.close()
    print("light and dark, without scripts, on a telephone: no complaint, no request")


def main():
    if BROWSER is None:
        print("no Chromium here (Debian: chromium)")
        return 77
    if sys.argv[1] == "--shoot":
        browser = Browser()
        try:
            for scheme in ("light", "dark"):
                browser.open(os.path.abspath(sys.argv[2]), scheme)
                browser.shoot(f"{sys.argv[3]}-{scheme}.png", int(browser.evaluate("document.documentElement.scrollHeight")) if len(sys.argv) < 5 else int(sys.argv[4]))
        finally:
            browser.close()
        return 0
    test(os.path.abspath(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
