# SPDX-License-Identifier: Apache-2.0
"""Who must stay outside: certificates, protocols, tokens and tickets that are refused, each with the
reason on record, by openssl's client and by ours; certificates read again under clients; floods."""

import base64
import hashlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys

TOP = pathlib.Path(os.environ.get("VMD_SRCDIR") or pathlib.Path(__file__).resolve().parents[2])
sys.path[:0] = [str(TOP / "tests" / "lib"), str(TOP / "tests" / "e2e")]

import tap  # noqa: E402
from daemon_lib import BUILD, Gone, wait_for  # noqa: E402
from remote_lib import ALPN, Creds, Forge, RemoteDaemon, TlsClient, openssl, s_client  # noqa: E402

RELOADS = int(os.environ.get("VMD_RELOADS") or 10)  # make soak: 100


def bad_certificates(d, f, ann):
    """(name, what the audit says, certificate)"""
    own = (ann.cert, ann.key)
    yield "none", "did not return a certificate|no certificate|certificate required", None
    yield "self-signed", "self-signed", f.make("selfsigned", issuer="self")
    root = f.make("wrongca", subject="/CN=other CA", ext="basicConstraints=critical,CA:TRUE", issuer="self")
    pair = (root.cert, root.key)
    yield "wrong CA", "unable to get", f.make("ofwrong", issuer=pair)
    yield "wrong CA sent along", "self-signed certificate in", f.make("ofwrong2", issuer=pair, chain=[root.cert])
    subject = openssl("x509", "-in", d.ca, "-noout", "-subject", "-nameopt", "multiline").decode()
    name = subject.split("commonName")[1].split("=", 1)[1].strip()
    twin = f.make("twin", subject="/CN=" + name, ext="basicConstraints=critical,CA:TRUE", issuer="self")
    yield "CA of the same name", "signature|unable to get|self-signed", f.make("oftwin", issuer=(twin.cert, twin.key))
    for usage in ("serverAuth", "codeSigning", "emailProtection", "timeStamping", "OCSPSigning"):
        yield "usage " + usage, "purpose|unsuitable", f.make("u" + usage, ext="extendedKeyUsage=" + usage)
    yield "expired", "has expired", f.make("expired", dates=("20200101000000Z", "20200201000000Z"))
    yield "not yet valid", "not yet valid", f.make("future", dates=("20980101000000Z", "20991231235959Z"))
    yield "unknown serial", "did not issue", f.make("unknown")
    yield "unknown user", "did not issue", f.make("nouser", subject="/CN=mallory")
    yield "no common name", "no user name", f.make("nocn", subject="/O=ann")
    yield "two common names", "no user name", f.make("twocn", subject="/CN=ann/CN=root")
    yield "common name with a slash", "no user name", f.make("slash", subject="/CN=..\\/ann")
    yield "common name with a space", "no user name", f.make("space", subject="/CN=ann bob")
    yield "issued by a client", "unable to get|invalid CA|path length|purpose", f.make("ofann", issuer=own, chain=[ann.cert])
    sub = f.make("subca", subject="/CN=sub", ext="basicConstraints=critical,CA:TRUE;keyUsage=keyCertSign")
    yield "below the allowed depth", "path length", f.make("ofsub", issuer=(sub.cert, sub.key), chain=[sub.cert])
    yield "a CA's", "did not issue|purpose|unsuitable|invalid", sub
    yield "the daemon's own", "purpose|unsuitable", Creds(d.tls + "/server.pem", d.tls + "/server.key")
    yield "RSA of 1024 bits", "too weak|too small", f.make("rsa1024", kind="1024")
    yield "signed with SHA-1", "too weak|unspecified|digest", f.make("sha1", digest="sha1")


def matches(pattern, text):
    return any(p in text for p in pattern.split("|"))


def wrong_reason(d, seen, pattern):
    """Waits for a new refusal in the audit; its text when it does not fit."""
    def fresh():
        return [e for e in d.audit("tls.connect") if e["id"] > seen and "refused" in e["outcome"]]
    try:
        entry = wait_for(fresh, 15, "the refusal is on record")[0]
    except AssertionError as problem:
        return str(problem)
    return None if matches(pattern, entry["outcome"]) else entry["outcome"]


