# SPDX-License-Identifier: Apache-2.0
"""vmctl's command line and output: what it asks for, what it prints, how it exits."""
import base64
import json
import os
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
import fake  # noqa: E402
import tap  # noqa: E402
from fake import VM, Failure, Server  # noqa: E402

BUILD = os.path.abspath(os.environ.get("VMD_BUILDDIR", "."))
VMCTL = os.path.join(BUILD, "vmctl")
ENV = {k: v for k, v in os.environ.items() if k not in ("VMCTL_CONNECT", "XDG_RUNTIME_DIR", "NO_COLOR")}


def vmctl(server, *args, status=0, stdin=None, env=None, cwd=None):
    """Runs vmctl; returns its standard output and error."""
    where = ["-c", server.path] if server else []
    done = subprocess.run([VMCTL, *where, *args], capture_output=True, text=True, input=stdin, timeout=60,
                          env={**ENV, **(env or {})}, cwd=cwd, check=False)
    assert done.returncode == status, f"{args}: status {done.returncode}, not {status}: {done.stdout}{done.stderr}"
    return done.stdout, done.stderr


def equal(got, want):
    assert got == want, f"got  {got!r}\nwant {want!r}"


def has(text, *parts):
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"


# --- from the command line to parameters ---------------------------------------------------------


def options_become_parameters():
    with Server({"vm.define": VM}) as s:
        vmctl(s, "define", "db1", "--memory", "1.5G", "--cpus=4", "--kernel", "Image", "--append", "a=b c",
              "--disk", "root.raw,name=root,readonly", "--disk", "file=/d/b.raw,format=raw", "--no-rng",
              "--tcg", "backend=interp,cache_size=64M", cwd="/tmp")
        equal(s.params_of("vm.define"), {"config": {
            "name": "db1", "memory": 1610612736, "cpus": 4, "kernel": "/tmp/Image", "append": "a=b c",
            "disks": [{"file": "/tmp/root.raw", "name": "root", "readonly": True},
                      {"file": "/d/b.raw", "format": "raw"}],
            "rng": False, "tcg": {"backend": "interp", "cache_size": 67108864}}})


def odd_values_are_taken():
    with Server({"vm.define": VM}) as s:
        vmctl(s, "define", "-m512M", "--rng=no", "--firmware", "none", "--disk", "/a=b,,c.raw", "--", "db1")
        equal(s.params_of("vm.define")["config"], {
            "memory": 536870912, "rng": False, "firmware": "none", "disks": [{"file": "/a=b,c.raw"}],
            "name": "db1"})


def file_is_the_base_and_options_go_on_top():
    config = json.dumps({"name": "x", "cpus": 2, "tcg": {"cache_size": 1048576, "backend": "jit"}})
    with Server({"vm.define": VM}) as s:
        vmctl(s, "define", "-f", "-", "--cpus", "3", "--tcg", "interp", stdin=config)
        equal(s.params_of("vm.define")["config"],
              {"name": "x", "cpus": 3, "tcg": {"cache_size": 1048576, "backend": "interp"}})
    has(vmctl(None, "define", "-f", "-", stdin='{"name":', status=2)[1], "standard input: ", "at byte 8")
    has(vmctl(None, "define", "-f", "-", stdin="[]", status=2)[1], "expected a JSON object")
    has(vmctl(None, "define", "-f", "/nonexistent/x.json", status=2)[1], "/nonexistent/x.json")


def set_and_unset():
    with Server({"vm.set": {"config": {}, "restart_needed": False}}) as s:
        out, _ = vmctl(s, "set", "db1", "--memory", "2G", "--unset", "initrd")
        equal(s.params_of("vm.set"), {"vm": "db1", "set": {"memory": 2147483648, "initrd": None}})
        equal(out, "db1: changed\n")
    has(vmctl(None, "set", "db1", status=2)[1], "nothing to change")
    has(vmctl(None, "set", "db1", "--unset", "memroy", status=2)[1], "set.memroy", "did you mean 'memory'?")


