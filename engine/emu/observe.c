/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulator's side of looking into translated code (engine/tcg/observe.h): options and configuration before the VM runs, and the control methods
 * emu.trace_* and emu.coverage. Main thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"
#include "engine/tcg/observe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_RECORDS 8192
#define READ_BLOCKS 32768u
#define FLUSH_NS 1000000000ll
#define UNREAD_NS 30000000000ll /* nobody reads: the trace ends */

struct emu_observe {
    struct loop_timer *unread;
    struct loop_timer *flush; /* of the perf map; NULL: there is none */
};

static bool is_tcg(const struct emu *m)
{
    return m->vm->engine == &tcg_engine_ops;
}

/* ---- before the VM runs ---- */

static void on_flush(void *arg)
{
    struct emu *m = arg;

    tcg_perf_flush(m->vm);
    loop_timer_arm(m->observe->flush, FLUSH_NS);
}

static int open_perf_map(struct emu *m, struct err *e)
{
    AUTO_FREE char *path = NULL;
    int fd = take_fd(&m->opt.perf_map_fd);

    if (fd < 0 && m->opt.perf_map) {
        path = m->opt.perf_map[0] ? xstrdup(m->opt.perf_map)
                                  : xasprintf("/tmp/perf-%d.map", (int)getpid());
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) {
            return err_errno(e, errno, "--perf-map '%s'", path);
        }
    }
    if (fd >= 0) {
        tcg_perf_map(m->vm, fd);
        m->observe->flush = loop_timer_new(m->loop, on_flush, m);
        loop_timer_arm(m->observe->flush, FLUSH_NS);
    }
    return 0;
}

static int load_plugins(struct emu *m, struct err *e)
{
    const struct api_tcg_config *c = m->config.tcg;
    int rc = 0;

    for (size_t i = 0; c && i < c->n_plugins && rc == 0; i++) {
        rc = tcg_plugin_load(m->vm, c->plugins[i].file, c->plugins[i].args, e);
    }
    for (unsigned i = 0; i < m->opt.n_plugins && rc == 0; i++) {
        AUTO_FREE char *file = xstrdup(m->opt.plugins[i]);
        char *args = strchr(file, ',');
        if (args) {
            *args++ = 0;
        }
        rc = tcg_plugin_load(m->vm, file, args, e);
    }
    return rc;
}

int observe_start(struct emu *m, struct err *e)
{
    bool cover = m->opt.coverage_fd >= 0 || (m->config.tcg && m->config.tcg->coverage);
    int rc;

    if (!is_tcg(m)) {
        return 0;
    }
    m->observe = xnew(struct emu_observe);
    rc = open_perf_map(m, e);
    if (rc == 0 && cover) {
        rc = tcg_coverage_start(m->vm, take_fd(&m->opt.coverage_fd), m->board_class->ram_base,
                                (uint64_t)m->config.memory, e);
    }
    return rc == 0 ? load_plugins(m, e) : rc;
}

void observe_stopped(struct emu *m)
{
    if (m->observe) {
        tcg_plugins_exit(m->vm);
        tcg_perf_flush(m->vm);
    }
}

void observe_free(struct emu *m)
{
    if (m->observe) {
        loop_timer_free(m->observe->unread);
        loop_timer_free(m->observe->flush);
        free(m->observe);
        m->observe = NULL;
    }
}

/* ---- control methods ---- */

static bool unsupported(struct api_call *call, struct emu *m)
{
    if (m->observe) {
        return false;
    }
    api_fail(call, API_E_UNSUPPORTED, m->vm->name, NULL, "engine %s has no such thing",
             m->vm->engine->name);
    return true;
}

static void on_unread(void *arg)
{
    struct emu *m = arg;

    tcg_trace_stop(m->vm);
}

static void watch_reader(struct emu *m)
{
    if (!m->observe->unread) {
        m->observe->unread = loop_timer_new(m->loop, on_unread, m);
    }
    loop_timer_arm(m->observe->unread, UNREAD_NS);
}

