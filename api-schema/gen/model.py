# SPDX-License-Identifier: Apache-2.0
"""The schema in memory: loads api-schema/schema/*.json, checks it, resolves types.

Owns nothing but data; the emit_* modules read it.
"""
import hashlib
import json
import pathlib
import re

ROLES = ["viewer", "operator", "owner", "admin"]
# Where a role must be held: on the whole host, in any project, in that of the VM, definition, job or
# project that the parameters name.
SCOPES = ["host", "any", "vm", "config", "job", "project"]
# Name in the schema: (codec kind, check, maximum length)
STRINGS = {
    "string": ("API_TEXT", 65536),
    "name": ("API_NAME", 63),
    "uuid": ("API_UUID", 36),
    "path": ("API_PATH", 4095),
    "image": ("API_IMAGE", 4095),
    "vmref": ("API_VMREF", 63),
}
SCALARS = {"bool", "int", "size", "any", "object", *STRINGS}
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
MEMBER_KEYS = {
    "type", "doc", "required", "default", "min", "max", "multiple", "unit", "words", "max_items",
    "bare", "contents", "cli",
}
METHOD_KEYS = {"since", "role", "scope", "mutating", "job", "doc", "in", "out", "errors", "cli"}
CLI_KEYS = {
    "verb", "group", "summary", "args", "spread", "unset", "file", "rows", "columns", "quiet",
    "done", "examples", "aliases", "options", "doc", "handler", "line", "local", "hide", "method", "methods",
}


class SchemaError(Exception):
    """A mistake in the schema files, with the place."""


def snake(name):
    """VmConfig, vm.start, shutdown-daemon: to vm_config, vm_start, shutdown_daemon."""
    name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name)
    return re.sub(r"[^A-Za-z0-9]", "_", name).lower()


class Member:
    """One member of a struct type."""

    def __init__(self, where, name, raw):
        self.where, self.name, self.raw = where, name, raw
        unknown = set(raw) - MEMBER_KEYS
        if unknown:
            raise SchemaError(f"{where}.{name}: unknown key {sorted(unknown)}")
        if not raw.get("doc"):
            raise SchemaError(f"{where}.{name}: no doc")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise SchemaError(f"{where}.{name}: not a member name")
        spelled = raw["type"]
        self.is_list = spelled.startswith("[")
        self.base = spelled.strip("[]")
        self.doc, self.unit = raw["doc"], raw.get("unit")
        self.required = raw.get("required", False)
        self.has_default = "default" in raw
        self.default = raw.get("default")
        self.words = raw.get("words", [])
        self.bare = raw.get("bare", False)
        self.contents = raw.get("contents", False)
        self.cli = raw.get("cli", {})
        self.multiple = raw.get("multiple", 0)
        self.max_items = raw.get("max_items", 256)
        self.min = raw.get("min", 0 if self.base == "size" else INT_MIN)
        self.max = raw.get("max", INT_MAX)
        if self.base in STRINGS:
            self.max = raw.get("max", STRINGS[self.base][1])
        if self.required and self.has_default:
            raise SchemaError(f"{where}.{name}: required and default exclude each other")
        self.type = None  # set by Schema.resolve for named types

    @property
    def is_int(self):
        return self.base in ("int", "size")

    @property
    def is_string(self):
        return self.base in STRINGS

    @property
    def has_flag(self):
        """C needs a has_ flag to tell absence."""
        scalar = self.base == "bool" or self.is_int or (self.type and self.type.kind == "enum")
        return bool(scalar and not self.is_list and not self.required and not self.has_default)

    def spelled(self):
        return f"[{self.base}]" if self.is_list else self.base


class Type:
    """A named type: struct, enum or patch."""

    def __init__(self, name, raw, family):
        self.name, self.raw, self.family = name, raw, family
        self.doc = raw.get("doc", "")
        if not self.doc:
            raise SchemaError(f"type {name}: no doc")
        self.members, self.values, self.patch_of = [], {}, None
        self.c = "api_" + snake(name)
        if "enum" in raw:
            self.kind, self.values = "enum", raw["enum"]
        elif "patch_of" in raw:
            self.kind, self.patch_of = "patch", raw["patch_of"]
        else:
            self.kind = "struct"
            self.members = [Member(name, n, m) for n, m in raw["members"].items()]