def times_and_lists():
    with Server({"vm.wait": {"state": "running", "deleted": False}}) as s:
        out, _ = vmctl(s, "wait", "db1", "--state", "running,paused", "--state", "crashed", "--timeout", "1.5m")
        equal(s.params_of("vm.wait"),
              {"vm": "db1", "states": ["running", "paused", "crashed"], "timeout_ms": 90000})
        equal(out, "db1: running\n")
    has(vmctl(None, "wait", "db1", "--timeout", "soon", status=2)[1], "'soon' is no time")


def idempotency_key_goes_with_changes_only():
    with Server({"vm.stop": VM, "vm.get": VM}) as s:
        vmctl(s, "stop", "--key", "k1", "--force", "db1")
        equal(s.params_of("vm.stop"), {"vm": "db1", "force": True, "idempotency_key": "k1"})
        vmctl(s, "show", "--key", "k1", "db1")
        equal(s.params_of("vm.get"), {"vm": "db1"})


def simple_verbs_call_their_methods():
    done = {"start": "vm.start", "pause": "vm.pause", "resume": "vm.resume", "reset": "vm.reset",
            "shutdown": "vm.shutdown", "stop": "vm.stop", "rm": "vm.delete"}
    for verb, method in done.items():
        with Server({method: VM}) as s:
            out, _ = vmctl(s, verb, "db1")
            equal(s.params_of(method), {"vm": "db1"})
            has(out, "db1: ")
    with Server({"vm.rename": {**VM, "name": "new"}}) as s:
        equal(vmctl(s, "rename", "db1", "new")[0], "new: renamed\n")
        equal(s.params_of("vm.rename"), {"vm": "db1", "name": "new"})
    with Server({"job.cancel": {"job": 3, "kind": "vm.create", "state": "running"}}) as s:
        vmctl(s, "cancel", "3")
        equal(s.params_of("job.cancel"), {"job": 3})
    with Server({}) as s:
        vmctl(s, "shutdown-daemon", "--stop-vms")
        equal(s.params_of("host.shutdown-daemon"), {"stop_vms": True})


def mistakes_are_explained_without_a_daemon():
    for args, parts in (
        (("lst",), ("no verb 'lst'; did you mean 'list'?",)),
        (("stat",), ("no verb 'stat'; did you mean 'stats'?",)),
        (("undefine", "x"), ("no verb 'undefine'; did you mean 'rm'?",)),
        (("destroy", "x"), ("no verb 'destroy'; did you mean 'stop --force'?",)),
        (("dumpxml", "x"), ("no verb 'dumpxml'; did you mean 'show --xml'?",)),
        (("ps",), ("no verb 'ps'; did you mean 'list'?",)),
        (("frobnicate",), ("no verb 'frobnicate'", "'vmctl help'")),
        (("start",), ("start: VM is missing", "usage: vmctl start")),
        (("rename", "a"), ("rename: NEW is missing",)),
        (("rename", "a", "b", "c"), ("'c' is one argument too many",)),
        (("list", "--stat"), ("no option '--stat'; did you mean --stat",)),
        (("create", "x", "--memory"), ("--memory needs a value (SIZE)",)),
        (("create", "x", "--memory", "5Q"), ("--memory: the size: '5Q'",)),
        (("create", "x", "--memory", "5"), ("--memory: expected a number of bytes from 1048576", "got 5")),
        (("create", "x", "--cpus", "two"), ("--cpus: 'two' is no number",)),
        (("create", "x", "--rng=perhaps"), ("--rng: 'perhaps' is neither yes nor no",)),
        (("create", "x", "--arch", "riscv"), ("--arch: expected one of riscv64, riscv32", "did you mean 'riscv64'?")),
        (("create", "x", "--disk", "foo=1"), ("--disk: 'foo' is none of name, file, format, bus, readonly",)),
        (("create", "x", "--disk", "/a,file=/b"), ("--disk: file is given twice",)),
        (("create", "-x!"), ("no option '-x!'",)),
        (("create",), ("the VM needs a name",)),
        (("start", "a/b"), ("vm: expected the name or UUID of a VM", 'got "a/b"')),
        (("list", "--json=x"), ("--json takes no value",)),
        (("list", "--color", "maybe"), ("none of auto, always, never",)),
        (("events", "--after", "x"), ("'x' is no sequence number",)),
        (("stats", "--interval", "1ms"), ("at least 50ms",)),
        (("run", "--escape", "^^^"), ("'^^^' is no key",)),
        (("api", "vm.get", "{"), ("PARAMS is a JSON object",)),
        (("help", "nonsense"), ("no verb 'nonsense'",)),
        (("-c", "http://x", "list"), ("write vmd+tls://HOST[:PORT], vmd+unix:///PATH",)),
        (("-c", "vmd+unix://x", "list"), ("no absolute path",)),
        (("-c", "/x", "--dir", "/y", "list"), ("exclude each other",)),
    ):
        has(vmctl(None, *args, status=2)[1], *parts)
    has(vmctl(None, status=2)[1], "usage: vmctl")


