# SPDX-License-Identifier: Apache-2.0
"""Libvirt-compatible XML through the daemon and vmctl: definitions from XML, XML from definitions, both of them by
libvirt's own schema, its examples, and files that virt-install makes."""
import json
import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e"), os.path.join(HERE, "..", "lib")]
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402
import rng  # noqa: E402
import virt_install  # noqa: E402

SCHEMAS = pathlib.Path("/usr/share/libvirt/schemas")
EXAMPLES = pathlib.Path("/usr/share/doc/libvirt-doc/examples/xml")
CORPUS = pathlib.Path(HERE) / "virt-install"
VMCTL = os.path.join(lib.BUILD, "vmctl")
RNG = {"domain": "domain.rng", "network": "network.rng", "pool": "storagepool.rng", "volume": "storagevol.rng",
       "domainsnapshot": "domainsnapshot.rng"}
KINDS = {"domain": "domain", "network": "network", "pool": "storagepool", "volume": "storagevol",
         "snapshot": "domainsnapshot"}
MINIMAL = ("<domain type='qemu'><name>a</name><memory>65536</memory>"
           "<os><type arch='riscv64'>hvm</type></os>%s</domain>")


def need(command):
    if not shutil.which(command):
        raise tap.Skip(f"{command} (Debian: libvirt-clients)")


class Shared:
    """One daemon for the cases, since none of them harms it."""
    daemon = None


def check(text, **more):
    return Shared.daemon.call("xml.check", xml=text, **more)


def vmctl(*arguments, stdin=None, env=None, ok=True):
    done = subprocess.run([VMCTL, "-c", Shared.daemon.sock, *arguments], capture_output=True, text=True, input=stdin,
                          timeout=60, env={**os.environ, **(env or {})}, check=False)
    if ok:
        tap.check(done.returncode == 0, f"vmctl {' '.join(arguments)}: {done.stderr}")
    return done


def good(text):
    answer = check(text)
    tap.check(answer["ok"], f"{answer['problems']}\n{text}")
    return answer


# --- rows of the tables, and who is covered by them -------------------------------------------------

def load_rows():
    out = {}
    program = os.path.join(lib.BUILD, "tests", "lint", "xml_page")
    for line in subprocess.run([program, "rows"], capture_output=True, text=True, check=True).stdout.splitlines():
        root, path, kind = line.split("\t")
        base, names = re.fullmatch(r"(.*?[/@]|)([^/@]*)", path).groups()
        base = path[:len(path) - len(names)]
        for name in names.split("|"):
            out.setdefault(root, {})[base + name] = kind
    return out


def every_element_of_libvirts_schema_has_a_row():
    if not SCHEMAS.exists():
        raise tap.Skip("libvirt's schemas (Debian: libvirt-clients)")
    missing = []
    for root, rows in load_rows().items():
        grammar = rng.Grammar(SCHEMAS / RNG[root])
        for path, kind in [("", "group"), *rows.items()]:
            if kind in ("no", "left-out", "part", "any") or "@" in path:
                continue
            missing += [f"{root}: {child}" for child in grammar.children(root, path) if child not in rows]
    tap.check(not missing, "no row for\n" + "\n".join(sorted(missing)))


# --- round trips ------------------------------------------------------------------------------------

def words(text):
    return " ".join((text or "").split())


def places(root):
    """Every element and attribute of a document: path and value; lists keep their number."""
    def walk(node, path):
        yield path, words(node.text)
        for name, value in node.attrib.items():
            yield f"{path}@{name}", words(value)
        for child in node:
            if isinstance(child.tag, str):
                yield from walk(child, f"{path}/{child.tag}")
    return list(walk(root, root.tag))


def lost(source, answer):
    """What the source says and the canonical form does not, though no note tells of it."""
    noted = [note["path"] for note in answer["notes"]]
    kept = {path for path, _ in places(ET.fromstring(answer["canonical"]))}
    out = []
    for path, _ in places(ET.fromstring(source)):
        plain = re.sub(r"\{[^}]*\}", "", path)
        covered = any(plain == n or plain.startswith((n + "/", n + "@")) for n in noted)
        # An element whose every word was noted is noted.
        covered |= any(n.startswith((plain + "/", plain + "@")) for n in noted)
        if path not in kept and not covered and not plain.endswith("@unit"):
            out.append(path)
    return out


