/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: the last events, a page after a cursor, or all that come. When the daemon goes while
 * following, vmctl connects again and resumes after the last event it printed. One thread.
 */
#include "cli/cli.h"

#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHOWN = 100, PAGE = 1000, RETRIES = 120, RETRY_US = 500000 };

struct follow {
    struct cli *c;
    struct cli_input *in;
    int64_t cursor; /* last event printed, or where to begin; -1: from now */
};

static void add_detail(struct buf *b, struct json_object *event)
{
    struct json_object *job = api_json_get(event, "job"),
                       *detail = api_json_get(event, "detail");
    const char *reason = api_json_get_str(event, "reason");

    if (job) {
        buf_printf(b, " #%lld ", (long long)api_json_get_int(job, "job", 0));
        cli_text(b, job, "kind", NULL);
        buf_add_char(b, ' ');
        cli_text(b, job, "state", NULL);
        if (api_json_get_int(job, "total", 0) > 0) {
            buf_add_char(b, ' ');
            cli_text(b, job, "done", "progress");
        }
    }
    if (reason) {
        buf_add_str(b, " (");
        cli_clean(b, reason);
        buf_add_char(b, ')');
    }
    if (detail && json_object_object_length(detail) > 0) {
        buf_add_char(b, ' ');
        cli_clean(b, api_json_text(detail));
    }
}

static void print_event(struct cli *c, struct json_object *event)
{
    AUTO_BUF b = BUF_INIT;
    const char *state = api_json_get_str(event, "state");
    const char *color = c->color_out && state ? cli_state_color(state) : "";

    if (c->json) {
        printf("%s\n", api_json_text(event));
    } else if (c->format) {
        cli_format_print(c, event);
    } else {
        buf_printf(&b, "%-6lld ", (long long)api_json_get_int(event, "seq", 0));
        cli_time(&b, api_json_get_int(event, "time_ms", 0));
        buf_add_str(&b, "  ");
        cli_text(&b, event, "type", NULL);
        if (api_json_get(event, "name")) {
            buf_add_char(&b, ' ');
            cli_text(&b, event, "name", NULL);
        }
        if (state) {
            buf_printf(&b, " %s", color);
            cli_clean(&b, state);
            buf_add_str(&b, color[0] ? "\033[0m" : "");
        }
        add_detail(&b, event);
        printf("%s\n", b.data);
    }
    fflush(stdout);
}

/* --vm and --type to parameters. */
static struct json_object *filters(struct cli_input *in)
{
    struct json_object *params = json_object_new_object(),
                       *types = api_json_get(in->own, "type");

    if (cli_own(in, "vm")) {
        api_json_set_str(params, "vm", cli_own(in, "vm"));
    }
    if (json_object_is_type(types, json_type_array)) {
        api_json_set(params, "types", json_object_get(types));
    } else if (types) {
        struct json_object *list = json_object_new_array();
        json_object_array_add(list, json_object_get(types));
        api_json_set(params, "types", list);
    }
    return params;
}

/* Prints everything after the cursor that is there now. */
static int list_after(struct follow *f)
{
    for (;;) {
        struct json_object *params = filters(f->in);
        AUTO_JSON result = NULL;
        struct json_object *events;
        int64_t cursor;
        int rc;

        api_json_set_int(params, "after", f->cursor);
        api_json_set_int(params, "limit", PAGE);
        rc = cli_call(f->c, "event.list", params, &result);
        if (rc != CLI_OK) {
            return rc;
        }
        events = api_json_get(result, "events");
        for (size_t i = 0; events && i < json_object_array_length(events); i++) {
            print_event(f->c, json_object_array_get_idx(events, i));
        }
        cursor = api_json_get_int(result, "cursor", f->cursor);
        if (ferror(stdout) || cursor <= f->cursor ||
            cursor >= api_json_get_int(result, "newest", cursor)) {
            return CLI_OK;
        }
        f->cursor = cursor;
    }
}

/* Without --after: where the last SHOWN begin. */
static int find_begin(struct follow *f)
{
    struct json_object *params = json_object_new_object();
    AUTO_JSON result = NULL;
    int64_t newest, oldest;
    int rc;

    api_json_set_int(params, "limit", 1);
    rc = cli_call(f->c, "event.list", params, &result);
    if (rc != CLI_OK) {
        return rc;
    }
    newest = api_json_get_int(result, "newest", 0);
    oldest = api_json_get_int(result, "oldest", 1);
    f->cursor = newest > SHOWN ? newest - SHOWN : 0;
    f->cursor = f->cursor < oldest - 1 ? oldest - 1 : f->cursor;
    return CLI_OK;
}

static int subscribe(struct follow *f, struct api_error *x)
{
    struct json_object *params = filters(f->in);
    AUTO_JSON result = NULL;

    if (f->cursor >= 0) {
        api_json_set_int(params, "after", f->cursor);
    }
    if (cli_call_quiet(f->c, "event.subscribe", params, &result, x) < 0) {
        return -1;
    }
    if (f->cursor < 0) {
        f->cursor = api_json_get_int(result, "cursor", 0);
    }
    return 0;
}

/* Prints until the connection ends. */
static void print_until_end(struct follow *f)
{
    char *method;
    struct json_object *params;

    while (!ferror(stdout) && rpc_dial_next(f->c->dial, -1, &method, &params, NULL) == 1) {
        struct json_object *event = api_json_get(params, "event");
        if (strcmp(method, "event") == 0 && event) {
            f->cursor = api_json_get_int(event, "seq", f->cursor);
            print_event(f->c, event);
        }
        json_object_put(params);
        free(method);
    }
    rpc_dial_close(f->c->dial);
    f->c->dial = NULL;
}

static int follow(struct follow *f)
{
    int tries = 0, rc = cli_connect(f->c);

    while (rc == CLI_OK && !ferror(stdout)) { /* as when piped into head(1) */
        struct api_error x = API_ERROR_INIT;
        struct err e = ERR_INIT;

        if (cli_try_connect(f->c, &e) == 0) {
            if (subscribe(f, &x) == 0) {
                tries = 0;
                print_until_end(f);
                continue;
            }
            if (x.code != API_E_INTERNAL_ERROR && x.code != API_E_CANCELLED) {
                return cli_error(f->c, &x);
            }
            rpc_dial_close(f->c->dial);
            f->c->dial = NULL;
        }
        if (tries == 0 && !f->c->quiet && !f->c->json) {
            fprintf(stderr, "[the daemon has gone; waiting for it]\n");
        }
        if (++tries == RETRIES) {
            return cli_connect(f->c);
        }
        usleep(RETRY_US);
    }
    return rc;
}

int cli_verb_events(struct cli *c, struct cli_input *in)
{
    struct follow f = { .c = c, .in = in, .cursor = -1 };
    const char *after = cli_own(in, "after");
    bool following = cli_own(in, "follow") != NULL;
    int rc = CLI_OK;

    if (after) {
        char *end;
        errno = 0;
        f.cursor = strtoll(after, &end, 10);
        if (end == after || *end || errno || f.cursor < 0) {
            return cli_fail(c, CLI_USAGE, NULL, "--after: '%s' is no sequence number", after);
        }
    } else if (!following) {
        rc = find_begin(&f);
    }
    if (rc == CLI_OK) {
        rc = following ? follow(&f) : list_after(&f);
    }
    return rc;
}
