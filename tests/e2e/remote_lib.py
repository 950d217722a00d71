# SPDX-License-Identifier: Apache-2.0
"""A daemon with a TLS listener, certificates good and bad, and clients over TLS, for the tests of
remote access. Certificates that the daemon would never issue are made by the openssl program."""

import os
import select
import shutil
import socket
import ssl
import subprocess

from daemon_lib import BUILD, Client, Daemon, Gone, wait_for

ALPN = {"rpc": "vmd-rpc/1", "stream": "vmd-stream/1", "join": "vmd-join/1"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def openssl(*args, **more):
    done = subprocess.run(["openssl", *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                          check=False, **more)
    if done.returncode:
        raise AssertionError(f"openssl {' '.join(args)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


class Creds:
    """Files of a client: certificate (chain) and key."""

    def __init__(self, cert, key):
        self.cert, self.key = cert, key


class TlsClient(Client):
    """Client of daemon_lib over TLS."""

    def __init__(self, daemon, creds=None, proto="rpc", timeout=30.0, source=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(daemon.ca)
        context.set_alpn_protocols([ALPN[proto]])
        if creds:
            context.load_cert_chain(creds.cert, creds.key)
        self.data, self.number, self.events, self.answers = b"", 0, [], {}
        try:
            plain = socket.create_connection((daemon.host, daemon.port), timeout, source)
        except OSError as problem:
            raise Gone(str(problem)) from problem
        try:
            self.sock = context.wrap_socket(plain, server_hostname=daemon.host)
            if proto == "rpc":
                self.hello = self.read()
        except (OSError, Gone) as problem:
            plain.close()
            raise Gone(str(problem)) from problem


class RemoteDaemon(Daemon):
    """vmd with --listen; init() makes its authority."""

    def __init__(self, *options, host="127.0.0.1", **more):
        super().__init__(**more)
        self.host, self.port = host, free_port()
        self.options = list(options)
        self.tls = os.path.join(self.dir, "lib", "tls")
        self.ca = os.path.join(self.tls, "ca.pem")
        self.pki = os.path.join(self.dir, "pki")
        os.makedirs(self.pki)

    def command(self, *more):
        return super().command("--listen", f"{self.host}:{self.port}", *self.options, *more)

    def vmctl(self, *args, status=0, remote=None, text=None, timeout=60):
        """Runs vmctl, by the unix socket or as a context; what it printed."""
        where = ["-c", remote] if remote else ["--dir", self.dir]
        done = subprocess.run([os.path.join(BUILD, "vmctl"), *where, *args], capture_output=True,
                              input=text, timeout=timeout, check=False, env=self.env(),
                              stdin=None if text is not None else subprocess.DEVNULL)
        out = done.stdout.decode(errors="replace")
        err = done.stderr.decode(errors="replace")
        if done.returncode != status:
            raise AssertionError(f"vmctl {' '.join(args)}: status {done.returncode}, not {status}\n{out}{err}")
        return out if status == 0 else err

    def env(self):
        home = os.path.join(self.dir, "home")
        os.makedirs(home, exist_ok=True)
        return {**{k: v for k, v in os.environ.items() if not k.startswith("VMCTL")}, "HOME": home,
                "XDG_CONFIG_HOME": os.path.join(home, ".config")}

    def init(self, *names):
        return self.call("cert.init", names=list(names) or [self.host, "localhost"])

    def user(self, name, role=None, project="default"):
        """A user with a certificate of the daemon."""
        folder = os.path.join(self.pki, name)
        self.vmctl("cert", "issue", name, "--out", folder)
        if role:
            self.call("user.set", user=name, role=role, project=project)
        return Creds(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))

    def connect(self, creds, **more):
        return TlsClient(self, creds, **more)

    def audit(self, method=None):
        """Newest first."""
        entries = self.call("audit.list", limit=1000)["entries"]
        return [e for e in entries if not method or e["method"] == method]


    def audited(self, text, method=None):
        """Waits for an entry whose outcome has this text."""
        def found():
            return [e for e in self.audit(method) if text in e["outcome"] + " " + e["who"]]
        return wait_for(found, 10, f"audit of {text!r}: {self.audit(method)[:3]}")[0]


class Forge:
    """Certificates that must be refused; the daemon's authority's key is at hand."""

    def __init__(self, daemon):
        self.d = daemon
        self.dir = os.path.join(daemon.pki, "forge")
        os.makedirs(self.dir, exist_ok=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def key(self, name, kind="ec"):
        path = self.path(name + ".key")
        if kind == "ec":
            openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
        else:
            openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{kind}", "-out", path)
        return path

    def make(self, name, subject="/CN=ann", ext="extendedKeyUsage=clientAuth", issuer=None, dates=None,
             digest="sha256", kind="ec", chain=()):
        """issuer: (certificate, key) files, 'self', or None: the daemon's authority. dates: start and end
        as openssl ca has them."""
        key, csr, cert = self.key(name, kind), self.path(name + ".csr"), self.path(name + ".pem")
        conf = self.path(name + ".cnf")
        with open(conf, "w", encoding="ascii") as file:
            file.write("[req]\ndistinguished_name=dn\nprompt=no\nstring_mask=utf8only\n[dn]\n"
                       "[ca]\ndefault_ca=a\n[a]\n"
                       f"database={conf}.db\nnew_certs_dir={self.dir}\nrand_serial=yes\n"
                       f"default_md={digest}\npolicy=p\nunique_subject=no\nemail_in_dn=yes\n"
                       "[p]\ncommonName=optional\norganizationName=optional\n[x]\n" + ext.replace(";", "\n") + "\n")
        open(conf + ".db", "w", encoding="ascii").close()
        openssl("req", "-new", "-key", key, "-subj", subject, "-out", csr, "-config", conf, "-utf8")
        if issuer == "self":
            ca_cert = ["-selfsign", "-keyfile", key]
        else:
            pair = issuer or (self.d.ca, os.path.join(self.d.tls, "ca.key"))
            ca_cert = ["-cert", pair[0], "-keyfile", pair[1]]
        start, end = dates or ("20200101000000Z", "20991231235959Z")
        openssl("ca", "-batch", "-config", conf, "-in", csr, "-out", cert, "-notext", "-extensions", "x",
                "-startdate", start, "-enddate", end, "-preserveDN", *ca_cert)
        for more in chain:
            with open(more, encoding="ascii") as source, open(cert, "a", encoding="ascii") as target:
                shutil.copyfileobj(source, target)
        return Creds(cert, key)


def s_client(daemon, creds=None, *options, text=b""):
    """What openssl's client got after its handshake, and what it said; nothing came when refused."""
    command = ["openssl", "s_client", "-connect", f"{daemon.host}:{daemon.port}", "-quiet", "-no_ign_eof",
               "-CAfile", daemon.ca, "-servername", "localhost", *options]
    if creds:
        command += ["-cert", creds.cert, "-key", creds.key, "-cert_chain", creds.cert]
    # Its input stays open: at its end the client would leave without waiting for the greeting.
    # Unbuffered: a client that was refused may be gone before the text is written, and again when its input is closed.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          bufsize=0) as client:
        try:
            client.stdin.write(text)
        except BrokenPipeError:
            pass
        ready, _, _ = select.select([client.stdout], [], [], 20)
        out = os.read(client.stdout.fileno(), 65536) if ready else b""
        client.kill()
        return out, client.stderr.read().decode(errors="replace")
