/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics as a table: totals once, or rates between refreshes. One thread. */
#include "cli/cli.h"
#include "cli/rates.h"

#include "api-schema/json/json.h"
#include "engine/base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct view {
    struct cli *c;
    struct cli_input *in;
    struct cli_rates *rates;
};

/* All that run, or the named ones, as one array of VmInfo. */
static int fetch(struct view *v, struct json_object **rows)
{
    struct json_object *all = json_object_new_array();

    for (size_t i = 0; i < (v->in->n_targets ? v->in->n_targets : 1); i++) {
        struct json_object *params = json_object_new_object(), *vms;
        AUTO_JSON result = NULL;
        int rc;

        if (v->in->n_targets) {
            api_json_set_str(params, "vm", v->in->targets[i]);
        }
        rc = cli_call(v->c, "vm.stats", params, &result);
        if (rc != CLI_OK) {
            json_object_put(all);
            return rc;
        }
        vms = api_json_get(result, "vms");
        for (size_t k = 0; vms && k < json_object_array_length(vms); k++) {
            json_object_array_add(all, json_object_get(json_object_array_get_idx(vms, k)));
        }
    }
    *rows = all;
    return CLI_OK;
}

static void set_text(struct json_object *row, const char *key, struct buf *b)
{
    api_json_set_str(row, key, b->data ? b->data : "-");
    buf_done(b);
}

static void set_size(struct json_object *row, const char *key, int64_t bytes,
                     const char *suffix)
{
    AUTO_BUF b = BUF_INIT;

    cli_size(&b, bytes);
    buf_add_str(&b, suffix);
    set_text(row, key, &b);
}

static void set_count(struct json_object *row, const char *key, double n)
{
    static const char units[] = " KMGTP";
    unsigned u = 0;
    AUTO_BUF b = BUF_INIT;

    while (n >= 1000 && u + 2 < sizeof(units)) {
        n /= 1000;
        u++;
    }
    buf_printf(&b, u ? "%.1f%c" : "%.0f", n, units[u]);
    set_text(row, key, &b);
}

static void set_ns(struct json_object *row, const char *key, int64_t ns)
{
    AUTO_BUF b = BUF_INIT;

    cli_nanoseconds(&b, ns);
    set_text(row, key, &b);
}

/* A row for the table of totals. */
static struct json_object *total_row(struct json_object *vm)
{
    struct json_object *row = json_object_new_object(), *s = api_json_get(vm, "stats");

    api_json_set_str(row, "name", api_json_get_str(vm, "name"));
    api_json_set_str(row, "state", api_json_get_str(vm, "state"));
    if (!s) {
        return row;
    }
    set_ns(row, "uptime", api_json_get_int(s, "uptime_ns", 0));
    set_ns(row, "cpu", api_json_get_int(s, "cpu_time_ns", 0));
    if (api_json_get_int(s, "memory_rss", 0) > 0) {
        set_size(row, "rss", api_json_get_int(s, "memory_rss", 0), "");
    }
    if (api_json_get(s, "instructions")) {
        set_count(row, "insns", (double)api_json_get_int(s, "instructions", 0));
    }
    set_size(row, "read", cli_sum_disks(s, "read_bytes"), "");
    set_size(row, "written", cli_sum_disks(s, "written_bytes"), "");
    set_ns(row, "age", api_json_get_int(s, "age_ms", 0) * 1000000);
    return row;
}

/* A row of rates since the last sample of this VM. */
static struct json_object *rate_row(struct view *v, struct json_object *vm)
{
    struct json_object *row = json_object_new_object(), *s = api_json_get(vm, "stats");
    struct cli_rate rate;
    AUTO_BUF b = BUF_INIT;

    api_json_set_str(row, "name", api_json_get_str(vm, "name"));
    api_json_set_str(row, "state", api_json_get_str(vm, "state"));
    if (!s) {
        return row;
    }
    if (api_json_get_int(s, "memory_rss", 0) > 0) {
        set_size(row, "rss", api_json_get_int(s, "memory_rss", 0), "");
    }
    set_ns(row, "age", api_json_get_int(s, "age_ms", 0) * 1000000);
    if (cli_rates_of(v->rates, vm, &rate)) {
        buf_printf(&b, "%.0f%%", rate.cpu * 100);
        set_text(row, "cpu", &b);
        set_count(row, "insns", rate.instructions);
        set_size(row, "read", (int64_t)rate.read, "/s");
        set_size(row, "written", (int64_t)rate.written, "/s");
    }
    return row;
}

