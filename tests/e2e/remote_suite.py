# SPDX-License-Identifier: Apache-2.0
"""The daemon's own suite a second time: the cases of daemon_survive, every call of theirs over TLS from another
network namespace (remote_netns)."""

import os
import pathlib
import runpy
import sys

TOP = pathlib.Path(os.environ.get("VMD_SRCDIR") or pathlib.Path(__file__).resolve().parents[2])
sys.path[:0] = [str(TOP / "tests" / "lib"), str(TOP / "tests" / "e2e")]

import daemon_lib  # noqa: E402
import remote_lib  # noqa: E402
import remote_netns  # noqa: E402

SUITE = "daemon_survive.py"


class FarDaemon(remote_lib.RemoteDaemon):
    """Stands in for daemon_lib's: an administrator's certificate is made once, then client() is far."""

    creds = None

    def __init__(self, emulator=None, wrapper=(), folder=None):
        super().__init__(host=remote_netns.ADDRESS, emulator=emulator, folder=folder,
                         wrapper=("ip", "netns", "exec", remote_netns.SERVER, *wrapper))

    def start(self, wait=True, settle=True, **more):
        super().start(wait=wait, settle=False, **more)
        if wait and not self.creds:
            with daemon_lib.Client(self.sock) as client:
                client.call("cert.init", names=[self.host])
            self.creds = self.user("ann", "admin", "*")
        if wait and settle:
            self.wait_settled()

    def client(self, timeout=30.0):
        if not self.creds:
            return daemon_lib.Client(self.sock, timeout)
        return remote_lib.TlsClient(self, self.creds, timeout=timeout)


if __name__ == "__main__":
    if os.environ.get("VMD_INSIDE"):
        daemon_lib.Daemon = FarDaemon
        runpy.run_path(str(TOP / "tests" / "e2e" / SUITE), run_name="__main__")
    remote_netns.SERVER_, remote_netns.CLIENT_ = f"vmd-s-{os.getpid()}", f"vmd-c-{os.getpid()}"
    sys.exit(remote_netns.main(__file__))
