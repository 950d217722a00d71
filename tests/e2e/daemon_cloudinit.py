# SPDX-License-Identifier: Apache-2.0
"""Seeds of cloud-init: what the definition says is on a volume that blkid knows and a guest's kernel mounts, by each kind of its names; the
same definition gives the same bytes; what cannot be is refused.

The mounts need the guest riscv64-storage (tests/guests/fetch). A whole Debian that reads a seed: make cloud-check.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import tap  # noqa: E402
from guest_lan import Machine  # noqa: E402

USER = "#cloud-config\nusers:\n  - name: ann\n# " + "x" * 5000 + "\nÄnde\n"
NETWORK = "version: 2\nethernets:\n  all:\n    match: {name: 'e*'}\n    dhcp4: true\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ann@home"
UUID = "11111111-2222-3333-4444-555555555555"


def seeds(daemon):
    return [os.path.join(folder, name) for folder, _, names in os.walk(daemon.dir) for name in names if name.startswith("seed.iso")]


def seed(daemon):
    """The seed of the one VM there is."""
    found = seeds(daemon)
    tap.check(len(found) == 1, f"{found}")
    with open(found[0], "rb") as file:
        return found[0], file.read()


def blkid(path):
    program = shutil.which("blkid", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not program:
        print("# no blkid here")
        return None
    shown = subprocess.run([program, "-p", "-o", "export", path], check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def what_vmctl_is_given_is_on_the_volume():
    with lib.Daemon() as daemon:
        files = {}
        for name, text in (("user-data", USER), ("network-config", NETWORK), ("key.pub", KEY + "\n# a comment\n" + KEY + "2\n")):
            files[name] = os.path.join(daemon.dir, name)
            with open(files[name], "w", encoding="utf-8") as file:
                file.write(text)
        vmctl = [os.path.join(lib.BUILD, "vmctl"), "--dir", daemon.dir]
        words = f"{files['user-data']},ssh_keys={files['key.pub']},network_config={files['network-config']}"
        subprocess.run([*vmctl, "create", "my_vm", "--memory", "16M", "--firmware", daemon.guest(), "--uuid", UUID,
                        "--cloud-init", words], check=True, stdout=subprocess.DEVNULL)
        path, image = seed(daemon)
        facts = blkid(path)
        tap.check(not facts or (facts["TYPE"], facts["LABEL"]) == ("iso9660", "cidata"), f"{facts}")
        for text in (USER, NETWORK):
            tap.check(text.encode() in image, f"{text[:20]}... is not in the image")
        start = image.index(b'{"instance-id"')
        meta = json.loads(image[start:image.index(b"\n", start)])
        tap.check(meta == {"instance-id": UUID, "local-hostname": "my-vm", "public-keys": [KEY, KEY + "2"]}, f"{meta}")
        tap.check(os.stat(path).st_mode & 0o777 == 0o600, "others may read it")
        shown = subprocess.run([*vmctl, "show", "my_vm"], check=True, stdout=subprocess.PIPE, text=True).stdout
        tap.check("cloud_init" in shown and f"{len(USER.encode())} bytes" in shown and "xxxx" not in shown, shown)
        told = daemon.call("vm.get", vm="my_vm")["config"]["cloud_init"]
        tap.check(told["user_data"] == USER and told["kind"] == "nocloud", f"{told}")
        # The same from XML, and the same bytes at the next start.
        xml = subprocess.run([*vmctl, "show", "my_vm", "--xml"], check=True, stdout=subprocess.PIPE, text=True).stdout
        daemon.call("vm.delete", vm="my_vm", force=True)
        tap.check(not os.path.exists(path), "the seed outlived its VM")
        with open(os.path.join(daemon.dir, "vm.xml"), "w", encoding="utf-8") as file:
            file.write(xml)
        subprocess.run([*vmctl, "define", os.path.join(daemon.dir, "vm.xml")], check=True, stdout=subprocess.DEVNULL)
        tap.check(daemon.call("vm.get", vm="my_vm")["config"]["cloud_init"] == told, "XML tells something else")
        daemon.call("vm.start", vm="my_vm")
        tap.check(seed(daemon)[1] == image, "another seed from the same definition")
        # Without it the next start has none.
        daemon.call("vm.stop", vm="my_vm", force=True)
        lib.wait_for(lambda: daemon.call("vm.get", vm="my_vm")["state"] == "stopped", 60, "it has ended")
        daemon.call("vm.set", vm="my_vm", set={"cloud_init": None})
        daemon.call("vm.start", vm="my_vm")
        tap.check(not seeds(daemon), "an unwanted seed")


def what_cannot_be_is_refused():
    cases = [({"hostname": "a b"}, "host name"), ({"hostname": ""}, "host name"), ({"instance_id": "a\nb"}, "identity"),
             ({"ssh_keys": ["nonsense"]}, "no public key"), ({"ssh_keys": ["# none"]}, "no key in it"),
             ({"ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "no public key"),
             ({"kind": "configdrive", "network_config": NETWORK}, "JSON"), ({"user_data": "x" * 65537}, "65536"),
             ({"kind": "floppy"}, "floppy"), ({"user-data": "x"}, "user-data")]
    with lib.Daemon() as daemon, daemon.client() as client:
        for given, text in cases:
            error = client.fails("invalid-params", "vm.define", config=daemon.config("b", cloud_init=given))
            tap.check(text in error.message + error.remedy, f"{given}: {error} {error.remedy}")
        error = client.fails("invalid-params", "vm.define",
                             config=daemon.config("b", cloud_init={}, disks=[{"name": "cloud-init", "file": daemon.guest()}]))
        tap.check("cloud-init" in error.message, f"{error}")


def mounted(machine, device, names, options):
    """Sums of files as the guest's kernel shows them."""
    machine.run(f"mkdir -p /m; mount -t iso9660 -o {options} {device} /m")
    shown = machine.run("cd /m; md5sum " + " ".join(names) + "; find . -type f | wc -l; cd /; umount /m")
    return [line.split()[0] for line in shown.splitlines() if line.strip() and len(line.split()[0]) in (1, 32)]


