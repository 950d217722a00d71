/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs of vmctl share: the global options, parsed input, the connection, output. One
 * process, one thread.
 */
#ifndef VMD_CLI_CLI_H
#define VMD_CLI_CLI_H

#include "api-schema/json/codec.h"
#include "api-schema/json/error.h"
#include "cli/verbs.h"
#include "engine/base/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json_object;
struct place;
struct rpc_dial;
struct tls_link;

/* Exit statuses beside those of the error codes; cli.json documents them. */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NO_DAEMON = 3,
    CLI_VM_ENDED = 10,
    CLI_VM_CRASHED = 11,
    CLI_GUEST_FAILED = 12,
};

struct cli {
    const char *connect, *dir, *key; /* borrowed from argv; NULL: not given */
    const char *format;              /* template of each record; NULL: none */
    bool format_begun;               /* its headings stand already */
    const char *color;               /* "auto", "always", "never" */
    bool json, quiet, help;
    bool color_out, color_err; /* colours go to stdout, stderr */
    struct place *place;       /* where the daemon is; NULL until cli_try_connect() */
    struct tls_link *link;     /* under `dial`, when it is reached by TLS */
    struct rpc_dial *dial;     /* NULL until cli_connect() */
};

struct cli_input {
    const struct cli_verb *verb;
    struct json_object *params; /* from options, file and arguments; an object */
    struct json_object
        *own;       /* the verb's own options and arguments: name to string, true or list */
    char **targets; /* of the repeated argument; borrowed from argv */
    size_t n_targets;
    const char *target_path; /* where one of them goes; NULL: there is no repeated argument */
    char *xml;            /* text of the file that -f named, while it is not yet a definition */
    const char *xml_file; /* its name */
};

/* --- args.c: the command line --- */

/* Fills c and in from the command line. -1: go on; else the exit status. */
int cli_parse(struct cli *c, int argc, char **argv, struct cli_input *in);
void cli_input_done(struct cli_input *in);
const struct cli_verb *cli_verb_find(const char *name);
/* The verb's own option: text, NULL when it was not given. */
const char *cli_own(const struct cli_input *in, const char *name);
/* Sets the member at a dotted path, making objects on the way. */
void cli_set_path(struct json_object *o, const char *path, struct json_object *take_value);
/* Borrowed; NULL when absent. */
struct json_object *cli_get_path(struct json_object *o, const char *path);

/* Members of `from` over those of `into`, objects within one another. */
void cli_overlay(struct json_object *into, struct json_object *from);

/* --- xml.c: libvirt XML --- */

/* Reads a file ("-": standard input) of at most 1 MiB; the caller's. CLI_OK or a printed failure. */
int cli_read_text(struct cli *c, const char *path, char **text);
/* The same with the error as a value. */
int cli_text_of(const char *path, char **text, struct err *e);
/* Is this the text of XML? Of JSON or XML? */
bool cli_is_xml(const char *text);
/* Asks the daemon what XML of a domain means: *config is the caller's. What is left out is told on standard error, what
 * is refused too, each on a line that begins with the file's name; then the exit status is CLI_USAGE. */
int cli_xml_config(struct cli *c, const char *kind, const char *file, const char *text,
                   struct json_object **config);
/* When -f named an XML file: puts its definition under what the options said. */
int cli_resolve_xml(struct cli *c, struct cli_input *in);

/* --- inspect.c --- */

/* Prints clock, registers and devices of a snapshot by field. */
int cli_snapshot_state(struct cli *c, const char *vm, const char *name);

/* --- value.c: text to JSON --- */

/* A value of a member (or of one element, for a list) from text as people write it: 512M, 30s,
 * relative paths, key=value lists for structs. The caller's; NULL with e set when it is none. */
struct json_object *cli_value(const struct api_member *m, const char *kind, const char *text,
                              struct err *e);
