# SPDX-License-Identifier: Apache-2.0
"""The QMP dialect from api-schema/qmp/qmp.json: C tables, introspection, the reference page."""
import json
import pathlib
import re

from emit_c import HEAD, cstr, text_c
from model import ROLES, SchemaError

BUILTINS = {"str": "string", "int": "int", "number": "number", "bool": "boolean", "any": "value", "null": "null"}
KINDS = {"str": "QMP_STR", "int": "QMP_INT", "number": "QMP_NUMBER", "bool": "QMP_BOOL", "any": "QMP_ANY"}
COMMAND_KEYS = {"doc", "args", "returns", "oob", "role", "session"}


def ident(name):
    return re.sub(r"[^A-Za-z0-9]", "_", name).lower()


class Qmp:
    """The table, checked."""

    def __init__(self, path):
        raw = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        self.version, self.types = raw["version"], raw["types"]
        self.commands, self.events, self.missing = raw["commands"], raw["events"], raw["missing"]
        for name, c in self.commands.items():
            if set(c) - COMMAND_KEYS or not c.get("doc"):
                raise SchemaError(f"qmp: {name}: unknown key or no doc")
            if self.role(name) not in ROLES:
                raise SchemaError(f"qmp: {name}: says no role: one of {', '.join(ROLES)}")
            self.members(name, c.get("args", {}))
            if c.get("returns"):
                self.known(name, c["returns"])
        for name, e in self.events.items():
            self.members(name, e.get("data", {}))
        for name, t in self.types.items():
            self.members(name, t.get("members", {}))
        there = set(self.commands) | set(self.events)
        for what in self.missing.values():
            both = there & {*what["commands"], *what["events"]}
            if both:
                raise SchemaError(f"qmp: {sorted(both)} stand among what is missing, too")

    def role(self, name):
        """Role that the command needs in the VM's project. What only asks is called query-; the rest says it."""
        return self.commands[name].get("role", "viewer" if name.startswith("query-") else None)

    def known(self, where, spelled):
        base = spelled.strip("[]")
        if base not in self.types and base not in BUILTINS:
            raise SchemaError(f"qmp: {where}: unknown type {base!r}")

    def members(self, where, members):
        for name, spelled in members.items():
            self.known(f"{where}.{name}", spelled)


# --- introspection -----------------------------------------------------------------------------


class Introspection:
    """What query-qmp-schema returns. Types are named by number, as their names are nobody's business."""

    def __init__(self, qmp):
        self.qmp, self.number, self.out = qmp, {}, []
        for name, c in sorted(qmp.commands.items()):
            entry = {"name": name, "meta-type": "command", "arg-type": self.object(c.get("args", {})),
                     "ret-type": self.ref(c["returns"]) if c.get("returns") else self.object({})}
            if c.get("oob"):
                entry["allow-oob"] = True
            self.out.append(entry)
        for name, e in sorted(qmp.events.items()):
            self.out.append({"name": name, "meta-type": "event", "arg-type": self.object(e.get("data", {}))})

    def take(self, key):
        """Number of a type, and whether it is new."""
        new = key not in self.number
        if new:
            self.number[key] = str(len(self.number))
        return self.number[key], new

    def object(self, members):
        name, new = self.take("object " + json.dumps(members))
        if new:
            at = len(self.out)
            self.out.append(None)
            listed = []
            for member, spelled in members.items():
                one = {"name": member.lstrip("*"), "type": self.ref(spelled)}
                if member.startswith("*"):
                    one["default"] = None
                listed.append(one)
            self.out[at] = {"name": name, "meta-type": "object", "members": listed}
        return name

    def ref(self, spelled):
        if spelled.startswith("["):
            inner = self.ref(spelled.strip("[]"))
            name = f"[{inner}]"
            if self.take("array " + name)[1]:
                self.out.append({"name": name, "meta-type": "array", "element-type": inner})
            return name
        if spelled in BUILTINS:
            if self.take("builtin " + spelled)[1]:
                self.out.append({"name": spelled, "meta-type": "builtin", "json-type": BUILTINS[spelled]})
            return spelled
        t = self.qmp.types[spelled]
        if "enum" in t:
            name, new = self.take("enum " + spelled)
            if new:
                self.out.append({"name": name, "meta-type": "enum", "members": [{"name": v} for v in t["enum"]],
                                 "values": t["enum"]})
            return name
        return self.object(t["members"])


# --- C -----------------------------------------------------------------------------------------


def member_c(qmp, name, spelled):
    base = spelled.strip("[]")
    out = f"    {{ .name = {cstr(name.lstrip('*'))}, "
    if base in KINDS:
        out += f".kind = {KINDS[base]}"
    else:
        kind = "QMP_ENUM" if "enum" in qmp.types[base] else "QMP_OBJECT"
        out += f".kind = {kind}, .type = &type_{ident(base)}"
    if name.startswith("*"):
        out += ", .optional = true"
    if spelled.startswith("["):
        out += ", .list = true"
    return out + " },\n"


def type_c(qmp, symbol, name, members):
    out = ""
    if members:
        rows = "".join(member_c(qmp, n, s) for n, s in members.items())
        out = f"static const struct qmp_member members_{symbol}[] = {{\n{rows}}};\n"
    listed = f"members_{symbol}" if members else "NULL"
    return out + (f"static const struct qmp_type type_{symbol} = {{ .name = {cstr(name)}, .members = {listed}, "
                  f".n_members = {len(members)} }};\n")


def used_types(qmp):
    """Types of arguments, those that others need first."""
    order = []

    def visit(spelled):
        base = spelled.strip("[]")
        if base in BUILTINS or base in order:
            return
        for inner in qmp.types[base].get("members", {}).values():
            visit(inner)
        order.append(base)

    for c in qmp.commands.values():
        for spelled in c.get("args", {}).values():
            visit(spelled)
    return order


