# SPDX-License-Identifier: Apache-2.0
"""vmctl from the schema: the verb table in C, bash completion, the manual page.

A Verb gathers what a method's "cli" part (or an entry of cli.json) says; its options follow from
the members of the method's parameters.
"""
import textwrap

from emit_c import HEAD, cstr
from model import SchemaError

KINDS = {"int": "N", "size": "SIZE", "path": "PATH", "image": "PATH", "string": "TEXT", "name": "NAME",
         "uuid": "UUID", "vmref": "VM", "any": "JSON", "object": "JSON"}


class Option:
    """One option: of a member (path is set) or the verb's own."""

    def __init__(self, name, doc, letter="", metavar="", path="", kind="", member=None):
        self.name, self.doc, self.letter, self.metavar = name, doc, letter, metavar
        self.path, self.kind, self.member = path, kind, member

    @property
    def negatable(self):
        return bool(self.path and self.member.base == "bool" and self.member.default is not False)


class Verb:
    """One verb of vmctl with everything that help, parser and completion need."""

    def __init__(self, schema, raw, method):
        self.raw, self.method, self.name = raw, method, raw["verb"]
        self.group, self.summary = raw["group"], raw["summary"]
        self.doc = raw.get("doc") or (method.doc if method else raw["summary"])
        self.args, self.aliases = raw.get("args", []), raw.get("aliases", [])
        self.handler = raw.get("handler", "call")
        self.examples = raw["examples"]
        if not self.examples:
            raise SchemaError(f"verb {self.name}: no example")
        self.options = [o for o in self._member_options()]
        self.options += [Option(o["name"], o["doc"], o.get("letter", ""), o.get("metavar", ""))
                         for o in raw.get("options", [])]
        if raw.get("file"):
            self.options.append(Option("file", "Read the definition from a JSON file (- is standard "
                                       "input); options are applied on top.", "f", "FILE"))
        if raw.get("unset"):
            self.options.append(Option("unset", "Put the default of a member back; may stand several "
                                       "times.", "", "MEMBER"))
        self._check_letters(schema)

    def _check_letters(self, schema):
        seen = {}
        local = self.raw.get("local", False)  # asks no daemon: -c need not mean --connect here
        for o in [*map(lambda g: Option(g["name"], g["doc"],
                                            "" if local and g["name"] == "connect" else g.get("letter", "")),
                       schema.cli["globals"]), *self.options]:
            for key in filter(None, (o.name, o.letter)):
                if key in seen:
                    raise SchemaError(f"verb {self.name}: option {key!r} stands twice")
                seen[key] = o

    def _member_options(self):
        if not self.method:
            return
        taken = {a.get("member") for a in self.args} | set(self.raw.get("hide", []))
        spread = self.raw.get("spread") or ""
        for m in self.method.in_type.members:
            if m.name == spread:
                for inner in m.type.members:
                    if f"{spread}.{inner.name}" not in taken:
                        yield self._option(inner, f"{spread}.{inner.name}")
            elif m.name not in taken:
                yield self._option(m, m.name)

    @staticmethod
    def _option(m, path):
        metavar = m.cli.get("metavar") or ("" if m.base == "bool" else KINDS.get(m.base))
        if metavar is None:
            values = list(m.type.values)
            metavar = "|".join(values) if values and len(values) < 4 else m.base.upper()
            if m.type.kind == "struct":
                metavar = ",".join(f"{x.name}=..." for x in m.type.members)
        return Option(m.cli.get("option", m.name.replace("_", "-")), m.doc, m.cli.get("short", ""),
                      metavar, path, m.cli.get("kind", ""), m)

    def usage(self):
        parts = ["vmctl", self.name] + (["[OPTION]..."] if self.options else [])
        for a in self.args:
            text = a["name"] + ("..." if a.get("repeat") else "")
            parts.append(f"[{text}]" if a.get("optional") else text)
        return " ".join(parts)


