/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line to parameters: options and arguments of the verb's table go to their members.
 * Global options may stand before and after the verb.
 */
#include "cli/cli.h"

#include "api-schema/gen/methods.h"
#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct parser {
    struct cli *c;
    struct cli_input *in;
    int argc, at;
    char **argv;
    const char *file; /* -f */
    size_t n_args;    /* positional arguments so far */
    bool only_args;   /* after "--" */
};

void cli_set_path(struct json_object *o, const char *path, struct json_object *take_value)
{
    const char *dot;

    while ((dot = strchr(path, '.'))) {
        AUTO_FREE char *name = xstrndup(path, (size_t)(dot - path));
        struct json_object *inner = api_json_get(o, name);

        if (!json_object_is_type(inner, json_type_object)) {
            inner = json_object_new_object();
            api_json_set(o, name, inner);
        }
        o = inner;
        path = dot + 1;
    }
    api_json_set(o, path, take_value);
}

struct json_object *cli_get_path(struct json_object *o, const char *path)
{
    const char *dot;

    while (o && (dot = strchr(path, '.'))) {
        AUTO_FREE char *name = xstrndup(path, (size_t)(dot - path));
        o = api_json_get(o, name);
        path = dot + 1;
    }
    return api_json_get(o, path);
}

const char *cli_own(const struct cli_input *in, const char *name)
{
    struct json_object *v = api_json_get(in->own, name);

    return v ? json_object_get_string(v) : NULL;
}

const struct cli_verb *cli_verb_find(const char *name)
{
    for (size_t i = 0; i < cli_n_verbs; i++) {
        if (strcmp(cli_verbs[i].name, name) == 0 ||
            (cli_verbs[i].alias && strcmp(cli_verbs[i].alias, name) == 0) ||
            (cli_verbs[i].alias2 && strcmp(cli_verbs[i].alias2, name) == 0)) {
            return &cli_verbs[i];
        }
    }
    return NULL;
}

void cli_input_done(struct cli_input *in)
{
    json_object_put(in->params);
    json_object_put(in->own);
    free(in->targets);
    free(in->xml);
}

static const char *verb_name(const void *arg, size_t i)
{
    return ((const struct cli_verb *)arg)[i].name;
}

static const char *option_name(const void *arg, size_t i)
{
    return ((const struct cli_option *)arg)[i].name;
}

