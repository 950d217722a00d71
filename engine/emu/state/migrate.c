/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both sides of a migration share: streams, the list of memory, looking, calling off.
 */
#include "engine/emu/state/migrate.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

int64_t migrate_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void on_timer(void *arg)
{
    migrate_out_timer(arg);
}

static void on_brake(void *arg)
{
    migrate_out_brake(arg);
}

static void on_disks(void *arg)
{
    struct emu_migrate *g = arg;

    if (g->state == API_EMU_MIGRATE_STATE_RECEIVING) {
        migrate_in_all_here(g);
    } else {
        migrate_disks_timer(g);
    }
}

struct emu_migrate *migrate_of_vm(struct emu *m)
{
    struct emu_migrate *g = m->migrate;

    if (!g) {
        g = m->migrate = xnew(struct emu_migrate);
        *g = (struct emu_migrate){ .m = m, .state = API_EMU_MIGRATE_STATE_NONE };
        g->timer = loop_timer_new(m->loop, on_timer, g);
        g->brake = loop_timer_new(m->loop, on_brake, g);
        g->disk_timer = loop_timer_new(m->loop, on_disks, g);
        for (unsigned i = 0; i < STREAM_LANES; i++) {
            g->lane[i] = (struct lane){ .g = g, .index = i, .fd = -1 };
        }
    }
    return g;
}

bool migrate_at_work(const struct emu *m)
{
    return m->migrate && (m->migrate->state == API_EMU_MIGRATE_STATE_SENDING ||
                          m->migrate->state == API_EMU_MIGRATE_STATE_RECEIVING);
}

/* It stands still because it is, or may be, somebody else's. */
bool migrate_holds(const struct emu *m)
{
    const struct emu_migrate *g = m->migrate;

    return g && (g->settling || g->last || g->state == API_EMU_MIGRATE_STATE_SENT ||
                 g->state == API_EMU_MIGRATE_STATE_RECEIVING);
}

static void add_region(void *arg, struct mem_region *r)
{
    struct emu_migrate *g = arg;
    uint64_t pages = (mem_region_size(r) + MEM_PAGE_SIZE - 1) / MEM_PAGE_SIZE;

    g->region = xrealloc_n(g->region, g->n_regions + 1, sizeof(*g->region));
    g->region[g->n_regions++] = (struct migrate_region){ .r = r,
                                                         .pages = pages,
                                                         .piece = g->pieces };
    g->pieces += (pages + PAGES_CHUNK - 1) / PAGES_CHUNK;
    g->total += pages * MEM_PAGE_SIZE;
}

void migrate_list_memory(struct emu_migrate *g)
{
    g->total = g->pieces = 0;
    mem_each_ram(g->m->vm->mem, add_region, g);
}

bool migrate_has_lanes(struct emu_migrate *g, struct api_call *call, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (g->lane[i].fd < 0) {
            api_fail(call, API_E_INVALID_PARAMS, "streams", "emu.migrate_stream gives them",
                     "stream %lld was not given", (long long)i);
            return false;
        }
    }
    g->lanes = (unsigned)n;
    return true;
}

void migrate_close(struct emu_migrate *g)
{
    loop_timer_disarm(g->timer);
    loop_timer_disarm(g->brake);
    for (unsigned i = 0; i < STREAM_LANES; i++) {
        struct lane *l = &g->lane[i];

        loop_fd_free(take_ptr(l->watch));
        if (l->fd >= 0) {
            close(l->fd);
        }
        buf_done(&l->out);
        stream_reader_done(&l->in);
        *l = (struct lane){ .g = g, .index = i, .fd = -1 };
    }
    for (unsigned i = 0; i < g->n_regions; i++) {
        free(g->region[i].unsent);
    }
    free(take_ptr(g->region));
    free(take_ptr(g->dirty));
    g->n_regions = 0;
    pages_cache_done(&g->cache);
    pages_done(&g->codec);
    buf_done(&g->machine);
    g->asked = g->settling = g->last = g->ready = g->resting = g->machine_sent = false;
    g->informed = g->has_machine = false;
}

/* ---- calls ---- */

static void on_gone(void *arg, struct api_call *call)
{
    struct emu *m = arg;
    struct emu_migrate *g = m->migrate;

    if (g && g->call == call) {
        g->call = NULL;
    }
    if (g && g->switching == call) {
        g->switching = NULL;
    }
}

void migrate_hold_call(struct emu_migrate *g, struct api_call **at, struct api_call *call)
{
    *at = call;
    api_call_on_gone(call, on_gone, g->m);
}