def verbs(schema):
    """All verbs, by group as cli.json orders them, then by name."""
    out = [Verb(schema, m.cli, m) for m in schema.methods.values() if m.cli]
    out += [Verb(schema, v, schema.methods.get(v.get("method"))) for v in schema.verbs]
    groups = list(schema.cli["groups"])
    names = [v.name for v in out] + [a for v in out for a in v.aliases]
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"verb {name} stands twice")
    covered = {v.method.name for v in out if v.method}
    covered |= {m for v in out for m in v.raw.get("methods", [])}
    for m in schema.methods.values():
        if not m.internal and m.name not in covered:
            raise SchemaError(f"{m.name}: no verb of vmctl calls it")
    return sorted(out, key=lambda v: (groups.index(v.group), v.name))


# --- the table in C ----------------------------------------------------------------------------


def rows_c(kind, name, rows):
    if not rows:
        return "", "NULL, 0"
    body = "".join(f"    {{ {row} }},\n" for row in rows)
    return f"static const struct {kind} {name}[] = {{\n{body}}};\n", f"{name}, {len(rows)}"


def option_c(o):
    letter = f"'{o.letter}'" if o.letter else "0"
    return (f"{cstr(o.name)}, {letter}, {cstr(o.metavar or None)}, {cstr(o.path or None)}, "
            f"{cstr(o.kind or None)},\n      {str(o.negatable).lower()}, {cstr(o.doc)}")


def arg_c(a):
    repeat, optional = str(a.get("repeat", False)).lower(), str(a.get("optional", False)).lower()
    return f"{cstr(a['name'])}, {cstr(a.get('member'))}, {repeat}, {optional}"


def verb_c(v):
    c = v.name.replace("-", "_").replace(" ", "_")
    out, fields = "", []
    columns = [f"{cstr(t)}, {cstr(m)}, {cstr(s[0] if s else None)}"
               for t, m, *s in v.raw.get("columns", [])]
    for kind, rows in (
        ("cli_option", [option_c(o) for o in v.options]),
        ("cli_arg", [arg_c(a) for a in v.args]),
        ("cli_column", columns),
        ("cli_example", [f"{cstr(a)}, {cstr(b)}" for a, b in v.examples]),
    ):
        text, use = rows_c(kind, f"{kind[4:]}s_{c}", rows)
        out += text
        fields.append(use)
    method = "&api_method_" + v.method.c.replace("api_", "", 1) if v.method else "NULL"
    raw = v.raw
    line = (raw.get("line") or [None, None])[:2]
    row = (f"    {{ .name = {cstr(v.name)}, .alias = {cstr((v.aliases or [None])[0])}, .alias2 = {cstr((v.aliases + [None, None])[1])}, "
           f".group = {cstr(v.group)},\n      .summary = {cstr(v.summary)},\n"
           f"      .doc = {cstr(v.doc)},\n      .usage = {cstr(v.usage())},\n"
           f"      .method = {method}, .run = cli_verb_{v.handler},\n"
           f"      .options = {fields[0].split(', ')[0]}, .n_options = {fields[0].split(', ')[1]},\n"
           f"      .args = {fields[1].split(', ')[0]}, .n_args = {fields[1].split(', ')[1]},\n"
           f"      .columns = {fields[2].split(', ')[0]}, .n_columns = {fields[2].split(', ')[1]},\n"
           f"      .examples = {fields[3].split(', ')[0]}, .n_examples = {fields[3].split(', ')[1]},\n"
           f"      .rows = {cstr(raw.get('rows'))}, .quiet = {cstr(raw.get('quiet'))}, "
           f".done = {cstr(raw.get('done'))},\n"
           f"      .line_state = {cstr(line[0])}, .line_reason = {cstr(line[1])},\n"
           f"      .file = {cstr(raw.get('file'))}, .unset = {cstr(raw.get('unset'))} }},\n")
    return out, row


