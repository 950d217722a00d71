# SPDX-License-Identifier: Apache-2.0
"""Whole VMs in one file: `vmctl export`, `vmctl import`, and OVA. Archives are judged by tar and sha256sum, disks by qemu-img; OVAs
are made by tar and qemu-img as other products write them.

    daemon_export.py [CASE...]
"""

import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

MIB = lib.MIB
VMCTL = os.path.join(lib.BUILD, "vmctl")


def qemu_img(*words):
    if not shutil.which("qemu-img"):
        tap.skip("qemu-img (package qemu-utils)")
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, timeout=120, check=False)
    tap.check(done.returncode == 0, f"qemu-img {words}: {done.stderr}{done.stdout}")
    return done.stdout


def contents(size, seed, places=6):
    rng = random.Random(seed)
    data = bytearray(size)
    for _ in range(places):
        at = rng.randrange(0, size - 70000)
        data[at:at + 65536] = rng.randbytes(32768) + b"text " * 6553 + b"end"
    return bytes(data)


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


class House:
    """A daemon, a folder for files, and vmctl."""

    def __enter__(self):
        self.daemon = lib.Daemon(emulator=lib.FAKE)
        self.daemon.start()
        self.dir = tempfile.mkdtemp(prefix="vmd-export-")
        return self

    def __exit__(self, *_):
        self.daemon.end()
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def vmctl(self, *words, limit=None):
        def small_files():
            if limit:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return subprocess.run([VMCTL, "--dir", self.daemon.dir, *words], capture_output=True, text=True, timeout=120,
                              check=False, cwd=self.dir, preexec_fn=small_files)

    def good(self, *words):
        done = self.vmctl(*words)
        tap.check(done.returncode == 0, f"{words}: {done.stderr}")
        return done.stdout

    def refused(self, text, *words, **how):
        done = self.vmctl(*words, **how)
        tap.check(done.returncode not in (0, -11, -6), f"{words}: status {done.returncode}, {done.stderr}")
        tap.check(text in done.stderr, f"{words}: '{text}' is not in: {done.stderr}")
        return done

    def names(self):
        return sorted(vm["name"] for vm in self.daemon.call("vm.list")["vms"])

    def files(self):
        return sorted(os.listdir(self.dir))

    def make_vm(self, name="db1"):
        """Two disks, one on a backing image, a kernel and flash."""
        write(self.path("base.raw"), contents(8 * MIB, 1))
        qemu_img("convert", "-O", "qcow2", self.path("base.raw"), self.path("base.qcow2"))
        qemu_img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", self.path("top.qcow2"))
        subprocess.run(["qemu-io", "-c", "write -P 7 3M 100k", self.path("top.qcow2")], check=True, stdout=subprocess.DEVNULL)
        write(self.path("data.raw"), contents(4 * MIB, 2))
        write(self.path("Image"), b"a kernel " * 1000)
        write(self.path("vars"), bytes(MIB))
        return self.daemon.call("vm.define", config={
            "name": name, "memory": 64 * MIB, "cpus": 2, "title": "A test", "kernel": self.path("Image"), "append": "console=ttyS0",
            "nics": [{"type": "user", "mac": "52:54:00:12:34:56"}], "flash": [{"file": self.path("vars")}],
            "disks": [{"name": "root", "file": self.path("top.qcow2"), "format": "qcow2"},
                      {"name": "data", "file": self.path("data.raw"), "format": "raw", "serial": "D1"}]})


def same_disks(house, config):
    """The disks of an import against those of make_vm()."""
    for disk, source in zip(config["disks"], ("top.qcow2", "data.raw")):
        qemu_img("compare", "-f", disk["format"], disk["file"], house.path(source))
        if disk["format"] == "qcow2":
            qemu_img("check", disk["file"])


