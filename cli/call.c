/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs that are one call for each target, driven by the verb table; and the two that add a
 * little: create (waits for its job) and wait (its exit status). One thread.
 */
#include "cli/cli.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/client.h"

#include <string.h>
#include <unistd.h>

/* Names the option in place of the member: "config.memory: ..." was typed as --memory. */
static void name_option(const struct cli_verb *v, struct api_error *x)
{
    size_t n = strlen(x->object);

    for (size_t i = 0; i < v->n_options; i++) {
        const struct cli_option *o = &v->options[i];
        if (o->path && strcmp(o->path, x->object) == 0 &&
            strncmp(x->message, x->object, n) == 0) {
            struct api_error was = *x;
            api_error_set(x, was.code, NULL, was.remedy, "--%s%s", o->name, was.message + n);
            return;
        }
    }
}

/* Parameters for one target; checked here too so that a mistake needs no daemon. */
static int make_params(struct cli *c, struct cli_input *in, const char *target,
                       struct json_object **out)
{
    const struct api_type *t = in->verb->method->in;
    struct json_object *params = NULL;
    struct api_error x = API_ERROR_INIT;
    void *decoded;
    int rc;

    json_object_deep_copy(in->params, &params, NULL);
    if (target) {
        const struct api_member *m = cli_member(t, in->target_path);
        struct err e = ERR_INIT;
        struct json_object *v = cli_value(m, NULL, target, &e);
        if (!v) {
            json_object_put(params);
            return cli_fail(c, CLI_USAGE, NULL, "%s", e.msg);
        }
        cli_set_path(params, in->target_path, v);
    }
    decoded = xalloc(t->size);
    rc = api_decode(t, params, API_STRICT, "", decoded, &x);
    if (rc == 0) {
        api_release(t, decoded);
    }
    free(decoded);
    if (rc < 0) {
        json_object_put(params);
        name_option(in->verb, &x);
        return cli_error(c, &x);
    }
    *out = params;
    return CLI_OK;
}

static const char *name_of(struct json_object *result, const char *target)
{
    const char *name = api_json_get_str(result, "name");

    return name ? name : target;
}

/* One line about one target: "db1: stopped (poweroff)". */
static void print_line(struct cli *c, const struct cli_verb *v, struct json_object *result,
                       const char *target)
{
    AUTO_BUF b = BUF_INIT;
    const char *state = v->line_state ? api_json_get_str(result, v->line_state) : v->done;
    const char *reason = v->line_reason ? api_json_get_str(result, v->line_reason) : NULL;
    int64_t signal = v->line_state ? api_json_get_int(api_json_get(result, "exit"), "signal", 0)
                                   : 0;
    const char *name = name_of(result, target);

    if (name) {
        cli_clean(&b, name);
        buf_add_str(&b, ": ");
    }
    if (v->line_state && c->color_out) {
        const char *color = cli_state_color(state ? state : "");
        buf_printf(&b, "%s", color);
        cli_clean(&b, state ? state : "?");
        buf_add_str(&b, color[0] ? "\033[0m" : "");
    } else {
        cli_clean(&b, state ? state : "?");
    }
    if (signal > 0) {
        buf_printf(&b, " (signal %lld)", (long long)signal);
    } else if (reason && (!state || strcmp(reason, state) != 0)) {
        buf_add_str(&b, " (");
        cli_clean(&b, reason);
        buf_add_char(&b, ')');
    }
    printf("%s\n", b.data);
}

static void print_quiet(const struct cli_verb *v, struct json_object *result)
{
    struct json_object *rows = v->rows ? api_json_get(result, v->rows) : NULL;
    size_t n = rows ? json_object_array_length(rows) : 1;

    for (size_t i = 0; v->quiet && i < n; i++) {
        AUTO_BUF b = BUF_INIT;
        cli_text(&b, rows ? json_object_array_get_idx(rows, i) : result, v->quiet, NULL);
        printf("%s\n", b.data);
    }
}

static void print_result(struct cli *c, struct cli_input *in, struct json_object *result,
                         const char *target)
{
    const struct cli_verb *v = in->verb;

    if (c->json) {
        cli_print_json(result);
    } else if (c->format) {
        cli_format_print(c, v->rows ? api_json_get(result, v->rows) : result);
    } else if (c->quiet) {
        print_quiet(v, result);
    } else if (v->rows) {
        cli_table(c, api_json_get(result, v->rows), v->columns, v->n_columns);
    } else if (v->done || v->line_state) {
        print_line(c, v, result, target);
    } else {
        if (in->n_targets > 1 && target != in->targets[0]) {
            printf("\n");
        }
        cli_object(c, v->method->out, result);
    }
    fflush(stdout);
}

/* The target of messages when the verb has no repeated argument. */
static const char *single_target(struct cli_input *in, struct json_object *params)
{
    const struct cli_verb *v = in->verb;

    for (size_t i = 0; i < v->n_args; i++) {
        struct json_object *o = v->args[i].path ? cli_get_path(params, v->args[i].path) : NULL;
        if (o) {
            return json_object_get_string(o);
        }
    }
    return NULL;
}

static int call_one(struct cli *c, struct cli_input *in, const char *target,
                    struct json_object **result)
{
    struct json_object *params;
    int rc = cli_resolve_xml(c, in);

    rc = rc == CLI_OK ? make_params(c, in, target, &params) : rc;
    return rc == CLI_OK ? cli_call(c, in->verb->method->name, params, result) : rc;
}