def verbs_c(schema):
    out = HEAD.format("The verbs of vmctl.")
    out += '#include "cli/verbs.h"\n\n#include "api-schema/gen/methods.h"\n\n'
    table, all_verbs = "", verbs(schema)
    for v in all_verbs:
        text, row = verb_c(v)
        out += text
        table += row
    out += f"const struct cli_verb cli_verbs[] = {{\n{table}}};\nconst size_t cli_n_verbs = {len(all_verbs)};\n\n"
    groups = "".join(f"    {{ {cstr(k)}, {cstr(t)} }},\n" for k, t in schema.cli["groups"].items())
    out += f"const struct cli_group cli_groups[] = {{\n{groups}}};\n"
    out += f"const size_t cli_n_groups = {len(schema.cli['groups'])};\n\n"
    opts = [Option(g["name"], g["doc"], g.get("letter", ""), g.get("metavar", ""))
            for g in schema.cli["globals"]]
    body = "".join(f"    {{ {option_c(o)} }},\n" for o in opts)
    out += f"const struct cli_option cli_globals[] = {{\n{body}}};\nconst size_t cli_n_globals = {len(opts)};\n\n"
    exits = "".join(f"    {{ {n}, {cstr(t)} }},\n" for n, t in schema.cli["exits"])
    return out + f"const struct cli_exit cli_exits[] = {{\n{exits}}};\nconst size_t cli_n_exits = {len(schema.cli['exits'])};\n"


# --- bash completion ---------------------------------------------------------------------------

BASH = r'''# SPDX-License-Identifier: Apache-2.0
# bash completion for vmctl. Written by api-schema/gen from the schema: do not edit.

# Live names; nothing when no daemon answers.
_vmctl_names() {
    local args=() i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -c | --connect | --dir) args+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}") ;;
        esac
    done
    case $1 in
    job) timeout 2 vmctl "${args[@]}" jobs --quiet 2>/dev/null ;;
    vm) timeout 2 vmctl "${args[@]}" list --quiet 2>/dev/null ;;
    vm:*) timeout 2 vmctl "${args[@]}" list --quiet --state "${1#vm:}" 2>/dev/null ;;
    esac
}

_vmctl_words() {
    COMPREPLY=()
    local word
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(compgen -W "$1" -- "$2")
}

_vmctl_files() {
    COMPREPLY=()
    local word
    compopt -o filenames 2>/dev/null
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(compgen "$1" -- "$2")
}

# Second words of verbs that have two.
_vmctl_seconds() {
    case $1 in
@SECONDS@
    *) seconds='' ;;
    esac
}

_vmctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev='' verb='' seconds='' i
    ((COMP_CWORD > 0)) && prev=${COMP_WORDS[COMP_CWORD - 1]}
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -c | --connect | --dir | --color | --key | --format) ((i++)) ;;
        -*) ;;
        *)
            verb=${COMP_WORDS[i]}
            _vmctl_seconds "$verb"
            if ((i + 1 < COMP_CWORD)) && [[ " $seconds " == *" ${COMP_WORDS[i + 1]} "* ]]; then
                verb+=" ${COMP_WORDS[i + 1]}"
            elif ((i + 1 == COMP_CWORD)) && [[ -n $seconds && $cur != -* ]]; then
                _vmctl_words "$seconds" "$cur"
                return
            fi
            break
            ;;
        esac
    done
    case $prev in
    --color)
        _vmctl_words 'auto always never' "$cur"
        return
        ;;
    -c | --connect | --file | -f)
        if [[ $prev != -f || ($verb != events && $verb != stop && $verb != rm) ]]; then
            _vmctl_files -f "$cur"
            return
        fi
        ;;
    --dir)
        _vmctl_files -d "$cur"
        return
        ;;
    esac
    if [[ -z $verb ]]; then
        _vmctl_words '@VERBS@ @GLOBALS@' "$cur"
        return
    fi
    case $verb:$prev in
@VALUES@
    esac
    if [[ $cur == -* ]]; then
        case $verb in
@OPTIONS@
        esac
        return
    fi
    case $verb in
@ARGS@
    esac
}
complete -F _vmctl vmctl
'''


