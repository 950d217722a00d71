# SPDX-License-Identifier: Apache-2.0
"""Certificates from elsewhere: servers that vmctl must not believe (openssl's), an authority of others with intermediates
and revocation lists, and a certificate that expires while its client is connected."""

import os
import pathlib
import select
import subprocess
import sys

TOP = pathlib.Path(os.environ.get("VMD_SRCDIR") or pathlib.Path(__file__).resolve().parents[2])
sys.path[:0] = [str(TOP / "tests" / "lib"), str(TOP / "tests" / "e2e")]

import daemon_clock  # noqa: E402
import tap  # noqa: E402
from daemon_lib import BUILD, Gone, wait_for  # noqa: E402
from remote_lib import Creds, Forge, RemoteDaemon, free_port, openssl  # noqa: E402

CA = "basicConstraints=critical,CA:TRUE;keyUsage=keyCertSign,cRLSign"
SERVER = "extendedKeyUsage=serverAuth;subjectAltName=DNS:localhost"


# --- servers that are not who they say ---------------------------------------------------------------

def bad_servers(f):
    """(name, what vmctl says, certificate, more options of openssl s_server)"""
    yield "self-signed", "self-signed", f.make("s1", "/CN=localhost", SERVER, issuer="self"), ()
    other = f.make("s2ca", "/CN=other", CA, issuer="self")
    pair = (other.cert, other.key)
    yield "wrong CA", "unable to get|self-signed", f.make("s2", "/CN=localhost", SERVER, issuer=pair), ()
    yield "wrong CA sent along", "self-signed", f.make("s3", "/CN=localhost", SERVER, issuer=pair, chain=[other.cert]), ()
    subject = openssl("x509", "-in", f.d.ca, "-noout", "-subject", "-nameopt", "multiline").decode()
    name = subject.split("commonName")[1].split("=", 1)[1].strip()
    twin = f.make("s4ca", "/CN=" + name, CA, issuer="self")
    yield "CA of the same name", "signature|unable to get|self-signed", f.make("s4", "/CN=localhost", SERVER, issuer=(twin.cert, twin.key)), ()
    for i, names in enumerate(("DNS:other.example", "DNS:localhost.evil.example", "DNS:*.localhost", "IP:127.0.0.2", "email:a@localhost",
                               "URI:https://localhost")):
        cert = f.make(f"s5{i}", "/CN=localhost" if i == 3 else "/CN=x", f"extendedKeyUsage=serverAuth;subjectAltName={names}")
        yield f"name {names}", "hostname mismatch|not for", cert, ()
    yield "expired", "expired", f.make("s6", "/CN=localhost", SERVER, dates=("20200101000000Z", "20200201000000Z")), ()
    yield "not yet valid", "not yet valid", f.make("s7", "/CN=localhost", SERVER, dates=("20980101000000Z", "20991231235959Z")), ()
    for usage in ("clientAuth", "codeSigning", "OCSPSigning"):
        yield "usage " + usage, "purpose|unsuitable", f.make("s8" + usage, "/CN=localhost",
                                                            f"extendedKeyUsage={usage};subjectAltName=DNS:localhost"), ()
    yield "a client's", "purpose|unsuitable|mismatch", Creds(*(os.path.join(f.d.pki, "ann", n) for n in ("cert.pem", "key.pem"))), ()
    yield "RSA of 1024 bits", "too weak|too small|key too", f.make("s9", "/CN=localhost", SERVER, kind="1024"), ("-cipher", "DEFAULT@SECLEVEL=0")
    yield "signed with SHA-1", "too weak|digest|algorithm", f.make("s10", "/CN=localhost", SERVER, digest="sha1"), ("-cipher", "DEFAULT@SECLEVEL=0")
    good = f.make("s11", "/CN=localhost", SERVER)
    for old in ("-tls1_2", "-tls1_1"):
        yield "TLS " + old, "version|TLS 1.3|protocol", good, (old, "-cipher", "DEFAULT@SECLEVEL=0")