def newest(d):
    entries = d.audit()
    return entries[0]["id"] if entries else 0


def certificates_are_refused_with_the_reason():
    with RemoteDaemon() as d:
        d.init()
        ann = d.user("ann", "admin", "*")
        with d.connect(ann) as client:
            client.call("api.ping")
        out, _ = s_client(d, ann, text=b'{"jsonrpc":"2.0","id":1,"method":"api.ping"}\n')
        assert b"hello" in out, out
        forge, wrong, n = Forge(d), [], 0
        cases = list(bad_certificates(d, forge, ann))
        eve = d.user("eve", "admin", "*")
        serial = d.call("cert.list", user="eve")["certs"][0]["serial"]
        d.call("cert.revoke", serial=serial, reason="test")
        cases.append(("revoked", "revoked", eve))
        bob = d.user("bob", "admin", "*")
        d.call("user.delete", user="bob")
        cases.append(("of a deleted user", "revoked", bob))
        for name, reason, creds in cases:
            for who in ("openssl", "python"):
                n += 1
                seen = newest(d)
                if who == "openssl":
                    out, _ = s_client(d, creds, "-alpn", ALPN["rpc"], "-cipher", "DEFAULT@SECLEVEL=0", text=b"\n")
                    let_in = b"hello" in out
                else:
                    try:
                        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                        context.load_verify_locations(d.ca)
                        context.set_ciphers("DEFAULT@SECLEVEL=0")
                        if creds:
                            context.load_cert_chain(creds.cert, creds.key)
                        with socket.create_connection((d.host, d.port), 10) as plain, \
                                context.wrap_socket(plain, server_hostname="localhost") as tls:
                            let_in = bool(tls.recv(100))
                    except OSError:
                        let_in = False
                if let_in:
                    wrong.append(f"{name} by {who}: let in")
                    continue
                text = wrong_reason(d, seen, reason)
                if text:
                    wrong.append(f"{name} by {who}: {text}")
        assert not wrong, f"{len(wrong)} of {n}:\n" + "\n".join(wrong)
        with d.connect(ann) as client:
            client.call("api.ping")


def old_protocols_and_garbage_are_refused():
    with RemoteDaemon() as d:
        d.init()
        ann = d.user("ann", "admin", "*")
        for option in ("-tls1", "-tls1_1", "-tls1_2"):
            seen = newest(d)
            out, _ = s_client(d, ann, option, "-cipher", "ALL:@SECLEVEL=0")
            assert b"hello" not in out, option
            assert not wrong_reason(d, seen, "TLS 1.3|protocol|version"), (option, d.audit()[0])
        for protos in ("http/1.1", "h2,vmd-rpc/2"):
            seen = newest(d)
            out, _ = s_client(d, ann, "-alpn", protos)
            assert b"hello" not in out and not wrong_reason(d, seen, "protocol"), (protos, d.audit()[0])
        for data in (b"GET / HTTP/1.1\r\n\r\n", b'{"jsonrpc":"2.0","id":1,"method":"api.ping"}\n',
                     b"\x16\x03\x01\xff\xff" + b"A" * 4096, b"\x00" * 100, b"\x16\x03\x01\x00\x02\x01\x00"):
            seen = newest(d)
            with socket.create_connection((d.host, d.port), 10) as plain:
                plain.settimeout(10)
                try:
                    plain.sendall(data)
                    plain.shutdown(socket.SHUT_WR)
                    while plain.recv(1000):
                        pass
                except OSError:
                    pass
            assert not wrong_reason(d, seen, "refused"), data
        with d.connect(ann) as client:
            client.call("api.ping")


def ask(d, proto, line, creds=None):
    with TlsClient(d, creds, proto) as client:
        client.sock.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        try:
            return client.read()
        except Gone:
            return {"error": {"message": "gone"}}


def request(d, name="r", kind="ec"):
    key = Forge(d).key(name, kind)
    return openssl("req", "-new", "-key", key, "-subj", "/CN=x").decode()


