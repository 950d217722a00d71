# SPDX-License-Identifier: Apache-2.0
"""Documents from the schema: docs/reference/api.md and docs/reference/openrpc.json."""
import json

from model import INT_MAX, INT_MIN, ROLES

ROLE_DOC = {"viewer": "looks", "operator": "runs and changes VMs", "owner": "also deletes and renames",
            "admin": "also ends the daemon"}


SCOPE_DOC = {"host": "on the host", "any": "in any project", "vm": "in the VM's project",
             "config": "in the definition's project", "job": "in the project of the job's VM",
             "project": "in that project"}


def type_md(m):
    text = m.spelled()
    if m.type:
        text = f"[`{text}`](#{m.base.lower()})"
    else:
        text = f"`{text}`"
    limits = []
    if m.is_int and (m.min not in (INT_MIN, 0) or m.max != INT_MAX):
        limits.append(f"{m.min} to {m.max}" if m.max != INT_MAX else f"at least {m.min}")
    if m.multiple:
        limits.append(f"multiple of {m.multiple}")
    if m.words:
        limits.append(" or ".join(f"`{w}`" for w in m.words))
    if m.unit:
        limits.append(m.unit)
    return text + (f" ({', '.join(limits)})" if limits else "")


def members_md(members):
    out = "| member | type | | meaning |\n|---|---|---|---|\n"
    for m in members:
        need = "required" if m.required else f"default `{json.dumps(m.default)}`" if m.has_default else ""
        out += f"| `{m.name}` | {type_md(m)} | {need} | {m.doc} |\n"
    return out


def side_md(title, t):
    if not t.members:
        return f"{title}: an empty object.\n"
    if t.family:
        return f"{title}: [`{t.name}`](#{t.name.lower()}).\n"
    return f"{title}:\n\n" + members_md(t.members)


def method_md(m):
    out = f"\n### {m.name}\n\n{m.doc}\n\nRole {m.role} {SCOPE_DOC[m.scope]}"
    out += ", takes an idempotency key" if m.mutating else ""
    out += ", answers with a job" if m.job else ""
    out += f". Since {m.since}.\n\n" + side_md("Parameters", m.in_type) + "\n" + side_md("Result", m.out_type)
    if m.errors:
        out += "\nErrors: " + ", ".join(f"`{e}`" for e in m.errors) + ".\n"
    return out


def api_md(schema):
    out = "# The API of vmd\n\nWritten by `api-schema/gen` from `api-schema/schema`: do not edit.\n\n"
    out += ("JSON-RPC 2.0 over a unix socket, one JSON value a line (at most 1 MiB, 32 levels deep, strict UTF-8, no\n"
            "member twice). The first line from the server is the notification `hello` with the hash of this schema.\n"
            "Parameters go by name. A batch has at most 256 requests. A client with 256 calls unanswered is not read until\n"
            "some are answered; one that does not read its replies or events is cut off.\n\n"
            "Every call that changes something takes `idempotency_key` (a string of 1 to 128 bytes): a repetition with the\n"
            "same key and the same parameters is answered with the first answer and changes nothing.\n\n"
            "Every call takes `deadline_ms` (1 to 86400000): when it has not been answered by then, the caller gets the error\n"
            "`timeout`. What was begun goes on: a change is made, audited and told in events as if the caller had waited, and\n"
            "with an idempotency key the same call again gives its outcome.\n\n"
            "A batch is an array of 1 to 256 requests; the replies come in one array, in the order of the requests, when the\n"
            "last is there; notifications have none.\n\n"
            "An error is `{\"code\", \"message\", \"data\": {\"error\", \"object\", \"remedy\"}}`.\n\n")
    out += "## Roles\n\n| role | may |\n|---|---|\n" + "".join(f"| {r} | {ROLE_DOC[r]} |\n" for r in ROLES)
    out += ("\nA role is held in a project, or on the host, that is in every project. A method asks for its role where the\n"
            "table below says; one that names no object asks for it on the host.\n\n## Who may call what\n\n"
            "| method | role | where |\n|---|---|---|\n")
    for m in schema.methods.values():
        if not m.internal:
            out += f"| `{m.name}` | {m.role} | {SCOPE_DOC[m.scope]} |\n"
    out += "\n## Errors\n\n| error | code | meaning |\n|---|---|---|\n"
    for name, e in schema.errors.items():
        out += f"| `{name}` | {e['code']} | {e['doc']} |\n"
    for family, data in schema.families:
        if data.get("internal") or not (data.get("methods") or data.get("notifications")):
            continue
        out += f"\n## {family}\n\n{data['doc']}\n"
        for n_family, name, raw, kind in schema.notes:
            if n_family == family:
                out += f"\n### notification {name}\n\n{raw['doc']}\n\n" + members_md(kind.members)
        for m in schema.methods.values():
            if m.family == family:
                out += method_md(m)
    out += "\n## Types\n"
    for t in sorted(schema.types.values(), key=lambda t: t.name):
        if not t.family or dict(schema.families)[t.family].get("internal"):
            continue
        out += f"\n### {t.name}\n\n{t.doc}\n\n"
        if t.kind == "enum":
            out += "| value | meaning |\n|---|---|\n" + "".join(f"| `{v}` | {d} |\n" for v, d in t.values.items())
        else:
            out += members_md(t.members)
    return out


