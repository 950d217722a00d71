# SPDX-License-Identifier: Apache-2.0
"""The generator: mistakes in the schema are refused with their place, the output depends on the schema
alone, committed pages are current, and every method is named by a test."""
import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
TOP = pathlib.Path(os.environ.get("VMD_SRCDIR", HERE.parents[1])).resolve()
sys.path[:0] = [str(HERE.parent / "lib"), str(TOP / "api-schema/gen")]
import emit_c  # noqa: E402
import emit_cli  # noqa: E402
import emit_docs  # noqa: E402
import emit_qmp  # noqa: E402
import model  # noqa: E402
import tap  # noqa: E402

SCHEMA = TOP / "api-schema/schema"


def load():
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in SCHEMA.glob("*.json")}


def schema_of(raw):
    with tempfile.TemporaryDirectory() as folder:
        for name, data in raw.items():
            (pathlib.Path(folder) / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
        found = model.Schema(folder)
        emit_cli.verbs(found)
        return found


def refused(change, *parts):
    raw = copy.deepcopy(load())
    change(raw)
    try:
        schema_of(raw)
    except model.SchemaError as why:
        for part in parts:
            assert part in str(why), f"{str(why)!r} does not say {part!r}"
        return
    raise AssertionError(f"accepted; should have said {parts}")


def mistakes_are_refused_with_their_place():
    def method(raw):
        return raw["vm"]["methods"]["vm.start"]
    refused(lambda r: method(r).pop("doc"), "vm.start", "missing ['doc']")
    refused(lambda r: method(r).update(color=1), "vm.start", "unknown ['color']")
    refused(lambda r: method(r).update(role="king"), "vm.start", "no such role 'king'")
    refused(lambda r: method(r).pop("role"), "vm.start", "missing ['role']")
    refused(lambda r: method(r)["errors"].append("oops"), "vm.start", "unknown error 'oops'")
    refused(lambda r: method(r)["in"]["vm"].update(type="Vm"), "VmStartIn.vm", "unknown type 'Vm'")
    refused(lambda r: method(r)["in"]["vm"].pop("doc"), "VmStartIn.vm: no doc")
    refused(lambda r: method(r)["in"]["vm"].update(default="a"), "required and default")
    refused(lambda r: method(r)["in"]["vm"].update(size=1), "unknown key ['size']")
    refused(lambda r: method(r).pop("cli"), "vm.start: no verb of vmctl calls it")
    refused(lambda r: method(r)["cli"].update(verb="stop"), "verb stop stands twice")
    refused(lambda r: method(r)["cli"].update(examples=[]), "verb start: no example")
    refused(lambda r: method(r)["cli"].update(options=[{"name": "json", "doc": "x"}]), "option 'json' stands twice")
    refused(lambda r: r["vm"]["methods"].update({"net.x": method(r)}), "net.x: not of family vm")
    refused(lambda r: r["types"]["types"]["Disk"]["members"]["format"].update(default="qcow"), "'qcow' is no value")
    refused(lambda r: r["types"]["types"]["VmPatch"].update(**{"except": ["nme"]}), "no member 'nme'")
    refused(lambda r: r["vm"].update(family="vms"), "'family' must be 'vm'")


def qmp_command_without_a_role_is_refused():
    table = json.loads((SCHEMA.parent / "qmp" / "qmp.json").read_text(encoding="utf-8"))
    for change, part in ((lambda t: t["commands"]["stop"].pop("role"), "stop: says no role"),
                         (lambda t: t["commands"]["query-block"].update(role="king"), "query-block: says no role")):
        raw = copy.deepcopy(table)
        change(raw)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "qmp.json"
            path.write_text(json.dumps(raw), encoding="utf-8")
            try:
                emit_qmp.Qmp(path)
            except model.SchemaError as why:
                assert part in str(why), why
                continue
        raise AssertionError(f"accepted; should have said {part}")


def output_depends_on_the_schema_alone():
    def everything():
        found = model.Schema(SCHEMA)
        return {**emit_c.files(found), **emit_cli.files(found), "api.md": emit_docs.api_md(found),
                "openrpc.json": emit_docs.openrpc(found), "vmctl.md": emit_cli.reference(found)}
    first = everything()
    code = ("import sys; sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1]); import emit_c, model; "
            "sys.stdout.write(emit_c.files(model.Schema(sys.argv[2]))['types.c'])")
    for seed in ("1", "2"):
        done = subprocess.run([sys.executable, "-B", "-c", code, str(TOP / "api-schema/gen"), str(SCHEMA)],
                              env={**os.environ, "PYTHONHASHSEED": seed}, cwd="/", capture_output=True, text=True,
                              check=True)
        assert done.stdout == first["types.c"], "types.c differs from run to run"
    assert everything() == first


def hash_follows_the_public_schema_only():
    raw = load()
    first = schema_of(raw).hash
    changed = copy.deepcopy(raw)
    changed["emu"]["methods"]["emu.pause"]["doc"] = "Changed."
    assert schema_of(changed).hash == first, "the internal family is in the hash"
    changed = copy.deepcopy(raw)
    changed["vm"]["methods"]["vm.pause"]["doc"] = "Changed."
    assert schema_of(changed).hash != first, "the public families are not in the hash"


def committed_pages_are_current():
    done = subprocess.run([sys.executable, "-B", str(TOP / "api-schema/gen/apigen.py"), "--check"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def openrpc_is_consistent():
    doc = json.loads((TOP / "docs/reference/openrpc.json").read_text(encoding="utf-8"))
    types = doc["components"]["schemas"]
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(doc)))
    assert used <= set(types), f"undefined: {used - set(types)}"
    names = [m["name"] for m in doc["methods"]]
    assert len(names) == len(set(names)) and not [n for n in names if n.startswith("emu.")]


def only(where, value, required, optional):
    """`value` is an object with these members and no others but x-*."""
    assert isinstance(value, dict), f"{where}: no object"
    assert set(required) <= set(value), f"{where}: lacks {set(required) - set(value)}"
    more = {k for k in value if k not in (*required, *optional) and not k.startswith("x-")}
    assert not more, f"{where}: {more}"


JSON_SCHEMA_KEYS = {"$ref", "type", "description", "default", "enum", "items", "properties", "required", "minimum",
                    "maximum", "multipleOf", "minLength", "maxLength", "maxItems", "additionalProperties"}
JSON_TYPES = {"string", "integer", "boolean", "object", "array"}


def json_schema(where, value):
    """JSON Schema draft 7, as far as it is used."""
    assert isinstance(value, dict) and set(value) <= JSON_SCHEMA_KEYS, f"{where}: {value}"
    assert value.get("type", "object") in JSON_TYPES, where
    for name, inner in value.get("properties", {}).items():
        json_schema(f"{where}.{name}", inner)
    assert set(value.get("required", [])) <= set(value.get("properties", {})), where
    if "items" in value:
        json_schema(where + "[]", value["items"])


def openrpc_has_the_structure_of_its_specification():
    """OpenRPC 1.3: the objects of the specification, with their required and their allowed fields."""
    doc = json.loads((TOP / "docs/reference/openrpc.json").read_text(encoding="utf-8"))
    only("document", doc, ["openrpc", "info", "methods"], ["servers", "components", "externalDocs"])
    assert re.fullmatch(r"1\.[0-9]+\.[0-9]+", doc["openrpc"])
    only("info", doc["info"], ["title", "version"], ["description", "termsOfService", "contact", "license"])
    for m in doc["methods"]:
        name = m["name"]
        only(name, m, ["name", "params"], ["tags", "summary", "description", "externalDocs", "result", "deprecated",
                                           "servers", "errors", "links", "paramStructure", "examples"])
        assert m["paramStructure"] in ("by-name", "by-position", "either"), name
        for param in [*m["params"], m["result"]]:
            only(name, param, ["name", "schema"], ["summary", "description", "required", "deprecated"])
            json_schema(f"{name} {param['name']}", param["schema"])
        given = [p["name"] for p in m["params"]]
        assert len(given) == len(set(given)) and "deadline_ms" in given, name
        for error in m["errors"]:
            only(name, error, ["code", "message"], ["data"])
            assert isinstance(error["code"], int), name
        assert all(set(tag) == {"name"} for tag in m["tags"]), name
    for name, value in doc["components"]["schemas"].items():
        json_schema(name, value)


def links_of_the_reference_lead_somewhere():
    text = (TOP / "docs/reference/api.md").read_text(encoding="utf-8")
    anchors = {h.strip().lower() for h in re.findall(r"^#+ (.*)$", text, re.M)}
    missing = {a for a in re.findall(r"\]\(#([^)]*)\)", text) if a not in anchors}
    assert not missing, missing


def every_method_is_named_by_a_test():
    texts = []
    for path in sorted((TOP / "tests").rglob("*")):
        if path.suffix in (".py", ".c", ".sh", ".h") and path.name not in ("gen_test.py", "fake.py"):
            texts.append(path.read_text(encoding="utf-8"))
    text = "\n".join(texts)
    missing = [m for m in model.Schema(SCHEMA).methods
               if not re.search(rf"\b{re.escape(m)}\b(?!\.)", text) and f"api_method_{model.snake(m)}" not in text]
    assert not missing, "no test names " + ", ".join(missing)


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        mistakes_are_refused_with_their_place, qmp_command_without_a_role_is_refused,
        output_depends_on_the_schema_alone, hash_follows_the_public_schema_only,
        committed_pages_are_current, openrpc_is_consistent,
        openrpc_has_the_structure_of_its_specification, links_of_the_reference_lead_somewhere,
        every_method_is_named_by_a_test]))