def a_guest_mounts_both_kinds_by_all_their_names():
    files = guest.fetched("riscv64-storage")
    sums = [hashlib.md5(text.encode()).hexdigest() for text in (USER, NETWORK)]
    cases = [("nocloud", "virtio-mmio", "/dev/vda", NETWORK,
              {"ro": ("user-data", "network-config"), "ro,norock": ("user-data", "network-config"),
               "ro,norock,nojoliet": ("user_data", "network_config")}),
             ("configdrive", "sata", "/dev/sr0", '{"links": []}',
              {"ro": ("openstack/latest/user_data", "openstack/latest/network_data.json"),
               "ro,norock,nojoliet": ("openstack/latest/user_data", "openstack/latest/network_data.json")})]
    with lib.Daemon() as daemon:
        machines = []
        try:
            for kind, bus, _, network, *_ in cases:
                machines.append(Machine(daemon, kind, files, nics=[], memory=256 << 20, append="console=ttyS0 vmd.virtio vmd.run=shell",
                                        cloud_init={"user_data": USER, "network_config": network, "kind": kind, "bus": bus}))
            labels = {facts["LABEL"] for facts in map(blkid, seeds(daemon)) if facts}
            tap.check(labels in (set(), {"cidata", "config-2"}), f"{labels}")
            for machine, (kind, _, device, network, names) in zip(machines, cases):
                machine.expect(r"guest# ")
                want = [sums[0], hashlib.md5(network.encode()).hexdigest(), "3"]
                for options, paths in names.items():
                    got = mounted(machine, device, paths, options)
                    tap.check(got == want, f"{kind}, {options}: {got} is not {want}")
                shown = machine.run(f"dd if=/dev/zero of={device} count=1 2>/dev/null && echo writ''ten || true")
                tap.check("written" not in shown, "the guest wrote to it")
        finally:
            for machine in machines:
                machine.close()


if __name__ == "__main__":
    try:
        guest.fetched("riscv64-storage")
    except guest.Unavailable as problem:
        print(f"skipped: {problem}")
        sys.exit(77)
    sys.exit(tap.run_cases([what_vmctl_is_given_is_on_the_volume, what_cannot_be_is_refused,
                            a_guest_mounts_both_kinds_by_all_their_names]))
