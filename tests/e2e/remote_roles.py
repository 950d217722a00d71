# SPDX-License-Identifier: Apache-2.0
"""Every method by every role: what the schema says is what a caller over TLS gets. The matrix is made
from the schema, so a new method is in it without a line here."""

import json
import os
import pathlib
import sys

TOP = pathlib.Path(os.environ.get("VMD_SRCDIR") or pathlib.Path(__file__).resolve().parents[2])
sys.path[:0] = [str(TOP / "tests" / "lib"), str(TOP / "tests" / "e2e"), str(TOP / "api-schema" / "gen")]

import model  # noqa: E402
import tap  # noqa: E402
from daemon_lib import CallError, Client  # noqa: E402
from remote_lib import RemoteDaemon  # noqa: E402

SCHEMA = model.Schema(TOP / "api-schema" / "schema")
RANK = {"none": 0, "viewer": 1, "operator": 2, "owner": 3, "admin": 4}
# Where the caller is allowed these end the daemon, or the user that asks; they are asked for only where they
# must be refused. Elsewhere they have tests: host.shutdown-daemon (daemon_survive), user.delete and cert.init
# (remote_tls).
ENDS = {"host.shutdown-daemon", "host.shutdown", "user.delete", "cert.init", "host.backup"}
# The rest of the methods of remote access, for the list of tested methods: audit.list cert.info cert.issue
# cert.renew cert.list cert.get cert.revoke cert.reload image.list image.begin image.write image.finish
# image.read image.delete token.create token.list token.delete user.whoami user.list user.set.


def sample(m, number):
    """Some value of a member."""
    if m.is_list:
        return []
    if m.base == "VmConfig":
        return {"name": f"n{number}", "project": "web", "firmware": "none"}
    values = {"bool": False, "vmref": "web1", "name": f"s{number}", "path": "/nonexistent", "any": 1,
              "object": {}, "uuid": "00000000-0000-4000-8000-000000000000", "size": max(m.min, 1)}
    if m.base in values:
        return values[m.base]
    if m.is_int:
        return max(m.min, 1) if m.min > 0 else 1
    if m.is_string:
        return "x"
    if m.type.kind == "enum":
        return next(iter(m.type.values))
    if m.type.kind == "patch":
        return {}
    return {x.name: sample(x, number) for x in m.type.members if x.required}


WHERE = {}  # of a method: members that must fit the daemon under test


def params_of(method, number):
    out = {m.name: sample(m, number) for m in method.in_type.members if m.required}
    out.update(WHERE.get(method.name, {}))
    if method.scope == "project":
        out["project"] = "web"
    if "timeout_ms" in {m.name for m in method.in_type.members}:
        out["timeout_ms"] = max(1, next(m.min or 0 for m in method.in_type.members if m.name == "timeout_ms"))
    return out


def expected(method, has):
    """'denied', 'hidden' or 'allowed', for someone with these roles: {project: role}."""
    def at(project):
        return max(RANK[has.get(project, "none")], RANK[has.get("*", "none")])

    need, most = RANK[method.role], max([RANK[r] for r in has.values()], default=0)
    if most < need:
        return "denied"
    if method.scope in ("vm", "config", "project") and at("web") < need:
        return "hidden" if method.scope == "vm" and at("web") == 0 else "denied"
    if method.scope == "host" and at("*") < need:
        return "denied"
    return "allowed"


USERS = {f"{role}-{place}": {project: role} for role in ("viewer", "operator", "owner", "admin")
         for place, project in (("web", "web"), ("other", "other"), ("host", "*"))}


def outcome(client, method, number):
    try:
        client.call(method.name, **params_of(method, number))
    except CallError as error:
        return {"denied": "denied", "not-found": "not-found"}.get(error.error, "allowed"), str(error)
    return "allowed", "ok"


