# SPDX-License-Identifier: Apache-2.0
"""Completion of vmctl for zsh and fish, from the same verbs as bash's (emit_cli.py)."""
import shlex

import emit_cli

ZSH = r'''#compdef vmctl
# SPDX-License-Identifier: Apache-2.0
# zsh completion for vmctl. Written by api-schema/gen from the schema: do not edit.

# Which daemon the options read so far name; `where` is _vmctl's.
_vmctl_where() {
    local o
    for o in -c --connect --dir; do
        if (($+opt_args[$o])); then
            where=($o ${(Q)opt_args[$o]})
        fi
    done
}

# Live names of the kind that is the last argument; the others are compadd's. Nothing when no daemon answers.
_vmctl_names() {
    local kind=${@[-1]}
    local -a names
    _vmctl_where
    case $kind in
    job) names=("${(@f)$(timeout 2 vmctl $where jobs --quiet 2>/dev/null)}") ;;
    vm) names=("${(@f)$(timeout 2 vmctl $where list --quiet 2>/dev/null)}") ;;
    vm:*) names=("${(@f)$(timeout 2 vmctl $where list --quiet --state ${kind#vm:} 2>/dev/null)}") ;;
    esac
    names=(${names:#})
    (($#names)) && compadd "${@[1,-2]}" -a names
}

# Second words of verbs that have two, with what they do.
_vmctl_seconds() {
    seconds=()
    case $1 in
@SECONDS@
    esac
}

_vmctl() {
    local curcontext=$curcontext state line verb
    local -A opt_args
    local -a global_options verbs seconds where
    global_options=(
@GLOBALS@
    )
    verbs=(
@VERBS@
    )
    _arguments -C $global_options '1: :->verb' '*:: :->rest' && return
    _vmctl_where
    case $state in
    verb) _describe -t verbs 'verb of vmctl' verbs ;;
    rest)
        verb=${words[1]}
        _vmctl_seconds $verb
        if (($#seconds && CURRENT == 2)) && [[ ${words[2]} != -* ]]; then
            _describe -t verbs "second word of $verb" seconds
            return
        fi
        if ((CURRENT > 2)) && [[ -n ${(M)seconds:#${words[2]}:*} ]]; then
            verb+=" ${words[2]}"
            shift words
            ((CURRENT--))
        fi
        case $verb in
@CASES@
        esac
        ;;
    esac
}

_vmctl "$@"
'''


def two_words(all_verbs):
    """First words that a second follows, and those verbs."""
    out = {}
    for v in all_verbs:
        if " " in v.name:
            out.setdefault(v.name.split(" ")[0], []).append(v)
    return out


def first_words(all_verbs):
    """Each word that can stand first, and what it does."""
    out = {n: v.summary for v in all_verbs for n in [v.name, *v.aliases] if " " not in n}
    for first, verbs in two_words(all_verbs).items():
        out.setdefault(first, ", ".join(v.name.split(" ")[1] for v in verbs))
    return out.items()


def zsh_text(text):
    """For the inside of '[...]' of an _arguments specification in single quotes."""
    text = text.split(". ")[0].rstrip(".")
    for a, b in (("\\", "\\\\"), ("[", "\\["), ("]", "\\]"), (":", "\\:"), ("'", "'\\''")):
        text = text.replace(a, b)
    return text


def zsh_value(o, all_verbs):
    if not o.metavar:
        return ""
    use = emit_cli.value_words(o, all_verbs) if o.member or o.name in ("unset", "vm") else None
    if o.name in ("connect", "file"):
        use = "files", "-f"
    if o.name == "dir":
        use = "files", "-d"
    if o.name == "color":
        use = "words", "auto always never"
    if not use:
        return ":" + zsh_text(o.metavar.lower()) + ": "
    action = {"words": f"({use[1]})", "files": "_files" + (" -/" if use[1] == "-d" else ""),
              "names": f"_vmctl_names {use[1]}"}[use[0]]
    return ":" + zsh_text(o.metavar.lower()) + ":" + action


def zsh_option(o, all_verbs):
    value, doc = zsh_value(o, all_verbs), zsh_text(o.doc)
    several = "*" if o.member and o.member.is_list or o.name == "unset" else ""
    out = []
    if o.letter:
        out.append(f"'{several}-{o.letter}{'+' if value else ''}[{doc}]{value}'")
    out.append(f"'{several}--{o.name}{'=' if value else ''}[{doc}]{value}'")
    if o.negatable:
        out.append(f"'--no-{o.name}[not\\: {doc}]'")
    return out


def lines(items, indent):
    return "\n".join(" " * indent + x for x in items)


def zsh_args(v, schema, all_verbs):
    for a in v.args:
        kind = a.get("complete")
        if kind:
            star = "*" if a.get("repeat") else "1"
            words = {"verb": "(" + " ".join(n for n, _ in first_words(all_verbs)) + ")",
                     "method": "(" + " ".join(sorted(n for n, m in schema.methods.items() if not m.internal)) + ")"}
            yield f"'{star}: :{words.get(kind, '_vmctl_names ' + kind.replace(':', chr(92) + ':'))}'"


