# SPDX-License-Identifier: Apache-2.0
"""The web console: requests and frames good and bad, and a browser that logs in, types at a guest and looks at its screen."""

import base64
import hashlib
import importlib.util
import os
import shutil
import socket
import ssl
import struct
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import remote_lib  # noqa: E402
import tap  # noqa: E402

TIMEOUT = float(os.environ.get("VMD_WEB_PATIENCE", "300"))  # seconds, with a machine that has much to do
COOKIE = "__Host-vmd"
MODULES = os.path.join(os.environ.get("VMD_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                                                                 "vmd"), "npm", "node_modules")  # of ./bootstrap check
XTERM = [f"{MODULES}/@xterm/xterm/lib/xterm.js"] + [f"{folder}/{name}/lib/xterm.js" for folder in ("/usr/lib/node_modules", "/usr/local/lib/node_modules")
         for name in ("@xterm/xterm", "xterm")]


class WebDaemon(remote_lib.RemoteDaemon):
    """vmd with --web."""

    def __init__(self, **more):
        super().__init__(**more)
        self.web = remote_lib.free_port()
        self.options += ["--web", f"127.0.0.1:{self.web}"]
        if os.path.isdir(MODULES):
            self.options += ["--web-modules", MODULES]

    def dial(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        plain = socket.create_connection(("127.0.0.1", self.web), TIMEOUT)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def token(self, user, role="owner", project="default"):
        return self.call("token.create", user=user, role=role, project=project)["token"]

    def ask(self, path, method="GET", **fields):
        """Status, head and body."""
        with self.dial() as s:
            s.sendall(request(f"127.0.0.1:{self.web}", path, method, **fields))
            return read_answer(s)

    def login(self, token):
        return self.ask("/login", "POST", Authorization="Bearer " + token, Origin=self.origin())

    def origin(self):
        return f"https://127.0.0.1:{self.web}"

    def enter(self, user, **more):
        """Logs in; the cookie."""
        status, head, body = self.login(self.token(user, **more))
        tap.check(status == 200, f"{status} {body}")
        line = [x for x in head.split("\r\n") if x.lower().startswith("set-cookie:")][0]
        tap.check(all(x in line for x in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/")), line)
        return line.split(" ", 1)[1].split(";")[0]


def request(host, path, method="GET", **fields):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *[f"{k.replace('_', '-')}: {v}" for k, v in fields.items()]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_head(s):
    data = b""
    while b"\r\n\r\n" not in data:
        part = s.recv(1)
        if not part:
            raise lib.Gone("no whole answer: " + repr(data))
        data += part
    return data.decode()


def read_answer(s):
    head = read_head(s)
    size = [int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-length:")]
    body = b""
    while len(body) < (size[0] if size else 0):
        body += s.recv(size[0] - len(body))
    return int(head.split()[1]), head, body


class Socket:
    """A websocket of a client that says what it likes."""

    def __init__(self, daemon, cookie, path, origin=None):
        self.s = daemon.dial()
        key = base64.b64encode(os.urandom(16)).decode()
        self.s.sendall(request(f"127.0.0.1:{daemon.web}", path, Upgrade="websocket", Connection="Upgrade",
                               Sec_WebSocket_Key=key, Sec_WebSocket_Version="13", Cookie=cookie,
                               Origin=origin or daemon.origin()))
        head = read_head(self.s)
        self.status = int(head.split()[1])
        want = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        if self.status == 101:
            tap.check(f"Sec-WebSocket-Accept: {want}\r\n" in head, head)

    def send(self, data, opcode=2, fin=True, mask=True, rsv=0, length=None):
        n = len(data) if length is None else length
        head = bytes([(0x80 if fin else 0) | rsv | opcode])
        bit = 0x80 if mask else 0
        head += bytes([bit | n]) if n < 126 else struct.pack(">BH", bit | 126, n) if n < 65536 else struct.pack(">BQ", bit | 127, n)
        key = os.urandom(4)
        self.s.sendall(head + (key + bytes(b ^ key[i & 3] for i, b in enumerate(data)) if mask else data))

    def exactly(self, n):
        data = b""
        while len(data) < n:
            part = self.s.recv(n - len(data))
            if not part:
                raise lib.Gone("the websocket ended")
            data += part
        return data

    def frame(self):
        first, n = self.exactly(2)
        n = struct.unpack(">H", self.exactly(2))[0] if n == 126 else struct.unpack(">Q", self.exactly(8))[0] if n == 127 else n
        return first & 15, self.exactly(n)

    def farewell(self):
        """The code it ends with."""
        while True:
            opcode, data = self.frame()
            if opcode == 8:
                return struct.unpack(">H", data)[0]

    def line(self):
        data = b""
        while not data.endswith(b"\n"):
            data += self.frame()[1]
        return data


def pages():
    """The page for everyone; files, calls and streams for those who logged in; tokens work once."""
    with WebDaemon() as d:
        d.init()
        status, head, body = d.ask("/")
        tap.check(status == 200 and b"Token" in body and "Content-Security-Policy" in head, head)
        for path in ("/console.js", "/console.css"):
            tap.check(d.ask(path)[0] == 200, path)
        for path in ("/session", "/rpc", "/stream", "/novnc/core/rfb.js", "/xterm/lib/xterm.js", "/none"):
            tap.check(d.ask(path)[0] == 401, path)
        tap.check(d.ask("/session", Cookie=f"{COOKIE}={'0' * 32}")[0] == 401, "a made-up session")
        token = d.token("ann")
        tap.check(d.ask("/login", "POST", Authorization="Bearer " + token)[0] == 403, "no origin")
        tap.check(d.ask("/login", "POST", Authorization="Bearer " + token, Origin="https://evil.example")[0] == 403, "origin")
        tap.check(d.login("vmd1.none")[0] == 403, "no token")
        tap.check(d.login(d.call("token.create", role="viewer")["token"])[0] == 403, "a token without a user")
        tap.check(d.login(token)[0] == 200, "a good token")
        tap.check(d.login(token)[0] == 403, "a used token")
        d.audited("used already", "web.login")
        cookie = d.enter("bob", role="viewer")
        tap.check(d.ask("/session", Cookie=cookie)[2] == b"bob\n", "who it is")
        if os.path.exists("/usr/share/novnc/core/rfb.js"):
            tap.check(d.ask("/novnc/core/rfb.js", Cookie=cookie)[0] == 200, "noVNC")
        for path in ("/novnc/../novnc/core/rfb.js", "/novnc//etc/x.js", "/novnc/.x.js", "/novnc/", "/novnc", "/etc/passwd"):
            tap.check(d.ask(path, Cookie=cookie)[0] == 404, path)
        tap.check(d.ask("/logout", "POST", Cookie=cookie, Origin=d.origin())[0] == 204, "logout")
        tap.check(d.ask("/session", Cookie=cookie)[0] == 401, "after it")


def sockets():
    """Calls by websocket have the user's role; hostile frames end that connection alone; a user that goes takes the session along."""
    with WebDaemon() as d:
        d.init()
        cookie = d.enter("ann", role="viewer")
        tap.check(Socket(d, cookie, "/rpc", origin="https://evil.example").status == 403, "another site")
        tap.check(Socket(d, f"{COOKIE}={'1' * 32}", "/rpc").status == 401, "no session")
        tap.check(Socket(d, cookie, "/other").status == 404, "nothing there")
        tap.check(Socket(d, cookie, "/stream?ticket=" + "0" * 48).status == 403, "a made-up ticket")
        good = Socket(d, cookie, "/rpc")
        tap.check(b'"hello"' in good.line(), "greeting")
        call = b'{"jsonrpc":"2.0","id":1,"method":"vm.list","params":{}}\n'
        good.send(call[:9], fin=False)
        good.send(b"ping", opcode=9)
        tap.check(good.frame() == (10, b"ping"), "pong within a message")
        good.send(call[9:], opcode=0)
        tap.check(b'"vms"' in good.line(), "list")
        good.send(b'{"jsonrpc":"2.0","id":2,"method":"token.create","params":{}}\n')
        tap.check(b'"denied"' in good.line(), "a viewer makes no tokens")
        for what, code in (({"data": b"x", "mask": False}, 1002), ({"data": b"x", "rsv": 0x40}, 1002),
                           ({"data": b"x", "opcode": 3}, 1002), ({"data": b"x", "opcode": 0}, 1002),
                           ({"data": b"x" * 126, "opcode": 9}, 1002), ({"data": b"", "opcode": 9, "fin": False}, 1002),
                           ({"data": b"", "length": 1 << 40}, 1009), ({"data": b"", "length": (1 << 64) - 1}, 1009),
                           ({"data": b"\x03\xe8", "opcode": 8}, 1000)):
            bad = Socket(d, cookie, "/rpc")
            bad.send(**what)
            got = bad.farewell()
            tap.check(got == code, f"{what}: {got}, not {code}")
        good.send(call)
        tap.check(b'"vms"' in good.line(), "the good one goes on")
        d.call("user.delete", user="ann")
        try:
            while good.frame()[0] != 8:
                pass
        except (lib.Gone, OSError):
            pass
        tap.check(d.ask("/session", Cookie=cookie)[0] == 401, "the user has gone")


def hostile():
    """Requests that are none, too large, or never end, are refused or cut off, and others are served meanwhile."""
    with WebDaemon() as d:
        d.init()
        host = f"127.0.0.1:{d.web}".encode()
        slow = [d.dial() for _ in range(20)]
        for s in slow:
            s.sendall(b"GET / HT")
        for raw, want in ((b"GET / HTTP/1.1\r\n\r\n", 400), (b"\r\n\r\n", 400), (b"GET  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
                          (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 505), (b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
                          (b"GET /%2e%2e/ HTTP/1.1\r\nHost: x\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
                          (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
                          (b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
                          (b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 413),
                          (b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
                          (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
                          (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 70 + b"\r\n", 431),
                          (b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 9000, 431),
                          (b"GET / HTTP/1.1\r\nHost: x\r\na: \x00\r\n\r\n", 400)):
            with d.dial() as s:
                s.sendall(raw)
                status, _, _ = read_answer(s)
                tap.check(status == want, f"{raw[:60]!r}: {status}, not {want}")
        with d.dial() as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\nGET /console.css HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            tap.check(read_answer(s)[0] == 200 and b"header" in read_answer(s)[2], "two at once")
        with socket.create_connection(("127.0.0.1", d.web), TIMEOUT) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            try:
                s.recv(4096)  # no TLS: an alert, or the end
            except ConnectionResetError:
                pass
        for s in slow:
            tap.check(s.recv(100) == b"", "a request that never ends is cut off")
        tap.check(d.ask("/")[0] == 200, "still there")


def linux(daemon, name):
    files = guest.fetched("riscv64-screen")
    return daemon.config(name, memory=256 * lib.MIB, firmware="default", kernel=files["kernel"], initrd=files["initrd"],
                         append="console=ttyS0 quiet vmd.virtio vmd.run=shell", display={"device": "virtio", "width": 640, "height": 400},
                         tcg={"cache_size": 64 * lib.MIB})


def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors",
                   "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)


def missing():
    if not importlib.util.find_spec("selenium"):
        sys.path.append("/usr/lib/python3/dist-packages")  # of Debian's package, for another Python
    if not importlib.util.find_spec("selenium"):
        return "python3-selenium"
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        return "chromium, chromium-driver"
    if not any(os.path.exists(x) for x in XTERM):
        return "xterm.js (./bootstrap check fetches it where npm and its registry are there; or npm install -g @xterm/xterm)"
    return None if os.path.exists("/usr/share/novnc/core/rfb.js") else "novnc"


def wait(look, what):
    end = time.monotonic() + TIMEOUT
    while True:
        found = look()
        if found:
            return found
        tap.check(time.monotonic() < end, what() if callable(what) else what)
        time.sleep(0.2)


def serial_and_screen():
    """Chromium without a window logs in by a token, types uname -a at the serial console and sees the answer, and sees the screen."""
    if missing():
        raise tap.Skip(f"no {missing()}")
    from selenium.webdriver.common.by import By
    with WebDaemon() as d:
        d.init()
        d.call("vm.create", config=linux(d, "web1"))
        chrome = browser()
        try:
            def one(what):
                return chrome.find_element(By.CSS_SELECTOR, what)

            def text():
                return chrome.execute_script("return [...document.querySelectorAll('.xterm-rows > div')].map(d => d.textContent)"
                                             ".join('\\n').replaceAll('\\u00a0', ' ')")

            chrome.get(d.origin() + "/")
            wait(lambda: one("#token").is_displayed(), "the page to log in")
            one("#token").send_keys(d.token("ann"))
            one("#login button").click()
            wait(lambda: "web1" in one("#vms").text, lambda: f"the list: {one('body').text} {chrome.get_log('browser')}")
            one("#vms button").click()
            wait(lambda: chrome.find_elements(By.CSS_SELECTOR, ".xterm-helper-textarea"), "a terminal")
            keys = one(".xterm-helper-textarea")

            def prompt():
                keys.send_keys("\n")
                time.sleep(1)
                return "# " in text() or "$ " in text()
            wait(prompt, lambda: f"a prompt: {text()}")
            keys.send_keys("uname -a\n")
            wait(lambda: "riscv64 GNU/Linux" in text().replace("\n", ""), lambda: f"an answer: {text()}")
            tap.check(len(chrome.get_screenshot_as_png()) > 3000, "a picture of the page")
            one("#back").click()
            wait(lambda: len(chrome.find_elements(By.CSS_SELECTOR, "#vms tbody button")) == 2 and one("#vms").is_displayed(),
                 "the list again")
            chrome.find_elements(By.CSS_SELECTOR, "#vms tbody button")[1].click()
            wait(lambda: "Connected" in one("#status").text,
                 lambda: f"a screen: {one('body').text} {chrome.get_log('browser')}")
            colours = ("const c = document.querySelector('#view canvas'); const p = c.getContext('2d')"
                       ".getImageData(0, 0, c.width, c.height).data; const s = new Set();"
                       "for (let i = 0; i < p.length; i += 4) { s.add(p[i] << 16 | p[i + 1] << 8 | p[i + 2]); }"
                       "return [c.width, c.height, s.size];")
            wait(lambda: chrome.execute_script(colours)[:2] == [640, 400] and chrome.execute_script(colours)[2] > 1,
                 lambda: f"a picture: {chrome.execute_script(colours)}")
            one("#logout").click()
            wait(lambda: one("#token").is_displayed(), "logged out")
        finally:
            chrome.quit()


if __name__ == "__main__":
    sys.exit(tap.run_cases([pages, sockets, hostile, serial_and_screen]))