def round_trip(text):
    """None when the document round trips exactly; else the refusals."""
    first = check(text)
    if not first["ok"]:
        return first["problems"]
    again = good(first["canonical"])
    tap.check(again["definition"] == first["definition"], f"{first['definition']}\n{again['definition']}")
    tap.check(again["canonical"] == first["canonical"], f"{first['canonical']}\n{again['canonical']}")
    tap.check(not again["notes"], f"the canonical form says what is left out: {again['notes']}")
    gone = lost(text, first)
    tap.check(not gone, f"lost without a word: {gone}\n{text}\n{first['canonical']}")
    return None


def validate(kind, texts):
    """libvirt's own judgement of canonical documents."""
    need("virt-xml-validate")
    need("xmllint")
    if kind == "domain" and "<value>virtio</value>" not in (SCHEMAS / "domaincommon.rng").read_text().split('<define name="sound">')[1].split("</define>")[0]:
        texts = [text for text in texts if "<sound" not in text]  # a schema from before libvirt 10.4
    schema = {"domain": "domain", "network": "network", "pool": "storagepool", "volume": "storagevol",
              "snapshot": "domainsnapshot"}[kind]
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, text in enumerate(texts):
            names.append(os.path.join(folder, f"{number}.xml"))
            pathlib.Path(names[-1]).write_text(text, encoding="utf-8")
        for first in names[:1]:
            done = subprocess.run(["virt-xml-validate", first, schema], capture_output=True, text=True, check=False)
            tap.check(done.returncode == 0, f"{done.stderr}\n{pathlib.Path(first).read_text(encoding='utf-8')}")
        # The same schema for all others at once: what virt-xml-validate itself runs, a hundred times faster.
        done = subprocess.run(["xmllint", "--noout", "--relaxng", str(SCHEMAS / f"{schema}.rng"), *names],
                              capture_output=True, text=True, check=False)
        tap.check(done.returncode == 0, done.stderr[-3000:])


def documented(problem):
    """A refusal stands in the generated page, among what is not supported or as what alone is."""
    page = documented.__dict__.setdefault("page", (pathlib.Path(HERE) / "../../docs/reference/xml.md").read_text(
        encoding="utf-8"))
    path = problem["path"]
    inner = path.split("/", 1)[1] if "/" in path else path[path.index("@"):] if "@" in path else path
    for _ in range(6):
        if f"`{inner}`" in page:
            return True
        inner = inner.rpartition("@")[0] or inner.rpartition("/")[0]
    return False


WHOLE = 60


def virt_installs_files_round_trip_or_name_what_is_refused():
    files = sorted(CORPUS.glob("*.xml"))
    tap.check(len(files) >= 100, f"{len(files)} files")
    whole, board, refused, canonical = 0, 0, {}, []
    for file in files:
        text = file.read_text(encoding="utf-8")
        problems = round_trip(text)
        if problems is None:
            whole += 1
            board += int(file.stem) in virt_install.FOR_US
            canonical.append(check(text)["canonical"])
        for problem in problems or []:
            tap.check(documented(problem), f"{file.name}: {problem} is not documented")
        for name in {p["path"].split("@")[0] for p in problems or []}:
            refused[name] = refused.get(name, 0) + 1
    most = sorted(refused.items(), key=lambda item: -item[1])[:12]
    print(f"# {whole} of {len(files)} files of virt-install round trip ({100 * whole // len(files)}%), "
          f"of those for vmd's boards {board} of {len(virt_install.FOR_US)}; refused most: "
          + ", ".join(f"{name} {count}" for name, count in most))
    tap.check(board >= WHOLE, f"only {board} of those for vmd's boards round trip")
    validate("domain", canonical)


def virt_install_still_makes_these_files():
    if not virt_install.available():
        raise tap.Skip("virt-install (Debian: virtinst)")
    for number in (1, 40, 77):
        now = virt_install.make(number)
        was = (CORPUS / f"{number:03}.xml").read_text(encoding="utf-8")
        tap.check(now == was, f"case {number} differs:\n{now}\n{was}")