void api_handle_emu_migrate_stream(struct api_call *call, struct api_emu_migrate_stream_in *in)
{
    AUTO_FD fd = control_passed_fd(call);
    struct emu *m = control_emu(call);
    struct emu_migrate *g = migrate_of_vm(m);
    struct lane *l = &g->lane[in->index];
    struct err e = ERR_INIT;

    if (migrate_at_work(m) || g->state == API_EMU_MIGRATE_STATE_SENT) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "it is being migrated already");
    } else if (fd < 0 || fd_set_nonblock(fd, true, &e) < 0) {
        api_fail(call, API_E_INVALID_PARAMS, "fd", "pass the descriptor of a stream socket",
                 "no stream came with the call");
    } else {
        if (l->fd >= 0) {
            close(l->fd);
        }
        l->fd = take_fd(&fd);
        api_reply_emu_migrate_stream(call);
    }
}

void api_handle_emu_migrate_status(struct api_call *call, struct api_emu_migrate_status_in *in)
{
    struct emu *m = control_emu(call);
    const struct emu_migrate *g = m->migrate;
    struct err stays = ERR_INIT;
    struct migrate_disks disks = { .ready = true };
    struct api_emu_migrate_status_out out = { .state = API_EMU_MIGRATE_STATE_NONE };

    (void)in;
    if (g) {
        uint64_t left = g->left * MEM_PAGE_SIZE;
        out = (struct api_emu_migrate_status_out){
            .state = g->state,
            .total = (int64_t)g->total,
            .remaining = (int64_t)(left < g->total ? left : g->total),
            .sent = (int64_t)g->sent,
            .rounds = (int64_t)g->rounds,
            .rate = (int64_t)g->rate,
            .expected_downtime_ns = (int64_t)g->expected_ns,
            .paused_ns = g->paused_ns == 0
                             ? 0
                             : (g->resumed_ns ? g->resumed_ns : migrate_now_ns()) -
                                   g->paused_ns,
            .zero = (int64_t)g->codec.n_zero,
            .whole = (int64_t)g->codec.n_whole,
            .differing = (int64_t)g->codec.n_differ,
            .unchanged = (int64_t)g->codec.n_same,
            .throttle = g->throttle,
            .error = g->e.code ? (char *)(uintptr_t)g->e.msg : NULL,
        };
        migrate_disks_get(g, &disks);
    }
    out.disk_total = (int64_t)disks.total;
    out.disk_remaining = (int64_t)disks.left;
    out.disks_ready = disks.ready && !disks.failed;
    out.disks_failed = disks.failed;
    if (migrate_fits(m, &stays) != 0) {
        out.stays = stays.msg;
    }
    api_reply_emu_migrate_status(call, &out);
}

void api_handle_emu_migrate_set(struct api_call *call, struct api_emu_migrate_set_in *in)
{
    struct emu_migrate *g = migrate_of_vm(control_emu(call));

    if (in->has_bandwidth) {
        g->bandwidth = in->bandwidth;
        migrate_disks_set_speed(g, (uint64_t)in->bandwidth);
    }
    if (in->has_downtime_ms) {
        g->downtime_ns = in->downtime_ms * 1000000;
    }
    api_reply_emu_migrate_set(call);
}

void api_handle_emu_migrate_cancel(struct api_call *call, struct api_emu_migrate_cancel_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_migrate *g = migrate_of_vm(m);

    (void)in;
    if (g->e.code == 0) {
        err_set(&g->e, -ECANCELED, "it was cancelled");
    }
    if (g->state == API_EMU_MIGRATE_STATE_RECEIVING) {
        migrate_in_fail(g);
    } else if (g->state == API_EMU_MIGRATE_STATE_SENDING ||
               g->state == API_EMU_MIGRATE_STATE_SENT) {
        migrate_out_fail(g);
    } else {
        migrate_close(g);
        migrate_disks_drop(g);
        (void)migrate_disks_closed(g);
    }
    api_reply_emu_migrate_cancel(call);
}

/* The loop runs no more. */
void migrate_free(struct emu *m)
{
    struct emu_migrate *g = take_ptr(m->migrate);

    if (g) {
        struct api_call *calls[] = { take_ptr(g->call), take_ptr(g->switching) };

        for (unsigned i = 0; i < ARRAY_LEN(calls); i++) {
            if (calls[i]) {
                api_fail(calls[i], API_E_BAD_STATE, m->vm->name, NULL,
                         "the VM ended meanwhile");
            }
        }
        migrate_close(g);
        loop_timer_free(g->timer);
        loop_timer_free(g->brake);
        loop_timer_free(g->disk_timer);
        free(g);
    }
}