# --- OpenRPC -----------------------------------------------------------------------------------


def member_schema(m):
    """JSON Schema of a member."""
    if m.base == "bool":
        s = {"type": "boolean"}
    elif m.is_int:
        s = {"type": "integer"}
        if m.min != INT_MIN:
            s["minimum"] = m.min
        if m.max != INT_MAX:
            s["maximum"] = m.max
        if m.multiple:
            s["multipleOf"] = m.multiple
    elif m.is_string:
        s = {"type": "string", "maxLength": m.max}
    elif m.base == "any":
        s = {}
    elif m.base == "object":
        s = {"type": "object"}
    else:
        s = {"$ref": f"#/components/schemas/{m.base}"}
    if m.is_list:
        s = {"type": "array", "items": s, "maxItems": m.max_items}
    if "$ref" not in s:
        s["description"] = m.doc
        if m.has_default:
            s["default"] = m.default
    return s


def type_schema(t):
    if t.kind == "enum":
        return {"description": t.doc, "type": "string", "enum": list(t.values)}
    out = {"description": t.doc, "type": "object", "additionalProperties": False,
           "properties": {m.name: member_schema(m) for m in t.members}}
    required = [m.name for m in t.members if m.required]
    if required:
        out["required"] = required
    return out


def openrpc(schema):
    methods = []
    key = {"name": "idempotency_key", "required": False, "summary": "Makes a repetition harmless.",
           "schema": {"type": "string", "minLength": 1, "maxLength": 128}}
    deadline = {"name": "deadline_ms", "required": False, "summary": "Gives up waiting after this time; what was begun goes on.",
                "schema": {"type": "integer", "minimum": 1, "maximum": 86400000}}
    for m in schema.methods.values():
        if m.internal:
            continue
        params = [{"name": x.name, "summary": x.doc, "required": x.required, "schema": member_schema(x)}
                  for x in m.in_type.members] + [deadline] + ([key] if m.mutating else [])
        result = ({"$ref": f"#/components/schemas/{m.out_type.name}"} if m.out_type.family
                  else type_schema(m.out_type))
        methods.append({
            "name": m.name, "summary": m.doc, "paramStructure": "by-name", "params": params,
            "result": {"name": "result", "schema": result}, "x-role": m.role, "x-scope": m.scope, "x-since": m.since,
            "x-job": m.job, "tags": [{"name": m.family}],
            "errors": [{"code": schema.errors[e]["code"], "message": schema.errors[e]["doc"]} for e in m.errors],
        })
    internal = {f for f, d in schema.families if d.get("internal")}
    types = {t.name: type_schema(t) for t in schema.types.values() if t.family and t.family not in internal}
    doc = {"openrpc": "1.3.2", "info": {"title": "vmd", "version": "0.1", "license": {"name": "Apache-2.0"}},
           "methods": methods, "components": {"schemas": types}}
    return json.dumps(doc, indent=1, ensure_ascii=False) + "\n"
