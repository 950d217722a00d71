# SPDX-License-Identifier: Apache-2.0
"""C from the schema: error codes, structs, codec tables, methods, handler tables."""
import json

import emit_docs
from model import ROLES, STRINGS, snake

HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n/* {} Written by api-schema/gen from the schema: do not edit. */\n"


def cstr(text):
    """A C string literal; NULL for None."""
    if text is None:
        return "NULL"
    out = json.dumps(text, ensure_ascii=False)
    return out.replace("??", '?""?')


def guard(name, body):
    macro = "VMD_API_GEN_" + name
    return f"#ifndef {macro}\n#define {macro}\n\n{body}\n#endif\n"


def wrap(text, indent=""):
    import textwrap

    lines = textwrap.wrap(text, 88 - len(indent))
    if len(lines) == 1:
        return f"{indent}/* {lines[0]} */"
    return f"{indent}/* " + f"\n{indent} * ".join(lines) + " */"


def errors_h(schema):
    body = "enum api_code {\n"
    for name, e in schema.errors.items():
        body += f"    API_E_{snake(name).upper()} = {e['code']}, /* {e['doc']} */\n"
    body += "};\n\nstruct api_code_info {\n    int code;\n    const char *name, *doc;\n"
    body += "    int exit; /* exit status of vmctl */\n};\n"
    body += f"enum {{ API_N_CODES = {len(schema.errors)} }};\n"
    body += "extern const struct api_code_info api_codes[API_N_CODES];\n"
    return HEAD.format("Error codes.") + guard("ERRORS_H", body)


def errors_c(schema):
    out = HEAD.format("Error codes.") + '#include "api-schema/gen/errors.h"\n\n'
    out += "const struct api_code_info api_codes[API_N_CODES] = {\n"
    for name, e in schema.errors.items():
        out += f"    {{ {e['code']}, {cstr(name)}, {cstr(e['doc'])}, {e['exit']} }},\n"
    return out + "};\n"


def c_decl(m):
    """Declaration of a member in its struct, as a list of lines."""
    if m.base == "bool":
        kind = "bool "
    elif m.is_int:
        kind = "int64_t "
    elif m.is_string:
        kind = "char *"
    elif m.base in ("any", "object") or m.type.kind == "patch":
        kind = "struct json_object *"
    elif m.type.kind == "enum":
        kind = f"enum {m.type.c} "
    else:
        kind = f"struct {m.type.c} " if m.is_list else f"struct {m.type.c} *"
    if m.is_list:
        return [f"size_t n_{m.name};", f"{kind}*{m.name};" if kind[-1] != "*" else f"{kind}*{m.name};"]
    lines = [f"{kind}{m.name};"]
    if m.has_flag:
        lines.append(f"bool has_{m.name};")
    return lines


def enum_h(t):
    out = wrap(t.doc) + f"\nenum {t.c} {{\n"
    for word, doc in t.values.items():
        out += f"    {t.c.upper()}_{snake(word).upper()}, /* {word}: {doc} */\n"
    out += "};\n" + f"extern const struct api_type {t.c.replace('api_', 'api_type_', 1)};\n"
    table = t.c.replace("api_", "api_type_", 1)
    out += f"static inline const char *{t.c}_name(enum {t.c} v)\n{{\n"
    return out + f"    return api_enum_name(&{table}, (int)v);\n}}\n\n"


def struct_h(t):
    out = wrap(t.doc) + f"\nstruct {t.c} {{\n"
    for m in t.members:
        doc = m.doc + (f" ({m.unit})" if m.unit else "")
        out += wrap(doc, "    ") + "\n"
        out += "".join(f"    {line}\n" for line in c_decl(m))
    if not t.members:
        out += "    char nothing;\n"
    table = t.c.replace("api_", "api_type_", 1)
    out += f"}};\nextern const struct api_type {table};\n"
    out += (
        f"static inline int {t.c}_decode(const struct json_object *o, unsigned flags,\n"
        f"    const char *root, struct {t.c} *out, struct api_error *x)\n"
        f"{{\n    return api_decode(&{table}, o, flags, root, out, x);\n}}\n"
        f"static inline struct json_object *{t.c}_encode(const struct {t.c} *in)\n"
        f"{{\n    return api_encode(&{table}, in);\n}}\n"
        f"static inline void {t.c}_release(struct {t.c} *s)\n"
        f"{{\n    api_release(&{table}, s);\n}}\n"
        f"static inline void {t.c}_copy(const struct {t.c} *in, struct {t.c} *out)\n"
        f"{{\n    api_copy(&{table}, in, out);\n}}\n"
        f"static inline void {t.c}_init(struct {t.c} *out)\n"
        f"{{\n    api_init(&{table}, out);\n}}\n\n"
    )
    return out