def every_method_by_every_role():
    with RemoteDaemon() as d:
        d.init()
        d.call("vm.define", config={"name": "web1", "project": "web", "firmware": "none"})
        WHERE["vm.dump"] = {"file": os.path.join(d.dir, "lib", "images", "web", "core")}  # others are denied to users
        WHERE["snapshot.export"] = WHERE["snapshot.import"] = {"file": os.path.join(d.dir, "lib", "images", "web", "one.snap")}
        for method in ("export", "import", "show", "edit"):
            WHERE["vm.state_" + method] = {"file": os.path.join(d.dir, "lib", "images", "web", "one.state")}
        WHERE["job.get"] = WHERE["job.wait"] = WHERE["job.cancel"] = {"job": 1 << 40}  # the first is somebody's: an import
        number, wrong, n = 0, [], 0
        for name, has in USERS.items():
            creds = d.user(name)
            for project, role in has.items():
                d.call("user.set", user=name, role=role, project=project)
            with d.connect(creds) as client:
                for method in sorted(SCHEMA.methods.values(), key=lambda m: m.name):
                    want = "allowed" if method.internal else expected(method, has)
                    if method.internal or (want == "allowed" and method.name in ENDS):
                        continue
                    number += 1
                    n += 1
                    got, text = outcome(client, method, number)
                    good = {"denied": ("denied",), "hidden": ("not-found",),
                            "allowed": ("allowed", "not-found")}[want]
                    if got not in good or (want == "allowed" and "there is no VM 'web1'" in text):
                        wrong.append(f"{name} {method.name}: {got} ({text}), not {want}")
                    if method.name in ("vm.delete", "vm.rename") and want == "allowed":
                        for vm in d.call("vm.list")["vms"]:
                            if vm["project"] == "web":
                                d.call("vm.delete", vm=vm["name"], force=True)
                        d.call("vm.define", config={"name": "web1", "project": "web", "firmware": "none"})
        assert not wrong, f"{len(wrong)} of {n}:\n" + "\n".join(wrong[:40])
        assert n > 500, n
        refused = [e for e in d.audit() if "refused" in e["outcome"] or "denied" in e["outcome"]]
        assert refused, "nothing refused was recorded"


QMP = json.loads((TOP / "api-schema" / "qmp" / "qmp.json").read_text(encoding="utf-8"))["commands"]


def qmp_role(name):
    return QMP[name].get("role", "viewer")


def qmp_outcome(client, name):
    """'denied', 'hidden' or 'allowed' of a QMP command on web1."""
    try:
        error = client.call("vm.qmp", vm="web1", execute=name).get("error")
    except CallError as problem:
        return {"not-found": "hidden", "denied": "hidden"}.get(problem.error, str(problem))
    return "denied" if error and error["desc"].startswith(f"{name} needs role ") else "allowed"


def every_qmp_command_by_every_role():
    with RemoteDaemon() as d:
        d.init()
        d.call("vm.define", config={"name": "web1", "project": "web", "firmware": "none"})
        wrong, n = [], 0
        for name, has in USERS.items():
            creds = d.user(name)
            for project, role in has.items():
                d.call("user.set", user=name, role=role, project=project)
            at_web = max(RANK[has.get("web", "none")], RANK[has.get("*", "none")])
            with d.connect(creds) as client:
                for command in [c for c in QMP if not QMP[c].get("session")]:
                    n += 1
                    want = "hidden" if not at_web else "allowed" if at_web >= RANK[qmp_role(command)] else "denied"
                    got = qmp_outcome(client, command)
                    if got != want:
                        wrong.append(f"{name} {command}: {got}, not {want}")
            with d.connect(creds) as client:  # those about the session, in the dialect itself
                for command in ["qmp_capabilities"] + [c for c in QMP if QMP[c].get("session") and c != "qmp_capabilities"]:
                    n += 1
                    client.sock.sendall(json.dumps({"execute": command, "arguments": {
                        "getfd": {"fdname": "x"}, "closefd": {"fdname": "x"}, "vmd-select": {"vm": "web1"}}.get(command, {})
                    }).encode() + b"\n")
                    desc = client.read().get("error", {}).get("desc", "")
                    denied = desc == f"{command} needs role {qmp_role(command)}"
                    if denied != (max(RANK[r] for r in has.values()) < RANK[qmp_role(command)]):
                        wrong.append(f"{name} {command}: {desc}")
        assert not wrong, f"{len(wrong)} of {n}:\n" + "\n".join(wrong[:40])
        assert n == len(USERS) * len(QMP), n
        assert any("stop" in e["object"] for e in d.audit("vm.qmp")), d.audit("vm.qmp")[:3]