def libvirts_examples_round_trip_or_name_what_is_refused():
    files = sorted(EXAMPLES.rglob("*.xml"))
    if not files:
        raise tap.Skip("libvirt's examples (Debian: libvirt-doc)")
    whole, canonical = 0, {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        problems = round_trip(text)
        if problems is None:
            whole += 1
            answer = check(text)
            canonical.setdefault(answer["kind"], []).append(answer["canonical"])
        for problem in problems or []:
            tap.check(documented(problem), f"{file}: {problem} is not documented")
    print(f"# {whole} of {len(files)} examples of libvirt-doc round trip")
    tap.check(whole >= 11, f"only {whole}")
    for kind, texts in canonical.items():
        validate(kind, texts)


CONFIGS = [
    {"name": "a"},
    {"name": "a", "cpu": "rv64,zba=off,zbb=on", "cpus": 4, "memory": 1 << 30},
    {"name": "a", "cpu": "rv64,vlen=512", "rng": False, "console": "virtio"},
    {"name": "a.b_c+d-e", "firmware": "none", "kernel": "/k", "append": " a  b\tc\u0001\r\n<&>'\"é"},
    {"name": "a", "firmware": "/fw", "title": "t < & >", "description": "\n two\n lines \n"},
    {"name": "a", "disks": [{"file": "/a", "name": "disk0"}, {"file": "/b", "name": "vdc", "readonly": True},
                            {"file": "/c", "name": "vda"}]},
    {"name": "a", "disks": [{"file": f"/d{i}", "name": f"x{i}"} for i in range(8)]},
    {"name": "a", "disks": [{"file": "/a"}, {"file": "/b"}]},
    {"name": "a", "disks": [{"file": "/a", "bus": bus, "name": f"vd{i}"} for i, bus in enumerate(
        ("virtio-mmio", "virtio-pci", "nvme", "scsi", "scsi-mmio", "sata", "usb"))]},
    {"name": "a", "disks": [{"file": "/a", "bus": "scsi", "name": "sda", "controller": 1, "unit": 2, "lun": 3, "removable": True},
                            {"file": "/b", "bus": "sata", "name": "sdb", "unit": 4, "cdrom": True, "readonly": True},
                            {"file": "/c", "bus": "sata", "name": "sdc", "lun": 1}, {"file": "/d", "bus": "scsi", "cdrom": True}]},
    {"name": "a", "disks": [{"file": "/a", "cache": "none", "werror": "enospc", "rerror": "stop", "serial": "a<b", "queues": 4},
                            {"file": "/b", "cache": "writeback", "rerror": "enospc"}]},
    {"name": "a", "tcg": {"icount": 4, "backend": "interp", "tier2": "off", "cache_size": 1 << 20}},
    {"name": "a", "arch": "riscv32", "tcg": {"plugins": [{"file": "/p.so", "args": "x=<y>"}], "coverage": True}},
    {"name": "a", "metadata": "<x:y xmlns:x='urn:x'>text<z/> more</x:y>\n<q:w xmlns:q='urn:q' q:a='1' b='2'/>"},
    {"name": "a", "disks": [{"file": "/a&b<c>'d\"e", "name": "vda"}]},
    {"name": "a", "metadata": "<open>"}, {"name": "a", "metadata": "plain"},
    {"name": "a", "restart": {"mode": "on-failure"}}, {"name": "a", "restart": {"mode": "always", "limit": 3}},
    {"name": "a", "restart": {"mode": "on-failure", "delay_ms": 5}, "autostart": {"priority": 7, "after": ["b", "c"]}},
    {"name": "a", "limits": {"cpu_percent": 150, "cpu_weight": 7, "memory_max": 1 << 30, "io_weight": 300}},
    {"name": "a", "agent": True}, {"name": "a", "channels": [{"name": "b"}, {"name": "c.d", "console": True}], "agent": True},
    {"name": "a", "channels": [{"name": "org.qemu.guest_agent.0"}, {"name": "b"}]},
    {"name": "a", "balloon": {"memory": 256 << 20, "deflate_on_oom": True, "period": 10}},
    {"name": "a", "iommu": "virtio"}, {"name": "a", "io_threads": 2, "disks": [{"file": "/a", "io_thread": 2, "queues": 4}]}, {"name": "a", "clock": {"base": "localtime"}}, {"name": "a", "clock": {"offset": -5}},
    {"name": "a", "guest_watchdog": {"action": "pause"}}, {"name": "a", "guest_watchdog": {}},
    {"name": "a", "memory": 1 << 30, "memory_devices": [{"size": 4 << 30, "requested": 1 << 30, "block": 4 << 20}, {"size": 2 << 20}]},
    {"name": "a", "memory": 1 << 30, "memory_devices": [{"name": "m", "size": 4 << 30}], "balloon": {"memory": 256 << 20}},
    {"name": "a", "shares": [{"path": "/srv/a", "tag": "one"}, {"path": "/srv/b", "tag": "two", "driver": "9p", "readonly": True}]},
    {"name": "a", "shares": [{"tag": "one", "socket": "/run/s"}, {"path": "/srv/b", "tag": "t", "driver": "9p", "security": "passthrough"}],
     "root_ports": 2},
    {"name": "a", "shares": [{"path": "/srv/a", "tag": "one", "hotplug": True}], "root_ports": 1},
    {"name": "a", "audio": {}}, {"name": "a", "audio": {"output": "/srv/a.wav", "input": "/srv/b.wav"}},
    {"name": "a", "audio": {"output": "/srv/a b.wav", "rate": 44100, "format": "f32", "channels": 1}},
    {"name": "a", "vsock": {"cid": 77}}, {"name": "a", "vsock": {}},
    {"name": "a", "balloon": {"mode": "auto", "minimum": 64 << 20, "free_page_reporting": False}},
    {"name": "a", "watchdog": {"action": "stop"}, "host_shutdown": {"mode": "leave"}, "project": "p"},
    {"name": "a", "uuid": "ef861801-45b9-11cb-88e3-afbfe5370493", "kernel": "/k", "initrd": "/i"},
]


DISKS = """
<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' error_policy='stop' rerror_policy='report' queues='4'/>
  <source file='/a'/><target dev='vda' bus='virtio'/><serial>WD-1</serial><address type='pci'/></disk>
<disk type='file' device='disk'><address type='virtio-mmio'/><source file='/b'/><target dev='vdb' bus='virtio'/></disk>
<disk type='file' device='disk'><source file='/c'/><target dev='sda' bus='scsi' removable='on'/>
  <address type='drive' controller='1' bus='0' target='2' unit='3'/></disk>
<disk type='file' device='cdrom'><address type='drive' controller='0' bus='0' target='0' unit='4'/><source file='/d.iso'/>
  <target dev='sdb' bus='sata'/><readonly/></disk>
"""


def disks_keep_their_bus_their_place_and_what_is_done_about_errors():
    answer = good(MINIMAL % f"<devices>{DISKS}</devices>")
    first, second, third, fourth = answer["definition"]["disks"]
    for disk, want in ((first, {"bus": "virtio-pci", "cache": "none", "werror": "stop", "rerror": "report", "queues": 4, "serial": "WD-1"}),
                       (second, {"bus": "virtio-mmio"}),
                       (third, {"bus": "scsi", "controller": 1, "unit": 2, "lun": 3, "removable": True}),
                       (fourth, {"bus": "sata", "controller": 0, "unit": 4, "cdrom": True, "readonly": True})):
        tap.check(contains(disk, want), f"{want} became {disk}")
    tap.check("lun" not in fourth, f"{fourth}")
    tap.check("vmd:definition" not in answer["canonical"], answer["canonical"])
    tap.check(round_trip(MINIMAL % f"<devices>{DISKS}</devices>") is None, "refused")
    validate("domain", [answer["canonical"]])


def screens_flash_and_volumes_are_in_the_words_of_libvirt():
    def made(devices="", os_more=""):
        text = (f"<domain type='qemu'><name>a</name><memory>65536</memory><os><type arch='riscv64'>hvm</type>{os_more}</os>"
                f"<devices>{devices}</devices></domain>")
        tap.check(round_trip(text) is None, text)
        answer = check(text)
        tap.check("vmd:set" not in answer["canonical"], answer["canonical"])
        validate("domain", [answer["canonical"]])
        return answer["definition"]
    keys = "<input type='tablet' bus='virtio'/><input type='keyboard' bus='virtio'/>"
    vnc = "<graphics type='vnc'><listen type='socket'/></graphics>"
    tap.check("display" not in made("<video><model type='none'/></video>"), "no screen")
    size = "<resolution x='1024' y='768'/>"
    for video, address, device in (("virtio", "pci", "virtio"), ("virtio", "virtio-mmio", "virtio-mmio"), ("bochs", "pci", "bochs"), ("vga", "pci", "vga")):
        element = f"<video><model type='{video}'>{size}</model><address type='{address}'/></video>" \
            if address != "pci" else f"<video><model type='{video}'>{size}</model></video>"
        for devices, keyboard in ((keys + vnc + element, True), (element + vnc, False), (element + keys, True)):
            have = made(devices)["display"]
            tap.check(have == {"device": device, "width": 1024, "height": 768, "input": keyboard}, f"{devices}: {have}")
    tap.check(made("<graphics type='vnc' port='-1' autoport='yes'/>")["display"] ==
              {"device": "virtio", "width": 1280, "height": 800, "input": False}, "a screen for the viewer")
    usb = ("<disk type='file'><source file='/a'/><target dev='sda' bus='usb'/></disk><disk type='file' device='cdrom'><source file='/c'/>"
           "<target dev='sdb' bus='usb'/><readonly/></disk><hub type='usb'><address type='usb' bus='0' port='1'/></hub>"
           "<input type='mouse' bus='usb'/><input type='keyboard' bus='usb'><address type='usb' bus='0' port='1.2'/></input>")
    have = made(usb)
    tap.check([disk["bus"] for disk in have["disks"]] == ["usb", "usb"] and have["disks"][1]["cdrom"], f"{have['disks']}")
    tap.check(have["usb"] == [{"type": "hub", "port": "1"}, {"type": "mouse"}, {"type": "keyboard", "port": "1.2"}], f"{have['usb']}")
    have = made("<input type='tablet' bus='usb'/>" + vnc + "<video><model type='virtio'/></video>")
    tap.check((have["usb"], have["display"]["input"]) == ([{"type": "tablet"}], False), f"{have}")
    have = made("<input type='tablet' bus='usb'/>" + keys + vnc)
    tap.check((have["usb"], have["display"]["input"]) == ([{"type": "tablet"}], True), f"{have}")
    flash = made(os_more="<loader type='pflash' readonly='yes'>/c.fd</loader><nvram>/v.fd</nvram>")["flash"]
    tap.check(flash == [{"file": "/c.fd", "readonly": True}, {"file": "/v.fd", "readonly": False}], f"{flash}")
    tap.check(made(os_more="<loader type='pflash'>/c.fd</loader>")["flash"] == [{"file": "/c.fd", "readonly": False}], "one bank")
    disk, = made("<disk type='volume'><source pool='p' volume='v.qcow2'/><target dev='vda' bus='virtio'/></disk>")["disks"]
    tap.check((disk["pool"], disk["volume"], "file" in disk) == ("p", "v.qcow2", False), f"{disk}")
    nic, = made("<interface type='user'><address type='pci'/></interface>")["nics"]
    tap.check(nic["bus"] == "virtio-pci", f"{nic}")
    nic, = made("<interface type='user'><rom bar='on' file='/r.rom'/><address type='pci'/></interface>")["nics"]
    tap.check(nic["rom"] == "/r.rom", f"{nic}")
    tap.check("rom" not in made("<interface type='user'><rom bar='off'/><address type='pci'/></interface>")["nics"][0], "a ROM")


def channels_are_in_the_words_of_libvirt():
    def channel(name, more=""):
        return f"<channel type='unix'><target type='virtio' name='{name}'/>{more}</channel>"
    text = MINIMAL % ("<devices>" + channel("org.qemu.guest_agent.0", "<address type='virtio-serial' controller='0' bus='0' port='1'/>")
                      + channel("backup", "<source mode='bind' path='/tmp/b'/><alias name='c1'/>") + "</devices>")
    answer = good(text)
    made = answer["definition"]
    tap.check((made["agent"], made["channels"]) == (True, [{"name": "backup", "console": False}]), str(made))
    tap.check(round_trip(text) is None and "vmd:set" not in answer["canonical"], answer["canonical"])
    tap.check("<target type='virtio' name='org.qemu.guest_agent.0'/>" in answer["canonical"].replace('"', "'"), answer["canonical"])
    validate("domain", [answer["canonical"]])


SNAPSHOT = """<domainsnapshot>
  <name>before &lt;upgrade&gt;</name>
  <description>all is well</description>
  <memory snapshot='internal'/>
  <disks>
    <disk name='vda' snapshot='internal'/>
    <disk name='/images/b.qcow2' snapshot='no'/>
  </disks>
</domainsnapshot>
"""


def snapshots_are_in_the_words_of_libvirt():
    answer = good(SNAPSHOT)
    tap.check(answer["definition"] == {"name": "before <upgrade>", "description": "all is well", "memory": "internal",
                                       "disks": [{"name": "vda", "snapshot": "internal"},
                                                 {"name": "/images/b.qcow2", "snapshot": "no"}]}, f"{answer['definition']}")
    tap.check(ET.canonicalize(answer["canonical"], strip_text=True) == ET.canonicalize(SNAPSHOT, strip_text=True), answer["canonical"])
    tap.check(round_trip(SNAPSHOT) is None and not answer["notes"], f"{answer}")
    told = good("<domainsnapshot><name>a</name><state>running</state><creationTime>12</creationTime><parent><name>b</name></parent>"
                "<memory snapshot='no'/><active>1</active><domain><uuid>x</uuid></domain></domainsnapshot>")
    tap.check(told["definition"] == {"name": "a", "memory": "no", "disks": []}, f"{told['definition']}")
    noted = {n["path"].partition("/")[2] for n in told["notes"]}
    tap.check({"state", "creationTime", "parent/name", "active", "domain"} <= noted, f"{told['notes']}")
    apart = "<domainsnapshot><memory snapshot='external' file='/srv/m'/><disks><disk name='vda' snapshot='no'/></disks></domainsnapshot>"
    tap.check(good(apart)["definition"] == {"memory": "external", "memory_file": "/srv/m", "disks": [{"name": "vda", "snapshot": "no"}]}, apart)
    validate("snapshot", [answer["canonical"], told["canonical"], good(apart)["canonical"], good("<domainsnapshot/>")["canonical"]])


def volume_of_a_pool_is_shown_by_its_name():
    folder = os.path.join(Shared.daemon.dir, "pool")
    os.mkdir(folder)
    with Shared.daemon.client() as c:
        c.call("pool.define", config={"name": "p1", "path": folder})
        c.call("pool.start", pool="p1")
        c.call("volume.create", pool="p1", config={"name": "v.raw", "capacity": 1 << 20, "format": "raw"})
        c.call("vm.define", config={"name": "vol", "firmware": "none", "disks": [{"pool": "p1", "volume": "v.raw"}]})
        shown = c.call("xml.get", vm="vol")["xml"]
        tap.check("type='volume'" in shown and "volume='v.raw'" in shown and folder not in shown, shown)
        c.call("vm.delete", vm="vol")
        c.call("xml.define", xml=shown)
        tap.check(c.call("vm.get", vm="vol")["config"]["disks"][0]["file"] == os.path.join(folder, "v.raw"), "defined again")
        c.call("vm.delete", vm="vol")


def every_definition_survives_xml():
    """Definitions with members that libvirt has no word for: what xml.get prints means the same again."""
    canonical = []
    for config in CONFIGS:
        first = {k: v for k, v in config.items() if k not in ("metadata",) or "<open" not in v and "<" in v}
        text = printed(config)
        answer = good(text)
        for key, value in first.items():
            tap.check(contains(answer["definition"].get(key), value), f"{key}: {value} became "
                      f"{answer['definition'].get(key)}\n{text}")
        tap.check(answer["canonical"] == text, f"{text}\n{answer['canonical']}")
        canonical.append(text)
    validate("domain", canonical)


def contains(have, want):
    if isinstance(want, dict):
        return isinstance(have, dict) and all(contains(have.get(k), v) for k, v in want.items())
    if isinstance(want, list):
        return isinstance(have, list) and len(have) == len(want) and all(map(contains, have, want))
    if isinstance(want, str) and want.startswith("<"):
        return ET.canonicalize(f"<m>{have}</m>", strip_text=True) == ET.canonicalize(f"<m>{want}</m>", strip_text=True)
    return have == want


def printed(config):
    """The XML of a definition, by the metadata form: each member as JSON."""
    sets = "".join(f"<v:set member='{k}'>{escape(json.dumps(v))}</v:set>" for k, v in config.items())
    name = config["name"]
    text = (f"<domain type='qemu'><name>{name}</name><memory>524288</memory><os><type arch='riscv64'>hvm</type></os>"
            f"<devices><rng model='virtio'><backend model='random'/></rng></devices>"
            f"<metadata><v:definition xmlns:v='urn:vmd:definition:1'>{sets}</v:definition></metadata></domain>")
    return good(text)["canonical"]


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- bad XML ----------------------------------------------------------------------------------------

def bad_xml_is_refused_with_line_and_element():
    """Rows of bad.json: a document (pieces with counts, where it is long) and how its first refusal begins."""
    rows = json.loads((pathlib.Path(HERE) / "bad.json").read_text(encoding="utf-8"))
    tap.check(len(rows) >= 300, f"{len(rows)} rows")
    wrong = []
    with Shared.daemon.client() as client:
        for document, expected in rows:
            if isinstance(document, list):
                document = "".join(p if isinstance(p, str) else p[0] * p[1] for p in document)
            answer = client.call("xml.check", xml=document)
            got = [f"line {p['line']}: {p['text']}" for p in answer["problems"]] or ["accepted"]
            if not got[0].startswith(expected) or answer["ok"] or "definition" in answer:
                wrong.append(f"{document[-200:]}\n  is {got[0]}\n  not {expected}")
    tap.check(not wrong, "\n".join(wrong))


def xml_that_is_too_large_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "large.xml")
        pathlib.Path(file).write_text("<domain>" + " " * (1 << 20) + "</domain>", encoding="utf-8")
        done = vmctl("xml", "check", file, ok=False)
        tap.check(done.returncode == 2 and "1024 KiB" in done.stderr or "1048576" in done.stderr, f"{done}")
        pathlib.Path(file).write_bytes(b"<domain>\xff\xfe</domain>")
        done = vmctl("define", "-f", file, ok=False)
        tap.check("is not UTF-8" in done.stderr, f"{done}")