/* "500ms", "30s", "5m", "2h", "1.5s"; a bare number is seconds. */
int cli_duration(const char *text, int64_t *ms, struct err *e);
/* Member at a dotted path below t, NULL when there is none. */
const struct api_member *cli_member(const struct api_type *t, const char *path);

/* --- connect.c --- */

/* Ends the connection; it may be made anew. */
void cli_disconnect(struct cli *c);
/* Connects once. CLI_OK, or prints and returns the exit status. */
int cli_connect(struct cli *c);
/* The same without printing. */
int cli_try_connect(struct cli *c, struct err *e);
/* Drops the connection and tries to make it anew for some seconds: a daemon that restarts is back
 * soon. 0, or -1 when nobody listens. */
int cli_reconnect(struct cli *c);
/* Calls; adds the idempotency key to changing methods. params (may be NULL) are taken. 0 and
 * *result (the caller's; may be NULL: not wanted), or the exit status after printing. */
int cli_call(struct cli *c, const char *method, struct json_object *take_params,
             struct json_object **result);
/* The same without printing. 0 or -1. */
int cli_call_quiet(struct cli *c, const char *method, struct json_object *take_params,
                   struct json_object **result, struct api_error *x);

/* --- format.c: output --- */

/* Error, with object and remedy (JSON on stderr under --json); returns the exit status for it. */
int cli_error(struct cli *c, const struct api_error *x);
/* "vmctl: text" and, when not NULL, the remedy on a line of its own; returns `status`. */
int cli_fail(struct cli *c, int status, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void cli_print_json(struct json_object *o); /* one line, or indented on a terminal */
/* A table over a JSON array of objects. */
void cli_table(struct cli *c, struct json_object *rows, const struct cli_column *columns,
               size_t n);
/* "member  value" lines, by the tables of the type. */
void cli_object(struct cli *c, const struct api_type *t, const struct json_object *o);
/* Text of one value in a style of cli_column (NULL: plain), appended. */
void cli_text(struct buf *b, const struct json_object *row, const char *member,
              const char *style);
/* A JSON value as a person reads it, cleaned. */
void cli_value_text(struct buf *b, struct json_object *v);
/* Columns that UTF-8 text takes. */
size_t cli_width(const char *s, size_t bytes);
void cli_size(struct buf *b, int64_t bytes); /* rounded, for people: 114.1 MiB */
void cli_ago(struct buf *b, int64_t since_ms);
void cli_time(struct buf *b, int64_t ms);
void cli_nanoseconds(struct buf *b, int64_t ns);
/* ANSI colour for a state word, "" for none; static. */
const char *cli_state_color(const char *state);
/* Appends text with control characters replaced: what a daemon sends must not steer the terminal. */
void cli_clean(struct buf *b, const char *text);
/* Progress of a job on stderr, on a terminal; rewritten in place; NULL ends the line. */
void cli_progress(struct cli *c, struct json_object *job);

/* --- template.c: --format --- */

/* What one record of the verb is, NULL when no single method says so. */
const struct api_type *cli_record_type(const struct cli_verb *v);
/* Whether c->format, when given, fits records of type t (NULL: of any). CLI_OK, or prints and returns the
 * exit status. */
int cli_format_check(struct cli *c, const struct api_type *t);
/* Prints a record, or each of an array. Only with c->format, which was checked. */
void cli_format_print(struct cli *c, struct json_object *record);

/* --- jobs (call.c) --- */

/* Waits for a job with progress. CLI_OK, or prints its error and returns the exit status. */
int cli_wait_job(struct cli *c, int64_t job, struct json_object **take_result);

/* --- engine.c --- */
/* 'vmctl stats --engine': counters of the engines of the named VMs. */
int cli_engine_stats(struct cli *c, struct cli_input *in);

/* --- help.c --- */
void cli_help_overview(FILE *f);
void cli_help_verb(const struct cli_verb *v, FILE *f);

#endif