def xml_is_defined_in_the_own_project():
    xml = ("<domain type='qemu'><name>fromxml</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>"
           "<os><type arch='riscv64' machine='virt'>hvm</type>{}</os></domain>")
    with RemoteDaemon() as d:
        d.init()
        with d.connect(d.user("ann", "operator", "web")) as ann:
            ann.fails("denied", "xml.define", xml=xml.format(""))
            ann.fails("denied", "xml.define", xml=xml.format(""), project="other")
            problem = ann.fails("denied", "xml.define", xml=xml.format("<kernel>/etc/shadow</kernel>"), project="web")
            assert problem.object == "/etc/shadow", problem.object
            assert ann.call("xml.define", xml=xml.format(""), project="web")["project"] == "web"
            assert [v["name"] for v in ann.call("vm.list")["vms"]] == ["fromxml"]


def a_user_without_roles_may_not_connect():
    with RemoteDaemon() as d:
        d.init()
        with d.connect(d.user("nobody1")) as client:
            # The refusal is a line instead of the greeting.
            assert client.hello["error"]["data"]["error"] == "denied", client.hello
        d.audited("nobody1", "tls.connect")


def lists_show_the_own_projects_only():
    with RemoteDaemon() as d:
        d.init()
        for name, project in (("a1", "a"), ("b1", "b")):
            d.call("vm.define", config={"name": name, "project": project, "firmware": "none"})
        with d.connect(d.user("ann", "viewer", "a")) as ann, d.connect(d.user("eve", "owner", "b")) as eve:
            assert [v["name"] for v in ann.call("vm.list")["vms"]] == ["a1"]
            assert [v["name"] for v in eve.call("vm.list")["vms"]] == ["b1"]
            seen = {e.get("name") for e in ann.call("event.list")["events"]}
            assert "a1" in seen and "b1" not in seen, seen
            eve.fails("not-found", "vm.get", vm="a1")
            eve.fails("not-found", "vm.stats", vm="a1")
            ann.fails("denied", "vm.delete", vm="a1")
            d.call("user.set", user="ann", role="owner", project="a")
            ann.call("vm.delete", vm="a1")
            # Roles are taken at once from an open connection, too.
            d.call("user.set", user="eve", role="none", project="b")
            eve.fails("denied", "vm.list")


def remote_definitions_may_not_point_anywhere():
    with RemoteDaemon() as d:
        d.init()
        with d.connect(d.user("ann", "operator", "web")) as ann:
            for member, value in (("firmware", "/etc/shadow"), ("kernel", "/etc/shadow"),
                                  ("disks", [{"file": "/etc/shadow"}]),
                                  ("kernel", d.dir + "/lib/images/web/../../vmd.db"),
                                  ("kernel", d.dir + "/lib/images/other/x")):
                ann.fails("denied", "vm.define", config={"name": "x", "project": "web", member: value})
            ann.fails("denied", "vm.define", config={"name": "x", "project": "other"})
            ann.call("vm.define", config={"name": "x", "project": "web",
                                          "kernel": d.dir + "/lib/images/web/linux"})
            ann.fails("denied", "vm.set", vm="x", set={"disks": [{"file": "/etc/shadow"}]})


def the_read_only_socket_only_looks():
    with RemoteDaemon() as d:
        path = os.path.join(d.dir, "ro.sock")
        d.terminate()
        d.options = ["--socket-ro", path]
        d.start()
        with Client(path) as client:
            for method in SCHEMA.methods.values():
                if not method.internal and method.role != "viewer":
                    client.fails("denied", method.name, **params_of(method, 1))
        assert json.dumps(d.call("vm.list")["vms"]) == "[]"


if __name__ == "__main__":
    sys.exit(tap.run_cases([every_method_by_every_role, every_qmp_command_by_every_role, xml_is_defined_in_the_own_project,
                            a_user_without_roles_may_not_connect,
                            lists_show_the_own_projects_only, remote_definitions_may_not_point_anywhere,
                            the_read_only_socket_only_looks]))