def zsh(schema):
    all_verbs = emit_cli.verbs(schema)
    options = [x for g in schema.cli["globals"] for x in zsh_option(
        emit_cli.Option(g["name"], g["doc"], g.get("letter", ""), g.get("metavar", "")), all_verbs)]
    words = [f"'{n}:{zsh_text(doc)}'" for n, doc in first_words(all_verbs)]
    seconds = ""
    for first, verbs in two_words(all_verbs).items():
        rows = " ".join(f"'{v.name.split(' ')[1]}:{zsh_text(v.summary)}'" for v in verbs)
        seconds += f"    {first}) seconds=({rows}) ;;\n"
    cases = ""
    for v in all_verbs:
        own = [x for o in v.options for x in zsh_option(o, all_verbs)] + list(zsh_args(v, schema, all_verbs))
        cases += f"        {' | '.join(map(emit_cli.quoted, [v.name, *v.aliases]))})\n            _arguments $global_options"
        cases += "".join(" \\\n                " + x for x in own) + "\n            ;;\n"
    return (ZSH.replace("@SECONDS@\n", seconds).replace("@GLOBALS@", lines(options, 8)).replace("@VERBS@", lines(words, 8))
            .replace("@CASES@", cases.rstrip("\n")))


# --- fish --------------------------------------------------------------------------------------

FISH = r'''# SPDX-License-Identifier: Apache-2.0
# fish completion for vmctl. Written by api-schema/gen from the schema: do not edit.

# Live names; nothing when no daemon answers.
function __vmctl_names
    set -l tokens (commandline -opc)
    set -l where
    for i in (seq 2 (count $tokens))
        switch $tokens[$i]
            case -c --connect --dir
                set where $where $tokens[$i] $tokens[(math $i + 1)]
        end
    end
    switch $argv[1]
        case job
            timeout 2 vmctl $where jobs --quiet 2>/dev/null
        case vm
            timeout 2 vmctl $where list --quiet 2>/dev/null
        case 'vm:*'
            timeout 2 vmctl $where list --quiet --state (string sub -s 4 $argv[1]) 2>/dev/null
    end
end

# The verb on the line, of one word or two; nothing before it is there.
function __vmctl_verb
    set -l tokens (commandline -opc)
    set -l i 2
    while test $i -le (count $tokens)
        switch $tokens[$i]
            case -c --connect --dir --color --key --format
                set i (math $i + 2)
            case '-*'
                set i (math $i + 1)
            case '*'
                set -l two "$tokens[$i] "
                set i (math $i + 1)
                test $i -le (count $tokens); and set two "$two$tokens[$i]"
                contains -- $two @TWO@; and echo $two; or string split -f 1 ' ' -- $two
                return
        end
    end
end
function __vmctl_is
    contains -- (__vmctl_verb) $argv
end

complete -c vmctl -e # fish knows another program of this name
complete -c vmctl -f
'''


def fish_option(o, condition, all_verbs):
    out = f"complete -c vmctl -n {shlex.quote(condition)} -l {o.name}" if condition else f"complete -c vmctl -l {o.name}"
    if o.letter:
        out += f" -s {o.letter}"
    use = emit_cli.value_words(o, all_verbs) if o.metavar and (o.member or o.name in ("unset", "vm")) else None
    if o.name in ("connect", "file", "dir"):
        use = "files", "-f"
    if o.name == "color":
        use = "words", "auto always never"
    if o.metavar:
        kind = use[0] if use else ""
        out += {"words": f" -x -a {shlex.quote(use[1] if use else '')}", "files": " -r -F",
                "names": " -x -a '(__vmctl_names vm)'"}.get(kind, " -x")
    return out + f" -d {shlex.quote(o.doc.split('. ')[0].rstrip('.'))}\n"


def fish_verb(v, schema, all_verbs):
    seen = "__vmctl_is " + " ".join(map(emit_cli.quoted, [v.name, *v.aliases]))
    out = ""
    for o in v.options:
        out += fish_option(o, seen, all_verbs)
        if o.negatable:
            out += f"complete -c vmctl -n {shlex.quote(seen)} -l no-{o.name}\n"
    for kind in (a["complete"] for a in v.args if a.get("complete")):
        words = {"verb": " ".join(n for n, _ in first_words(all_verbs)),
                 "method": " ".join(sorted(n for n, m in schema.methods.items() if not m.internal))}
        out += f"complete -c vmctl -n {shlex.quote(seen)} -a {shlex.quote(words.get(kind, f'(__vmctl_names {kind})'))}\n"
    return out


def fish(schema):
    all_verbs = emit_cli.verbs(schema)
    out = FISH.replace("@TWO@", " ".join(f"'{v.name}'" for v in all_verbs if " " in v.name) or "''")
    for g in schema.cli["globals"]:
        out += fish_option(emit_cli.Option(g["name"], g["doc"], g.get("letter", ""), g.get("metavar", "")), "", all_verbs)
    for n, doc in first_words(all_verbs):
        out += f"complete -c vmctl -n 'test -z \"$(__vmctl_verb)\"' -a {n} -d {shlex.quote(doc)}\n"
    for first, verbs in two_words(all_verbs).items():
        for v in verbs:
            out += f"complete -c vmctl -n '__vmctl_is {first}' -a {v.name.split(' ')[1]} -d {shlex.quote(v.summary)}\n"
    return out + "".join(fish_verb(v, schema, all_verbs) for v in all_verbs)


def files(schema):
    """Name in cli/ of the build folder, and text."""
    return {"completion/_vmctl": zsh(schema), "completion/vmctl.fish": fish(schema)}
