#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input to QMP and JSON-RPC: each line of the corpus with the exact error it must get, and a connection that works on
afterwards."""

import json
import pathlib
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from qmp_commands import Vm  # noqa: E402

BAD_JSON = "JSON parse error, not acceptable JSON at byte "


def parse_errors():
    """Text and the beginning of what is said; each is one piece of the stream."""
    yield "}", BAD_JSON
    yield "]", BAD_JSON
    yield ",", BAD_JSON
    yield ":", BAD_JSON
    for word in ("x", "nul", "tru", "falsee", "NaN", "Infinity", "-", "+1", "01", "1.", ".5", "1e", "0x10", "'a'", "-Infinity",
                 "undefined", "1_000", "\x01", "\x7f", "\\", "//", "#", "<xml/>", "GET"):
        yield word + "\n", BAD_JSON
    for inside in ('{"execute"}', '{"execute":}', '{"execute":"stop",}', '{,}', '{"a" 1}', "{'execute':'stop'}",
                   '{"execute":"stop" "id":1}', '{"id":01}', '{"id":1.}', '{"id":.5}', '{"id":1e}', '{"id":NaN}', '{"id":+1}',
                   '{"id":nul}', '{"id":True}', '{"id":"\\x41"}', '{"id":"\\u12"}', '{"id":"\\ud800"}', '{"id":"\\u0000"}',
                   '{"id":1,"id":2}', '{"execute":"stop"]', '[1,]', '[,1]', '[1 2]', '{1:2}', '{null:1}', '{"a":1 /* c */}',
                   '{"id":"\udc80"}', '{"id":"\udcc0\udc80"}', '{"id":1e999}', '{"id":99999999999999999999999}',
                   '{"a":{"b":{"c":}}}', '{"":}', '{"id":--1}', '{"id":1..2}', '{]'):
        yield inside, BAD_JSON
    yield '{"id":"a\t', BAD_JSON  # the control character ends the piece
    yield "[" * 33 + "]" * 33, "JSON parse error, JSON nested deeper than 32 at byte 32"
    yield '{"a":' * 40 + "1" + "}" * 40, "JSON parse error, JSON nested deeper than 32 at byte 160"


def form_errors():
    for value in ("[]", "1", "null", "true", '"x"', "-0.5", "[1,2]", '[{"execute":"stop"}]'):
        yield value, "QMP input must be a JSON object"
    for value in ("5", "null", "true", "[]", "{}", "1.5"):
        yield f'{{"execute":{value}}}', "QMP input member 'execute' must be a string"
    for value in ("5", "null", "true", "[]", '"x"', "1.5", "[{}]"):
        yield f'{{"execute":"stop","arguments":{value}}}', "QMP input member 'arguments' must be an object"
    for name in ("foo", "control", "Execute", "args", "", "exec-oob ", "jsonrpc", "method"):
        yield json.dumps({"execute": "query-name", name: 1}), f"QMP input member '{name}' is unexpected"
    for text in ("{}", '{"id":1}', '{"arguments":{}}', '{"id":null,"arguments":{}}'):
        yield text, "QMP input lacks member 'execute'"
    yield '{"exec-oob":"query-yank"}', "QMP input member 'exec-oob' is unexpected"
    yield '{"jsonrpc":"2.0","id":1,"method":"api.ping"}', "QMP input member 'jsonrpc' is unexpected"


def name_errors():
    for name in ("", "nope", "Stop", "stop ", "vm.pause", "query_status", "vmd-select", "migrate-incoming", "blockdev-create", "snapshot-create",
                 "\u00e4", "qmp_capabilities ", "a" * 90, "../stop", "%s%n"):
        yield json.dumps({"execute": name}), f"The command {name} has not been found"


MISSING = [("qom-list", {}, "path"), ("qom-get", {"path": "/"}, "property"), ("qom-get", {"property": "x"}, "path"),
           ("qom-set", {"path": "/", "property": "x"}, "value"), ("getfd", {}, "fdname"), ("closefd", {}, "fdname"),
           ("balloon", {}, "value"), ("job-cancel", {}, "id"), ("set_link", {"name": "x"}, "up"), ("device_del", {}, "id"),
           ("screendump", {}, "filename"), ("human-monitor-command", {}, "command-line"), ("query-stats", {}, "target"),
           ("transaction", {}, "actions"), ("device-list-properties", {}, "typename"), ("block-job-cancel", {}, "device"),
           ("transaction", {"actions": [{}]}, "actions[0].type"),
           ("transaction", {"actions": [{"type": "abort"}]}, "actions[0].data")]
TYPES = [("qom-list", {"path": 1}, "path", "string"), ("qom-list", {"path": None}, "path", "string"),
         ("qom-list", {"path": {}}, "path", "string"), ("qom-list", {"path": True}, "path", "string"),
         ("balloon", {"value": "1"}, "value", "integer"), ("balloon", {"value": 1.5}, "value", "integer"),
         ("balloon", {"value": None}, "value", "integer"), ("set_link", {"name": "x", "up": 1}, "up", "boolean"),
         ("set_link", {"name": "x", "up": "on"}, "up", "boolean"), ("transaction", {"actions": {}}, "actions", "array"),
         ("transaction", {"actions": [1]}, "actions[0]", "object"), ("transaction", {"actions": [[]]}, "actions[0]", "object"),
         ("transaction", {"actions": [{"type": 1, "data": {}}]}, "actions[0].type", "string"),
         ("query-stats", {"target": 1}, "target", "string"), ("query-stats", {"target": "vm", "vcpus": "x"}, "vcpus", "array"),
         ("query-stats", {"target": "vm", "vcpus": [1]}, "vcpus[0]", "string"),
         ("query-stats", {"target": "vm", "providers": [1]}, "providers[0]", "object"),
         ("query-blockstats", {"query-nodes": 1}, "query-nodes", "boolean"),
         ("human-monitor-command", {"command-line": ["info"]}, "command-line", "string"),
         ("human-monitor-command", {"command-line": "x", "cpu-index": "0"}, "cpu-index", "integer"),
         ("set-action", {"reboot": 1}, "reboot", "string"), ("getfd", {"fdname": 3}, "fdname", "string")]
VALUES = [("set-action", {"reboot": "nope"}, "reboot", "nope"), ("set-action", {"panic": ""}, "panic", ""),
          ("set-action", {"watchdog": "RESET"}, "watchdog", "RESET"), ("set-action", {"shutdown": "off"}, "shutdown", "off"),
          ("query-stats", {"target": "nope"}, "target", "nope"),
          ("query-stats", {"target": "vm", "providers": [{"provider": "kvm"}]}, "providers[0].provider", "kvm"),
          ("query-stats-schemas", {"provider": "kvm"}, "provider", "kvm"),
          ("screendump", {"filename": "x", "format": "gif"}, "format", "gif"),
          ("transaction", {"actions": [{"type": "nope", "data": {}}]}, "actions[0].type", "nope")]
MORE = [("stop", {"a": 1}, "a"), ("cont", {"": 1}, ""), ("quit", {"force": True}, "force"), ("query-status", {"vm": "a"}, "vm"),
        ("qom-list", {"path": "/", "Path": "/"}, "Path"), ("system_reset", {"idempotency_key": "x"}, "idempotency_key"),
        ("query-block", {"deadline_ms": 1}, "deadline_ms"),
        ("transaction", {"actions": [{"type": "abort", "data": {}, "x": 1}]}, "actions[0].x")]
ELSE = [("human-monitor-command", {"command-line": "info status", "cpu-index": 2},
         "Parameter 'cpu-index' expects a CPU number"),
        ("human-monitor-command", {"command-line": "info status", "cpu-index": -1},
         "Parameter 'cpu-index' expects a CPU number"),
        ("set-action", {"reboot": "reset", "panic": "exit-failure"}, "Action 'exit-failure' of 'panic' is not supported"),
        ("set-action", {"watchdog": "poweroff"}, "the VM has no watchdog"),
        ("set-action", {"watchdog": "inject-nmi"}, "Action 'inject-nmi' of 'watchdog' is not supported"),
        ("transaction", {"actions": [{"type": "abort", "data": {}}]}, "Transaction aborted using Abort action")]


def argument_errors():
    for command, args, name in MISSING:
        yield command, args, f"Parameter '{name}' is missing"
    for command, args, name, kind in TYPES:
        yield command, args, f"Invalid parameter type for '{name}', expected: {kind}"
    for command, args, name, value in VALUES:
        yield command, args, f"Parameter '{name}' does not accept value '{value}'"
    for command, args, name in MORE:
        yield command, args, f"Parameter '{name}' is unexpected"
    yield from ELSE


def qmp_corpus_gets_the_exact_errors():
    count = 0
    with Vm() as v, v.qmp() as q:
        def check(text, want, kind="GenericError", whole=True):
            nonlocal count
            error = q.ask(text).get("error")
            assert error and error["class"] == kind, f"{text!r}: {error}"
            assert error["desc"] == want if whole else error["desc"].startswith(want), f"{text!r}: {error}"
            count += 1

        for text, want in parse_errors():
            check(text, want, whole=False)
        for text, want in form_errors():
            check(text + "\n", want)
        for text, want in name_errors():
            if q.bound or "vmd-select" not in text:
                check(text, want, "CommandNotFound")
        for command, args, want in argument_errors():
            check(json.dumps({"execute": command, "arguments": args}), want)
        assert q.execute("query-status")["running"]
    print(f"# {count} inputs")
    assert count >= 150, count


@tap.local("a VM's own socket before the negotiation, and out-of-band execution")
def early_commands_are_refused():
    with Vm() as v, v.qmp(ready=False) as q:
        for name in ("query-status", "stop", "quit", "nope", "query-qmp-schema", "vmd-select"):
            error = q.ask(json.dumps({"execute": name, "id": name}))
            assert error["error"] == {"class": "CommandNotFound",
                                      "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}, error
            assert error["id"] == name
        for enable, want in ((["nope"], "Parameter 'enable[0]' does not accept value 'nope'"),
                             ("oob", "Invalid parameter type for 'enable', expected: array"),
                             ([1], "Invalid parameter type for 'enable[0]', expected: string")):
            error = q.ask(json.dumps({"execute": "qmp_capabilities", "arguments": {"enable": enable}}))["error"]
            assert error == {"class": "GenericError", "desc": want}, error
        q.execute("qmp_capabilities", enable=["oob"])
        for text, want in (('{"exec-oob":"stop"}', "The command stop does not support OOB"),
                           ('{"exec-oob":5}', "QMP input member 'exec-oob' must be a string"),
                           ('{"execute":"stop","exec-oob":"stop"}', "QMP input member 'execute' clashes with 'exec-oob'"),
                           ('{"exec-oob":"query-yank","arguments":{"x":1}}', "Parameter 'x' is unexpected")):
            error = q.ask(text)["error"]
            assert error == {"class": "GenericError", "desc": want}, error
        assert q.ask('{"exec-oob":"nope"}')["error"]["class"] == "CommandNotFound"
        assert v.d.call("vm.get", vm="a")["state"] == "running"


def value_that_is_too_long_ends_the_connection():
    with Vm() as v, v.qmp() as q:
        q.send('{"execute":"query-name","id":"' + "x" * (1 << 20))
        try:
            error = q.answer()["error"]
            assert "exceeds 1048576 bytes" in error["desc"], error
            q.read()
            raise AssertionError("it goes on")
        except (EOFError, ConnectionError):
            pass
        assert v.qmp().execute("query-name") == {"name": "a"}


def flood_of_commands_is_answered_in_order():
    with Vm() as v, v.qmp() as q, v.qmp() as other:
        for i in range(0, 2000, 100):
            q.send("".join(f'{{"execute":"query-name","id":{n}}}' for n in range(i, i + 100)))
        assert other.execute("query-name") == {"name": "a"}
        for i in range(2000):
            assert q.answer()["id"] == i


if __name__ == "__main__":
    sys.exit(tap.run_cases([qmp_corpus_gets_the_exact_errors, early_commands_are_refused,
                            value_that_is_too_long_ends_the_connection, flood_of_commands_is_answered_in_order]))