def value_words(o, all_verbs):
    """What can follow an option in bash: ('words', text), ('files', flag), ('names', kind)."""
    if o.member and o.member.type and o.member.type.kind == "enum":
        return "words", " ".join(o.member.type.values)
    if o.name == "unset":
        verb = next(v for v in all_verbs if o in v.options)
        return "words", " ".join(x.path.split(".")[-1] for x in verb.options if "." in x.path)
    if o.name == "vm":
        return "names", "vm"
    inner = getattr(o.member.type, "members", []) if o.member and o.member.type else []
    if o.member and (o.member.base in ("path", "image") or any(x.name == "file" or x.bare and x.contents for x in inner)):
        return "files", "-f"
    return None


def quoted(name):
    """A verb as a pattern of bash."""
    return f"'{name}'" if " " in name else name


def bash(schema):
    all_verbs = verbs(schema)
    words = list(dict.fromkeys(n.split(" ")[0] for v in all_verbs for n in [v.name, *v.aliases]))
    names = " ".join(words)
    seconds = ""
    for w in words:
        two = [v.name.split(" ")[1] for v in all_verbs if v.name.startswith(w + " ")]
        if two:
            seconds += f"    {w}) seconds='{' '.join(two)}' ;;\n"
    globals_ = " ".join("--" + g["name"] for g in schema.cli["globals"])
    values, options, args = "", "", ""
    for v in all_verbs:
        pattern = " | ".join(quoted(n) for n in [v.name, *v.aliases])
        words = []
        for o in v.options:
            words.append("--" + o.name)
            if o.negatable:
                words.append("--no-" + o.name)
            use = value_words(o, all_verbs) if o.metavar else None
            if not use:
                continue
            call = {"words": f"_vmctl_words '{use[1]}' \"$cur\"", "files": f"_vmctl_files {use[1]} \"$cur\"",
                    "names": f"_vmctl_words \"$(_vmctl_names {use[1]})\" \"$cur\""}[use[0]]
            both = " | ".join(f"{quoted(n)}:--{o.name}" for n in [v.name, *v.aliases])
            values += f"    {both})\n        {call}\n        return\n        ;;\n"
        options += f"        {pattern}) _vmctl_words '{' '.join(words)} {globals_}' \"$cur\" ;;\n"
        kinds = [a["complete"] for a in v.args if a.get("complete")]
        if kinds:
            text = {"verb": f"'{names}'", "method": "'" + " ".join(
                n for n, m in sorted(schema.methods.items()) if not m.internal) + "'"}
            what = text.get(kinds[0], f"\"$(_vmctl_names {kinds[0]})\"")
            args += f"    {pattern}) _vmctl_words {what} \"$cur\" ;;\n"
    out = BASH.replace("@SECONDS@\n", seconds).replace("@VERBS@", names).replace("@GLOBALS@", globals_)
    return (out.replace("@VALUES@", values.rstrip("\n")).replace("@OPTIONS@", options.rstrip("\n"))
            .replace("@ARGS@", args.rstrip("\n")))


# --- the manual page ---------------------------------------------------------------------------


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(("\\&" + line) if line[:1] in (".", "'") else line for line in text.split("\n"))


def option_roff(o):
    head = f"\\fB\\-\\-{roff(o.name)}\\fR"
    if o.negatable:
        head += f", \\fB\\-\\-no\\-{roff(o.name)}\\fR"
    if o.letter:
        head = f"\\fB\\-{o.letter}\\fR, " + head
    if o.metavar:
        head += f" \\fI{roff(o.metavar)}\\fR"
    return f".TP\n{head}\n{roff(o.doc)}\n"