# --- vmctl ------------------------------------------------------------------------------------------

def vmctl_defines_from_xml_and_shows_it_again():
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "db1.xml")
        pathlib.Path(file).write_text(MINIMAL % "<vcpu>2</vcpu><devices><emulator>/q</emulator></devices>",
                                      encoding="utf-8")
        done = vmctl("define", file)
        tap.check("a: defined" in done.stdout and "<emulator>: left out" in done.stderr, f"{done}")
        shown = vmctl("show", "a", "--xml").stdout
        tap.check("<vcpu>2</vcpu>" in shown, shown)
        tap.check(Shared.daemon.call("xml.get", vm="a")["xml"] == shown, shown)
        validate("domain", [shown])
        vmctl("rm", "a")
        pathlib.Path(file).write_text(shown, encoding="utf-8")
        tap.check("a: defined" in vmctl("xml", "define", file).stdout, "xml define")
        tap.check(vmctl("show", "a", "--xml").stdout == shown, "the same again")
        vmctl("rm", "a")
        # Options stand over the file.
        vmctl("define", "-f", file, "--cpus", "3")
        tap.check("<vcpu>3</vcpu>" in vmctl("show", "a", "--xml").stdout, "--cpus")
        vmctl("rm", "a")
        Shared.daemon.call("xml.define", xml=shown)
        error = Shared.daemon.client().fails("exists", "xml.define", xml=shown)
        tap.check("a VM named 'a'" in error.message, f"{error}")
        vmctl("rm", "a")
        pathlib.Path(file).write_text(MINIMAL % "<devices><graphics type='sdl'/></devices>", encoding="utf-8")
        done = vmctl("define", file, ok=False)
        tap.check(done.returncode == 2 and "<graphics type='sdl'>: not supported" in done.stderr, f"{done}")
        error = Shared.daemon.client().fails("invalid-params", "xml.define",
                                             xml=MINIMAL % "\n<devices><graphics type='sdl'/></devices>")
        tap.check("line 2: <graphics type='sdl'>: not supported" in error.message, f"{error}")