def comes_back_as_it_was():
    with House() as house:
        was = house.make_vm()["config"]
        house.good("export", "db1", "db1.vm")
        tap.check("db1.vm.part" not in house.files(), "nothing else is left")
        out = house.path("out")
        os.mkdir(out)
        subprocess.run(["tar", "xf", house.path("db1.vm"), "-C", out], check=True)
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], check=True, cwd=out)
        tap.check(sorted(os.listdir(out)) == ["SHA256SUMS", "data.qcow2", "flash0", "kernel", "root.qcow2", "vm.json"],
                  f"{os.listdir(out)}")
        for member, source in (("root", "top.qcow2"), ("data", "data.raw")):
            qemu_img("check", os.path.join(out, member + ".qcow2"))
            qemu_img("compare", os.path.join(out, member + ".qcow2"), house.path(source))
            info = json.loads(qemu_img("info", "--output=json", os.path.join(out, member + ".qcow2")))
            tap.check("backing-filename" not in info and info["format-specific"]["data"]["compression-type"] == "zstd", str(info))
        with House() as other:
            target = other.path("vms")
            os.mkdir(target)
            other.good("import", house.path("db1.vm"), "--folder", target)
            got = other.daemon.call("vm.get", vm="db1")["config"]
            same_disks(house, got)
            tap.check(read(got["kernel"]) == read(house.path("Image")) and read(got["flash"][0]["file"]) == bytes(MIB), "files")
            for path in (got["kernel"], *(d["file"] for d in got["disks"])):
                tap.check(path.startswith(target + "/db1-"), path)
                tap.check(os.stat(path).st_mode & 0o077 == 0, f"{path} is for its owner alone")
            tap.check(not [n for n in os.listdir(target) if n.endswith((".import", ".part"))], f"{os.listdir(target)}")
            for config in (was, got):
                config["flash"][0].pop("file")
                config.pop("kernel")
                for disk in config["disks"]:
                    disk.pop("file")
            tap.check(was == got, f"{was}\n{got}")


def a_copy_gets_an_identity_of_its_own():
    with House() as house:
        was = house.make_vm()["config"]
        house.good("export", "db1", "db1.vm")
        house.refused("there is a VM 'db1' already", "import", "db1.vm")
        done = house.refused("is there already", "import", "db1.vm", "--name", "db2")
        tap.check(was["uuid"] in done.stderr and "--new-id" in done.stderr and done.returncode == 5, done.stderr)
        tap.check(not [n for n in house.files() if n.startswith("db2")], "nothing was written")
        house.good("import", "db1.vm", "--name", "db2", "--new-id")
        got = house.daemon.call("vm.get", vm="db2")["config"]
        tap.check(got["uuid"] != was["uuid"] and got["nics"][0].get("mac") != was["nics"][0]["mac"], f"{got}")
        same_disks(house, got)
        house.refused("is there already", "export", "db1", "db1.vm")
        house.good("export", "db1", "db1.vm", "--replace")


def what_runs_is_not_exported():
    with House() as house:
        house.make_vm()
        house.good("start", "db1")
        done = house.refused("is running", "export", "db1", "db1.vm")
        tap.check(done.returncode == 5 and "db1.vm" not in str([n for n in house.files() if n != "db1.vm"]), done.stderr)
        house.good("stop", "--force", "db1")
        tap.check("db1.vm" not in house.files(), "nothing was written")
        house.good("export", "db1", "db1.vm")


def a_broken_export_goes_on():
    with House() as house:
        house.make_vm()
        house.good("export", "db1", "whole.vm")
        with tarfile.open(house.path("whole.vm")) as tar:
            places = {m.name: m for m in tar.getmembers()}
        data = read(house.path("whole.vm"))
        kept = places["data.qcow2"].offset
        for cut in (0, 100, kept, kept + 512 + 1000, places["data.qcow2"].offset_data + places["data.qcow2"].size - 1, len(data) - 100):
            write(house.path("db1.vm.part"), data[:cut])
            house.good("export", "db1", "db1.vm")
            now = read(house.path("db1.vm"))
            tap.check(cut < kept or cut > kept + 512 + 2000 or now[:kept] == data[:kept], f"cut at {cut}: the first disk is kept")
            out = house.path("out")
            shutil.rmtree(out, ignore_errors=True)
            os.mkdir(out)
            subprocess.run(["tar", "xf", house.path("db1.vm"), "-C", out], check=True)
            subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], check=True, cwd=out)
            qemu_img("compare", os.path.join(out, "data.qcow2"), house.path("data.raw"))
            os.unlink(house.path("db1.vm"))
        write(house.path("db1.vm.part"), data[:kept])
        write(house.path("data.raw"), contents(4 * MIB, 3))  # another VM by now: nothing is kept
        subprocess.run(["qemu-io", "-c", "write -P 9 3M 100k", house.path("top.qcow2")], check=True, stdout=subprocess.DEVNULL)
        house.good("export", "db1", "db1.vm")
        house.good("import", "db1.vm", "--name", "b", "--new-id")
        same_disks(house, house.daemon.call("vm.get", vm="b")["config"])


def without_room_the_file_is_named():
    with House() as house:
        house.make_vm()
        house.refused("db1.vm.part", "export", "db1", "db1.vm", limit=100000)
        tap.check(not [n for n in house.files() if n.endswith(".disk") or n == "db1.vm"], f"{house.files()}")
        house.good("export", "db1", "db1.vm")
        done = house.refused("b-data.raw.part", "import", "db1.vm", "--name", "b", "--new-id", limit=3 * MIB)
        tap.check("the same command goes on" in done.stderr, done.stderr)
        tap.check("b" not in house.names(), "no VM of half of its files")
        first = os.stat(house.path("b-root.qcow2"))
        house.good("import", "db1.vm", "--name", "b", "--new-id")
        tap.check(os.stat(house.path("b-root.qcow2")).st_ino == first.st_ino, "what was whole was not written again")
        same_disks(house, house.daemon.call("vm.get", vm="b")["config"])
        tap.check("b.import" not in house.files(), f"{house.files()}")