def types_h(schema):
    body = '#include "api-schema/json/codec.h"\n\n'
    for t in schema.types.values():
        if t.kind == "struct":
            body += f"struct {t.c};\n"
    body += "\n"
    for t in schema.types.values():
        if t.kind == "enum":
            body += enum_h(t)
    for t in schema.types.values():
        if t.kind == "struct":
            body += struct_h(t)
        elif t.kind == "patch":
            table = t.c.replace("api_", "api_type_", 1)
            body += wrap(t.doc + " Kept as JSON; see api_patch().")
            body += f"\nextern const struct api_type {table};\n\n"
    return HEAD.format("Types of the API.") + guard("TYPES_H", body)


def c_kind(m):
    if m.base == "bool":
        return "API_BOOL"
    if m.is_int:
        return "API_INT"
    if m.is_string:
        return "API_STRING"
    if m.base == "any":
        return "API_ANY"
    if m.base == "object":
        return "API_OBJECT"
    return {"enum": "API_ENUM", "struct": "API_STRUCT", "patch": "API_PATCH"}[m.type.kind]


def c_int(v):
    return "INT64_MIN" if v == -(2**63) else "INT64_MAX" if v == 2**63 - 1 else f"INT64_C({v})"


def member_c(t, m):
    flags = []
    if m.required:
        flags.append("API_F_REQUIRED")
    if m.is_list:
        flags.append("API_F_LIST")
    if t.kind == "struct" and m.has_flag:
        flags.append("API_F_HAS")
    if m.base == "size":
        flags.append("API_F_SIZE")
    if m.bare:
        flags.append("API_F_BARE")
    if m.contents:
        flags.append("API_F_CONTENTS")
    out = f"    {{ .name = {cstr(m.name)}, .kind = {c_kind(m)}"
    out += f", .flags = {' | '.join(flags)}" if flags else ""
    if m.is_string:
        out += f", .check = {STRINGS[m.base][0]}"
    if m.is_int or m.is_string:
        out += f",\n      .min = {c_int(m.min if m.is_int else 0)}, .max = {c_int(m.max)}"
    if m.multiple:
        out += f", .multiple = {m.multiple}"
    if m.is_list:
        out += f", .max_items = {m.max_items}"
    if t.kind == "struct":
        out += f",\n      .offset = offsetof(struct {t.c}, {m.name})"
        flag = f"n_{m.name}" if m.is_list else f"has_{m.name}" if m.has_flag else None
        if flag:
            out += f", .has_offset = offsetof(struct {t.c}, {flag})"
    if m.type:
        out += f",\n      .type = &{m.type.c.replace('api_', 'api_type_', 1)}"
    if m.words:
        out += ",\n      .words = " + "".join(cstr(w) + ' "\\0" ' for w in m.words).strip()
    if m.has_default:
        out += f",\n      .def = {cstr(json.dumps(m.default))}"
    if m.unit:
        out += f", .unit = {cstr(m.unit)}"
    return out + f",\n      .doc = {cstr(m.doc)} }},\n"