def table_c(qmp):
    out = HEAD.format("Commands of the QMP dialect.") + '#include "api-schema/qmp/qmp.h"\n\n#include <stddef.h>\n\n'
    for name in used_types(qmp):
        t = qmp.types[name]
        if "enum" in t:
            values = ", ".join(cstr(v) for v in t["enum"])
            out += (f"static const char *const values_{ident(name)}[] = {{ {values}, NULL }};\n"
                    f"static const struct qmp_type type_{ident(name)} = {{ .name = {cstr(name)}, "
                    f".values = values_{ident(name)} }};\n")
        else:
            out += type_c(qmp, ident(name), name, t["members"])
    rows = ""
    for name, c in sorted(qmp.commands.items()):
        out += type_c(qmp, "args_" + ident(name), name, c.get("args", {}))
        fn = "NULL" if c.get("session") else f"qmp_do_{ident(name)}"
        flags = ", .session = true" if c.get("session") else ""
        flags += ", .oob = true" if c.get("oob") else ""
        rows += f"    {{ .name = {cstr(name)}, .args = &type_args_{ident(name)}, .run = {fn},\n      .role = API_ROLE_{qmp.role(name).upper()}{flags} }},\n"
    out += f"\nconst struct qmp_command qmp_commands[QMP_N_COMMANDS] = {{\n{rows}}};\n"
    return out


def text_file(qmp):
    out = HEAD.format("What QMP says of itself.") + '#include "api-schema/qmp/qmp.h"\n\n'
    v = qmp.version
    out += f"const int qmp_version[3] = {{ {v['major']}, {v['minor']}, {v['micro']} }};\n"
    return out + text_c("qmp_schema_json", Introspection(qmp).out)


def table_h(qmp):
    out = HEAD.format("Commands of the QMP dialect.")
    out += "#ifndef VMD_API_GEN_QMP_TABLE_H\n#define VMD_API_GEN_QMP_TABLE_H\n\n"
    out += f"enum {{ QMP_N_COMMANDS = {len(qmp.commands)} }};\n\nstruct qmp_cmd;\n"
    out += "/* Each answers its command once (daemon/qmp). */\n"
    for name, c in sorted(qmp.commands.items()):
        if not c.get("session"):
            out += f"void qmp_do_{ident(name)}(struct qmp_cmd *c);\n"
    runs = [f"    X(qmp_do_{ident(n)})" for n, c in sorted(qmp.commands.items()) if not c.get("session")]
    out += "/* All of these, for stand-ins of them. */\n#define QMP_EACH_RUN(X) \\\n" + " \\\n".join(runs) + "\n"
    return out + "\n#endif\n"


def files(qmp):
    return {"qmp_table.h": table_h(qmp), "qmp_table.c": table_c(qmp), "qmp_text.c": text_file(qmp)}


# --- the reference -----------------------------------------------------------------------------


def spell(members):
    return ", ".join(f"`{n.lstrip('*')}`{' (optional)' if n[0] == '*' else ''}: {s}" for n, s in members.items()) or "none"


def reference(qmp):
    out = ("# QMP\n\n<!-- Written by api-schema/gen/apigen.py from api-schema/qmp/qmp.json: do not edit. -->\n\n"
           "Each running VM has a QMP socket, `qmp` of its `VmInfo` (`vmctl show VM --json`), and `vmd.sock` itself speaks QMP\n"
           "with a client that answers its greeting with `{\"execute\":\"qmp_capabilities\"}`. Shapes, names and error classes\n"
           f"are those of QEMU {qmp.version['major']}.{qmp.version['minor']}. "
           "How to use it: [scripting](../guide/scripting.md).\n\n"
           "## Bounds\n\n"
           "A command is at most 1 MiB of JSON, 32 levels deep, strict (RFC 8259: no single quotes, no comments), and must be\n"
           "whole 30 seconds after it was begun. Eight commands of a connection may wait; then it is not read until one is\n"
           "answered. A client that does not read its answers is cut off. A VM's socket takes 16 clients. Events are those of\n"
           "the journal, in its order; resets are told at most ten times a second.\n\n"
           "A command that asks the emulator and gets no answer within 5 seconds fails with GenericError; nobody else waits\n"
           "for it.\n\n## Commands\n\nThe role is the one needed in the VM's project; on a VM's own socket everybody who may open it has it.\n\n"
           "| command | role | arguments | returns | what it does |\n|---|---|---|---|---|\n")
    for name, c in sorted(qmp.commands.items()):
        out += f"| `{name}` | {qmp.role(name)} | {spell(c.get('args', {}))} | {c.get('returns', 'nothing')} | {c['doc']} |\n"
    out += "\n## Events\n\n| event | data | when |\n|---|---|---|\n"
    for name, e in sorted(qmp.events.items()):
        out += f"| `{name}` | {spell(e.get('data', {}))} | {e['doc']} |\n"
    out += ("\n## What is missing\n\nThese commands answer with CommandNotFound, and `query-commands` and `query-qmp-schema` do not\n"
            "list them, so that a client that looks first knows. Their events are never sent.\n\n"
            "| comes with | commands | events |\n|---|---|---|\n")
    for what, names in qmp.missing.items():
        commands = ", ".join(f"`{n}`" for n in names["commands"])
        events = ", ".join(f"`{n}`" for n in names["events"])
        out += f"| {what} | {commands} | {events} |\n"
    out += "\n## Types\n\n| type | members or values |\n|---|---|\n"
    for name, t in sorted(qmp.types.items()):
        what = ", ".join(f"`{v}`" for v in t["enum"]) if "enum" in t else spell(t["members"])
        out += f"| {name} | {what} |\n"
    return out