def what_is_damaged_is_named():
    with House() as house:
        house.make_vm()
        house.good("export", "db1", "db1.vm")
        data = read(house.path("db1.vm"))
        with tarfile.open(house.path("db1.vm")) as tar:
            members = tar.getmembers()
        for m in members:
            bad = bytearray(data)
            bad[m.offset_data + m.size // 2] ^= 1
            write(house.path("bad.vm"), bad)
            house.refused(m.name if m.name != "SHA256SUMS" else "bad.vm", "import", "bad.vm", "--name", "b", "--new-id")
        for cut in (0, 300, 512, 5000, len(data) // 2, members[-1].offset, members[-1].offset_data + 3):
            write(house.path("bad.vm"), data[:cut])
            house.refused("bad.vm", "import", "bad.vm", "--name", "b", "--new-id")
        rng = random.Random(4)
        for _ in range(40):
            bad = bytearray(data)
            m = rng.choice(members)
            bad[m.offset + rng.randrange(512)] ^= 1 << rng.randrange(8)
            write(house.path("bad.vm"), bad)
            house.refused("bad.vm", "import", "bad.vm", "--name", "b", "--new-id")
        tap.check(house.names() == ["db1"], f"{house.names()}")


def forge(house, change, name="forged.vm"):
    """An archive with right checksums and a definition that somebody changed."""
    parts = {}
    with tarfile.open(house.path("db1.vm")) as tar:
        for m in tar.getmembers():
            parts[m.name] = tar.extractfile(m).read()
    manifest = json.loads(parts["vm.json"])
    change(manifest, parts)
    parts["vm.json"] = json.dumps(manifest).encode()
    parts.pop("SHA256SUMS")
    parts["SHA256SUMS"] = "".join(f"{hashlib.sha256(v).hexdigest()}  {k}\n" for k, v in parts.items()).encode()
    with tarfile.open(house.path(name), "w") as tar:
        for k, v in parts.items():
            info = tarfile.TarInfo(k)
            info.size = len(v)
            tar.addfile(info, io.BytesIO(v))


def what_is_forged_reaches_no_file_of_ours():
    with House() as house:
        house.make_vm()
        house.good("export", "db1", "db1.vm")
        secret = write(house.path("secret"), b"secret" * 1000)

        def outside(m, _parts):
            m["config"]["disks"][1]["file"] = secret

        def up(m, _parts):
            m["config"]["disks"][1]["file"] = "/vmd-export/../../secret"

        def named(m, _parts):
            m["config"]["disks"][1]["name"] = "../../x"

        def unknown(m, _parts):
            m["config"]["shell"] = "x"

        def newer(m, _parts):
            m["vmd-export"] = 2

        def backed(_m, parts):
            qemu_img("create", "-f", "qcow2", "-b", secret, "-F", "raw", house.path("evil.qcow2"), "4M")
            parts["data.qcow2"] = read(house.path("evil.qcow2"))

        for change, text in ((outside, "outside the archive"), (up, "is missing"), (named, "name"), (unknown, "shell"),
                             (newer, "version"), (backed, "backing")):
            forge(house, change)
            house.refused(text, "import", "forged.vm", "--name", "f", "--new-id")
            tap.check("f" not in house.names() and not os.path.exists(house.path("f-data.raw")), change.__name__)
        forge(house, lambda m, parts: None)
        house.good("import", "forged.vm", "--name", "f2", "--new-id")  # tar files of Python's are fine


OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References>
    <File ovf:id="file1" ovf:href="web-disk1.vmdk"{more}/>
  </References>
  <DiskSection>
    <Info>Disks</Info>
    <Disk ovf:capacity="16" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="vmdisk1" ovf:fileRef="{ref}"/>
    <Disk ovf:capacity="33554432" ovf:diskId="vmdisk2"/>
  </DiskSection>
  <VirtualSystem ovf:id="Web Server (1)">
    <Info>A machine</Info>
    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <Item><rasd:ElementName>2 CPUs</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>{units}</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>256</rasd:VirtualQuantity></Item>
      <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>20</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>{host}</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource><rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>6</rasd:InstanceID><rasd:Connection>NAT</rasd:Connection><rasd:ResourceType>10</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>7</rasd:InstanceID><rasd:ResourceType>35</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""
SOUND = {"more": "", "ref": "file1", "units": "byte * 2^20", "host": "ovf:/disk/vmdisk1"}


def make_ova(house, name="web.ova", kind="SHA256", text=None, disk=None, sums=True, **change):
    """As VMware and VirtualBox write them: descriptor, manifest, disks; by tar itself."""
    folder = tempfile.mkdtemp(dir=house.dir)
    write(os.path.join(folder, "web.ovf"), (text or OVF.format(**{**SOUND, **change})).encode())
    write(os.path.join(folder, "flat.raw"), contents(16 * MIB, 5))
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", os.path.join(folder, "flat.raw"),
             os.path.join(folder, "web-disk1.vmdk"))
    if disk:
        disk(os.path.join(folder, "web-disk1.vmdk"))
    names = ["web.ovf", "web-disk1.vmdk"]
    if sums:
        with open(os.path.join(folder, "web.mf"), "w", encoding="ascii") as file:
            for n in names:
                file.write(f"{kind}({n})= {hashlib.new(kind.lower(), read(os.path.join(folder, n))).hexdigest()}\n")
        names.insert(1, "web.mf")
    subprocess.run(["tar", "cf", house.path(name), "--format=ustar", "-C", folder, *names], check=True)
    shutil.move(os.path.join(folder, "flat.raw"), house.path("flat.raw"))
    shutil.rmtree(folder)


def an_ova_becomes_a_vm():
    with House() as house:
        for kind, name in (("SHA256", None), ("SHA1", "one"), (None, "none")):
            make_ova(house, kind=kind or "SHA256", sums=kind is not None)
            done = house.vmctl("import", "web.ova", *(["--name", name] if name else []))
            tap.check(done.returncode == 0, done.stderr)
            tap.check("left out: sound card" in done.stderr, done.stderr)
            config = house.daemon.call("vm.get", vm=name or "Web-Server--1-")["config"]
            tap.check(config["cpus"] == 2 and config["memory"] == 256 * MIB and len(config["nics"]) == 1, f"{config}")
            one, two = config["disks"]
            tap.check(one["bus"] == "sata" and one["format"] == "qcow2", f"{one}")
            qemu_img("check", one["file"])
            qemu_img("compare", one["file"], house.path("flat.raw"))
            tap.check(json.loads(qemu_img("info", "--output=json", two["file"]))["virtual-size"] == 32 * MIB, "an empty disk")


def cut_short(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 70000)


def of_ours(path):
    qemu_img("create", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", "-u", path, "16M")


def a_bad_ova_is_refused_by_name():
    doctype = OVF.format(**SOUND).replace("<Envelope", '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n<Envelope', 1)
    twice = OVF.format(**SOUND).replace("</VirtualSystem>", '</VirtualSystem><VirtualSystem ovf:id="x"/>')
    deep = "<Envelope>" + "<a>" * 100 + "</a>" * 100 + "</Envelope>"
    with House() as house:
        for text, how in (("document type", {"text": doctype}), ("more than one virtual system", {"text": twice}),
                          ("64 elements", {"text": deep}), ("not well-formed", {"text": "<Envelope>"}),
                          ("no <VirtualSystem>", {"text": "<Envelope/>"}),
                          ("unknown units", {"units": "bananas"}), ("web.ovf: config.memory", {"units": "byte * 2^50"}),
                          ("packed", {"more": ' ovf:compression="gzip"'}), ("file9", {"ref": "file9"}),
                          ("does not describe", {"host": "ovf:/disk/other"}),
                          ("web-disk1.vmdk", {"disk": cut_short}), ("backing", {"disk": of_ours})):
            make_ova(house, **how)
            house.refused(text, "import", "web.ova", "--name", "b")
        make_ova(house)
        data = bytearray(read(house.path("web.ova")))
        with tarfile.open(house.path("web.ova")) as tar:
            m = tar.getmember("web-disk1.vmdk")
        data[m.offset_data + m.size // 2] ^= 1
        write(house.path("web.ova"), data)
        house.refused("web-disk1.vmdk is damaged", "import", "web.ova", "--name", "b")
        write(house.path("web.ova"), b"no tar at all" * 100)
        house.refused("no tar file", "import", "web.ova", "--name", "b")
        tap.check(house.names() == [], f"{house.names()}")


CASES = [comes_back_as_it_was, a_copy_gets_an_identity_of_its_own, what_runs_is_not_exported, a_broken_export_goes_on,
         without_room_the_file_is_named, what_is_damaged_is_named, what_is_forged_reaches_no_file_of_ours, an_ova_becomes_a_vm,
         a_bad_ova_is_refused_by_name]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