def tokens_work_once_and_bad_ones_never():
    with RemoteDaemon() as d:
        d.init()
        made = d.call("token.create", role="operator", project="web")
        token, csr = made["token"], request(d)
        with open(os.path.join(d.dir, "lib", "vmd.db"), "rb") as file:
            assert token.encode() not in file.read()
        flipped = token[:10] + ("A" if token[10] != "A" else "B") + token[11:]
        cases = [({"token": text, "request": csr, "user": "new1"}, "token") for text in
                 ("", "x", "vmd1.", token[:-1], token + "A", token[:-1] + "!", "vmd2" + token[4:], flipped, 7, None, [token])]
        cases += [({}, "token"), (["x"], "JSON"), ("x", "JSON"), (b"{\n", "JSON"), (b"[" * 100 + b"\n", "JSON")]
        cases += [({"token": token, "request": csr}, "user name"), ({"token": token, "request": csr, "user": "../x"}, "user name")]
        weak = request(d, "weak", "1024")
        cases += [({"token": token, "request": r, "user": "new1"}, why) for r, why in
                  (("", "PKCS"), ("junk", "PKCS"), (weak, "weak"), (csr.replace("MI", "MJ", 1), "PKCS"))]
        for line, why in cases:
            seen = newest(d)
            reply = ask(d, "join", line)
            assert why in reply["error"]["message"], (line, reply)
            wait_for(lambda seen=seen: newest(d) > seen, 10, "the refusal is on record")
        reply = ask(d, "join", {"token": token, "request": csr, "user": "new1"})
        assert reply["user"] == "new1" and "BEGIN CERT" in reply["certificate"], reply
        assert "used" in ask(d, "join", {"token": token, "request": csr, "user": "new2"})["error"]["message"]
        other = d.call("token.create", role="viewer")
        taken = ask(d, "join", {"token": other["token"], "request": csr, "user": "new1"})
        assert "taken" in taken["error"]["message"], taken
        d.call("token.delete", id=other["id"])
        assert "no such" in ask(d, "join", {"token": other["token"], "request": csr, "user": "n"})["error"]["message"]
        d.kill()
        d.start()
        assert "used" in ask(d, "join", {"token": token, "request": csr, "user": "new2"})["error"]["message"]
        assert [t["state"] for t in d.call("token.list")["tokens"]] == ["used"]


def tickets_are_for_their_user_and_once():
    with RemoteDaemon() as d:
        d.init()
        ann, eve = d.user("ann", "admin", "*"), d.user("eve", "admin", "*")
        with d.connect(ann) as client:
            client.call("vm.define", config=d.config("v"))
            client.call("vm.start", vm="v")
            for line in (b"x\n", b"{}\n", b'{"ticket": 1}\n', b'{"ticket": "00"}\n', b"A" * 20000 + b"\n"):
                assert "error" in ask(d, "stream", line, ann)
            ticket = client.call("vm.console", vm="v")["ticket"]
            assert "error" in ask(d, "stream", {"ticket": ticket}, eve)
            with TlsClient(d, ann, "stream") as console:
                console.sock.sendall(json.dumps({"ticket": ticket}).encode() + b"\n")
                assert console.read() == {"ok": True}
                while len(console.data) < 10:
                    console.data += console.sock.recv(1000)
                assert set(console.data) == {ord(".")}, console.data
            assert "error" in ask(d, "stream", {"ticket": ticket}, ann)


def certificates_are_read_again_under_clients():
    with RemoteDaemon() as d:
        d.init()
        clients = [d.connect(d.user("ann", "admin", "*"))]
        creds = Creds(os.path.join(d.pki, "ann", "cert.pem"), os.path.join(d.pki, "ann", "key.pem"))
        clients += [d.connect(creds) for _ in range(49)]
        for i in range(RELOADS):
            d.call("cert.init", names=["127.0.0.1", "localhost", f"n{i}"])
            assert d.call("cert.reload")["dropped"] == 0
            d.process.send_signal(1)
            for client in clients:
                assert client.call("api.ping", echo=i)["echo"] == i
        # What cannot be used changes nothing.
        with open(os.path.join(d.tls, "server.pem"), "w", encoding="ascii") as file:
            file.write("junk")
        with clients[0] as client:
            client.fails("file-error", "cert.reload")
        with d.connect(creds) as client:
            client.call("api.ping")
        serial = d.call("cert.list")["certs"][0]["serial"]
        d.call("cert.revoke", serial=serial)
        for client in clients[1:]:
            try:
                client.call("api.ping")
                raise AssertionError("a revoked certificate is still inside")
            except Gone:
                client.close()