class OpensslServer:
    """openssl s_server; says ACCEPT when it listens."""

    def __init__(self, creds, options):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", "-cert", creds.cert, "-key", creds.key, "-cert_chain",
             creds.cert, "-alpn", "vmd-rpc/1", *(options or ("-tls1_3",))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.said = b""
        while b"ACCEPT" not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [], 30)
            piece = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            assert piece, f"openssl s_server: {self.said.decode(errors='replace')}"
            self.said += piece

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def ask(d, folder, url):
    """vmctl's exit status and what it said."""
    done = subprocess.run([os.path.join(BUILD, "vmctl"), "-c", url, "list"], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=60, check=False, env={**d.env(), "VMCTL_TLS": folder})
    return done.returncode, done.stderr.decode(errors="replace")


def vmctl_believes_no_server_without_a_good_certificate():
    with RemoteDaemon() as d:
        d.init("localhost")
        d.user("ann", "admin", "*")
        folder = os.path.join(d.pki, "ann")
        status, said = ask(d, folder, f"vmd+tls://localhost:{d.port}")
        assert status == 0, said
        wrong, n = [], 0
        for name, want, creds, options in bad_servers(Forge(d)):
            with OpensslServer(creds, options) as server:
                status, said = ask(d, folder, f"vmd+tls://localhost:{server.port}")
            n += 1
            if status != 3 or not any(w in said for w in want.split("|")):
                wrong.append(f"{name}: status {status}, {said}")
        status, said = ask(d, folder, f"vmd+tls://127.0.0.1:{d.port}")  # its certificate names localhost alone
        if status != 3 or "mismatch" not in said:
            wrong.append(f"address for a name: status {status}, {said}")
        assert not wrong, f"{len(wrong)} of {n}:\n" + "\n".join(wrong)
        assert n >= 20, n


# --- an authority of others ---------------------------------------------------------------------------

class Pki:
    """Root, intermediate, and revocation lists of both, by openssl."""

    def __init__(self, daemon):
        self.f = Forge(daemon)
        self.root = self.f.make("root", "/CN=root", CA, issuer="self")
        self.mid = self.f.make("mid", "/CN=mid", CA, issuer=(self.root.cert, self.root.key))
        self.crl = self.f.path("lists.pem")
        self.revoked = {}

    def leaf(self, name, issuer=None, chain=True, ext="extendedKeyUsage=clientAuth"):
        issuer = issuer or self.mid
        return self.f.make(name, f"/CN={name}", ext, issuer=(issuer.cert, issuer.key),
                           chain=[self.mid.cert] if chain and issuer is self.mid else ())

    def lists(self, *revoked, days="30", only=None):
        """Writes the lists of both authorities; `revoked`: (issuer, certificate)."""
        text = b""
        for authority in (self.mid, self.root):
            if only and authority is not only:
                continue
            conf = authority.cert + ".crl.cnf"
            for suffix, what in ((".db", ""), (".number", "01\n")):
                with open(conf + suffix, "w", encoding="ascii") as file:
                    file.write(what)
            with open(conf, "w", encoding="ascii") as file:
                file.write(f"[ca]\ndefault_ca=a\n[a]\ndatabase={conf}.db\ncrlnumber={conf}.number\ndefault_md=sha256\n")
            key = ["-config", conf, "-cert", authority.cert, "-keyfile", authority.key]
            for issuer, cert in revoked:
                if issuer is authority:
                    openssl("ca", *key, "-revoke", cert)
            dates = ["-crldays", days] if days else ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z"]
            text += openssl("ca", *key, "-gencrl", *dates)
        with open(self.crl, "wb") as file:
            file.write(text)


class Foreign(RemoteDaemon):
    """A daemon with certificates of that authority."""

    def __init__(self, lists=True, **more):
        super().__init__(**more)
        self.p = Pki(self)
        server = self.p.leaf("localhost", ext=SERVER + ",IP:127.0.0.1")
        self.ca = self.p.root.cert
        self.options += ["--tls-ca", self.ca, "--tls-cert", server.cert, "--tls-key", server.key]
        if lists:
            self.p.lists()
            self.options += ["--tls-crl", self.p.crl]

    def refused(self, creds, why):
        try:
            self.connect(creds)
        except Gone:
            self.audited(why, "tls.connect")
            return
        raise AssertionError(f"let in: {creds.cert}, not refused: {why}")


