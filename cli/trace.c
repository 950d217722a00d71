/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces and coverage of a guest: fetched piece by piece, decoded to text. One thread.
 */
#include "cli/cli.h"

#include "api-schema/json/json.h"
#include "engine/base/base64.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RECORD 40
static const char raw_magic[8] = "VMDTRAC1";

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static uint64_t number(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    while (bytes--) {
        v = v << 8 | p[bytes];
    }
    return v;
}

/* One record as a line; the layout is struct trace_record's of engine/tcg/observe.h. */
static void print_record(FILE *f, const uint8_t *p)
{
    uint64_t time = number(p, 8), pc = number(p + 8, 8), a = number(p + 16, 8),
             b = number(p + 24, 8);
    unsigned kind = p[32], size = p[33], vcpu = (unsigned)number(p + 34, 2);
    uint32_t code = (uint32_t)number(p + 36, 4);

    fprintf(f, "%" PRIu64 ".%09" PRIu64 " cpu%u %016" PRIx64 " ", time / 1000000000,
            time % 1000000000, vcpu, pc);
    switch (kind) {
    case 1:
        fprintf(f, "block gpa=%" PRIx64 " insns=%" PRIu32 " mode=%" PRIx64 "\n", a, code, b);
        break;
    case 2:
        fprintf(f, "exception cause=%" PRIu32 " tval=%" PRIx64 "\n", code, a);
        break;
    case 3:
        fprintf(f, "interrupt handler=%" PRIx64 "\n", a);
        break;
    case 4:
    case 5:
        fprintf(f, "%s%u gpa=%" PRIx64 " value=%" PRIx64 "\n", kind == 4 ? "read" : "write",
                size * 8, a, b);
        break;
    default:
        fprintf(f, "kind=%u a=%" PRIx64 " b=%" PRIx64 "\n", kind, a, b);
    }
}

/* ---- files written by --raw ---- */

static int decode(struct cli *c, const char *path)
{
    uint8_t record[RECORD];
    char magic[8];
    FILE *f = fopen(path, "rb");
    int rc = CLI_OK;

    if (!f) {
        return cli_fail(c, CLI_FAILED, NULL, "'%s': %s", path, strerror(errno));
    }
    if (fread(magic, 1, 8, f) != 8 || memcmp(magic, raw_magic, 8) != 0) {
        rc = cli_fail(c, CLI_FAILED, "--decode takes a file written by --raw",
                      "'%s' is no trace", path);
    }
    while (rc == CLI_OK && fread(record, 1, RECORD, f) == RECORD) {
        print_record(stdout, record);
    }
    fclose(f);
    return rc;
}

/* ---- the verb ---- */

struct trace {
    struct cli *c;
    const char *vm;
    FILE *out;
    bool raw;
    int64_t dropped;
};

static struct json_object *of_vm(const struct trace *t)
{
    struct json_object *params = json_object_new_object();

    api_json_set_str(params, "vm", t->vm);
    return params;
}

static int start(struct trace *t, struct cli_input *in)
{
    static const char *const kinds[] = { "blocks", "exceptions", "interrupts", "mmio" };
    struct json_object *params = of_vm(t);
    const char *vcpu = cli_own(in, "vcpu");
    struct err e = ERR_INIT;
    bool any = false;
    uint64_t n;

    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        any |= cli_own(in, kinds[i]) != NULL;
    }
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (any ? cli_own(in, kinds[i]) != NULL : i == 1 || i == 2) {
            json_object_object_add(params, kinds[i], json_object_new_boolean(true));
        }
    }
    if (cli_own(in, "from")) {
        api_json_set_str(params, "from", cli_own(in, "from"));
    }
    if (cli_own(in, "to")) {
        api_json_set_str(params, "to", cli_own(in, "to"));
    }
    if (vcpu) {
        if (str_to_u64(vcpu, 0, 511, "--vcpu", &n, &e) != 0) {
            json_object_put(params);
            return cli_fail(t->c, CLI_USAGE, NULL, "%s", e.msg);
        }
        api_json_set_int(params, "vcpu", (int64_t)n);
    }
    return cli_call(t->c, "vm.trace_start", params, NULL);
}

/* Fetches what is there. Negative: done; else the number of records. */
static int64_t fetch(struct trace *t, int *rc)
{
    AUTO_JSON result = NULL;
    AUTO_BUF bytes = BUF_INIT;

    *rc = cli_call(t->c, "vm.trace_read", of_vm(t), &result);
    if (*rc != CLI_OK) {
        return -1;
    }
    if (!base64_take(&bytes, api_json_get_str(result, "data") ?: "") || bytes.len % RECORD) {
        *rc = cli_fail(t->c, CLI_FAILED, NULL, "the trace came garbled");
        return -1;
    }
    if (t->raw) {
        fwrite(bytes.data ? bytes.data : "", 1, bytes.len, t->out);
    } else {
        for (size_t at = 0; at < bytes.len; at += RECORD) {
            print_record(t->out, (const uint8_t *)bytes.data + at);
        }
    }
    t->dropped = api_json_get_int(result, "dropped", 0);
    fflush(t->out);
    return ferror(t->out) ? -1 : (int64_t)(bytes.len / RECORD);
}