# --- output --------------------------------------------------------------------------------------


def list_is_a_table():
    vms = [VM, {**VM, "name": "a-longer-name", "state": "stopped", "pid": None, "memory": 1073741824}]
    del vms[1]["pid"]
    with Server({"vm.list": {"vms": vms, "cursor": 7}}) as s:
        equal(vmctl(s, "list")[0],
              "NAME           STATE    ARCH     CPUS  MEMORY   SINCE  PID   ADDRESSES\n"
              "db1            running  riscv64  2     512 MiB  -      4127  -\n"
              "a-longer-name  stopped  riscv64  2     1 GiB    -      -     -\n")
        equal(vmctl(s, "ls", "-q")[0], "db1\na-longer-name\n")
        equal(json.loads(vmctl(s, "list", "--json")[0]), {"vms": vms, "cursor": 7})
        has(vmctl(s, "list", "--color", "always")[0], "\033[32mrunning\033[0m", "\033[1mNAME\033[0m")
    with Server({"vm.list": {"vms": [], "cursor": 0}}) as s:
        equal(vmctl(s, "list")[0], "NAME  STATE  ARCH  CPUS  MEMORY  SINCE  PID  ADDRESSES\n")
        equal(vmctl(s, "list", "-q")[0], "")


def show_is_for_people():
    info = {**VM, "config": {"name": "db1", "memory": 536870912,
                             "disks": [{"name": "root", "file": "/r", "format": "raw", "readonly": False}]},
            "stats": {"age_ms": 5, "uptime_ns": 61000000000, "vcpus": []}}
    with Server({"vm.get": info}) as s:
        equal(vmctl(s, "show", "db1")[0],
              "name              db1\nuuid              01234567-89ab-4cde-8f01-23456789abcd\n"
              "state             running\nsince             -\narch              riscv64\ncpus              2\n"
              "memory            512 MiB\npid               4127\ntransient         no\nconfig\n"
              "  name            db1\n  memory          512 MiB\n  disks\n"
              "    name  file  format  readonly\n    root  /r    raw     no\n"
              "stats\n  age             5 ms\n  uptime          1m01s\n  vcpus           -\n")
        equal(vmctl(s, "show", "db1", "--quiet")[0], "running\n")
        equal(json.loads(vmctl(s, "show", "db1", "--json")[0]), info)