/* The columns of a table; the instruction counter only where some engine counts. */
static size_t choose(const struct cli_column *from, size_t n, bool counted,
                     struct cli_column *to)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (counted || strcmp(from[i].member, "insns") != 0) {
            to[kept++] = from[i];
        }
    }
    return kept;
}

static void show(struct view *v, struct json_object *vms, bool rates)
{
    static const struct cli_column totals[] = {
        { "NAME", "name", NULL }, { "STATE", "state", "state" },  { "UPTIME", "uptime", NULL },
        { "CPU", "cpu", NULL },   { "RSS", "rss", NULL },         { "INSNS", "insns", NULL },
        { "READ", "read", NULL }, { "WRITTEN", "written", NULL }, { "AGE", "age", NULL },
    };
    static const struct cli_column per_second[] = {
        { "NAME", "name", NULL },       { "STATE", "state", "state" }, { "CPU", "cpu", NULL },
        { "RSS", "rss", NULL },         { "INSNS/S", "insns", NULL },  { "READ", "read", NULL },
        { "WRITTEN", "written", NULL }, { "AGE", "age", NULL },
    };
    struct cli_column columns[ARRAY_LEN(totals)];
    AUTO_JSON rows = json_object_new_array();
    bool counted = false;
    size_t n;

    for (size_t i = 0; i < json_object_array_length(vms); i++) {
        struct json_object *vm = json_object_array_get_idx(vms, i);
        counted |= api_json_get(api_json_get(vm, "stats"), "instructions") != NULL;
        json_object_array_add(rows, rates ? rate_row(v, vm) : total_row(vm));
    }
    n = rates ? choose(per_second, ARRAY_LEN(per_second), counted, columns)
              : choose(totals, ARRAY_LEN(totals), counted, columns);
    cli_table(v->c, rows, columns, n);
}

static void print(struct view *v, struct json_object *vms, bool rates)
{
    if (v->c->json) {
        cli_print_json(vms);
    } else if (v->c->format) {
        cli_format_print(v->c, vms);
    } else if (v->c->quiet) {
        for (size_t i = 0; i < json_object_array_length(vms); i++) {
            printf("%s\n", api_json_get_str(json_object_array_get_idx(vms, i), "name") ?: "?");
        }
    } else {
        if (rates && isatty(1)) {
            fputs("\033[H\033[J", stdout);
        }
        show(v, vms, rates);
    }
    fflush(stdout);
}

static int watch(struct view *v, int64_t interval_ms, int64_t count)
{
    int rc = CLI_OK;

    v->rates = cli_rates_new();
    for (int64_t i = 0; rc == CLI_OK && (count == 0 || i < count); i++) {
        AUTO_JSON vms = NULL;
        struct timespec t = { .tv_sec = interval_ms / 1000,
                              .tv_nsec = interval_ms % 1000 * 1000000 };

        if (i > 0) {
            nanosleep(&t, NULL);
        }
        rc = fetch(v, &vms);
        if (rc == CLI_OK) {
            print(v, vms, true);
        }
        if (ferror(stdout)) {
            break;
        }
    }
    cli_rates_free(v->rates);
    return rc;
}

int cli_verb_stats(struct cli *c, struct cli_input *in)
{
    struct view v = { .c = c, .in = in };
    const char *interval = cli_own(in, "interval"), *count = cli_own(in, "count");
    int64_t ms = 1000;
    uint64_t n = 0;
    struct err e = ERR_INIT;
    AUTO_JSON vms = NULL;
    int rc;

    if (cli_own(in, "engine")) {
        return cli_engine_stats(c, in);
    }
    if (interval && (cli_duration(interval, &ms, &e) < 0 || ms < 50)) {
        return cli_fail(c, CLI_USAGE, NULL, "--interval: %s", e.code ? e.msg : "at least 50ms");
    }
    if (count && str_to_u64(count, 1, 1000000000, "--count", &n, &e) < 0) {
        return cli_fail(c, CLI_USAGE, NULL, "%s", e.msg);
    }
    if (cli_own(in, "watch") || interval || count) {
        return watch(&v, ms, (int64_t)n);
    }
    rc = fetch(&v, &vms);
    if (rc == CLI_OK) {
        print(&v, vms, false);
    }
    return rc;
}
