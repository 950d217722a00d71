/* SPDX-License-Identifier: Apache-2.0 */
/* Help from the verb table. */
#include "cli/cli.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "engine/base/str.h"

#include <stdlib.h>
#include <string.h>

enum { WIDTH = 88, INDENT = 30 };

/* Text wrapped to the width; the first line is assumed to begin at `indent`. */
static void wrapped(FILE *f, const char *text, int indent)
{
    int column = indent;

    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column + n > WIDTH && column > indent) {
            fprintf(f, "\n%*s", indent, "");
            column = indent;
        }
        fprintf(f, "%.*s", n, text);
        column += n;
        text += n;
        if (*text == ' ') {
            text++;
            if (*text && column + 1 + (int)strcspn(text, " ") <= WIDTH) {
                fputc(' ', f);
                column++;
            } else if (*text) {
                fprintf(f, "\n%*s", indent, "");
                column = indent;
            }
        }
    }
    fputc('\n', f);
}

static void option_line(FILE *f, const struct cli_option *o, const struct api_member *m)
{
    AUTO_BUF head = BUF_INIT;

    if (o->letter) {
        buf_printf(&head, "  -%c, --%s", o->letter, o->name);
    } else {
        buf_printf(&head, "      --%s", o->name);
    }
    if (o->negatable) {
        buf_printf(&head, ", --no-%s", o->name);
    }
    if (o->metavar) {
        buf_printf(&head, " %s", o->metavar);
    }
    if (head.len + 2 > INDENT) {
        fprintf(f, "%s\n%*s", head.data, INDENT, "");
    } else {
        fprintf(f, "%-*s", INDENT, head.data);
    }
    if (m && m->def && strcmp(m->def, "[]") && strcmp(m->def, "{}") &&
        strcmp(m->def, "false")) {
        char size[32];
        str_size(strtoull(m->def, NULL, 10), size, sizeof(size));
        AUTO_FREE char *with = xasprintf("%s (default %s)", o->doc,
                                         m->flags & API_F_SIZE ? size : m->def);
        wrapped(f, with, INDENT);
    } else {
        wrapped(f, o->doc, INDENT);
    }
}

void cli_help_verb(const struct cli_verb *v, FILE *f)
{
    fprintf(f, "usage: %s\n\n", v->usage);
    wrapped(f, v->doc, 0);
    if (v->n_options) {
        fprintf(f, "\noptions:\n");
    }
    for (size_t i = 0; i < v->n_options; i++) {
        const struct cli_option *o = &v->options[i];
        option_line(f, o, o->path ? cli_member(v->method->in, o->path) : NULL);
    }
    fprintf(f, "\nexamples:\n");
    for (size_t i = 0; i < v->n_examples; i++) {
        fprintf(f, "  # %s\n  %s\n", v->examples[i].doc, v->examples[i].command);
    }
    fprintf(f, "\n'vmctl help' lists the options of every verb and the exit statuses.\n");
}

void cli_help_overview(FILE *f)
{
    fprintf(f, "usage: vmctl [OPTION]... VERB [ARGUMENT]...\n\nDefine, run and look at virtual "
               "machines.\n");
    for (size_t g = 0; g < cli_n_groups; g++) {
        fprintf(f, "\n%s:\n", cli_groups[g].title);
        for (size_t i = 0; i < cli_n_verbs; i++) {
            if (strcmp(cli_verbs[i].group, cli_groups[g].name) == 0) {
                fprintf(f, "  %-16s  %s\n", cli_verbs[i].name, cli_verbs[i].summary);
            }
        }
    }
    fprintf(f, "\nOptions of every verb:\n");
    for (size_t i = 0; i < cli_n_globals; i++) {
        option_line(f, &cli_globals[i], NULL);
    }
    fprintf(f, "\nExit status:\n");
    for (size_t i = 0; i < cli_n_exits; i++) {
        fprintf(f, "  %2d  ", cli_exits[i].status);
        wrapped(f, cli_exits[i].doc, 6);
    }
    fprintf(f, "\n'vmctl help VERB' shows its options and examples. Sizes take K, M, G, T; "
               "times ms, s, m, h.\n");
}

int cli_verb_help(struct cli *c, struct cli_input *in)
{
    const char *name = cli_own(in, "VERB");
    const char *second = cli_own(in, "WORD");
    AUTO_FREE char *two = name && second ? xasprintf("%s %s", name, second) : NULL;
    const struct cli_verb *v = name ? cli_verb_find(two ? two : name) : NULL;

    if (name && !v) {
        return cli_fail(c, CLI_USAGE, "'vmctl help' lists the verbs", "no verb '%s'", two ? two : name);
    }
    if (v) {
        cli_help_verb(v, stdout);
    } else {
        cli_help_overview(stdout);
    }
    return CLI_OK;
}