static bool address(struct api_call *call, const char *text, const char *what, uint64_t *out)
{
    struct err e = ERR_INIT;

    if (text && str_to_u64(text, 0, UINT64_MAX, what, out, &e) != 0) {
        api_fail(call, API_E_INVALID_PARAMS, what, "write it as 0x80000000", "%s", e.msg);
        return false;
    }
    return true;
}

void api_handle_emu_trace_start(struct api_call *call, struct api_emu_trace_start_in *in)
{
    struct emu *m = control_emu(call);
    struct trace_filter f = { .blocks = in->blocks,
                              .exceptions = in->exceptions,
                              .interrupts = in->interrupts,
                              .mmio = in->mmio,
                              .from = 0,
                              .to = UINT64_MAX,
                              .vcpu = in->has_vcpu ? (int)in->vcpu : -1 };

    if (unsupported(call, m) || !address(call, in->from, "from", &f.from) ||
        !address(call, in->to, "to", &f.to)) {
        return;
    }
    tcg_trace_start(m->vm, &f);
    watch_reader(m);
    api_reply_emu_trace_start(call);
}

void api_handle_emu_trace_read(struct api_call *call, struct api_emu_trace_read_in *in)
{
    struct emu *m = control_emu(call);
    AUTO_BUF text = BUF_INIT;
    uint64_t dropped = 0;

    (void)in;
    if (unsupported(call, m)) {
        return;
    }
    struct trace_record *r = xnew_n(struct trace_record, READ_RECORDS);
    size_t n = tcg_trace_read(m->vm, r, READ_RECORDS, &dropped);
    base64_add(&text, r, n * sizeof(*r));
    free(r);
    struct api_emu_trace_read_out out = { .data = text.data ? text.data : (char *)"",
                                          .records = (int64_t)n,
                                          .dropped = (int64_t)dropped,
                                          .on = tcg_trace_on(m->vm) };
    if (out.on) {
        watch_reader(m);
    }
    api_reply_emu_trace_read(call, &out);
}

void api_handle_emu_trace_stop(struct api_call *call, struct api_emu_trace_stop_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    if (!unsupported(call, m)) {
        tcg_trace_stop(m->vm);
        api_reply_emu_trace_stop(call);
    }
}

/* Addresses of the bits set from byte `at` of the bitmap on; where to go on, or -1. */
static int64_t covered_blocks(const struct coverage_header *h, uint64_t at, struct buf *text)
{
    const uint8_t *bits = (const uint8_t *)h + h->bitmap;
    uint64_t *found = xnew_n(uint64_t, READ_BLOCKS + 8), n = h->ram_size / 16;
    unsigned k = 0;

    for (; at < n && k < READ_BLOCKS; at++) {
        for (unsigned bit = 0; bits[at] && bit < 8; bit++) {
            if (bits[at] >> bit & 1) {
                found[k++] = h->ram_base + at * 16 + bit * 2;
            }
        }
    }
    base64_add(text, found, k * sizeof(*found));
    free(found);
    return at < n ? (int64_t)at : -1;
}

void api_handle_emu_coverage(struct api_call *call, struct api_emu_coverage_in *in)
{
    struct emu *m = control_emu(call);
    AUTO_BUF edges = BUF_INIT, blocks = BUF_INIT;
    const struct coverage_header *h;

    if (unsupported(call, m)) {
        return;
    }
    h = tcg_coverage(m->vm);
    if (!h) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name,
                 "set tcg.coverage in its definition and start it anew",
                 "coverage of this VM is not recorded");
        return;
    }
    if (in->after == 0) {
        base64_add(&edges, (const uint8_t *)h + h->edges, COVERAGE_EDGES);
    }
    int64_t next = covered_blocks(h, (uint64_t)in->after, &blocks);
    struct api_emu_coverage_out out = { .edges = edges.data,
                                        .blocks = blocks.data ? blocks.data : (char *)"",
                                        .next = next,
                                        .has_next = next >= 0 };
    api_reply_emu_coverage(call, &out);
}