def vmctl_xml_check_tells_all_refusals():
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "x.xml")
        pathlib.Path(file).write_text(MINIMAL % "\n<genid/>\n<devices><tpm/></devices>", encoding="utf-8")
        done = vmctl("xml", "check", file, ok=False)
        tap.check(done.returncode == 1 and f"{file}:2: <genid>: not supported" in done.stderr and
                  f"{file}:3: <tpm>: not supported" in done.stderr and done.stdout == "", f"{done}")
        pathlib.Path(file).write_text("<pool type='dir'><name>p</name></pool>", encoding="utf-8")
        tap.check("<name>p</name>" in vmctl("xml", "check", file).stdout, "pool")
        done = vmctl("xml", "check", "--kind", "network", file, ok=False)
        tap.check("expected <network>" in done.stderr, f"{done}")
        answer = json.loads(vmctl("xml", "check", "--json", file).stdout)
        tap.check(answer["kind"] == "pool" and answer["definition"]["type"] == "dir", f"{answer}")


def editor(folder, name, script):
    path = os.path.join(folder, name)
    pathlib.Path(path).write_text("#!/bin/sh\n" + script, encoding="utf-8")
    os.chmod(path, 0o755)
    return {"EDITOR": path, "VISUAL": "", "TMPDIR": folder}