static int follow(struct trace *t, int64_t ms)
{
    struct timespec pause = { .tv_nsec = 0 };
    int64_t end = now_ms() + ms, got = 0;
    int rc = CLI_OK;
    sigset_t ends; /* they wait till the trace is switched off */

    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    while (got >= 0 && (ms == 0 || now_ms() < end) && sigtimedwait(&ends, NULL, &pause) < 0) {
        got = fetch(t, &rc);
        pause.tv_nsec = got == 0 ? 20000000 : 0;
    }
    if (rc == CLI_OK) {
        struct api_error x = API_ERROR_INIT;
        (void)fetch(t, &rc);
        (void)cli_call_quiet(t->c, "vm.trace_stop", of_vm(t), NULL, &x);
    }
    if (t->dropped > 0) {
        fprintf(stderr,
                "vmctl: %" PRId64
                " records were dropped: they came faster than they were read\n",
                t->dropped);
    }
    return rc;
}

int cli_verb_trace(struct cli *c, struct cli_input *in)
{
    const char *path = cli_own(in, "output"), *text = cli_own(in, "for");
    struct trace t = {
        .c = c, .vm = cli_own(in, "VM"), .out = stdout, .raw = cli_own(in, "raw") != NULL
    };
    struct err e = ERR_INIT;
    int64_t ms = 0;
    int rc;

    if (cli_own(in, "decode")) {
        return decode(c, cli_own(in, "decode"));
    }
    if (!t.vm) {
        return cli_fail(c, CLI_USAGE, "vmctl trace NAME", "which VM?");
    }
    if (text && (cli_duration(text, &ms, &e) < 0 || ms < 1)) {
        return cli_fail(c, CLI_USAGE, NULL, "--for: %s", e.code ? e.msg : "at least 1ms");
    }
    if (path) {
        t.out = fopen(path, "we");
        if (!t.out) {
            return cli_fail(c, CLI_FAILED, NULL, "--output '%s': %s", path, strerror(errno));
        }
    }
    rc = start(&t, in);
    if (rc == CLI_OK) {
        if (t.raw) {
            fwrite(raw_magic, 1, sizeof(raw_magic), t.out);
        }
        rc = follow(&t, ms);
    }
    if (path && fclose(t.out) != 0 && rc == CLI_OK) {
        rc = cli_fail(c, CLI_FAILED, NULL, "--output '%s': %s", path, strerror(errno));
    }
    return rc;
}

/* ---- coverage ---- */

struct coverage {
    struct buf edges;
    struct buf blocks; /* 64-bit addresses */
};

static int fetch_coverage(struct cli *c, const char *vm, struct coverage *k)
{
    int64_t after = 0;
    int rc = CLI_OK;

    while (after >= 0 && rc == CLI_OK) {
        struct json_object *params = json_object_new_object();
        AUTO_JSON result = NULL;

        api_json_set_str(params, "vm", vm);
        api_json_set_int(params, "after", after);
        rc = cli_call(c, "vm.coverage", params, &result);
        if (rc == CLI_OK &&
            (!base64_take(&k->blocks, api_json_get_str(result, "blocks") ?: "") ||
             (after == 0 &&
              !base64_take(&k->edges, api_json_get_str(result, "edges") ?: "")))) {
            rc = cli_fail(c, CLI_FAILED, NULL, "the coverage came garbled");
        }
        int64_t next = rc == CLI_OK ? api_json_get_int(result, "next", -1) : -1;
        after = next > after ? next : -1;
    }
    return rc;
}

/* Writes bytes to a file, or for blocks a line for each address. */
static int write_file(struct cli *c, const char *path, const struct buf *b, bool lines)
{
    FILE *f = fopen(path, "we");

    if (!f) {
        return cli_fail(c, CLI_FAILED, NULL, "'%s': %s", path, strerror(errno));
    }
    if (!lines) {
        fwrite(b->data ? b->data : "", 1, b->len, f);
    }
    for (size_t i = 0; lines && i + 8 <= b->len; i += 8) {
        fprintf(f, "0x%" PRIx64 "\n", number((const uint8_t *)b->data + i, 8));
    }
    return fclose(f) == 0 ? CLI_OK
                          : cli_fail(c, CLI_FAILED, NULL, "'%s': %s", path, strerror(errno));
}

int cli_verb_coverage(struct cli *c, struct cli_input *in)
{
    const char *vm = cli_own(in, "VM"), *edges = cli_own(in, "output"),
               *blocks = cli_own(in, "blocks");
    struct coverage k = { BUF_INIT, BUF_INIT };
    int rc = fetch_coverage(c, vm, &k);

    if (rc == CLI_OK && edges) {
        rc = write_file(c, edges, &k.edges, false);
    }
    if (rc == CLI_OK && blocks) {
        rc = write_file(c, blocks, &k.blocks, true);
    }
    if (rc == CLI_OK && !c->quiet) {
        unsigned hit = 0;
        for (size_t i = 0; i < k.edges.len; i++) {
            hit += k.edges.data[i] != 0;
        }
        if (c->json) {
            printf("{\"edges\":%u,\"edges_of\":%zu,\"blocks\":%zu}\n", hit, k.edges.len,
                   k.blocks.len / 8);
        } else {
            printf("%s: %zu blocks began somewhere, %u of %zu edge counters are not 0\n", vm,
                   k.blocks.len / 8, hit, k.edges.len);
        }
    }
    buf_done(&k.edges);
    buf_done(&k.blocks);
    return rc;
}