def nothing_steers_the_terminal():
    evil = {**VM, "name": "x\033]0;owned\007\u009b31m", "state": "running"}
    with Server({"vm.list": {"vms": [evil], "cursor": 0}, "vm.get": evil,
                 "vm.start": lambda p: (_ for _ in ()).throw(Failure(1, "e\033", "m\033[2Jx\n\ny", "o\007", "r\033c"))}) as s:
        for args in (("list",), ("list", "-q"), ("show", "db1")):
            out, _ = vmctl(s, *args)
            assert "\033" not in out and "\007" not in out and "\u009b" not in out, repr(out)
        _, err = vmctl(s, "start", "db1", status=1)
        assert "\033" not in err and "\007" not in err, repr(err)


def errors_have_message_remedy_and_status():
    for code, name, status in ((1001, "not-found", 4), (1002, "exists", 5), (1003, "bad-state", 5),
                               (1005, "denied", 6), (1010, "timeout", 7), (1011, "unresponsive", 7),
                               (-32602, "invalid-params", 2), (-32603, "internal-error", 1), (77, "new", 1)):
        def fail(_params, c=code, n=name):
            raise Failure(c, n, "it went wrong", "VM db1", "mend it")
        with Server({"vm.start": fail}) as s:
            _, err = vmctl(s, "start", "db1", status=status)
            equal(err, "vmctl: VM db1: it went wrong\n  mend it\n")
            _, err = vmctl(s, "start", "db1", "--json", status=status)
            equal(json.loads(err)["error"]["code"], code)


def several_targets_are_all_tried():
    def start(params):
        if params["vm"] == "bad":
            raise fake.NOT_FOUND
        return {**VM, "name": params["vm"]}
    with Server({"vm.start": start}) as s:
        out, err = vmctl(s, "start", "a", "bad", "c", status=4)
        equal(out, "a: started\nc: started\n")
        has(err, "there is no VM 'db1'")


def create_waits_for_its_job():
    states = iter(["running", "done"])

    def wait(_params):
        return {"job": 5, "kind": "vm.create", "state": next(states)}
    with Server({"vm.create": {"job": 5, "name": "w", "uuid": "u"}, "job.wait": wait}) as s:
        equal(vmctl(s, "create", "w")[0], "w: created and started\n")
        equal([m for m, _ in s.calls], ["vm.create", "job.wait", "job.wait"])
    failed = {"job": 5, "kind": "vm.create", "state": "failed", "error": {
        "code": 1008, "error": "file-error", "message": "kernel '/k' does not exist", "remedy": "check the path"}}
    with Server({"vm.create": {"job": 5, "name": "w", "uuid": "u"}, "job.wait": failed}) as s:
        equal(vmctl(s, "create", "w", status=1)[1], "vmctl: kernel '/k' does not exist\n  check the path\n")
        equal(vmctl(s, "create", "w", "--no-wait")[0], "w: job 5\n")
        equal(vmctl(s, "create", "w", "--no-wait", "-q")[0], "w\n")


def wait_tells_of_a_crash():
    crash = {"state": "crashed", "reason": "crashed", "exit": {"reason": "crashed", "signal": 11}}
    with Server({"vm.wait": crash}) as s:
        equal(vmctl(s, "wait", "db1", status=11)[0], "db1: crashed (signal 11)\n")


def jobs_job_and_hosts():
    job = {"job": 12, "kind": "vm.create", "name": "w", "state": "running", "done": 1, "total": 2, "unit": "steps",
           "created_ms": 0}
    with Server({"job.list": {"jobs": [job]}, "job.get": job, "host.info": {"hostname": "h", "memory": 1024},
                 "host.capabilities": {"archs": [{"arch": "riscv64", "cpus": ["max", "x"]}], "sandbox": [],
                                       "emulator": "/e"}}) as s:
        equal(vmctl(s, "jobs", "--active")[0],
              "JOB  KIND       VM  STATE    PROGRESS   CREATED\n12   vm.create  w   running  1/2 steps  -\n")
        equal(s.params_of("job.list"), {"active": True})
        has(vmctl(s, "job", "12")[0], "job               12\n")
        has(vmctl(s, "host")[0], "memory            1 KiB\n")
        has(vmctl(s, "capabilities")[0], "  riscv64  max, x\n", "sandbox           -\n")


