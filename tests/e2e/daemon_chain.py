# SPDX-License-Identifier: Apache-2.0
"""Backing chains under the daemon: which files an image may name, what the emulator is given, and the locks on every image
of a chain, against qemu-img and qemu-io."""

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import tap  # noqa: E402

TIMEOUT = 240.0


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def qemu_img(*words):
    done = run("qemu-img", *words)
    tap.check(done.returncode == 0, f"qemu-img {words}: {done.stderr}")
    return done.stdout


def make(path, backing=None, backing_format="qcow2", size=None, unsafe=False):
    words = ["create", "-q", "-f", "qcow2"] + (["-u"] if unsafe else [])
    words += ["-b", backing, "-F", backing_format] if backing else []
    qemu_img(*words, path, *([size] if size else []))
    return path


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def linux(action, *disks):
    files = guest.fetched("riscv64-disk")
    return {"memory": 256 << 20, "kernel": files["kernel"], "initrd": files["initrd"], "firmware": "default",
            "append": f"console=ttyS0 vmd.virtio vmd.run={action}", "tcg": {"cache_size": 64 * lib.MIB},
            "disks": list(disks)}


def chain(folder):
    """base.raw <- mid.qcow2 <- {a,b}.qcow2, by names of all kinds."""
    os.mkdir(os.path.join(folder, "bases"))
    base = os.path.join(folder, "bases", "base.raw")
    with open(base, "wb") as file:
        file.write(b"first line of the base\n")
        file.truncate(8 << 20)
    mid = make(os.path.join(folder, "mid.qcow2"), "bases/base.raw", "raw")
    return base, mid, [make(os.path.join(folder, name), back) for name, back in
                       (("a.qcow2", mid), ("b.qcow2", "file:" + mid))]


def two_guests_write_to_overlays_of_one_base():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        base, mid, tops = chain(daemon.dir)
        before = digest(base), digest(mid)
        for name, path in zip("ab", tops):
            client.call("vm.define", config=daemon.config(
                name, **linux(f"disk,diskwrite:of-{name}", {"file": path, "format": "qcow2"})))
            client.call("vm.start", vm=name)
        for name in "ab":
            lib.wait_for(lambda n=name: client.call("vm.get", vm=n)["state"] in ("stopped", "crashed"), TIMEOUT,
                         "power-off")
            state = client.call("vm.get", vm=name)
            tap.check(state["state"] == "stopped", f"{state}")
        tap.check((digest(base), digest(mid)) == before, "an image below was written")
        for name, path in zip("ab", tops):
            qemu_img("check", "-q", path)
            qemu_img("convert", "-O", "raw", path, path + ".raw")
            with open(path + ".raw", "rb") as file:
                data = file.read()
            tap.check(data.startswith(b"first line of the base\n"), f"{data[:40]!r}")
            tap.check(data[-512:].startswith(b"of-" + name.encode()), f"{data[-512:][:40]!r}")


def locked(path, form, *words):
    """Does qemu-io get at the image?"""
    done = run("qemu-io", *words, "-f", form, path)
    text = done.stdout + done.stderr
    tap.check(done.returncode == 0 or "lock" in text, text)
    return done.returncode != 0


