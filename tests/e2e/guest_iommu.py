# SPDX-License-Identifier: Apache-2.0
"""A network card behind an IOMMU: Linux's virtio-iommu and VFIO in Debian's kernel, and a driver in user space (iommu_guest.c) that may
drive the card and reach nothing but what was mapped for it.

Needs the guest riscv64-agent (tests/guests/fetch), and modules that Debian's kernel for riscv64 leaves out (tests/guests/module iommu
builds them from Debian's source of that kernel); used when they are in the cache, built when VMD_TEST_IOMMU=1.
"""

import importlib.machinery
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests", "../bench"):
    sys.path.insert(0, os.path.join(HERE, folder))
import build  # noqa: E402
import daemon_lib as lib  # noqa: E402
import guest_agent  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402

BROADCAST = b"\xff" * 6
KIND = b"\x88\xb5"  # Ethernet's number for experiments


def modules():
    """Paths, in the order in which they are loaded."""
    guest_agent.files()
    path = os.path.join(HERE, "../guests/module")
    loader = importlib.machinery.SourceFileLoader("module", path)
    made = importlib.util.module_from_spec(importlib.util.spec_from_loader("module", loader))
    loader.exec_module(made)
    paths, _ = made.paths_of(made.fetch_script().cache_root(), "iommu")
    if os.environ.get("VMD_TEST_IOMMU") == "1":
        subprocess.run([path, "iommu"], check=True)
    if not paths or not all(os.path.exists(p) for p in paths):
        raise tap.Skip("Debian's kernel for riscv64 has no CONFIG_VIRTIO_IOMMU, and the modules are not in the cache (tests/guests/module iommu)")
    return paths


class Machine(guest_agent.Machine):
    """With a card whose other end is this program."""

    def __init__(self, **config):
        self.modules = modules()
        self.folder = tempfile.mkdtemp(prefix="vmd-iommu-")
        self.guest_name = None
        self.far = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.far.bind(os.path.join(self.folder, "far"))
        self.far.settimeout(guest_agent.LIMIT)
        super().__init__(iommu="virtio", nics=[{"type": "dgram", "path": os.path.join(self.folder, "far"), "bus": "virtio-pci"}], **config)
        for path in self.modules:
            # Messages are no writes to memory on this board, and so nothing that an IOMMU could let pass.
            more = " allow_unsafe_interrupts=1" if "type1" in path else ""
            self.run("insmod /modules/" + os.path.basename(path) + more)

    def initrd(self, path):
        source = os.path.join(HERE, "iommu_guest.c")
        archive = newc.Newc()
        archive.file("bin/iommu", build.contents(build.made([build.compiler(), *build.FLAGS], source, [source])), 0o755)
        for module in self.modules:
            archive.file("modules/" + os.path.basename(module), build.contents(module))
        first, made = build.contents(path), os.path.join(self.daemon.dir, "initrd")
        with open(made, "wb") as file:
            file.write(first + b"\0" * (-len(first) % 512) + archive.bytes())
        return made

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.far.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def nic(self):
        """(PCI address, IOMMU group) of the card."""
        for line in self.run("for d in /sys/bus/pci/devices/*; do echo ${d##*/} $(cat $d/vendor $d/device) "
                             "$(basename $(readlink $d/iommu_group) 2>/dev/null); done").splitlines():
            words = line.split()
            if words[1:3] == ["0x1af4", "0x1041"]:
                tap.check(len(words) == 4, f"the card is in no IOMMU group: {line}")
                return words[0], words[3]
        raise AssertionError("no network card")

    def receive(self):
        """A frame of the guest program's kind."""
        while True:
            frame, self.guest_name = self.far.recvfrom(65536)
            if frame[12:14] == KIND:
                return frame[14:].rstrip(b"\0").decode()

    def transmit(self, text):
        """To the VM's end of the pair, which has told its name."""
        self.far.sendto(BROADCAST + b"\x52\x54\0\0\0\2" + KIND + text.encode().ljust(64, b"\0"), self.guest_name)


def a_card_reaches_what_is_mapped_for_it():
    with Machine() as m:
        address, group = m.nic()
        m.run(f"echo {address} >/sys/bus/pci/devices/{address}/driver/unbind; echo vfio-pci >/sys/bus/pci/devices/{address}/driver_override; "
              f"echo {address} >/sys/bus/pci/drivers_probe; mkdir -p /dev/vfio; ls /dev/vfio")
        m.console.sendall(f"iommu {group} {address}\n".encode())
        m.expect("without ACCESS_PLATFORM REFUSED")
        got = [m.receive() for _ in range(300)]
        m.expect("HALF")
        m.console.close()  # its tables go with a saved machine
        m.vmctl("save", "a")
        m.vmctl("start", "a")
        m.console = m.connect("vm.console", vm="a")
        m.console.sendall(b"\n")
        got += [m.receive() for _ in range(300)]
        tap.check(got == [f"frame {n}" for n in range(600)], f"{got[:3]} {got[-3:]}")
        m.expect("SENT 600")
        for what in ("unmapped", "physical"):
            m.expect(f"{what} REFUSED")
        m.expect("mapped for reading REACHED")
        m.expect("WAITING")
        m.transmit("not for these eyes")
        m.expect("received where only reading is allowed: REFUSED, as it was")
        m.expect("WAITING")
        m.transmit("for all to read")
        m.expect("received where writing is allowed: REACHED for all to read")
        m.expect("a queue that was unmapped REFUSED")
        m.expect("END")
        said = m.run("dmesg | grep 'fault from EP'")
        print("# " + said.replace("\n", "\n# "))
        for where in (0x20000000, 0x80200000, 0x30000000):
            tap.check(f"{where:#x}" in said, f"no fault of {where:#x} was told")


def devices_work_behind_it():
    """With Debian's own drivers, by addresses that the IOMMU passes on as they are; and what cannot be behind one is refused."""
    with tempfile.TemporaryDirectory(prefix="vmd-iommu-") as folder:
        disks = [{"file": os.path.join(folder, bus), "name": bus, "bus": bus} for bus in ("virtio-pci",)]
        for disk in disks:
            with open(disk["file"], "wb") as file:
                file.truncate(32 << 20)
        with Machine(disks=disks) as m:
            m.run("dd if=/dev/urandom of=/tmp/x bs=1M count=4 2>/dev/null")
            m.run("until [ -e /sys/block/vda ]; do sleep 0.1; done; dd if=/tmp/x of=/dev/vda oflag=direct bs=1M 2>/dev/null; "
                  "dd if=/dev/vda of=/tmp/y iflag=direct bs=1M count=4 2>/dev/null; cmp /tmp/x /tmp/y")
            m.client.call("vm.define", config={"name": "b", "firmware": m.daemon.guest(), "iommu": "virtio",
                                               "shares": [{"path": m.folder, "tag": "t"}]})
            try:
                m.client.call("vm.start", vm="b")
                tap.check(False, "a share by virtiofs started behind an IOMMU")
            except lib.CallError as error:
                tap.check("IOMMU" in error.message, error.message)


if __name__ == "__main__":
    sys.exit(tap.run_cases([a_card_reaches_what_is_mapped_for_it, devices_work_behind_it]))
