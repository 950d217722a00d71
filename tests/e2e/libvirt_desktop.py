#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Graphical programs made for libvirt, under Xvfb, as their packages have them: virt-manager shows a VM and leads it. What it
shows is read by AT-SPI, as a screen reader does, and the guest's screen from the X server's picture. Packages: `./bootstrap` has them in
a list of their own (desktop)."""

import os
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / part) for part in ("tests/lib", "tests/e2e", "tests/guests")]

import guest_screen as screen  # noqa: E402
import tap  # noqa: E402
from daemon_lib import BUILD, CallError, wait_for  # noqa: E402
from guest_viewer import Desktop as Screen  # noqa: E402
from libvirt_virsh import Host  # noqa: E402

PYTHON = "/usr/bin/python3"  # Debian's, which has its modules
NEEDED = {"Xvfb": "xvfb", "dbus-daemon": "dbus-daemon", "/usr/libexec/at-spi-bus-launcher": "at-spi2-core"}


def need(**programs):
    missing = [package for name, package in {**NEEDED, **programs}.items()
               if not (os.path.exists(name) if name.startswith("/") else shutil.which(name))]
    if subprocess.run([PYTHON, "-c", "import gi; gi.require_version('Atspi', '2.0')"], stderr=subprocess.DEVNULL, check=False).returncode:
        missing.append("gir1.2-atspi-2.0 python3-gi")
    if missing:
        raise tap.Skip(f"packages {' '.join(missing)} (./bootstrap desktop)")


class Desktop(Screen):
    """With a session bus, and a program on it whose words are kept."""

    def __enter__(self):
        super().__enter__()
        self.programs = []
        self.bus = subprocess.Popen(["dbus-daemon", "--session", "--nofork", "--print-address=1"], stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, env=self.env, text=True)
        self.env["DBUS_SESSION_BUS_ADDRESS"] = self.bus.stdout.readline().strip()
        self.env.update(XDG_RUNTIME_DIR=self.folder, XDG_CONFIG_HOME=self.folder, XDG_CACHE_HOME=self.folder, GDK_BACKEND="x11",
                        LIBGL_ALWAYS_SOFTWARE="1", NO_AT_BRIDGE="0", GTK_MODULES="gail:atk-bridge", LC_ALL="C.UTF-8")
        self.env.pop("WAYLAND_DISPLAY", None)
        return self

    def __exit__(self, *what):
        for program in self.programs:
            program.kill()
            program.wait()
        self.bus.terminate()
        self.bus.wait()
        self.bus.stdout.close()
        super().__exit__(*what)

    def run(self, *command):
        with open(os.path.join(self.folder, "words"), "ab") as words:
            self.programs.append(subprocess.Popen(command, env=self.env, stdout=words, stderr=words))

    def words(self):
        return pathlib.Path(self.folder, "words").read_text(encoding="utf-8", errors="replace")[-6000:]

    def look(self, *args):
        return subprocess.run([PYTHON, str(TOP / "tests/e2e/desktop_look.py"), *args], env=self.env, capture_output=True, text=True,
                              timeout=300, check=False)

    def until(self, *parts):
        """All of these are shown; what is shown then."""
        seen = ""

        def shown():
            nonlocal seen
            seen = self.look().stdout
            return all(part in seen for part in parts) or self.programs[-1].poll() is not None
        try:
            wait_for(shown, 300, f"{parts}")
        except AssertionError as e:
            raise AssertionError(f"{e}: {[part for part in parts if part not in seen]}\n{seen[-6000:]}\n{self.words()}") from e
        tap.check(self.programs[-1].poll() is None, f"it ended: {self.words()}")
        return seen

    def press(self, role, name):
        tap.check(self.look(role, name).returncode == 0, f"there is no {role} {name!r}")


def desktop(host):
    folder = os.path.join(host.d.dir, "desktop")
    os.mkdir(folder)
    return Desktop(folder)


def local(host):
    """The URI of somebody on this host: of qemu+unix programs think that it leads elsewhere."""
    return f"qemu:///system?socket={host.path()}"


def with_disk_and_card(host, config):
    disk = os.path.join(host.d.dir, "d.qcow2")
    subprocess.run([os.path.join(BUILD, "vmctl"), "image", "create", "-q", "-f", "qcow2", disk, "8M"], check=True, timeout=60)
    return {**config, "disks": [{"file": disk, "format": "qcow2", "name": "vda"}], "nics": [{"type": "user"}]}


def virt_manager_shows_details_and_snapshots():
    need(**{"virt-manager": "virt-manager"})
    with Host() as h:
        h.d.call("vm.define", config=with_disk_and_card(h, h.d.config("seen", display={}, cpus=2)))
        h.d.call("vm.start", vm="seen")
        h.run("snapshot-create-as", "seen", "before-upgrade", "--description", "as it was")
        with desktop(h) as x:
            x.run("virt-manager", "--no-fork", "--debug", "-c", local(h), "--show-domain-editor", "seen")
            shown = x.until("'seen on QEMU/KVM'", "'VirtIO Disk 1'", "'NIC :", "'Display VNC'", "'Video Virtio'", "'riscv64'", "'virt'",
                            h.vm("seen")["uuid"])
            tap.check("alert" not in shown and "'Running (Booted)'" in shown, shown)
            x.press("radio button", "Snapshots")
            x.until("before-upgrade", "VM State: Running")
            x.press("toggle button", "Pause")
            wait_for(lambda: h.vm("seen")["state"] == "paused", 120, "that it is paused")
            x.until("toggle button: 'Pause' '' checked")  # until then a press pauses once more
            x.press("toggle button", "Pause")
            wait_for(lambda: h.vm("seen")["state"] == "running", 120, "that it runs on")


def virt_manager_shows_the_screen():
    need(**{"virt-manager": "virt-manager"})
    with Host() as h, h.d.client(screen.TIMEOUT) as client:
        client.call("vm.define", config=screen.linux(h.d, "seen", "virtio"))
        client.call("vm.start", vm="seen")
        screen.console_has(client.call("vm.console", vm="seen")["log"], b"SCREEN %d,%d" % (screen.WIDTH, screen.HEIGHT))
        with desktop(h) as x:
            x.run("virt-manager", "--no-fork", "--debug", "-c", local(h), "--show-domain-console", "seen")
            x.until("'seen on QEMU/KVM'")
            for colour, number in ((screen.GREEN, 2), (screen.BLUE, 4)):
                client.call("vm.type_text", vm="seen", text=screen.colour_screen(number))
                wait_for(lambda: x.colours().get(colour, 0) >= screen.WIDTH * screen.HEIGHT // 2, 300,  # pylint: disable=cell-var-from-loop
                         f"the guest's screen: {x.colours() if len(x.colours()) < 20 else ''}\n{x.words()}")
                client.call("vm.type_text", vm="seen", text="\n")


CASES = (virt_manager_shows_details_and_snapshots, virt_manager_shows_the_screen)

if __name__ == "__main__":
    try:
        sys.exit(tap.run_cases(CASES))
    except CallError as e:
        sys.exit(str(e))