def type_c(t):
    table = t.c.replace("api_", "api_type_", 1)
    if t.kind == "enum":
        words = "".join(f"    {cstr(w)},\n" for w in t.values)
        docs = "".join(f"    {cstr(d)},\n" for d in t.values.values())
        return (
            f"static const char *const values_{t.c}[] = {{\n{words}}};\n"
            f"static const char *const docs_{t.c}[] = {{\n{docs}}};\n"
            f"const struct api_type {table} = {{\n    .name = {cstr(t.name)},\n"
            f"    .doc = {cstr(t.doc)},\n    .values = values_{t.c},\n"
            f"    .value_docs = docs_{t.c},\n    .n_values = {len(t.values)},\n}};\n\n"
        )
    out = ""
    if t.members:
        body = "".join(member_c(t, m) for m in t.members)
        out = f"static const struct api_member members_{t.c}[] = {{\n{body}}};\n"
    size = f"sizeof(struct {t.c})" if t.kind == "struct" else "sizeof(void *)"
    members = f"members_{t.c}" if t.members else "NULL"
    return out + (
        f"const struct api_type {table} = {{\n    .name = {cstr(t.name)},\n"
        f"    .doc = {cstr(t.doc)},\n    .size = {size},\n    .members = {members},\n"
        f"    .n_members = {len(t.members)},\n}};\n\n"
    )


def types_c(schema):
    out = HEAD.format("Codec tables.") + '#include "api-schema/gen/types.h"\n\n'
    return out + "".join(type_c(t) for t in schema.types.values())


METHODS_H = """#include "api-schema/gen/types.h"

enum api_role {
    API_ROLE_NONE,
    API_ROLE_VIEWER,   /* looks */
    API_ROLE_OPERATOR, /* runs and changes */
    API_ROLE_OWNER,    /* deletes and renames as well */
    API_ROLE_ADMIN,    /* the daemon itself */
};

/* Where the caller must hold the role. */
enum api_scope {
    API_SCOPE_HOST,    /* on the whole host */
    API_SCOPE_ANY,     /* in any project: the answer is cut to what the caller may see */
    API_SCOPE_VM,      /* in the project of the VM 'vm' */
    API_SCOPE_CONFIG,  /* in the project of the definition 'config' */
    API_SCOPE_JOB,     /* in the project of the job's VM */
    API_SCOPE_PROJECT, /* in the project 'project' */
};

struct api_method {
    const char *name, *family, *doc, *since;
    enum api_role role; /* least role that may call it */
    enum api_scope scope;
    bool mutating;      /* takes an idempotency key */
    bool job;           /* answers with a job */
    bool internal;      /* between vmd and vmd-emu only */
    const struct api_type *in, *out;
};

struct api_call;
struct api_handler {
    const struct api_method *method;
    void (*fn)(struct api_call *call, void *in);
};
/* Handlers sorted by method name. */
struct api_handler_table {
    const struct api_handler *handlers;
    size_t n;
};

extern const char api_schema_hash[];  /* of the public families */
extern const char api_schema_json[];  /* the public schema as JSON text */
extern const char api_openrpc_json[]; /* the OpenRPC document as JSON text */
extern const char *const api_role_names[];

/* Answers a call; declared in api-schema/rpc/call.h. */
void api_reply(struct api_call *c, const void *out);

"""


def methods_h(schema):
    body = METHODS_H
    n_public = sum(not m.internal for m in schema.methods.values())
    body += f"enum {{ API_N_METHODS = {len(schema.methods)}, API_N_PUBLIC_METHODS = {n_public} }};\n"
    body += "/* All methods, sorted by name. */\nextern const struct api_method *const api_methods[API_N_METHODS];\n"
    body += "/* Exact name, NULL when there is none. */\nconst struct api_method *api_method_find(const char *name);\n"
    body += "\n/* The daemon's, and the emulator's. Using one demands all its handlers. */\n"
    body += "extern const struct api_handler_table api_handlers_vmd;\nextern const struct api_handler_table api_handlers_emu;\n\n"
    for name in sorted(schema.methods):
        m = schema.methods[name]
        tail = m.c.replace("api_", "", 1)
        body += wrap(f"{name}: {m.doc}") + "\n"
        body += f"extern const struct api_method api_method_{tail};\n"
        body += f"void api_handle_{tail}(struct api_call *call, struct {m.in_type.c} *in);\n"
        if m.out_type.members:
            body += (
                f"static inline void api_reply_{tail}(struct api_call *call,\n"
                f"    const struct {m.out_type.c} *out)\n{{\n    api_reply(call, out);\n}}\n\n"
            )
        else:
            body += (
                f"static inline void api_reply_{tail}(struct api_call *call)\n"
                f"{{\n    struct {m.out_type.c} out = {{ 0 }};\n    api_reply(call, &out);\n}}\n\n"
            )
    return HEAD.format("Methods of the API.") + guard("METHODS_H", body)