def vmctl_edit_sends_what_was_changed():
    Shared.daemon.call("vm.define", config={"name": "e", "memory": 1 << 29, "disks": [{"file": "/a"}]})
    with tempfile.TemporaryDirectory() as folder:
        done = vmctl("edit", "e", env=editor(folder, "nothing", "true\n"))
        tap.check("not changed" in done.stdout, f"{done}")
        done = vmctl("edit", "e", env=editor(folder, "json", "sed -i 's/\"cpus\": 1/\"cpus\": 2/' \"$1\"\n"))
        tap.check("e: changed" in done.stdout, f"{done}")
        done = vmctl("edit", "--xml", "e", env=editor(
            folder, "xml", "sed -i 's,<vcpu>2</vcpu>,<vcpu>3</vcpu>,;s,524288,262144,;s,<name>e,<name>f,' \"$1\"\n"))
        tap.check("e: changed" in done.stdout and "renamed to f" in done.stdout, f"{done}")
        config = Shared.daemon.call("vm.get", vm="f")["config"]
        tap.check(config["cpus"] == 3 and config["memory"] == 1 << 28 and config["disks"][0]["name"] == "disk0", f"{config}")
        done = vmctl("edit", "f", env=editor(folder, "bad", "echo '{\"name\": \"f\", \"cpus\": \"x\"}' >\"$1\"\n"), ok=False)
        tap.check(done.returncode != 0 and "cpus" in done.stderr and "kept in" in done.stderr, f"{done}")
        done = vmctl("edit", "f", env=editor(folder, "fix", "sed -i 's/riscv64/riscv32/' \"$1\"\n"), ok=False)
        tap.check("'arch' of a VM cannot be changed" in done.stderr, f"{done}")
        done = vmctl("edit", "f", env=editor(folder, "fails", "exit 3\n"), ok=False)
        tap.check("failed" in done.stderr, f"{done}")
    vmctl("rm", "f")