int cli_verb_call(struct cli *c, struct cli_input *in)
{
    int status = CLI_OK;

    for (size_t i = 0; i < (in->n_targets ? in->n_targets : 1); i++) {
        const char *target = in->n_targets ? in->targets[i] : NULL;
        AUTO_JSON result = NULL;
        int rc = call_one(c, in, target, &result);

        if (rc == CLI_OK) {
            print_result(c, in, result, target ? target : single_target(in, in->params));
        } else if (status == CLI_OK) {
            status = rc; /* the others are done all the same */
        }
        if (rc == CLI_NO_DAEMON || rc == CLI_USAGE) {
            break;
        }
    }
    return status;
}

int cli_verb_wait(struct cli *c, struct cli_input *in)
{
    int status = CLI_OK;

    for (size_t i = 0; i < in->n_targets; i++) {
        AUTO_JSON result = NULL;
        const char *state;
        int rc = call_one(c, in, in->targets[i], &result);

        if (rc == CLI_OK) {
            print_result(c, in, result, in->targets[i]);
            state = api_json_get_str(result, "state");
            rc = state && strcmp(state, "crashed") == 0 ? CLI_VM_CRASHED : CLI_OK;
        }
        status = status == CLI_OK ? rc : status;
        if (rc == CLI_NO_DAEMON || rc == CLI_USAGE) {
            break;
        }
    }
    return status;
}

/* --- jobs --------------------------------------------------------------------------------- */

enum { PROGRESS_MS = 500 };

static bool is_over(const struct json_object *job)
{
    const char *state = api_json_get_str(job, "state");

    return state && strcmp(state, "queued") != 0 && strcmp(state, "running") != 0;
}

static int job_status(struct cli *c, struct json_object *job)
{
    const char *state = api_json_get_str(job, "state");
    struct json_object *error = api_json_get(job, "error");
    struct api_error x = API_ERROR_INIT;

    if (state && strcmp(state, "done") == 0) {
        return CLI_OK;
    }
    if (error) {
        api_error_set(&x, (int)api_json_get_int(error, "code", API_E_INTERNAL_ERROR),
                      api_json_get_str(error, "object"), api_json_get_str(error, "remedy"),
                      "%s", api_json_get_str(error, "message") ?: "the job failed");
        return cli_error(c, &x);
    }
    return cli_fail(c, CLI_FAILED, NULL, "the job was %s", state ? state : "lost");
}

int cli_wait_job(struct cli *c, int64_t job, struct json_object **take_result)
{
    for (;;) {
        struct json_object *params = json_object_new_object();
        struct api_error x = API_ERROR_INIT;
        AUTO_JSON result = NULL;
        int rc;

        api_json_set_int(params, "job", job);
        api_json_set_int(params, "timeout_ms", PROGRESS_MS);
        rc = cli_call_quiet(c, "job.wait", params, &result, &x);
        if (rc < 0 && x.code == API_E_TIMEOUT) {
            params = json_object_new_object();
            api_json_set_int(params, "job", job);
            rc = cli_call_quiet(c, "job.get", params, &result, &x);
        }
        if (rc < 0) {
            cli_progress(c, NULL);
            return cli_error(c, &x);
        }
        if (is_over(result)) {
            cli_progress(c, NULL);
            rc = job_status(c, result);
            if (rc == CLI_OK && take_result) {
                *take_result = json_object_get(result);
            }
            return rc;
        }
        cli_progress(c, result);
    }
}

static int need_name(struct cli *c, struct cli_input *in)
{
    if (!cli_get_path(in->params, "config.name")) {
        AUTO_FREE char *remedy = xasprintf("usage: %s", in->verb->usage);
        return cli_fail(c, CLI_USAGE, remedy, "%s: the VM needs a name", in->verb->name);
    }
    return CLI_OK;
}

int cli_verb_job(struct cli *c, struct cli_input *in)
{
    AUTO_JSON result = NULL;
    AUTO_JSON job = NULL;
    int rc = call_one(c, in, NULL, &result);
    long long number = rc == CLI_OK ? (long long)api_json_get_int(result, "job", 0) : 0;
    bool waits = !cli_own(in, "no-wait");
    const char *name = api_json_get_str(result, "name") ?: "";

    if (rc == CLI_OK && waits) {
        rc = cli_wait_job(c, number, &job);
    }
    if (rc != CLI_OK) {
        return rc;
    }
    if (c->json) {
        cli_print_json(job ? job : result);
    } else if (c->format) {
        cli_format_print(c, job ? job : result);
    } else if (c->quiet) {
        printf("%lld\n", number);
    } else if (!waits) {
        printf("%s: job %lld\n", name, number);
    } else {
        printf("%s: %s\n", name, in->verb->done ?: "done");
    }
    return CLI_OK;
}

int cli_verb_create(struct cli *c, struct cli_input *in)
{
    AUTO_JSON result = NULL;
    int rc = cli_resolve_xml(c, in);

    rc = rc == CLI_OK ? need_name(c, in) : rc;
    rc = rc == CLI_OK ? call_one(c, in, NULL, &result) : rc;
    if (rc == CLI_OK && !cli_own(in, "no-wait")) {
        rc = cli_wait_job(c, api_json_get_int(result, "job", 0), NULL);
    }
    if (rc != CLI_OK) {
        return rc;
    }
    if (c->json) {
        cli_print_json(result);
    } else if (c->format) {
        cli_format_print(c, result);
    } else if (c->quiet) {
        printf("%s\n", api_json_get_str(result, "name") ?: "");
    } else if (cli_own(in, "no-wait")) {
        printf("%s: job %lld\n", api_json_get_str(result, "name") ?: "",
               (long long)api_json_get_int(result, "job", 0));
    } else {
        printf("%s: created and started\n", api_json_get_str(result, "name") ?: "");
    }
    return CLI_OK;
}
