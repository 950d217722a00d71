# SPDX-License-Identifier: Apache-2.0
"""NBD against other people's programs, both ways: what vmctl serves is read, written and mapped by nbdinfo, nbdcopy and
qemu-img; what qemu-nbd serves by vmctl image. TLS with certificates of our own."""
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

BUILD = os.environ["VMD_BUILDDIR"]
sys.path.insert(0, os.path.join(os.environ["VMD_SRCDIR"], "tests", "lib"))
import tap  # noqa: E402

VMCTL = [os.path.join(BUILD, "vmctl"), "image"]
MIB = 1 << 20


def run(*words, ok=0, text=True):
    got = subprocess.run(words, capture_output=True, text=text, errors="replace" if text else None, check=False, timeout=120)
    if got.returncode != ok:
        raise AssertionError(f"{' '.join(words)}: status {got.returncode}: {(got.stderr or got.stdout).strip()[:400]}")
    return got.stdout


def contents(rng, path, size):
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(12):
            at = rng.randrange(size // 512) * 512
            f.seek(at)
            f.write(rng.randbytes(min(size - at, rng.choice((512, 4096, 70000 // 512 * 512, MIB)))))


def answers(path):
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(path)
            return s.recv(8) == b"NBDMAGIC"
    except OSError:
        return False


class Served:
    """An image that some program serves at a unix socket."""

    def __init__(self, where, *words, check=True):
        self.path = os.path.join(where, f"s{random.randrange(1 << 30)}")
        self.uri = f"nbd+unix:///?socket={self.path}"
        self.process = subprocess.Popen([w.replace("@", self.path) for w in words], stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not (answers(self.path) if check else os.path.exists(self.path)):
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{words[0]} does not serve: {self.process.stderr.read()}")
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.process.terminate()
        self.process.wait(60)
        self.process.stderr.close()


def ours(where, image, *more):
    return Served(where, *VMCTL, "nbd-serve", "-t", "-e", "0", "-k", "@", *more, image)


def theirs(where, image, *more):
    return Served(where, "qemu-nbd", "-t", "-e", "0", "-k", "@", *more, image)


def others_read_what_we_serve(where, rng):
    contents(rng, "raw", 24 * MIB)
    run(*VMCTL, "convert", "-O", "qcow2", "-c", "raw", "a.qcow2")
    for image in ("raw", "a.qcow2"):
        with ours(where, image, "-f", "raw" if image == "raw" else "qcow2", "-r") as s:
            info = json.loads(run("nbdinfo", "--json", s.uri))["exports"][0]
            assert info["export-size"] == 24 * MIB and info["is_read_only"], info
            assert "base:allocation" in info["contexts"], info
            run("nbdcopy", s.uri, "copy")
            run("cmp", "raw", "copy")
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", "raw", s.uri)
            total = sum(x["length"] for x in json.loads(run("nbdinfo", "--json", "--map", s.uri)))
            assert total == 24 * MIB, total
            want = [x["start"] for x in json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", s.uri))
                    if x["data"]]
            assert want, "a map without data"


def others_write_what_we_serve(where, rng):
    contents(rng, "raw", 24 * MIB)
    run(*VMCTL, "create", "-f", "qcow2", "b.qcow2", str(24 * MIB))
    with ours(where, "b.qcow2", "-f", "qcow2") as s:
        run("nbdcopy", "raw", s.uri)
        run("qemu-io", "-f", "raw", "-c", "write -P 7 1000 5000", "-c", "write -z 1M 1M", "-c", "discard 4M 1M",
            "-c", "write -f -P 9 12345 77777", "-c", "read -P 7 1000 5000", "-c", "flush", s.uri)
        run("nbdcopy", s.uri, "copy")
        bad = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 24M 512", s.uri], capture_output=True, text=True,
                             check=False, timeout=60)
        assert "beyond" in bad.stdout + bad.stderr or bad.returncode, bad
    run("qemu-img", "check", "-q", "b.qcow2")
    run("qemu-img", "compare", "-F", "qcow2", "copy", "b.qcow2")


def we_use_what_qemu_serves(where, rng):
    contents(rng, "raw", 24 * MIB)
    run("qemu-img", "create", "-q", "-f", "qcow2", "c.qcow2", str(24 * MIB))
    with theirs(where, "c.qcow2", "-f", "qcow2") as s:
        run(*VMCTL, "convert", "raw", s.uri)
        run(*VMCTL, "compare", "raw", s.uri)
        run(*VMCTL, "convert", "-O", "qcow2", s.uri, "back.qcow2")
        holes = [x for x in json.loads(run(*VMCTL, "map", "--json", s.uri)) if not x["data"]]
        assert holes, "no hole was seen"
        assert json.loads(run(*VMCTL, "info", "--json", s.uri))["virtual-size"] == 24 * MIB
    run("qemu-img", "compare", "raw", "back.qcow2")
    run("qemu-img", "check", "-q", "c.qcow2")
    with theirs(where, "c.qcow2", "-f", "raw") as s:  # the image itself is what is served
        assert json.loads(run(*VMCTL, "info", "--json", s.uri))["format"] == "qcow2"
        run(*VMCTL, "compare", "raw", s.uri)


def tls_with_certificates(where, rng):
    contents(rng, "raw", 4 * MIB)
    os.makedirs("pki", exist_ok=True)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
        "/CN=ca", "-days", "2", "-keyout", "pki/ca-key.pem", "-out", "pki/ca-cert.pem")
    for who in ("server", "client"):
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/CN=localhost", "-keyout", f"pki/{who}-key.pem", "-out", "pki/req.pem")
        with open("pki/ext", "w", encoding="utf-8") as f:
            f.write("subjectAltName=DNS:localhost\n")
        run("openssl", "x509", "-req", "-in", "pki/req.pem", "-CA", "pki/ca-cert.pem", "-CAkey", "pki/ca-key.pem",
            "-CAcreateserial", "-days", "2", "-extfile", "pki/ext", "-out", f"pki/{who}-cert.pem")
    pki = os.path.abspath("pki")
    with ours(where, "raw", "-f", "raw", "--tls-creds", pki, "--tls-verify-peer") as s:
        opened = subprocess.run(["nbdinfo", s.uri], capture_output=True, text=True, check=False, timeout=60)
        assert opened.returncode, "it serves without TLS too"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    with Served(where, *VMCTL, "nbd-serve", "-t", "-e", "0", "-p", str(port), "--pid-file", "@", "-f", "raw",
                "--tls-creds", pki, "--tls-verify-peer", "-r", "raw", check=False):
        uri = f"nbds://localhost:{port}/?tls-certificates={pki}"
        run("nbdcopy", uri, "copy")
        run("cmp", "raw", "copy")
        run(*VMCTL, "compare", "raw", uri)
        run("qemu-img", "compare", "--object", f"tls-creds-x509,id=t,endpoint=client,dir={pki}", "--image-opts",
            "driver=raw,file.driver=file,file.filename=raw",
            f"driver=nbd,host=localhost,port={port},tls-creds=t")


def a_bad_client_is_dropped_and_nobody_else(where, rng):
    contents(rng, "raw", 4 * MIB)
    hello = b"\0\0\0\3" + b"IHAVEOPT" + struct.pack(">II", 7, 6) + bytes(6)

    def request(kind, offset, length):
        return struct.pack(">IHHQQI", 0x25609513, 0, kind, 1, offset, length)

    with ours(where, "raw", "-f", "raw") as s:
        idle = []
        for what in (b"GET / HTTP/1.1\r\n\r\n", hello + b"x" * 28, b"\0\0\0\3" + b"IHAVEOPT" + b"\xff" * 8,
                     hello + request(1, 0, 32 * MIB)):
            c = socket.socket(socket.AF_UNIX)
            c.connect(s.path)
            c.sendall(what)
            idle.append(c)
        greedy = socket.socket(socket.AF_UNIX)  # asks for far more than it reads
        greedy.connect(s.path)
        greedy.sendall(hello)
        greedy.setblocking(False)
        try:
            for _ in range(100000):
                greedy.send(request(0, 0, 4 * MIB))
        except BlockingIOError:
            pass
        run("nbdcopy", s.uri, "copy")
        run("cmp", "raw", "copy")
        with open(f"/proc/{s.process.pid}/status", encoding="ascii") as f:
            peak = int(next(x for x in f if x.startswith("VmHWM")).split()[1])
        assert peak < 256 * 1024, f"{peak} KiB"
        for c in idle + [greedy]:
            c.close()
        assert s.process.poll() is None


def main():
    missing = [p for p in ("qemu-img", "qemu-nbd", "nbdinfo", "nbdcopy", "openssl") if not shutil.which(p)]
    t = tap.Tap()
    cases = [others_read_what_we_serve, others_write_what_we_serve, we_use_what_qemu_serves, tls_with_certificates,
             a_bad_client_is_dropped_and_nobody_else]
    seed = int(os.environ.get("VMD_TEST_SEED", "0")) or random.randrange(1 << 30)
    if "--seed" in sys.argv:
        seed = int(sys.argv[sys.argv.index("--seed") + 1])
    print(f"# seed {seed}")
    for i, case in enumerate(cases, 1):
        name = f"nbd: {case.__name__.replace('_', ' ')}"
        if missing:
            t.case(name, skip=", ".join(missing) + " not found")
            continue
        with tempfile.TemporaryDirectory(prefix="vmd-nbd.") as where:
            os.chdir(where)
            try:
                case(where, random.Random(seed + i))
                t.case(name)
            except (AssertionError, subprocess.TimeoutExpired) as x:
                t.case(name, problem=str(x))
            finally:
                os.chdir("/")
    return t.done()


if __name__ == "__main__":
    sys.exit(main())