def vmctl_edit_asks_again_on_a_terminal():
    Shared.daemon.call("vm.define", config={"name": "t"})
    with tempfile.TemporaryDirectory() as folder:
        env = editor(folder, "twice", 'if [ -e "$0.seen" ]; then sed -i "s,<genid/>,,;s,<vcpu>1<,<vcpu>4<," "$1"; '
                     'else touch "$0.seen"; sed -i "s,<clock,<genid/><clock," "$1"; fi\n')
        main, side = pty.openpty()
        process = subprocess.Popen([VMCTL, "-c", Shared.daemon.sock, "edit", "--xml", "t"], stdin=side, stdout=side,
                                   stderr=side, env={**os.environ, **env})
        os.close(side)
        said, answered = b"", False
        while select.select([main], [], [], 60)[0]:
            try:
                piece = os.read(main, 4096)
            except OSError:
                break
            said += piece
            if b"[Y/n]" in said and not answered:
                answered = True
                os.write(main, b"\n")
        tap.check(process.wait(60) == 0 and b"<genid>: not supported" in said and b"t: changed" in said, f"{said}")
        os.close(main)
    tap.check(Shared.daemon.call("vm.get", vm="t")["config"]["cpus"] == 4, "cpus")
    vmctl("rm", "t")


def every_verb_of_the_guide_from_virsh_exists():
    page = (pathlib.Path(HERE) / "../../docs/guide/virsh.md").read_text(encoding="utf-8")
    said = [line for line in vmctl("help").stdout.splitlines() if re.match(r"  [a-z]", line)]
    known = {re.split(r"  +", line.strip())[0] for line in said}
    named = re.findall(r"`vmctl ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", page)
    tap.check(len(named) > 40, f"{len(named)} verbs")
    unknown = [" ".join(two).strip() for two in named if two[0] not in known and " ".join(two) not in known]
    tap.check(not unknown, f"the guide names verbs that vmctl has not: {unknown}")


if __name__ == "__main__":
    with lib.Daemon() as Shared.daemon:
        status = tap.run_cases([
            every_element_of_libvirts_schema_has_a_row,
            virt_installs_files_round_trip_or_name_what_is_refused,
            virt_install_still_makes_these_files,
            libvirts_examples_round_trip_or_name_what_is_refused,
            disks_keep_their_bus_their_place_and_what_is_done_about_errors,
            screens_flash_and_volumes_are_in_the_words_of_libvirt,
            channels_are_in_the_words_of_libvirt,
            snapshots_are_in_the_words_of_libvirt,
            volume_of_a_pool_is_shown_by_its_name,
            every_definition_survives_xml,
            bad_xml_is_refused_with_line_and_element,
            xml_that_is_too_large_is_refused,
            vmctl_defines_from_xml_and_shows_it_again,
            vmctl_xml_check_tells_all_refusals,
            vmctl_edit_sends_what_was_changed,
            vmctl_edit_asks_again_on_a_terminal,
            every_verb_of_the_guide_from_virsh_exists])
    sys.exit(status)