def every_image_of_a_chain_is_locked_as_qemu_locks_it():
    with lib.Daemon() as daemon, daemon.client() as client:
        base, mid, tops = chain(daemon.dir)
        for name, path in zip("ab", tops):
            client.call("vm.define", config=daemon.config(name, disks=[{"file": path, "format": "qcow2"}]))
            client.call("vm.start", vm=name)
        write = ("-c", "write 0 512")
        read = ("-r", "-c", "read 0 512")
        found = [(locked(path, form, *write), locked(path, form, *read))
                 for path, form in ((base, "raw"), (mid, "qcow2"), (tops[0], "qcow2"))]
        tap.check(found == [(True, False), (True, False), (True, True)], f"{found}")
        # Another VM that would write to an image below is refused by name.
        client.call("vm.define", config=daemon.config("c", disks=[{"file": base}]))
        error = client.fails("busy", "vm.start", vm="c")
        tap.check(error.object == base and "VM 'a'" in error.message, str(error))
        client.call("vm.stop", vm="a")
        client.call("vm.stop", vm="b")
        tap.check([locked(path, form, *write) for path, form in ((base, "raw"), (mid, "qcow2"), (tops[0], "qcow2"))]
                  == [False] * 3, "still locked")
        # And the other way round: what qemu-io writes to is not started from.
        client.call("vm.start", vm="c")
        error = client.fails("busy", "vm.start", vm="a")
        tap.check(error.object == base and "VM 'c'" in error.message, str(error))
        client.call("vm.stop", vm="c")
        with subprocess.Popen(["qemu-io", "-f", "raw", base], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            other.stdin.write(b"read 0 512\n")
            other.stdin.flush()
            other.stdout.readline()
            try:
                client.call("vm.start", vm="a")
                text = "it was started"
            except lib.CallError as error:
                text = error.message
            other.stdin.close()
            other.wait(30)
        tap.check(f"{base}" in text or "locked" in text, text)
        client.call("vm.start", vm="a")


def refused(client, daemon, path, pattern, code="file-error"):
    client.call("vm.define", config=daemon.config("r", disks=[{"file": path, "format": "qcow2", "name": "root"}]))
    before = digest(path)
    error = client.fails(code, "vm.start", vm="r")
    tap.check(re.search(pattern, error.message), f"{pattern!r} is not in {error.message!r}")
    tap.check(digest(path) == before, "the image was changed")
    client.call("vm.delete", vm="r")


def what_an_image_names_is_bounded_and_the_error_says_which_image():
    with lib.Daemon(emulator=lib.FAKE) as daemon, daemon.client() as client:
        def at(name):
            return os.path.join(daemon.dir, "img", name)
        os.mkdir(at(""))
        outside = os.path.join(daemon.dir, "other.raw")
        with open(outside, "wb") as file:
            file.truncate(1 << 20)
        os.symlink(outside, at("link.raw"))
        os.mkfifo(at("pipe"))
        os.mkdir(at("sub"))
        left = r"disk 'root': the backing file '{}' of '{}' is outside the folders that images may name \({}\)"
        for name, text in (("/etc/shadow", "/etc/shadow"), ("../other.raw", at("../other.raw")),
                           ("link.raw", at("link.raw")), ("/etc/nothing-there", "/etc/nothing-there"),
                           ("/dev/null", "/dev/null"), ("gone/../../none", at("gone/../../none"))):
            path = make(at("a.qcow2"), name, "raw", "1M", unsafe=True)
            refused(client, daemon, path, left.format(re.escape(text), re.escape(path), re.escape(at("")[:-1])))
        for name, pattern in (("none.raw", "none.raw' does not exist"), ("pipe", "is not a regular file"),
                              ("nbd://localhost:1/x", "is no plain path"), ("json:{\"driver\":\"raw\"}", "is no plain path"),
                              ("sub", "is a folder")):
            path = make(at("a.qcow2"), name, "raw", "1M", unsafe=True)
            refused(client, daemon, path, pattern)
        loop = [make(at(f"l{n}.qcow2"), at(f"l{(n + 1) % 3}.qcow2"), "qcow2", "1M", unsafe=True) for n in range(3)]
        refused(client, daemon, loop[0], rf"the backing chain is a loop: '{loop[2]}' names '{loop[0]}'")
        refused(client, daemon, make(at("self.qcow2"), "self.qcow2", "qcow2", "1M", unsafe=True), "is a loop")
        with open(make(at("f.qcow2"), "l0.qcow2", "qcow2", "1M", unsafe=True), "r+b") as file:
            data = file.read(65536)
            file.seek(data.index(struct.pack(">I", 0xe2792aca)))
            file.write(struct.pack(">I", 0x12345678))
        refused(client, daemon, at("f.qcow2"), "does not say which format its backing file has")
        previous = make(at("d0.qcow2"), None, None, "1M")
        for n in range(1, 201):
            path = at(f"d{n}.qcow2")
            shutil.copy(at("a.qcow2") if n == 1 else at("d1.qcow2"), path)
            if n == 1:
                make(path, "d0.qcow2", "qcow2", "1M", unsafe=True)
            else:
                with open(path, "r+b") as file:
                    at_name, size = struct.unpack(">QI", file.read(20)[8:])
                    name = os.path.basename(previous).encode()
                    file.seek(at_name)
                    file.write(name)
                    file.seek(16)
                    file.write(struct.pack(">I", len(name)))
            previous = path
        refused(client, daemon, previous, "more than 200 images in the backing chain")
        client.call("vm.define", config=daemon.config("deep", disks=[{"file": at("d199.qcow2"), "format": "qcow2"}]))
        client.call("vm.start", vm="deep")
        client.call("vm.delete", vm="deep", force=True)


def administrator_allows_other_folders():
    daemon = lib.Daemon(emulator=lib.FAKE)
    os.mkdir(os.path.join(daemon.dir, "bases"))
    os.mkdir(os.path.join(daemon.dir, "img"))
    with open(os.path.join(daemon.dir, "vmd.conf"), "w", encoding="utf-8") as file:
        file.write(f"image-dir = {daemon.dir}/bases\n")
    with daemon, daemon.client() as client:
        base = make(os.path.join(daemon.dir, "bases", "base.qcow2"), None, None, "1M")
        path = make(os.path.join(daemon.dir, "img", "a.qcow2"), base)
        client.call("vm.define", config=daemon.config("a", disks=[{"file": path, "format": "qcow2"}]))
        client.call("vm.start", vm="a")
        command = b""
        for pid in daemon.emulators()[1]:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read()
        tap.check(re.search(rb"--backing\0qcow2:" + re.escape(base.encode()) + rb"=\d+\0", command), f"{command}")


def external_data_file_is_passed_along():
    with lib.Daemon() as daemon, daemon.client() as client:
        path, data = (os.path.join(daemon.dir, name) for name in ("a.qcow2", "a.data"))
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}", path, "8M")
        over = make(os.path.join(daemon.dir, "over.qcow2"), path)
        for name, file in (("a", path), ("b", over)):
            client.call("vm.define", config=daemon.config(name, disks=[{"file": file, "format": "qcow2"}]))
            client.call("vm.start", vm=name)
            tap.check(locked(data, "raw", "-c", "write 0 512"), "the data file is not locked")
            client.call("vm.stop", vm=name)


def main():
    try:
        guest.fetched("riscv64-disk")
        guest.emulator_path("vmd")
        if not shutil.which("qemu-io"):
            raise guest.Unavailable("qemu-io (package qemu-utils)")
        if not os.path.exists(guest.OPENSBI):
            raise guest.Unavailable(f"{guest.OPENSBI} (package opensbi)")
    except guest.Unavailable as problem:
        print(f"skipped: {problem}")
        sys.exit(77)
    sys.exit(tap.run_cases((two_guests_write_to_overlays_of_one_base,
                            every_image_of_a_chain_is_locked_as_qemu_locks_it,
                            what_an_image_names_is_bounded_and_the_error_says_which_image,
                            administrator_allows_other_folders, external_data_file_is_passed_along)))


if __name__ == "__main__":
    main()