class Method:
    """One method of the API."""

    def __init__(self, name, raw, family, internal):
        self.name, self.raw, self.family, self.internal = name, raw, family, internal
        missing = {"since", "role", "doc", "in", "out", "errors"} - set(raw)
        unknown = set(raw) - METHOD_KEYS
        if missing or unknown:
            raise SchemaError(f"{name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
        if raw["role"] not in ROLES:
            raise SchemaError(f"{name}: no such role {raw['role']!r}")
        if not name.startswith(family + "."):
            raise SchemaError(f"{name}: not of family {family}")
        self.c = "api_" + snake(name)
        self.doc, self.role, self.since = raw["doc"], raw["role"], raw["since"]
        self.mutating, self.job = raw.get("mutating", False), raw.get("job", False)
        self.errors, self.cli = raw["errors"], raw.get("cli")
        if self.cli and set(self.cli) - CLI_KEYS:
            raise SchemaError(f"{name}: unknown cli key {sorted(set(self.cli) - CLI_KEYS)}")
        self.in_type = self.out_type = None
        if raw.get("scope", "any") not in SCOPES:
            raise SchemaError(f"{name}: no such scope {raw['scope']!r}")

    @property
    def scope(self):
        """Where the caller needs the role: said, or told from what the parameters name. Nothing
        said and nothing named means the whole host, so that a new method is closed by default."""
        named = {m.name: m for m in self.in_type.members}
        if "scope" in self.raw:
            return self.raw["scope"]
        if "vm" in named and named["vm"].required:
            return "vm"
        if "config" in named and named["config"].base == "VmConfig":
            return "config"
        if "job" in named and named["job"].required:
            return "job"
        return "host"


class Schema:
    """All families."""

    def __init__(self, folder):
        self.types, self.methods, self.errors = {}, {}, {}
        self.notifications, self.families, self.verbs = [], [], []
        raw = {}
        for path in sorted(pathlib.Path(folder).glob("*.json")):
            try:
                raw[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as why:
                raise SchemaError(f"{path}: {why}") from why
        self.raw = raw
        for family, data in raw.items():
            self._load(family, data)
        self._resolve()
        self.public = {k: v for k, v in raw.items() if not v.get("internal") and k != "cli"}
        text = json.dumps(self.public, sort_keys=True, separators=(",", ":"))
        self.hash = hashlib.sha256(text.encode()).hexdigest()[:16]

    def _load(self, family, data):
        if data.get("family") != family:
            raise SchemaError(f"{family}.json: 'family' must be {family!r}")
        self.families.append((family, data))
        internal = data.get("internal", False)
        for name, raw in data.get("types", {}).items():
            self.types[name] = Type(name, raw, family)
        self.errors.update(data.get("errors", {}))
        for name, raw in data.get("notifications", {}).items():
            self.notifications.append((family, name, raw))
        for name, raw in data.get("methods", {}).items():
            self.methods[name] = Method(name, raw, family, internal)
        self.verbs += data.get("verbs", [])
        if family == "cli":
            self.cli = data

    def _implicit(self, name, doc, members):
        found = Type(name, {"doc": doc, "members": members}, "")
        self.types[name] = found
        return found

    def _resolve(self):
        for m in self.methods.values():
            base = "".join(w.capitalize() for w in re.split(r"[.-]", m.name))
            m.in_type = self._side(m.raw["in"], base + "In", f"Parameters of {m.name}.")
            m.out_type = self._side(m.raw["out"], base + "Out", f"Result of {m.name}.")
            for code in m.errors:
                if code not in self.errors:
                    raise SchemaError(f"{m.name}: unknown error {code!r}")
        self.notes = []
        for family, name, raw in self.notifications:
            prefix = "" if family == "api" else family.capitalize()
            prefix = "Notify" + ("" if family in ("api", "event") else prefix)
            base = prefix + name.capitalize()
            kind = self._implicit(base, raw["doc"], raw["params"])
            self.notes.append((family, name, raw, kind))
        for t in self.types.values():
            for m in t.members:
                self._member_type(m)
            if t.patch_of:
                self._patch(t)

    def _side(self, raw, name, doc):
        if isinstance(raw, str):
            if raw not in self.types:
                raise SchemaError(f"{name}: unknown type {raw!r}")
            return self.types[raw]
        return self._implicit(name, doc, raw)

    def _member_type(self, m):
        if m.base not in SCALARS:
            if m.base not in self.types:
                raise SchemaError(f"{m.where}.{m.name}: unknown type {m.base!r}")
            m.type = self.types[m.base]
        if m.has_default and m.type and m.type.kind == "enum":
            for word in m.default if m.is_list else [m.default]:
                if word not in m.type.values:
                    raise SchemaError(f"{m.where}.{m.name}: default {word!r} is no value")

    def _patch(self, t):
        base = self.types[t.patch_of]
        for n in t.raw.get("except", []):
            if n not in {m.name for m in base.members}:
                raise SchemaError(f"{t.name}: no member {n!r} in {base.name}")
        keep = [m for m in base.members if m.name not in t.raw.get("except", [])]
        for m in keep:
            raw = {k: v for k, v in m.raw.items() if k not in ("required", "default")}
            copy = Member(t.name, m.name, raw)
            self._member_type(copy)
            t.members.append(copy)