def methods_c(schema):
    out = HEAD.format("Methods of the API.") + '#include "api-schema/gen/methods.h"\n\n#include <string.h>\n\n'
    out += f"const char api_schema_hash[] = {cstr(schema.hash)};\n"
    roles = ", ".join(cstr(r) for r in ["none"] + ROLES)
    out += f"const char *const api_role_names[] = {{ {roles} }};\n\n"
    for name in sorted(schema.methods):
        m = schema.methods[name]
        tail = m.c.replace("api_", "", 1)
        out += (
            f"const struct api_method api_method_{tail} = {{\n"
            f"    .name = {cstr(name)},\n    .family = {cstr(m.family)},\n"
            f"    .doc = {cstr(m.doc)},\n    .since = {cstr(m.since)},\n"
            f"    .role = API_ROLE_{m.role.upper()},\n    .scope = API_SCOPE_{m.scope.upper()},\n    .mutating = {str(m.mutating).lower()},\n"
            f"    .job = {str(m.job).lower()},\n    .internal = {str(m.internal).lower()},\n"
            f"    .in = &{m.in_type.c.replace('api_', 'api_type_', 1)},\n"
            f"    .out = &{m.out_type.c.replace('api_', 'api_type_', 1)},\n}};\n"
        )
    out += "\nconst struct api_method *const api_methods[API_N_METHODS] = {\n"
    for name in sorted(schema.methods):
        out += f"    &api_method_{schema.methods[name].c.replace('api_', '', 1)},\n"
    out += """};

const struct api_method *api_method_find(const char *name)
{
    size_t low = 0, high = API_N_METHODS;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int way = strcmp(name, api_methods[mid]->name);
        if (way == 0) {
            return api_methods[mid];
        }
        if (way < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}
"""
    return out


def handlers_c(schema, internal):
    which = "emu" if internal else "vmd"
    out = HEAD.format(f"Handlers of {'vmd-emu' if internal else 'vmd'}.")
    out += '#include "api-schema/gen/methods.h"\n\n'
    rows = ""
    for name in sorted(schema.methods):
        m = schema.methods[name]
        if m.internal != internal:
            continue
        tail = m.c.replace("api_", "", 1)
        out += (
            f"static void call_{tail}(struct api_call *call, void *in)\n"
            f"{{\n    api_handle_{tail}(call, in);\n}}\n\n"
        )
        rows += f"    {{ &api_method_{tail}, call_{tail} }},\n"
    out += f"static const struct api_handler handlers[] = {{\n{rows}}};\n"
    out += f"const struct api_handler_table api_handlers_{which} = {{\n"
    return out + "    .handlers = handlers,\n    .n = sizeof(handlers) / sizeof(handlers[0]),\n};\n"


def text_c(name, data):
    """JSON as a C string."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    out = f"const char {name}[] =\n"
    for at in range(0, len(text), 80):
        out += f"    {cstr(text[at:at + 80])}\n"
    return out.rstrip() + ";\n"


def schema_c(schema):
    out = HEAD.format("The schema itself.") + '#include "api-schema/gen/methods.h"\n\n'
    out += text_c("api_schema_json", schema.public) + "\n"
    return out + text_c("api_openrpc_json", json.loads(emit_docs.openrpc(schema)))


def files(schema):
    """Name in api-schema/gen/ and text of each C file."""
    return {
        "errors.h": errors_h(schema),
        "errors.c": errors_c(schema),
        "types.h": types_h(schema),
        "types.c": types_c(schema),
        "methods.h": methods_h(schema),
        "methods.c": methods_c(schema),
        "handlers_vmd.c": handlers_c(schema, False),
        "handlers_emu.c": handlers_c(schema, True),
        "schema_text.c": schema_c(schema),
    }