def manual(schema):
    out = '.\\" Written by api-schema/gen from the schema: do not edit.\n'
    out += '.TH VMCTL 1 "" vmd "User commands"\n.SH NAME\nvmctl \\- define, run and look at virtual machines\n'
    out += ".SH SYNOPSIS\n.B vmctl\n[\\fIoption\\fR...] \\fIverb\\fR [\\fIargument\\fR...]\n.SH DESCRIPTION\n"
    out += roff("vmctl asks the daemon vmd. Each verb prints tables for people, JSON with --json and bare names "
                "with --quiet. Values in bytes take K, M, G and T; times take ms, s, m and h.") + "\n"
    out += ".SH OPTIONS\n" + "".join(
        option_roff(Option(g["name"], g["doc"], g.get("letter", ""), g.get("metavar", "")))
        for g in schema.cli["globals"])
    all_verbs = verbs(schema)
    for group, title in schema.cli["groups"].items():
        out += f".SH {title.upper()}\n"
        for v in all_verbs:
            if v.group != group:
                continue
            out += f".SS {roff(v.usage())}\n{roff(v.doc)}\n"
            out += "".join(option_roff(o) for o in v.options)
            for command, doc in v.examples:
                out += f".PP\n{roff(doc[0].upper() + doc[1:])}:\n.PP\n.RS\n.nf\n{roff(command)}\n.fi\n.RE\n"
    out += ".SH EXIT STATUS\n"
    for number, doc in schema.cli["exits"]:
        out += f".TP\n.B {number}\n{roff(doc)}\n"
    out += ".SH ENVIRONMENT\n.TP\n.B VMCTL_CONNECT\nDaemon to talk to, as with \\fB\\-\\-connect\\fR.\n"
    out += ".TP\n.B NO_COLOR\nNo colours.\n.SH SEE ALSO\n.BR vmd (8)\n"
    return out


def reference(schema):
    """docs/reference/vmctl.md."""
    out = "# vmctl\n\nWritten by `api-schema/gen` from the schema: do not edit.\n\n"
    out += "| verb | what it does | calls |\n|---|---|---|\n"
    all_verbs = verbs(schema)
    for v in all_verbs:
        calls = ([v.method.name] if v.method else []) + v.raw.get("methods", [])
        out += f"| [`{v.name}`](#{v.name.replace(' ', '-')}) | {v.summary} | {', '.join(f'`{c}`' for c in calls)} |\n"
    out += "\n## Options of every verb\n\n" + options_md(
        [Option(g["name"], g["doc"], g.get("letter", ""), g.get("metavar", "")) for g in schema.cli["globals"]])
    for v in all_verbs:
        out += f"\n## {v.name}\n\n`{v.usage()}`\n\n{v.doc}\n"
        if v.aliases:
            out += f"\nAlso: {', '.join(f'`{a}`' for a in v.aliases)}.\n"
        if v.options:
            out += "\n" + options_md(v.options)
        out += "\n```sh\n"
        for command, doc in v.examples:
            out += textwrap.fill(doc, 90, initial_indent="# ", subsequent_indent="# ") + f"\n{command}\n"
        out += "```\n"
    out += "\n## Exit status\n\n| status | meaning |\n|---|---|\n"
    return out + "".join(f"| {n} | {t} |\n" for n, t in schema.cli["exits"])


def options_md(options):
    out = "| option | meaning |\n|---|---|\n"
    for o in options:
        head = (f"`-{o.letter}`, " if o.letter else "") + f"`--{o.name}" + (f" {o.metavar}`" if o.metavar else "`")
        head = head.replace("|", "\\|") + (f", `--no-{o.name}`" if o.negatable else "")
        out += f"| {head} | {o.doc} |\n"
    return out


def files(schema):
    """Name in cli/ of the build folder, and text."""
    return {"verbs_table.c": verbs_c(schema), "completion/vmctl": bash(schema), "vmctl.1": manual(schema)}
