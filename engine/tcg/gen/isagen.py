# SPDX-License-Identifier: Apache-2.0
"""Generator from .isa files to C and documentation.

  isagen.py --isa FILE [--isa FILE]... --header OUT --decode OUT --dispatch OUT --tables OUT
            --doc OUT [--names PREFIX]

Each output is optional.  For an instruction set named X the C names are:
  enum X_op { X_OP_ILLEGAL, X_OP_<NAME>..., X_OP_COUNT }, X_ISA_<FEATURE> bits,
  struct X_<struct> per operand struct, struct X_insn (the decoded union),
  X_decode(), X_insn_length(), X_translate(), const struct isa X_isa.
Standard library only; docs/guide/isa-format.md describes the input.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import isamodel  # noqa: E402

INDENT = "    "
NOTE = "Written by isagen.py from {}; change that file instead."


class Emitter:
    """Collects lines and writes the file only when its text changed."""

    def __init__(self, isa, sources, summary):
        self.isa = isa
        self.lines = ["/* SPDX-License-Identifier: Apache-2.0 */",
                      "/* " + summary + " " + NOTE.format(", ".join(sources)) + " */"]

    def add(self, text="", depth=0):
        self.lines.append(INDENT * depth + text if text else "")

    def save(self, path):
        write_if_changed(path, "\n".join(self.lines) + "\n")


def write_if_changed(path, text):
    try:
        with open(path, encoding="utf-8") as old:
            if old.read() == text:
                os.utime(path)
                return
    except OSError:
        pass
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    with open(path, "w", encoding="utf-8") as new:
        new.write(text)


def c_string(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def structs(isa):
    """struct name -> {member: (smallest, largest value)}, in file order."""
    result = {}
    for form in isa.formats.values():
        members = result.setdefault(form.struct, {})
        for arg, field in form.binds.items():
            low, high = members.get(arg, (0, 0))
            members[arg] = (min(low, field.low), max(high, field.high))
    return result


def op_name(isa, insn):
    return f"{isa.name.upper()}_OP_{insn.ident.upper()}"


def feature_name(isa, feature):
    return f"{isa.name.upper()}_ISA_{feature.upper()}"


def feature_expr(isa, names):
    return " | ".join(feature_name(isa, name) for name in names)


# ---- header ---------------------------------------------------------------------------------

def emit_header(isa, sources):
    out = Emitter(isa, sources, f"The {isa.name} instruction set: operations, operands, decoder.")
    upper, name = isa.name.upper(), isa.name
    guard = f"VMD_GENERATED_{upper}_ISA_H"
    for line in (f"#ifndef {guard}", f"#define {guard}", "", "#include <stdbool.h>",
                 "#include <stdint.h>", "", '#include "engine/tcg/gen/isa.h"', ""):
        out.add(line)
    out.add(f"enum {name}_op {{")
    out.add(f"{upper}_OP_ILLEGAL,", 1)
    for insn in isa.insns:
        out.add(f"{op_name(isa, insn)}, /* {insn.doc} */", 1)
    out.add(f"{upper}_OP_COUNT", 1)
    out.add("};")
    out.add()
    for number, (feature, doc) in enumerate(isa.features.items()):
        out.add(f"#define {feature_name(isa, feature)} ISA_FEATURE({number}) /* {doc} */")
    out.add()
    for struct, members in structs(isa).items():
        out.add(f"struct {name}_{struct} {{")
        for member, (low, high) in members.items():
            kind = "uint8_t" if low >= 0 and high < 256 else "int32_t"
            out.add(f"{kind} {member};", 1)
        if not members:
            out.add("uint8_t unused;", 1)
        out.add("};")
        out.add()
    out.add("/* A decoded instruction; op says which member of the union is filled. */")
    out.add(f"struct {name}_insn {{")
    out.add("uint16_t op;    /* enum value */", 1)
    out.add("uint16_t trans; /* op of the instruction that it translates as */", 1)
    out.add("uint8_t length; /* bytes */", 1)
    out.add("union {", 1)
    for struct in structs(isa):
        out.add(f"struct {name}_{struct} {struct};", 2)
    out.add("} u;", 1)
    out.add("};")
    emit_header_functions(out, isa)
    out.add("#endif")
    return out


def emit_header_functions(out, isa):
    name = isa.name
    out.add()
    out.add("/* Length in bytes of the instruction that starts with these bits. */")
    out.add(f"static inline unsigned {name}_insn_length({word_type(isa)} bits)")
    out.add("{")
    for width, cond in isa.lengths:
        if cond:
            out.add(f"if ((bits & {cond[0]:#x}) == {cond[1]:#x}) {{", 1)
            out.add(f"return {width // 8};", 2)
            out.add("}", 1)
        else:
            out.add(f"return {width // 8};", 1)
            break
    out.add("}")
    out.add()
    out.add("/*")
    out.add(" * Decodes bits (only as many as the instruction is long are looked at) under a set")
    out.add(f" * of {name.upper()}_ISA_ bits. Fills *insn and returns its op;")
    out.add(f" * {name.upper()}_OP_ILLEGAL (0) with the length filled in when there is no such")
    out.add(" * instruction.")
    out.add(" */")
    out.add(f"unsigned {name}_decode({word_type(isa)} bits, isa_features features, "
            f"struct {name}_insn *insn);")
    out.add()
    out.add("/*")
    out.add(" * Calls the translate function of a decoded instruction and returns what it returns;")
    out.add(" * false for an illegal one.")
    out.add(" */")
    out.add("struct tcg_trans;")
    out.add(f"bool {name}_translate(struct tcg_trans *t, const struct {name}_insn *insn);")
    out.add()
    out.add(f"extern const struct isa {name}_isa;")
    out.add()
    for insn in trans_targets(isa):
        out.add(f"bool {trans_name(isa, insn)}(struct tcg_trans *t, "
                f"const struct {name}_{insn.format.struct} *a);")
    out.add()


def word_type(isa):
    return "uint32_t" if isa.max_width <= 32 else "uint64_t"


def trans_targets(isa):
    """The instructions that have a translate function of their own: one per name."""
    wanted = {insn.trans for insn in isa.insns}
    seen, result = set(), []
    for insn in isa.insns:
        if insn.name in wanted and insn.name not in seen:
            seen.add(insn.name)
            result.append(insn)
    return result


def trans_name(isa, insn):
    return "trans_" + insn.name.replace(".", "_")


# ---- decoder --------------------------------------------------------------------------------

def field_expr(field):
    """C expression for the value of a field of 'b'."""
    if not field.segs:
        return str(field.add)
    parts, position = [], field.width
    for number, (low, width) in enumerate(field.segs):
        position -= width
        shift = position + field.shift
        if number == 0 and field.signed:
            up = 32 - low - width
            inner = f"(int32_t)(b << {up})" if up else "(int32_t)b"
            text = f"(uint32_t)({inner} >> {32 - width})"
        else:
            inner = f"(b >> {low})" if low else "b"
            text = f"({inner} & {(1 << width) - 1:#x})"
        parts.append(f"{text} << {shift}" if shift else text)
    text = " | ".join(f"({part})" if "<<" in part else part for part in parts)
    text = f"(int32_t)({text})"
    return f"{text} + {field.add}" if field.add else text


def best_run(insns, known):
    """The run of bits (low, width), fixed in all insns and not yet known, that splits best."""
    common = ~known
    for insn in insns:
        common &= insn.mask
    best, bit, width = None, 0, max(insn.width for insn in insns)
    while bit < width:
        if not common >> bit & 1:
            bit += 1
            continue
        start = bit
        while bit < width and common >> bit & 1 and bit - start < 7:
            bit += 1
        ones = (1 << (bit - start)) - 1
        count = len({insn.match >> start & ones for insn in insns})
        if count > 1 and (best is None or count > best[0]):
            best = (count, start, bit - start)
    return best


def emit_tree(out, isa, insns, known, depth):
    run = best_run(insns, known) if len(insns) > 1 else None
    if run is None:
        for insn in sorted(insns, key=lambda entry: not entry.first):
            emit_leaf(out, isa, insn, known, depth)
        return
    _, low, width = run
    ones = (1 << width) - 1
    groups = {}
    for insn in insns:
        groups.setdefault(insn.match >> low & ones, []).append(insn)
    out.add(f"switch (b >> {low} & {ones:#x}) {{", depth)
    for value in sorted(groups):
        out.add(f"case {value:#x}:", depth)
        emit_tree(out, isa, groups[value], known | ones << low, depth + 1)
        out.add("break;", depth + 1)
    out.add("}", depth)


def emit_leaf(out, isa, insn, known, depth):
    tests, rest = [], insn.mask & ~known
    if rest:
        tests.append(f"(b & {rest:#x}) == {insn.match & rest:#x}")
    names = [name for name in insn.features]
    mask = feature_expr(isa, names)
    if len(names) == 1:
        tests.append(f"(f & {mask}) != 0")
    else:
        tests.append(f"(f & ({mask})) == ({mask})")
    for field, equal, values in insn.constraints:
        test = [f"{field_expr(field)} {'==' if equal else '!='} {value}"
                for value in sorted(values)]
        joined = (" || " if equal else " && ").join(test)
        tests.append(f"({joined})" if len(test) > 1 else joined)
    target = next(entry for entry in isa.insns if entry.name == insn.trans)
    out.add("if (" + " && ".join(tests) + ") {", depth)
    out.add(f"fill_{insn.format.name}(insn, b);", depth + 1)
    out.add(f"insn->trans = {op_name(isa, target)};", depth + 1)
    out.add(f"return {op_name(isa, insn)};", depth + 1)
    out.add("}", depth)


def emit_decode(isa, sources, header):
    out = Emitter(isa, sources, f"Decoder of {isa.name} instructions.")
    out.add(f'#include "{header}"')
    out.add()
    word = word_type(isa)
    for form in isa.formats.values():
        out.add(f"static inline void fill_{form.name}(struct {isa.name}_insn *insn, {word} b)")
        out.add("{")
        members = structs(isa)[form.struct]
        for arg, field in form.binds.items():
            low, high = members[arg]
            cast = "(uint8_t)" if low >= 0 and high < 256 else ""
            expr = field_expr(field)
            out.add(f"insn->u.{form.struct}.{arg} = {cast}{f'({expr})' if cast else expr};", 1)
        if not form.binds:
            out.add(f"insn->u.{form.struct}.unused = 0;", 1)
        if not any(field.segs for field in form.binds.values()):
            out.add("(void)b;", 1)
        out.add("}")
        out.add()
    widths = [width for width, _ in isa.lengths]
    for width in widths:
        out.add(f"static unsigned find_{width}({word} b, isa_features f, "
                f"struct {isa.name}_insn *insn)")
        out.add("{")
        known = next((cond[0] for size, cond in isa.lengths if size == width and cond), 0)
        emit_tree(out, isa, [i for i in isa.insns if i.width == width], known, 1)
        out.add("return 0;", 1)
        out.add("}")
        out.add()
    out.add(f"unsigned {isa.name}_decode({word} bits, isa_features features, "
            f"struct {isa.name}_insn *insn)")
    out.add("{")
    out.add(f"unsigned length = {isa.name}_insn_length(bits);", 1)
    out.add("unsigned op = 0;", 1)
    out.add()
    out.add("insn->length = (uint8_t)length;", 1)
    out.add("insn->trans = 0;", 1)
    out.add("switch (length) {", 1)
    for width in widths:
        cut = f"bits & {(1 << width) - 1:#x}" if width < isa.max_width else "bits"
        out.add(f"case {width // 8}:", 1)
        out.add(f"op = find_{width}({cut}, features, insn);", 2)
        out.add("break;", 2)
    out.add("}", 1)
    out.add("insn->op = (uint16_t)op;", 1)
    out.add("return op;", 1)
    out.add("}")
    return out


# ---- dispatch -------------------------------------------------------------------------------

def emit_dispatch(isa, sources, header):
    out = Emitter(isa, sources, f"From decoded {isa.name} instructions to translate functions.")
    out.add(f'#include "{header}"')
    out.add()
    out.add(f"bool {isa.name}_translate(struct tcg_trans *t, const struct {isa.name}_insn *insn)")
    out.add("{")
    out.add("switch (insn->trans) {", 1)
    for insn in trans_targets(isa):
        out.add(f"case {op_name(isa, insn)}:", 1)
        out.add(f"return {trans_name(isa, insn)}(t, &insn->u.{insn.format.struct});", 2)
    out.add("default:", 1)
    out.add("return false;", 2)
    out.add("}", 1)
    out.add("}")
    return out


# ---- tables ---------------------------------------------------------------------------------

def emit_tables(isa, sources, header):
    out = Emitter(isa, sources, f"Tables of the {isa.name} instruction set.")
    out.add(f'#include "{header}"')
    out.add()
    for names in isa.names.values():
        out.add(f"static const struct isa_name names_{names.name}[] = {{")
        for value in sorted(names.values):
            out.add(f"{{{value:#x}, {c_string(names.values[value])}}},", 1)
        out.add("};")
        out.add(f"static const struct isa_names all_{names.name} = {{{c_string(names.name)}, "
                f"{len(names.values)}, names_{names.name}}};")
        out.add()
    for field in isa.fields.values():
        emit_field(out, isa, field)
    out.add()
    for form in isa.formats.values():
        args = ", ".join(f"{{{c_string(arg)}, &field_{field.name}}}"
                         for arg, field in form.binds.items())
        out.add(f"static const struct isa_format format_{form.name} = {{{c_string(form.name)}, "
                f"{c_string(form.syntax)}, {len(form.binds)}, {{{args or '{0}'}}}}};")
    out.add()
    out.add("static const struct isa_format format_illegal = {\"illegal\", \"\", 0, {{0}}};")
    out.add(f"static const struct isa_insn insns[{isa.name.upper()}_OP_COUNT] = {{")
    out.add('{"illegal", "illegal", 0, 0, 0, 0, &format_illegal, 0, 0, ""},', 1)
    for insn in isa.insns:
        emit_insn(out, isa, insn)
    out.add("};")
    out.add()
    out.add("static const char *const features[] = {" +
            ", ".join(c_string(name) for name in isa.features) + "};")
    out.add()
    out.add("static unsigned find(uint64_t bits, isa_features enabled)")
    out.add("{")
    out.add(f"struct {isa.name}_insn insn;", 1)
    out.add()
    out.add(f"return {isa.name}_decode(({word_type(isa)})bits, enabled, &insn);", 1)
    out.add("}")
    out.add()
    out.add("static unsigned length(uint64_t bits)")
    out.add("{")
    out.add(f"return {isa.name}_insn_length(({word_type(isa)})bits);", 1)
    out.add("}")
    out.add()
    out.add(f"const struct isa {isa.name}_isa = {{{c_string(isa.name)}, "
            f"{isa.name.upper()}_OP_COUNT, insns, {len(isa.features)}, features, find, length}};")
    return out


def emit_field(out, isa, field):
    kinds = {"dec": "ISA_DEC", "hex": "ISA_HEX", "pcrel": "ISA_PCREL"}
    kind = kinds.get(field.kind, "ISA_NAMES")
    names = f"&all_{field.kind}" if kind == "ISA_NAMES" else "NULL"
    segs = ", ".join(f"{{{low}, {width}}}" for low, width in field.segs) or "{0}"
    args = field.kind_args + [0, 0]
    out.add(f"static const struct isa_field field_{field.name} = {{{c_string(field.name)}, "
            f"{len(field.segs)}, {{{segs}}}, {'true' if field.signed else 'false'}, "
            f"{field.width}, {field.shift}, {field.add}, {kind}, {args[0]}, {args[1]}, {names}}};")


def emit_insn(out, isa, insn):
    rules = []
    for field, equal, values in insn.constraints:
        listed = ", ".join(str(value) for value in sorted(values))
        rules.append(f"{{&field_{field.name}, {'true' if equal else 'false'}, {len(values)}, "
                     f"{{{listed}}}}}")
    out.add(f"{{{c_string(insn.name)}, {c_string(insn.ident)}, {insn.width}, "
            f"{insn.mask:#x}, {insn.match:#x}, {feature_expr(isa, insn.features)}, "
            f"&format_{insn.format.name}, {len(rules)}, "
            f"{'(const struct isa_constraint[]){' + ', '.join(rules) + '}' if rules else '0'}, "
            f"{c_string(insn.doc)}}},", 1)


# ---- documentation --------------------------------------------------------------------------

def emit_doc(isa, sources):
    lines = [f"# The {isa.name} instruction set", "",
             NOTE.format(", ".join(f"`{source}`" for source in sources)), "",
             f"{len(isa.insns)} encodings of {len({i.name for i in isa.insns})} instructions. "
             "Bits are listed from the most significant; a dot is an operand bit. An "
             "instruction exists when every feature of its column is enabled.", "",
             "## Features", "", "| feature | meaning | encodings |", "|---|---|---|"]
    for feature, doc in isa.features.items():
        count = sum(feature in insn.features for insn in isa.insns)
        lines.append(f"| {feature} | {doc} | {count} |")
    section = None
    for insn in isa.insns:
        if insn.section != section:
            section = insn.section
            lines += ["", f"## {section}", "",
                      "| instruction | operands | features | bits | meaning |",
                      "|---|---|---|---|---|"]
        doc = insn.doc.replace("|", "\\|").replace("<", "&lt;")
        syntax = doc_syntax(insn)
        pattern = " ".join(insn.pattern[i:i + 4] for i in range(0, len(insn.pattern), 4))
        operands = f"`{syntax}`" if syntax else ""
        extra = "".join(f"; {field.name} {'is' if equal else 'is not'} "
                        f"{', '.join(str(v) for v in sorted(values))}"
                        for field, equal, values in insn.constraints)
        if insn.trans != insn.name:
            extra += f"; as {insn.trans}"
        lines.append(f"| {insn.name} | {operands} | {' '.join(insn.features)} | `{pattern}` | "
                     f"{doc}{extra} |")
    return "\n".join(lines) + "\n"


def doc_syntax(insn):
    text = insn.format.syntax
    if text.startswith("!"):
        text = text.partition(" ")[2]
    while "{" in text:
        head, _, rest = text.partition("{")
        inner, _, tail = rest.partition("}")
        text = f"{head}[{inner.partition(':')[2]}]{tail}"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--isa", action="append", required=True, metavar="FILE")
    parser.add_argument("--include", help="how the generated header is included")
    for name in ("header", "decode", "dispatch", "tables", "doc"):
        parser.add_argument("--" + name, metavar="OUT")
    args = parser.parse_args()
    try:
        isa = isamodel.load(*args.isa)
    except (isamodel.IsaError, OSError) as error:
        print(f"isagen: {error}", file=sys.stderr)
        return 1
    sources = [os.path.basename(path) for path in args.isa]
    include = args.include or f"{isa.name}_isa.h"
    if args.header:
        emit_header(isa, sources).save(args.header)
    if args.decode:
        emit_decode(isa, sources, include).save(args.decode)
    if args.dispatch:
        emit_dispatch(isa, sources, include).save(args.dispatch)
    if args.tables:
        emit_tables(isa, sources, include).save(args.tables)
    if args.doc:
        write_if_changed(args.doc, emit_doc(isa, sources))
    return 0


if __name__ == "__main__":
    sys.exit(main())
