#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The generator of the API: from api-schema/schema/*.json to C, vmctl's tables and documents.

    apigen.py --c DIR    C files into DIR (the build's api-schema/gen)
    apigen.py --cli DIR  vmctl's verb table, completion and manual page into DIR (the build's cli)
    apigen.py --docs     rewrites the committed pages under docs/reference
    apigen.py --check    fails when a committed page differs from the schema

Python's standard library only; every output depends on the schema alone.
"""
import argparse
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import emit_c  # noqa: E402
import emit_cli  # noqa: E402
import emit_complete  # noqa: E402
import emit_docs  # noqa: E402
import emit_qmp  # noqa: E402
import model  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write(path, text):
    """Writes only what changed, so that make rebuilds only what must be."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


def pages(schema):
    """Committed pages: path from the root of the tree, and text."""
    return {
        "docs/reference/api.md": emit_docs.api_md(schema),
        "docs/reference/openrpc.json": emit_docs.openrpc(schema),
        "docs/reference/qmp.md": emit_qmp.reference(schema.qmp),
        "docs/reference/vmctl.md": emit_cli.reference(schema),
    }


def check(schema):
    stale = []
    for name, text in pages(schema).items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    for name in stale:
        print(f"{name} differs from api-schema/schema: run 'api-schema/gen/apigen.py --docs'")
    return 1 if stale else 0


def act(args, schema):
    if args.c:
        for name, text in [*emit_c.files(schema).items(), *emit_qmp.files(schema.qmp).items()]:
            write(args.c / name, text)
    if args.cli:
        for name, text in {**emit_cli.files(schema), **emit_complete.files(schema)}.items():
            write(args.cli / name, text)
    if args.docs:
        for name, text in pages(schema).items():
            if write(ROOT / name, text):
                print(f"wrote {name}")
    return check(schema) if args.check else 0


def main():
    parser = argparse.ArgumentParser(description="generate code and documents from the API schema")
    parser.add_argument("--c", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--cli", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    try:
        schema = model.Schema(ROOT / "api-schema" / "schema")
        schema.qmp = emit_qmp.Qmp(ROOT / "api-schema" / "qmp" / "qmp.json")
    except (model.SchemaError, KeyError) as why:
        print(f"api-schema: {why}", file=sys.stderr)
        return 1
    try:
        return act(args, schema)
    except model.SchemaError as why:
        print(f"api-schema: {why}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