static int usage_error(struct parser *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static int usage_error(struct parser *p, const char *fmt, ...)
{
    const struct cli_verb *v = p->in->verb;
    AUTO_BUF text = BUF_INIT;
    AUTO_FREE char *remedy = v ? xasprintf(
                                     "usage: %s\n'vmctl help %s' has options and examples",
                                     v->usage, v->name)
                               : xstrdup("'vmctl help' lists the verbs");
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    return cli_fail(p->c, CLI_USAGE, remedy, "%s", text.data);
}

/* --- options ------------------------------------------------------------------------------ */

static const struct cli_option *find_option(const struct cli_option *o, size_t n,
                                            const char *name, size_t len, char letter)
{
    for (size_t i = 0; i < n; i++) {
        if (letter ? o[i].letter == letter
                   : strlen(o[i].name) == len && !memcmp(o[i].name, name, len)) {
            return &o[i];
        }
    }
    return NULL;
}

static int set_global(struct parser *p, const struct cli_option *o, const char *value)
{
    struct cli *c = p->c;

    if (strcmp(o->name, "connect") == 0) {
        c->connect = value;
    } else if (strcmp(o->name, "dir") == 0) {
        c->dir = value;
    } else if (strcmp(o->name, "key") == 0) {
        c->key = value;
    } else if (strcmp(o->name, "format") == 0) {
        c->format = strcmp(value, "json") == 0 ? c->format : value;
        c->json = c->json || strcmp(value, "json") == 0;
    } else if (strcmp(o->name, "json") == 0) {
        c->json = true;
    } else if (strcmp(o->name, "quiet") == 0) {
        c->quiet = true;
    } else if (strcmp(o->name, "help") == 0) {
        c->help = true;
    } else if (strcmp(o->name, "color") == 0) {
        if (strcmp(value, "auto") && strcmp(value, "always") && strcmp(value, "never")) {
            return usage_error(p, "--color: '%s' is none of auto, always, never", value);
        }
        c->color = value;
    } else {
        printf("vmctl %s\n", PACKAGE_VERSION);
        return CLI_OK;
    }
    return -1;
}

/* The verb's own option: kept as text; a repeated one becomes a list. */
static int set_own(struct parser *p, const struct cli_option *o, const char *value)
{
    struct json_object *old = api_json_get(p->in->own, o->name);

    if (strcmp(o->name, "file") == 0 && p->in->verb->file) {
        p->file = value;
    } else if (strcmp(o->name, "unset") == 0 && p->in->verb->unset) {
        AUTO_FREE char *path = xasprintf("%s.%s", p->in->verb->unset, value);
        cli_set_path(p->in->params, path, NULL);
    } else if (!old) {
        api_json_set(p->in->own, o->name,
                     value ? json_object_new_string(value) : json_object_new_boolean(1));
    } else if (value) {
        if (!json_object_is_type(old, json_type_array)) {
            struct json_object *list = json_object_new_array();
            json_object_array_add(list, json_object_get(old));
            api_json_set(p->in->own, o->name, list);
            old = list;
        }
        json_object_array_add(old, json_object_new_string(value));
    }
    return -1;
}

/* Appends to a list: a struct is one element, of other kinds commas separate several. */
static int add_to_list(struct parser *p, const struct cli_option *o, const struct api_member *m,
                       const char *value)
{
    struct json_object *list = cli_get_path(p->in->params, o->path);
    const char *at = value;

    if (!list) {
        list = json_object_new_array();
        cli_set_path(p->in->params, o->path, list);
    }
    while (at) {
        size_t n = m->kind == API_STRUCT ? strlen(at) : strcspn(at, ",");
        AUTO_FREE char *item = xstrndup(at, n);
        struct err e = ERR_INIT;
        struct json_object *v = cli_value(m, o->kind, item, &e);

        if (!v) {
            return usage_error(p, "--%s: %s", o->name, e.msg);
        }
        json_object_array_add(list, v);
        at = at[n] ? at + n + 1 : NULL;
    }
    return -1;
}

static int set_member(struct parser *p, const struct cli_option *o, const char *value,
                      bool negated)
{
    const struct api_member *m = cli_member(p->in->verb->method->in, o->path);
    struct err e = ERR_INIT;
    struct json_object *v;

    if (m->flags & API_F_LIST) {
        return add_to_list(p, o, m, value);
    }
    v = value ? cli_value(m, o->kind, value, &e) : json_object_new_boolean(!negated);
    if (!v) {
        return usage_error(p, "--%s: %s", o->name, e.msg);
    }
    cli_set_path(p->in->params, o->path, v);
    return -1;
}

static int unknown_option(struct parser *p, const char *text)
{
    const struct cli_verb *v = p->in->verb;
    const char *near = NULL;

    if (str_starts(text, "--")) {
        size_t n = strcspn(text + 2, "=");
        AUTO_FREE char *name = xstrndup(text + 2, n);
        near = v ? api_nearest(name, option_name, v->options, v->n_options) : NULL;
        near = near ? near : api_nearest(name, option_name, cli_globals, cli_n_globals);
    }
    if (near) {
        return usage_error(p, "%s%sno option '%s'; did you mean --%s?", v ? v->name : "",
                           v ? ": " : "", text, near);
    }
    return usage_error(p, "%s%sno option '%s'", v ? v->name : "", v ? ": " : "", text);
}

/* Applies a found option; takes its value from `attached` or the next word. */
static int apply_option(struct parser *p, const struct cli_option *o, bool is_global,
                        const char *attached, bool negated)
{
    const char *value = attached;
    /* A flag of a member may be given a value with '=': --rng=no. */
    bool takes = o->metavar != NULL;

    if (takes && !value) {
        if (p->at + 1 >= p->argc) {
            return usage_error(p, "--%s needs a value (%s)", o->name, o->metavar);
        }
        value = p->argv[++p->at];
    }
    if (!takes && value && (is_global || !o->path)) {
        return usage_error(p, "--%s takes no value", o->name);
    }
    if (is_global) {
        return set_global(p, o, value);
    }
    return o->path ? set_member(p, o, value, negated) : set_own(p, o, value);
}

static int parse_long(struct parser *p, const char *word)
{
    const struct cli_verb *v = p->in->verb;
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const char *attached = equals ? equals + 1 : NULL;
    const struct cli_option *o = v ? find_option(v->options, v->n_options, name, len, 0) : NULL;

    if (o) {
        return apply_option(p, o, false, attached, false);
    }
    o = find_option(cli_globals, cli_n_globals, name, len, 0);
    if (o) {
        return apply_option(p, o, true, attached, false);
    }
    if (v && str_starts(name, "no-") && !attached) {
        o = find_option(v->options, v->n_options, name + 3, len - 3, 0);
        if (o && o->negatable) {
            return apply_option(p, o, false, NULL, true);
        }
    }
    return unknown_option(p, word);
}

static int parse_short(struct parser *p, const char *word)
{
    const struct cli_verb *v = p->in->verb;
    int rc = -1;

    for (const char *l = word + 1; *l && rc < 0; l++) {
        const struct cli_option *o = v ? find_option(v->options, v->n_options, NULL, 0, *l)
                                       : NULL;
        bool is_global = !o;

        o = o ? o : find_option(cli_globals, cli_n_globals, NULL, 0, *l);
        if (!o) {
            return unknown_option(p, word);
        }
        rc = apply_option(p, o, is_global, o->metavar && l[1] ? l + 1 : NULL, false);
        if (o->metavar) {
            break;
        }
    }
    return rc;
}

/* The first word of verbs of two words, with no second that fits: names them. -1: it is none. */
static int family_help(struct parser *p, const char *word)
{
    AUTO_BUF names = BUF_INIT;
    size_t n = strlen(word);

    for (size_t i = 0; i < cli_n_verbs; i++) {
        const char *name = cli_verbs[i].name;
        if (strncmp(name, word, n) == 0 && name[n] == ' ') {
            buf_printf(&names, "%s'%s'", names.len ? ", " : "", name);
        }
    }
    if (!names.len) {
        return -1;
    }
    usage_error(p, "'%s' needs a second word: %s", word, names.data);
    return 0;
}

/* --- arguments ---------------------------------------------------------------------------- */

/* What other tools call it: virsh, docker and incus. */
static const struct {
    const char *word, *ours;
} other_words[] = {
    { "attach", "console" },     { "delete", "rm" },         { "destroy", "stop --force" },
    { "dominfo", "show" },       { "domstate", "show" },     { "domstats", "stats" },
    { "dumpxml", "show --xml" }, { "exec", "console" },      { "info", "show" },
    { "init", "create" },        { "kill", "stop --force" },
    { "launch", "run" },         { "logs", "console" },      { "monitor", "events --follow" },
    { "nodeinfo", "host info" }, { "poweroff", "shutdown" }, { "ps", "list" },
    { "reboot", "reset" },       { "remove", "rm" },         { "suspend", "pause" },
    { "undefine", "rm" },        { "unpause", "resume" },
};

static const char *nearest_verb(const char *word)
{
    for (unsigned i = 0; i < ARRAY_LEN(other_words); i++) {
        if (strcmp(word, other_words[i].word) == 0) {
            return other_words[i].ours;
        }
    }
    for (size_t i = 0; i < cli_n_verbs && strlen(word) > 2; i++) {
        if (str_starts(cli_verbs[i].name, word)) {
            const char *first = cli_verbs[i].name;
            /* What begins so and is little longer: "stat" is "stats", not "start". */
            if (strlen(first) <= strlen(word) + 2 && !strchr(first, ' ')) {
                return first;
            }
        }
    }
    return api_nearest(word, verb_name, cli_verbs, cli_n_verbs);
}

/* A verb of two words ("cert issue") goes before one of the first word alone. */
static int parse_verb(struct parser *p, const char *word)
{
    if (p->at + 1 < p->argc) {
        AUTO_FREE char *two = xasprintf("%s %s", word, p->argv[p->at + 1]);
        p->in->verb = cli_verb_find(two);
        p->at += p->in->verb != NULL;
    }
    p->in->verb = p->in->verb ? p->in->verb : cli_verb_find(word);
    if (!p->in->verb && family_help(p, word) == 0) {
        return CLI_USAGE;
    }
    if (!p->in->verb) {
        const char *near = nearest_verb(word);
        return near ? usage_error(p, "no verb '%s'; did you mean '%s'?", word, near)
                    : usage_error(p, "no verb '%s'", word);
    }
    return -1;
}

/* A file that holds XML or a JSON object, where a name was expected. */
static bool is_definition(const char *path)
{
    struct stat st;
    char head[64] = "";
    AUTO_FD fd = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? open(path, O_RDONLY | O_CLOEXEC)
                                                             : -1;
    ssize_t n = fd >= 0 ? read(fd, head, sizeof(head) - 1) : -1;

    return n > 0 && (cli_is_xml(head) || head[strspn(head, " \t\r\n")] == '{');
}

static int parse_arg(struct parser *p, char *word)
{
    const struct cli_verb *v = p->in->verb;
    const struct cli_arg *a;

    if (p->n_args >= v->n_args && !(v->n_args && v->args[v->n_args - 1].repeat)) {
        return usage_error(p, "%s: '%s' is one argument too many", v->name, word);
    }
    a = &v->args[p->n_args < v->n_args ? p->n_args : v->n_args - 1];
    p->n_args++;
    if (a->repeat) {
        p->in->targets = xrealloc_n(p->in->targets, p->in->n_targets + 1, sizeof(char *));
        p->in->targets[p->in->n_targets++] = word;
        p->in->target_path = a->path;
    } else if (v->file && !p->file && is_definition(word)) {
        p->file = word; /* vmctl define db1.xml */
    } else if (!a->path || !v->method) {
        api_json_set_str(p->in->own, a->name, word);
    } else {
        const struct api_member *m = cli_member(v->method->in, a->path);
        struct err e = ERR_INIT;
        struct json_object *o = cli_value(m, NULL, word, &e);
        if (!o) {
            return usage_error(p, "%s: %s", a->name, e.msg);
        }
        cli_set_path(p->in->params, a->path, o);
    }
    return -1;
}

static int parse_word(struct parser *p, char *word)
{
    if (!p->only_args && strcmp(word, "--") == 0) {
        p->only_args = true;
        return -1;
    }
    if (!p->only_args && word[0] == '-' && word[1]) {
        return word[1] == '-' ? parse_long(p, word) : parse_short(p, word);
    }
    return p->in->verb ? parse_arg(p, word) : parse_verb(p, word);
}

/* --- putting it together ------------------------------------------------------------------ */

void cli_overlay(struct json_object *into, struct json_object *from)
{
    json_object_object_foreach(from, key, v)
    {
        struct json_object *old = api_json_get(into, key);

        if (json_object_is_type(old, json_type_object) &&
            json_object_is_type(v, json_type_object)) {
            cli_overlay(old, v);
        } else {
            api_json_set(into, key, json_object_get(v));
        }
    }
}

static int apply_file(struct parser *p)
{
    struct json_object *base = NULL, *given = api_json_get(p->in->params, p->in->verb->file);
    struct err e = ERR_INIT;
    AUTO_FREE char *text = NULL;
    int rc = cli_read_text(p->c, p->file, &text);

    if (rc != CLI_OK) {
        return rc;
    }
    if (cli_is_xml(text)) { /* the daemon reads it, once we are connected */
        p->in->xml = take_ptr(text);
        p->in->xml_file = p->file;
        return -1;
    }
    if (api_json_parse(text, strlen(text), &base, &e) < 0) {
        return cli_fail(p->c, CLI_USAGE,
                        "the file holds one JSON object, as 'vmctl show --json' has in "
                        "'config', or libvirt XML",
                        "%s: %s", strcmp(p->file, "-") == 0 ? "standard input" : p->file,
                        e.msg);
    }
    if (!json_object_is_type(base, json_type_object)) {
        json_object_put(base);
        return cli_fail(p->c, CLI_USAGE, NULL, "%s: expected a JSON object", p->file);
    }
    if (given) {
        cli_overlay(base, given);
    }
    api_json_set(p->in->params, p->in->verb->file, base);
    return -1;
}

static int check_args(struct parser *p)
{
    const struct cli_verb *v = p->in->verb;

    for (size_t i = p->n_args; i < v->n_args; i++) {
        if (!v->args[i].optional) {
            return usage_error(p, "%s: %s is missing", v->name, v->args[i].name);
        }
    }
    if (v->unset && !api_json_get(p->in->params, v->unset)) {
        return usage_error(p, "%s: nothing to change was given", v->name);
    }
    return -1;
}

static int check_format(struct parser *p)
{
    const struct cli_verb *v = p->in->verb;
    int rc;

    if (v->run != cli_verb_call && v->run != cli_verb_show && v->run != cli_verb_create &&
        v->run != cli_verb_wait && v->run != cli_verb_events && v->run != cli_verb_stats) {
        return usage_error(p, "%s prints no records for --format", v->name);
    }
    rc = cli_format_check(p->c,
                          v->run == cli_verb_events ? &api_type_event : cli_record_type(v));
    return rc == CLI_OK ? -1 : rc;
}

static void choose_colors(struct cli *c)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    bool may = !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;

    c->color_out = strcmp(c->color, "always") == 0 ||
                   (strcmp(c->color, "auto") == 0 && may && isatty(1));
    c->color_err = strcmp(c->color, "always") == 0 ||
                   (strcmp(c->color, "auto") == 0 && may && isatty(2));
}

int cli_parse(struct cli *c, int argc, char **argv, struct cli_input *in)
{
    struct parser p = { .c = c, .in = in, .argc = argc, .argv = argv };
    int rc = -1;

    c->color = "auto";
    in->params = json_object_new_object();
    in->own = json_object_new_object();
    choose_colors(c);
    for (p.at = 1; rc < 0 && p.at < argc; p.at++) {
        rc = parse_word(&p, argv[p.at]);
    }
    choose_colors(c);
    if (rc < 0 && c->help) {
        if (in->verb) {
            cli_help_verb(in->verb, stdout);
        } else {
            cli_help_overview(stdout);
        }
        return CLI_OK;
    }
    if (rc < 0 && !in->verb) {
        cli_help_overview(stderr);
        return CLI_USAGE;
    }
    rc = rc < 0 && p.file ? apply_file(&p) : rc;
    rc = rc < 0 ? check_args(&p) : rc;
    return rc < 0 && c->format ? check_format(&p) : rc;
}
