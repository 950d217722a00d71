/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of vmctl's verbs, written by api-schema/gen from the schema (cli/verbs_table.c in the
 * build folder). Constant data.
 */
#ifndef VMD_CLI_VERBS_H
#define VMD_CLI_VERBS_H

#include <stdbool.h>
#include <stddef.h>

struct api_method;
struct cli;
struct cli_input;

struct cli_option {
    const char *name;
    char letter;         /* 0: none */
    const char *metavar; /* NULL: takes no value */
    const char *path;    /* member of the parameters, "config.memory"; NULL: the verb's own */
    const char
        *kind; /* "duration": text like 30s, milliseconds in JSON; NULL: as the member says */
    bool negatable; /* --no-NAME exists */
    const char *doc;
};

struct cli_arg {
    const char *name, *path; /* path NULL: the verb's own */
    bool repeat, optional;
};

struct cli_column {
    const char *title, *member;
    const char *style; /* "size", "ago", "state", "progress"; NULL: as it is */
};

struct cli_example {
    const char *command, *doc;
};

struct cli_verb {
    const char *name, *alias, *alias2, *group, *summary, *doc, *usage;
    const struct api_method *method;                 /* NULL: no single one */
    int (*run)(struct cli *c, struct cli_input *in); /* returns the exit status */
    const struct cli_option *options;
    size_t n_options;
    const struct cli_arg *args;
    size_t n_args;
    const struct cli_column *columns; /* of a table over `rows` */
    size_t n_columns;
    const struct cli_example *examples;
    size_t n_examples;
    const char *rows;                     /* member of the result that holds the rows */
    const char *quiet;                    /* member that --quiet prints */
    const char *done;                     /* what to say when it is done: "started" */
    const char *line_state, *line_reason; /* members of a one-line result */
    const char *file, *unset;             /* member that -f FILE fills, that --unset clears */
};

struct cli_group {
    const char *name, *title;
};
struct cli_exit {
    int status;
    const char *doc;
};

extern const struct cli_verb cli_verbs[];
extern const size_t cli_n_verbs;
extern const struct cli_group cli_groups[];
extern const size_t cli_n_groups;
extern const struct cli_option cli_globals[]; /* `path` is NULL */
extern const size_t cli_n_globals;
extern const struct cli_exit cli_exits[];
extern const size_t cli_n_exits;

/* The verbs. */
int cli_verb_call(struct cli *c, struct cli_input *in); /* one call for each target */
int cli_verb_show(struct cli *c, struct cli_input *in);
int cli_verb_edit(struct cli *c, struct cli_input *in);
int cli_verb_snapshot_create(struct cli *c, struct cli_input *in);
int cli_verb_snapshot_show(struct cli *c, struct cli_input *in);
int cli_verb_xml_check(struct cli *c, struct cli_input *in);
int cli_verb_xml_define(struct cli *c, struct cli_input *in);
/* Begins a job and waits for it, unless told not to. */
int cli_verb_job(struct cli *c, struct cli_input *in);
int cli_verb_create(struct cli *c, struct cli_input *in);
int cli_verb_wait(struct cli *c, struct cli_input *in);
int cli_verb_run(struct cli *c, struct cli_input *in);
int cli_verb_console(struct cli *c, struct cli_input *in);
int cli_verb_inspect(struct cli *c, struct cli_input *in);
int cli_verb_memory_show(struct cli *c, struct cli_input *in);
int cli_verb_memory_search(struct cli *c, struct cli_input *in);
int cli_verb_snapshot_diff(struct cli *c, struct cli_input *in);
int cli_verb_screenshot(struct cli *c, struct cli_input *in);
int cli_verb_send_key(struct cli *c, struct cli_input *in);
int cli_verb_vnc(struct cli *c, struct cli_input *in);
int cli_verb_vnc_password(struct cli *c, struct cli_input *in);
int cli_verb_events(struct cli *c, struct cli_input *in);
int cli_verb_stats(struct cli *c, struct cli_input *in);
int cli_verb_top(struct cli *c, struct cli_input *in);
int cli_verb_trace(struct cli *c, struct cli_input *in);
int cli_verb_coverage(struct cli *c, struct cli_input *in);
int cli_verb_agent_command(struct cli *c, struct cli_input *in);
int cli_verb_agent_exec(struct cli *c, struct cli_input *in);
int cli_verb_agent_read(struct cli *c, struct cli_input *in);
int cli_verb_agent_write(struct cli *c, struct cli_input *in);
int cli_verb_api(struct cli *c, struct cli_input *in);
int cli_verb_qmp(struct cli *c, struct cli_input *in);
int cli_verb_cert_issue(struct cli *c, struct cli_input *in);
int cli_verb_cert_renew(struct cli *c, struct cli_input *in);
int cli_verb_volume_upload(struct cli *c, struct cli_input *in);
int cli_verb_volume_download(struct cli *c, struct cli_input *in);
int cli_verb_xml_text(struct cli *c, struct cli_input *in);
int cli_verb_image_push(struct cli *c, struct cli_input *in);
int cli_verb_image_pull(struct cli *c, struct cli_input *in);
int cli_verb_image_amend(struct cli *c, struct cli_input *in);
int cli_verb_image_create(struct cli *c, struct cli_input *in);
int cli_verb_image_info(struct cli *c, struct cli_input *in);
int cli_verb_image_check(struct cli *c, struct cli_input *in);
int cli_verb_image_convert(struct cli *c, struct cli_input *in);
int cli_verb_image_resize(struct cli *c, struct cli_input *in);
int cli_verb_image_snapshot(struct cli *c, struct cli_input *in);
int cli_verb_image_rebase(struct cli *c, struct cli_input *in);
int cli_verb_image_commit(struct cli *c, struct cli_input *in);
int cli_verb_image_map(struct cli *c, struct cli_input *in);
int cli_verb_image_compare(struct cli *c, struct cli_input *in);
int cli_verb_image_measure(struct cli *c, struct cli_input *in);
int cli_verb_image_dd(struct cli *c, struct cli_input *in);
int cli_verb_image_bitmap(struct cli *c, struct cli_input *in);
int cli_verb_image_bench(struct cli *c, struct cli_input *in);
int cli_verb_image_member(struct cli *c, struct cli_input *in);
int cli_verb_image_nbd_list(struct cli *c, struct cli_input *in);
int cli_verb_image_nbd_serve(struct cli *c, struct cli_input *in);
int cli_verb_export(struct cli *c, struct cli_input *in);
int cli_verb_import(struct cli *c, struct cli_input *in);
int cli_verb_join(struct cli *c, struct cli_input *in);
int cli_verb_context_add(struct cli *c, struct cli_input *in);
int cli_verb_context_use(struct cli *c, struct cli_input *in);
int cli_verb_context_list(struct cli *c, struct cli_input *in);
int cli_verb_context_rm(struct cli *c, struct cli_input *in);
int cli_verb_help(struct cli *c, struct cli_input *in);

#endif