def an_authority_of_others_with_intermediates_and_lists():
    with Foreign() as d:
        p = d.p
        ann, bob, eve = p.leaf("ann"), p.leaf("bob"), p.leaf("eve")
        direct, alone = p.leaf("direct", issuer=p.root), p.leaf("alone", chain=False)
        for name in ("ann", "bob", "direct", "alone"):
            d.call("user.set", user=name, role="admin", project="*")
        clients = {c: d.connect(k) for c, k in (("ann", ann), ("bob", bob), ("direct", direct))}
        for client in clients.values():
            client.call("api.ping")
        d.refused(alone, "unable to get")
        d.refused(eve, "no such user")
        d.refused(p.f.make("usage", "/CN=ann", SERVER, issuer=(p.mid.cert, p.mid.key), chain=[p.mid.cert]), "purpose")
        d.refused(p.f.make("late", "/CN=ann", issuer=(p.mid.cert, p.mid.key), chain=[p.mid.cert],
                           dates=("20200101000000Z", "20200201000000Z")), "expired")
        d.client().fails("unsupported", "cert.init", names=["x"])
        d.client().fails("bad-state", "token.create", role="viewer")
        # One is revoked: its connection ends with the reload, the others stay.
        p.lists((p.mid, bob.cert))
        assert d.call("cert.reload")["dropped"] == 1
        for name in ("ann", "direct"):
            clients[name].call("api.ping")
        try:
            clients["bob"].call("api.ping")
            raise AssertionError("a revoked certificate is still inside")
        except Gone:
            d.audited("revoked", "tls.connect")
        d.refused(bob, "revoked")
        # What is no list changes nothing.
        with open(p.crl, "w", encoding="ascii") as file:
            file.write("junk\n")
        error = d.client().fails("file-error", "cert.reload")
        assert p.crl in error.message, error.message
        clients["ann"].call("api.ping")
        d.refused(bob, "revoked")
        # A list of the root alone does not speak for the intermediate's certificates: closed.
        p.lists(only=p.root)
        d.call("cert.reload")
        d.refused(ann, "unable to get certificate CRL")
        # Without the root's list there is nothing against the intermediate.
        p.lists(only=p.mid)
        d.call("cert.reload")
        d.connect(ann).call("api.ping")
        # An old list is none.
        p.lists(days=None)
        d.call("cert.reload")
        d.refused(ann, "CRL has expired")
        # The intermediate itself.
        p.lists((p.root, p.mid.cert))
        d.call("cert.reload")
        d.refused(ann, "revoked")
        d.connect(direct).call("api.ping")


# --- time -----------------------------------------------------------------------------------------------

class ClockedForeign(Foreign):
    """The same with a clock that can be set."""

    def __init__(self):
        super().__init__(lists=False)
        library = daemon_clock.shim(self.dir)
        self.clock = os.path.join(self.dir, "clock")
        self.jump(0)
        self.wrapper = ["env", f"LD_PRELOAD={library}", f"VMD_TEST_CLOCK={self.clock}"]

    jump = daemon_clock.Clocked.jump


def a_certificate_that_expires_ends_its_connection_and_no_other():
    with ClockedForeign() as d:
        p = d.p
        short = p.f.make("short", "/CN=short", issuer=(p.mid.cert, p.mid.key), chain=[p.mid.cert],
                         dates=("20200101000000Z", "20400101000000Z"))
        for name in ("short", "ann"):
            d.call("user.set", user=name, role="admin", project="*")
        with d.connect(short) as one, d.connect(p.leaf("ann")) as other:
            one.call("api.ping")
            d.jump(30 * 365 * 86400)

            def ended():
                try:
                    return one.read() is None
                except Gone:
                    return True
            wait_for(ended, 30, "its connection ends")
            d.audited("expired while it was connected", "tls.connect")
            other.call("api.ping")
            d.refused(short, "has expired")
            d.jump(0)
            with d.connect(short) as again:
                again.call("api.ping")
            other.call("api.ping")


if __name__ == "__main__":
    sys.exit(tap.run_cases([vmctl_believes_no_server_without_a_good_certificate,
                            an_authority_of_others_with_intermediates_and_lists,
                            a_certificate_that_expires_ends_its_connection_and_no_other]))
