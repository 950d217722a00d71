# SPDX-License-Identifier: Apache-2.0
"""A private libvirtd of Debian's packages, and a client of it by libvirt.so.0.

It runs as nobody in session mode, with all its folders in one of ours, and is ended by its pid; nothing of
the machine's own libvirt is touched."""

import ctypes
import os
import shutil
import subprocess
import tempfile
import time

NOBODY = 65534
QEMU = "/usr/bin/qemu-system-riscv64"


class Unavailable(Exception):
    """A package is missing; the text names it."""


def load():
    try:
        lib = ctypes.CDLL("libvirt.so.0")
    except OSError as problem:
        raise Unavailable(f"libvirt0: {problem}") from problem
    handle, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
            ("virConnectOpen", handle, [text]), ("virConnectClose", ctypes.c_int, [handle]),
            ("virDomainDefineXML", handle, [handle, text]),
            ("virDomainLookupByName", handle, [handle, text]),
            ("virDomainCreate", ctypes.c_int, [handle]),
            ("virDomainDestroy", ctypes.c_int, [handle]),
            ("virDomainUndefine", ctypes.c_int, [handle]),
            ("virDomainFree", ctypes.c_int, [handle]),
            ("virConnectListAllDomains", ctypes.c_int,
             [handle, ctypes.POINTER(ctypes.POINTER(handle)), ctypes.c_uint]),
            ("virConnectGetAllDomainStats", ctypes.c_int,
             [handle, ctypes.c_uint, ctypes.POINTER(handle), ctypes.c_uint]),
            ("virDomainStatsRecordListFree", None, [handle])):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    quiet = ctypes.CFUNCTYPE(None, handle, handle)(lambda *_: None)
    lib.virSetErrorFunc(None, quiet)
    lib.quiet = quiet  # must live as long as the library
    return lib


class Connection:
    """Calls that raise when they fail."""

    def __init__(self, lib, uri):
        self.lib = lib
        self.conn = lib.virConnectOpen(uri.encode())
        if not self.conn:
            raise OSError(f"libvirt: cannot open {uri}")

    def close(self):
        self.lib.virConnectClose(self.conn)

    def _domain(self, name):
        domain = self.lib.virDomainLookupByName(self.conn, name.encode())
        if not domain:
            raise OSError(f"libvirt: no domain {name}")
        return domain

    def define(self, xml):
        domain = self.lib.virDomainDefineXML(self.conn, xml.encode())
        if not domain:
            raise OSError("libvirt: define failed")
        self.lib.virDomainFree(domain)

    def _each(self, name, function):
        domain = self._domain(name)
        failed = function(domain) < 0
        self.lib.virDomainFree(domain)
        if failed:
            raise OSError(f"libvirt: call on {name} failed")

    def start(self, name):
        self._each(name, self.lib.virDomainCreate)

    def destroy(self, name):
        self._each(name, self.lib.virDomainDestroy)

    def undefine(self, name):
        self._each(name, self.lib.virDomainUndefine)

    def list(self):
        found = ctypes.POINTER(ctypes.c_void_p)()
        n = self.lib.virConnectListAllDomains(self.conn, ctypes.byref(found), 0)
        for i in range(max(n, 0)):
            self.lib.virDomainFree(found[i])
        return n

    def stats(self):
        records = ctypes.c_void_p()
        n = self.lib.virConnectGetAllDomainStats(self.conn, 0, ctypes.byref(records), 0)
        self.lib.virDomainStatsRecordListFree(records)
        return n


class Libvirtd:
    """The daemon; killed and started again at will."""

    def __init__(self):
        self.lib = load()
        for path in ("/usr/sbin/libvirtd", "/usr/bin/virsh", QEMU):
            if not os.path.exists(path):
                raise Unavailable(f"{path} is missing (libvirt-daemon, "
                                  "libvirt-daemon-driver-qemu, libvirt-clients)")
        self.dir = tempfile.mkdtemp(prefix="vmd-libvirt-", dir="/tmp")
        for name in ("run", "config", "data", "cache"):
            os.mkdir(os.path.join(self.dir, name))
        with open(os.path.join(self.dir, "libvirtd.conf"), "w", encoding="ascii") as file:
            file.write('auth_unix_rw = "none"\nauth_unix_ro = "none"\n'
                       'unix_sock_rw_perms = "0777"\nlog_outputs = "4:stderr"\n')
        self.user = NOBODY if os.geteuid() == 0 else os.geteuid()
        if os.geteuid() == 0:
            for top, folders, files in os.walk(self.dir):
                for name in (".", *folders, *files):
                    os.chown(os.path.join(top, name), NOBODY, NOBODY)
        self.socket = os.path.join(self.dir, "run", "libvirt", "libvirt-sock")
        self.uri = f"qemu+unix:///session?socket={self.socket}"
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end()

    def start(self):
        env = {**os.environ, "HOME": self.dir, "XDG_RUNTIME_DIR": os.path.join(self.dir, "run"),
               "XDG_CONFIG_HOME": os.path.join(self.dir, "config"),
               "XDG_DATA_HOME": os.path.join(self.dir, "data"),
               "XDG_CACHE_HOME": os.path.join(self.dir, "cache")}
        more = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                ["/usr/sbin/libvirtd", "-f", os.path.join(self.dir, "libvirtd.conf"),
                 "-p", os.path.join(self.dir, "run", "pid")],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)

    def test_uri(self):
        """Its driver that keeps all in memory and runs nothing."""
        return f"test+unix:///default?socket={self.socket}"

    def connect(self, timeout=30, uri=None):
        end = time.monotonic() + timeout
        while True:
            try:
                return Connection(self.lib, uri or self.uri)
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.001)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def xml(self, name, firmware, output):
        return (f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>"
                f"<vcpu>1</vcpu><os><type arch='riscv64' machine='virt'>hvm</type>"
                f"<loader type='rom'>{firmware}</loader></os><devices>"
                f"<emulator>{QEMU}</emulator><serial type='file'><source path='{output}'/>"
                f"<target port='0'/></serial><controller type='usb' model='none'/>"
                f"<memballoon model='none'/></devices></domain>")

    @staticmethod
    def xml_test(name):
        return (f"<domain type='test'><name>{name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>"
                f"<os><type>hvm</type></os></domain>")

    def end(self):
        try:
            if self.process.poll() is None:
                connection = self.connect(5)
                records = subprocess.run(["virsh", "-c", self.uri, "list", "--name"], text=True,
                                         capture_output=True, timeout=60, check=False)
                for name in records.stdout.split():
                    connection.destroy(name)
                connection.close()
        except (OSError, subprocess.TimeoutExpired):
            pass
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)