def a_flood_holds_up_nobody_inside():
    with RemoteDaemon("--tls-max", "40", "--tls-max-peer", "20") as d:
        d.init()
        creds = d.user("ann", "admin", "*")
        with d.connect(creds) as client, d.client() as local:
            idle = []
            for _ in range(1000):
                try:
                    idle.append(socket.create_connection((d.host, d.port), 10))
                except OSError:
                    break
                if len(idle) > 100:
                    idle.pop(0).close()
                if len(idle) % 20 == 0:
                    client.call("api.ping")
            client.call("api.ping")
            local.call("vm.list")
            for s in idle:
                s.close()
            client.sock.sendall(b"[" * 100000 + b"\n")
            assert client.read()["error"]["code"] == -32700
            client.call("api.ping")
            assert d.call("cert.info")["refused"] > 500
            with open(f"/proc/{d.process.pid}/status", encoding="ascii") as file:
                rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
            assert rss < 128 * 1024, rss


def vmctl_does_remotely_what_it_does_locally():
    with RemoteDaemon() as d:
        d.init()
        token = d.vmctl("token", "create", "--role", "admin", "--project", "*", "--quiet").strip()
        d.vmctl("join", f"vmd+tls://{d.host}:{d.port}", "--token", "-", "--context", "c", "--user", "ann",
                remote="unused", text=token.encode() + b"\n")
        assert d.vmctl("whoami", "--quiet", remote="c") == "ann\n"
        path = os.path.join(d.dir, "fw.bin")
        with open(d.guest(), "rb") as source, open(path, "wb") as target:
            target.write(source.read() + os.urandom(1 << 20))
        where = d.vmctl("image", "push", path, "fw.bin", remote="c").strip()
        d.vmctl("image", "pull", "fw.bin", path + ".copy", remote="c")
        with open(path, "rb") as a, open(path + ".copy", "rb") as b:
            assert a.read() == b.read()
        assert "there is an image" in d.vmctl("image", "push", path, "fw.bin", remote="c", status=5)
        d.vmctl("define", "v", "--firmware", where, "--memory", "16M", remote="c")
        d.vmctl("start", "v", remote="c")
        console = subprocess.Popen([os.path.join(BUILD, "vmctl"), "-c", "c", "console", "v"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   env=d.env())
        assert set(console.stdout.read(20)) == {ord(".")}
        d.vmctl("stop", "--force", "v", remote="c")
        console.communicate(timeout=60)
        d.vmctl("cert", "renew", remote="c")
        assert "v" in d.vmctl("list", "--quiet", remote="c")
        assert len(d.call("cert.list", user="ann")["certs"]) == 2
        d.vmctl("image", "rm", "fw.bin", remote="c", status=5)
        d.vmctl("rm", "v", remote="c")
        d.vmctl("image", "rm", "fw.bin", remote="c")
        serial = [c["serial"] for c in d.call("cert.list", user="ann")["certs"]]
        for one in serial:
            d.vmctl("cert", "revoke", one)
        assert "revoked" in d.vmctl("list", remote="c", status=3)


def images_go_on_where_they_were_broken_off_and_keep_to_the_quota():
    data = os.urandom(3 << 20)
    digest = hashlib.sha256(data).hexdigest()
    with RemoteDaemon("--image-quota", "4M") as d:
        d.init()
        ann = d.user("ann", "operator", "web")

        def send(client, upload, offset, end):
            while offset < end:
                piece = data[offset:min(offset + (256 << 10), end)]
                offset = client.call("image.write", upload=upload, offset=offset,
                                     data=base64.b64encode(piece).decode())["offset"]
            return offset
        with d.connect(ann) as client:
            begun = client.call("image.begin", name="x", project="web", size=len(data))
            assert begun["offset"] == 0, begun
            send(client, begun["upload"], 0, 1 << 20)
        # The connection broke, and the daemon with it.
        d.kill()
        d.start()
        with d.connect(ann) as client:
            client.fails("not-found", "image.write", upload=begun["upload"], offset=1 << 20, data="AAAA")
            again = client.call("image.begin", name="x", project="web", size=len(data))
            assert again["offset"] == 1 << 20, again
            client.fails("bad-state", "image.write", upload=again["upload"], offset=0, data="AAAA")
            send(client, again["upload"], again["offset"], len(data))
            client.fails("file-error", "image.finish", upload=again["upload"], sha256="00" * 32)
            again = client.call("image.begin", name="x", project="web", size=len(data))
            send(client, again["upload"], again["offset"], len(data))
            assert client.call("image.finish", upload=again["upload"], sha256=digest)["size"] == len(data)
            got = b""
            while len(got) < len(data):  # as a download that goes on
                got += base64.b64decode(client.call("image.read", name="x", project="web", offset=len(got))["data"])
            assert got == data
            error = client.fails("host-limit", "image.begin", name="y", project="web", size=2 << 20)
            assert error.remedy, error
            client.call("image.begin", name="z", project="web", size=1 << 20)


def vmctl_goes_on_with_a_push_or_pull_that_was_broken_off():
    data = os.urandom(24 << 20)
    with RemoteDaemon() as d:
        d.init()
        source, copy = os.path.join(d.dir, "source"), os.path.join(d.dir, "copy")
        with open(source, "wb") as file:
            file.write(data)
        command = [os.path.join(BUILD, "vmctl"), "--dir", d.dir, "image"]

        def broken_off(*args):
            """Killed as soon as something has arrived, if it is not through by then."""
            process = subprocess.Popen([*command, *args], env=d.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            wait_for(lambda: process.poll() is not None or there(), 60, "something arrives")
            process.kill()
            process.wait()

        def there():
            if os.path.exists(copy + ".part"):
                return os.path.getsize(copy + ".part") > 0
            return any(i["size"] > 0 for i in d.call("image.list")["images"])
        def pushed():
            """What the killed one had sent may still be on its way to the disk; then it is refused, and told why."""
            done = subprocess.run([*command, "push", source, "x", "--project", "web", "--replace"], env=d.env(),
                                  capture_output=True, text=True, stdin=subprocess.DEVNULL)
            assert done.returncode == 0 or "being written just now" in done.stderr, done
            return done.returncode == 0
        broken_off("push", source, "x", "--project", "web")
        wait_for(pushed, 60, "it goes on")
        broken_off("pull", "x", copy, "--project", "web")
        d.vmctl("image", "pull", "x", copy, "--project", "web")
        with open(copy, "rb") as file:
            assert file.read() == data

        # What is there already is not sent again: told by pieces that do not belong.
        with d.client() as client:
            begun = client.call("image.begin", name="y", project="web", size=len(data))
            client.call("image.write", upload=begun["upload"], offset=0, data=base64.b64encode(b"?" * (256 << 10)).decode())
        said = d.vmctl("image", "push", source, "y", "--project", "web", status=1)
        assert "digest" in said or "SHA-256" in said, said
        d.vmctl("image", "push", source, "y", "--project", "web", "--restart")
        os.unlink(copy)
        with open(copy + ".part", "wb") as file:
            file.write(b"?" * 1000)
        d.vmctl("image", "pull", "y", copy, "--project", "web")
        with open(copy, "rb") as file:
            got = file.read()
        assert got[:1000] == b"?" * 1000 and got[1000:] == data[1000:], "it went on behind what was there"
        d.vmctl("image", "pull", "y", copy, "--project", "web", "--restart")
        with open(copy, "rb") as file:
            assert file.read() == data
        with open(copy + ".part", "wb") as file:
            file.write(data + b"!")
        assert "longer than the image" in d.vmctl("image", "pull", "y", copy, "--project", "web", status=1)


if __name__ == "__main__":
    sys.exit(tap.run_cases([certificates_are_refused_with_the_reason, old_protocols_and_garbage_are_refused,
                            tokens_work_once_and_bad_ones_never, tickets_are_for_their_user_and_once,
                            certificates_are_read_again_under_clients, a_flood_holds_up_nobody_inside,
                            vmctl_does_remotely_what_it_does_locally,
                            images_go_on_where_they_were_broken_off_and_keep_to_the_quota,
                            vmctl_goes_on_with_a_push_or_pull_that_was_broken_off]))