def events_are_listed_and_followed():
    events = [{"seq": n, "time_ms": 1700000000000, "type": "vm-state", "name": "db1", "state": "running",
               "reason": "resume"} for n in (5, 6)]

    def listed(params):
        found = [e for e in events if e["seq"] > params.get("after", 0)][:params["limit"]]
        return {"events": found, "cursor": found[-1]["seq"] if found else 6, "oldest": 5, "newest": 6}
    with Server({"event.list": listed}) as s:
        out, _ = vmctl(s, "events", "--vm", "db1", "--type", "vm-state", "--type", "job")
        equal(len(out.splitlines()), 2)
        has(out, "vm-state db1 running (resume)")
        equal(s.calls[-1][1], {"vm": "db1", "types": ["vm-state", "job"], "after": 4, "limit": 1000})
        out, _ = vmctl(s, "events", "--after", "5", "--json")
        equal(json.loads(out)["seq"], 6)
    with Server({}) as s:
        s.answers["event.subscribe"] = {"subscription": 1, "cursor": 6}
        run = subprocess.Popen([VMCTL, "-c", s.path, "events", "--follow", "--after", "4", "--json"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENV)
        try:
            s.await_call()
            equal(s.params_of("event.subscribe"), {"after": 4})
            s.notify("event", {"subscription": 1, "event": events[0]})
            equal(json.loads(run.stdout.readline())["seq"], 5)
            s.calls.clear()
            s.connections.pop().shutdown(2)  # the daemon goes; vmctl resumes where it was
            s.await_call()
            equal(s.params_of("event.subscribe"), {"after": 5})
            s.notify("event", {"subscription": 1, "event": events[1]})
            equal(json.loads(run.stdout.readline())["seq"], 6)
        finally:
            run.terminate()
            run.wait()


def stats_are_totals_then_rates():
    def stats(_params):
        stats.n += 1000000
        return {"vms": [{**VM, "stats": {"uptime_ns": 2000000000, "cpu_time_ns": 1000000, "memory_rss": 1048576,
                                         "instructions": stats.n, "age_ms": 3,
                                         "disks": [{"name": "d", "read_bytes": 1024}]}}]}
    stats.n = 0
    with Server({"vm.stats": stats}) as s:
        equal(vmctl(s, "stats")[0],
              "NAME  STATE    UPTIME  CPU    RSS    INSNS  READ   WRITTEN  AGE\n"
              "db1   running  2.00s   1.0ms  1 MiB  1.0M   1 KiB  0 B      3.0ms\n")
        out, _ = vmctl(s, "stats", "db1", "--watch", "--interval", "50ms", "--count", "2")
        equal(len(out.splitlines()), 4)
        has(out.splitlines()[3], "M")
        equal(s.calls[-1][1], {"vm": "db1"})


def engine_counters_are_shown_by_vcpu():
    def counter(name, value):
        return {"name": name, "value": value, "doc": "what " + name + " is"}
    answer = {"engine": "tcg", "counters": [counter("blocks", 7)],
              "vcpus": [{"index": i, "counters": [counter("enter", 10 + i)]} for i in range(2)]}
    with Server({"vm.engine": answer}) as s:
        out, _ = vmctl(s, "stats", "db1", "--engine")
        equal(s.calls[-1], ("vm.engine", {"vm": "db1"}))
        has(out, "instructions     not counted", "blocks                     7  what blocks is", "10            11  what enter is")
        answer["instructions"] = 42
        has(vmctl(s, "stats", "db1", "--engine")[0], "instructions              42  ")
        equal(json.loads(vmctl(s, "--json", "stats", "db1", "--engine")[0]), answer)
        has(vmctl(s, "stats", "--engine", status=2)[1], "--engine needs a VM")


def trace_is_decoded_and_ends_by_itself():
    def record(kind, *values):
        return struct.pack("<QQQQBBHI", 1500000000, 0x80000010, *values[:2], kind, *values[2:])
    data = (record(1, 0x80000010, 3, 0, 0, 7) + record(2, 0xdead, 0, 0, 1, 13) + record(3, 0x80000100, 0, 0, 0, 0) +
            record(4, 0x10000005, 0x60, 1, 0, 0) + record(5, 0x10000000, 0x41, 4, 2, 0))

    def read(_params):
        had, read.left = read.left, b""
        return {"data": base64.b64encode(had).decode(), "records": len(had) // 40, "dropped": 4, "on": True}
    read.left = data
    lines = ("1.500000000 cpu0 0000000080000010 block gpa=80000010 insns=7 mode=3\n"
             "1.500000000 cpu1 0000000080000010 exception cause=13 tval=dead\n"
             "1.500000000 cpu0 0000000080000010 interrupt handler=80000100\n"
             "1.500000000 cpu0 0000000080000010 read8 gpa=10000005 value=60\n"
             "1.500000000 cpu2 0000000080000010 write32 gpa=10000000 value=41\n")
    with Server({"vm.trace_start": {}, "vm.trace_read": read, "vm.trace_stop": {}}) as s:
        out, err = vmctl(s, "trace", "db1", "--for", "100ms", "--blocks", "--mmio", "--from", "0x80000000", "--vcpu", "1")
        equal(out, lines)
        has(err, "4 records were dropped")
        start = s.params_of("vm.trace_start")
        equal({k: v for k, v in start.items() if k != "key"},
              {"vm": "db1", "blocks": True, "mmio": True, "from": "0x80000000", "vcpu": 1})
        equal(s.calls[-1][0], "vm.trace_stop")
        with tempfile.TemporaryDirectory() as folder:
            raw = os.path.join(folder, "raw")
            read.left = data
            vmctl(s, "trace", "db1", "--for", "50ms", "--raw", "--output", raw)
            with open(raw, "rb") as file:
                equal(file.read(), b"VMDTRAC1" + data)
            equal(vmctl(None, "trace", "--decode", raw)[0], lines)
            has(vmctl(None, "trace", "--decode", "/dev/null", status=1)[1], "is no trace")
        for garbled in ("!!!!", "QUJD", "QUJ", "A===", "QQ==QUJD", base64.b64encode(data[:-1]).decode()):
            s.answers["vm.trace_read"] = {"data": garbled, "records": 1, "dropped": 0, "on": True}
            has(vmctl(s, "trace", "db1", "--for", "50ms", status=1)[1], "garbled")
        has(vmctl(s, "trace", "db1", "--for", "x", status=2)[1], "--for")
        has(vmctl(s, "trace", status=2)[1], "which VM")


def coverage_is_written_for_fuzzers():
    def chunk(*addresses):
        return base64.b64encode(struct.pack(f"<{len(addresses)}Q", *addresses)).decode()

    def answer(params):
        if params["after"] == 0:
            return {"edges": base64.b64encode(bytes([0, 3]) * 8).decode(), "blocks": chunk(0x80000000), "next": 77}
        equal(params["after"], 77)
        return {"blocks": chunk(0x80000010, 0x80000020)}
    with Server({"vm.coverage": answer}) as s, tempfile.TemporaryDirectory() as folder:
        edges, blocks = os.path.join(folder, "e"), os.path.join(folder, "b")
        equal(vmctl(s, "coverage", "db1", "--output", edges, "--blocks", blocks)[0],
              "db1: 3 blocks began somewhere, 8 of 16 edge counters are not 0\n")
        with open(edges, "rb") as file:
            equal(file.read(), bytes([0, 3]) * 8)
        with open(blocks, encoding="ascii") as file:
            equal(file.read(), "0x80000000\n0x80000010\n0x80000020\n")


def records_go_through_templates():
    vms = [VM, {**VM, "name": "ä-longer-name", "state": "stopped", "memory": 1073741824, "pid": None}]
    del vms[1]["pid"]
    with Server({"vm.list": {"vms": vms, "cursor": 7}, "vm.get": {**VM, "config": {
            "name": "db1", "memory": 1, "disks": [{"name": "r", "file": "/r"}]}}}) as s:
        equal(vmctl(s, "list", "--format", "{{.name}}\\t{{ upper .state }} {{size .memory}}")[0],
              "db1\tRUNNING 512 MiB\nä-longer-name\tSTOPPED 1 GiB\n")
        equal(vmctl(s, "list", "--format", "table {{.name}}\\t{{.pid}}\\tx{{.cpus}}")[0],
              "NAME           PID   xCPUS\ndb1            4127  x2\nä-longer-name  -     x2\n")
        equal(vmctl(s, "show", "db1", "--format", "{{.config.disks.0.file}} {{json .config.disks}} {{len .config.disks}}")[0],
              '/r [{"name":"r","file":"/r"}] 1\n')
        equal(json.loads(vmctl(s, "show", "db1", "--format", "{{.}}")[0])["name"], "db1")
        equal(json.loads(vmctl(s, "list", "--format", "json")[0]), {"vms": vms, "cursor": 7})
    for args, parts in ((("list", "--format", "{{.nam}}"), ("VmInfo has no member 'nam'; did you mean 'name'?",)),
                        (("list", "--format", "{{.name"), ("'{{' without '}}'",)),
                        (("list", "--format", "{{nope .name}}"), ("ago, json, len",)),
                        (("list", "--format", "{{name}}"), ("a member with its dot",)),
                        (("show", "db1", "--format", "{{.config.disks.file}}"), ("number of a list's element",)),
                        (("list", "--json", "--format", "{{.name}}"), ("exclude each other",)),
                        (("console", "db1", "--format", "{{.name}}"), ("console prints no records",))):
        has(vmctl(None, *args, status=2)[1], *parts)


def raw_calls():
    with Server({"api.ping": lambda p: p, "api.schema": {"hash": "h", "schema": {"x": 1}},
                 "api.openrpc": {"openrpc": {"openrpc": "1.3.2"}}}) as s:
        equal(vmctl(s, "api", "api.ping", '{"echo":[1,"ä"]}')[0], '{"echo":[1,"ä"]}\n')
        equal(vmctl(s, "api", "api.ping", "-", stdin='{"echo":1}')[0], '{"echo":1}\n')
        equal(vmctl(s, "api", "--schema")[0], '{"x":1}\n')
        equal(vmctl(s, "api", "--openrpc")[0], '{"openrpc":"1.3.2"}\n')
    out, _ = vmctl(None, "api", "--quiet")
    has(out, "vm.start\n", "event.unsubscribe\n")
    assert "emu." not in out, out


def daemon_that_is_not_there():
    _, err = vmctl(None, "--dir", "/nonexistent", "list", status=3)
    has(err, "/nonexistent/run/vmd.sock", "start the daemon")
    _, err = vmctl(None, "list", env={"VMCTL_CONNECT": "vmd+unix:///nonexistent/v.sock"}, status=3)
    has(err, "/nonexistent/v.sock")
    _, err = vmctl(None, "--dir", "/nonexistent", "run", status=3)
    has(err, "no daemon listens at /nonexistent/run/vmd.sock", "vmd --dir DIR", "vmctl run --private")


def daemon_that_turns_us_away_or_ends():
    with Server({}) as s:
        refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": 1014, "message": "too many clients"}}
        old, fake.HELLO = fake.HELLO, refusal
        try:
            has(vmctl(s, "list", status=3)[1], "refused the connection: too many clients")
        finally:
            fake.HELLO = old
    with Server({}) as s:
        def vanish(_params):
            s.connections[0].shutdown(2)
        s.answers["vm.list"] = vanish
        has(vmctl(s, "list", status=1)[1], "no answer to vm.list: the connection to vmd ended")
    with Server({}) as s:
        def babble(_params):
            s.connections[0].sendall(b"garbage\n")
        s.answers["vm.list"] = babble
        has(vmctl(s, "list", status=1)[1], "it sent what is no reply")


# --- help, completion, manual --------------------------------------------------------------------


def verbs():
    out, _ = vmctl(None, "help")
    return [line[2:].split("  ")[0] for line in out.splitlines()
            if line.startswith("  ") and line[2].isalpha()]


def every_verb_has_help_with_examples():
    found = verbs()
    equal(len(found) > 20, True)
    for verb in found:
        out, _ = vmctl(None, "help", *verb.split())
        has(out, f"usage: vmctl {verb}", "examples:\n  # ", f"  vmctl {verb}")
        equal(vmctl(None, *verb.split(), "--help")[0], out)
        assert all(len(line) <= 100 for line in out.splitlines()), out
    has(vmctl(None, "--version")[0], "vmctl ")


def complete(words, server=None):
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vmctl; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    env = {**ENV, "PATH": BUILD + ":" + ENV["PATH"]}
    if server:
        env["VMCTL_CONNECT"] = server.path
    done = subprocess.run(["bash", "-c", script, "bash", os.path.join(BUILD, "cli/completion/vmctl"), "vmctl", *words],
                          capture_output=True, text=True, env=env, timeout=60, check=True)
    return done.stdout.split()


def completion_knows_verbs_options_and_live_names():
    has(complete(["st"]), "start", "stop", "stats")
    has(complete(["create", "--mem"]), "--memory")
    has(complete(["create", "--no-"]), "--no-rng")
    equal(complete(["create", "--arch", "riscv6"]), ["riscv64"])
    equal(complete(["list", "--color", "a"]), ["auto", "always"])
    has(complete(["help", "conso"]), "console")
    has(complete(["api", "vm.sh"]), "vm.shutdown")
    has(complete(["create", "--kernel", "/etc/host"]), "/etc/hosts")
    with Server({"vm.list": {"vms": [VM, {**VM, "name": "web"}], "cursor": 0},
                 "job.list": {"jobs": [{"job": 12}]}}) as s:
        equal(complete(["show", ""], s), ["db1", "web"])
        equal(complete(["show", "w"], s), ["web"])
        equal(complete(["cancel", ""], s), ["12"])
        equal(complete(["start", "w"], s), ["web"])
        equal(s.calls[-1][1], {"states": ["stopped"]})
    equal(complete(["show", ""]), [])


def manual_page_names_every_verb():
    with open(os.path.join(BUILD, "cli/vmctl.1"), encoding="utf-8") as f:
        text = f.read().replace("\\-", "-")
    for verb in verbs():
        has(text, f".SS vmctl {verb}")


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        options_become_parameters, odd_values_are_taken, file_is_the_base_and_options_go_on_top, set_and_unset,
        times_and_lists, idempotency_key_goes_with_changes_only, simple_verbs_call_their_methods,
        mistakes_are_explained_without_a_daemon, list_is_a_table, show_is_for_people, nothing_steers_the_terminal,
        errors_have_message_remedy_and_status, several_targets_are_all_tried, create_waits_for_its_job,
        wait_tells_of_a_crash, jobs_job_and_hosts, events_are_listed_and_followed, stats_are_totals_then_rates,
        engine_counters_are_shown_by_vcpu, trace_is_decoded_and_ends_by_itself, coverage_is_written_for_fuzzers,
        records_go_through_templates, raw_calls, daemon_that_is_not_there, daemon_that_turns_us_away_or_ends, every_verb_has_help_with_examples,
        completion_knows_verbs_options_and_live_names, manual_page_names_every_verb]))
