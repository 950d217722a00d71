/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receiving side: a VM that was started paused and has not run takes in memory and state from streams of which nothing is
 * trusted. When all is there it stands still and answers; somebody else says that it may run. Main thread.
 */
#include "engine/emu/state/migrate.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vmstate.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#define TURN_FRAMES 4     /* of a stream before the loop turns */
#define CLOSED_NS 1000000 /* between two looks whether the disks are nobody else's */

static void answer(struct emu_migrate *g)
{
    struct api_call *call = take_ptr(g->call);

    if (call && g->e.code == 0) {
        api_reply_emu_migrate_in(call);
    } else if (call) {
        api_fail(call, g->e.code == -ECANCELED ? API_E_CANCELLED : API_E_INVALID_PARAMS,
                 g->m->vm->name, NULL, "%s", g->e.msg);
    }
}

void migrate_in_fail(struct emu_migrate *g)
{
    g->state = API_EMU_MIGRATE_STATE_FAILED;
    g->m->unfit = true;
    migrate_close(g);
    (void)migrate_disks_closed(g); /* or when the emulator ends */
    answer(g);
}

/* ---- frames ---- */

static int check_memory(struct emu_migrate *g, struct json_object *list, struct err *e)
{
    if (!list || !json_object_is_type(list, json_type_array)) {
        return err_set(e, -EBADMSG, "frame 0 of stream 0: it lists no memory");
    }
    if (json_object_array_length(list) != g->n_regions) {
        return err_set(e, -EINVAL, "the VM has %zu regions of memory there, %u here",
                       json_object_array_length(list), g->n_regions);
    }
    for (unsigned i = 0; i < g->n_regions; i++) {
        struct json_object *r = json_object_array_get_idx(list, i);
        const char *name = api_json_get_str(r, "name");
        int64_t size = api_json_get_int(r, "size", -1);

        if (!name || strcmp(name, mem_region_name(g->region[i].r)) != 0 ||
            (uint64_t)size != mem_region_size(g->region[i].r)) {
            return err_set(e, -EINVAL,
                           "memory '%s' has %" PRIi64 " bytes there, '%s' has %" PRIu64 " here",
                           name ? name : "?", size, mem_region_name(g->region[i].r),
                           mem_region_size(g->region[i].r));
        }
    }
    return 0;
}

static int take_info(struct emu_migrate *g, const struct stream_frame *f, const uint8_t *body,
                     struct err *e)
{
    const struct vm *vm = g->m->vm;
    AUTO_JSON o = NULL;
    const char *arch, *machine, *uuid;

    if (g->informed || api_json_parse((const char *)body, f->length, &o, e) < 0) {
        return err_set(e, -EBADMSG, "frame 0 of stream 0: it does not say whose state comes");
    }
    arch = api_json_get_str(o, "arch");
    machine = api_json_get_str(o, "machine");
    uuid = api_json_get_str(o, "uuid");
    if (!arch || !machine || !uuid) {
        return err_set(e, -EBADMSG, "frame 0 of stream 0: it does not say whose state comes");
    }
    if (strcmp(uuid, vm->uuid) != 0) {
        return err_set(e, -EINVAL, "what comes is the VM %s, this one is %s", uuid, vm->uuid);
    }
    if (strcmp(arch, vm->arch->name) != 0 || strcmp(machine, g->m->board_class->name) != 0) {
        return err_set(e, -EINVAL, "what comes is a %s (%s), this VM is a %s (%s)", machine,
                       arch, g->m->board_class->name, vm->arch->name);
    }
    g->informed = true;
    return check_memory(g, api_json_get(o, "memory"), e);
}

static int take_pages(struct emu_migrate *g, const struct lane *l, const uint8_t *body,
                      struct err *e)
{
    const struct stream_frame *f = &l->in.frame;
    struct err why = ERR_INIT;
    int rc;

    if (f->region >= g->n_regions || f->page % PAGES_CHUNK ||
        f->page >= g->region[f->region].pages) {
        return err_set(e, -EBADMSG,
                       "frame %llu of stream %u: region %u, page 0x%" PRIx64
                       ", where this VM has no memory",
                       (unsigned long long)l->in.frames - 1, l->index, f->region, f->page);
    }
    rc = pages_unpack(&g->codec, g->region[f->region].r, f->page, body, f->length, &why);
    if (rc != 0) {
        return err_set(e, rc, "frame %llu of stream %u (region %u, page 0x%" PRIx64 "): %s",
                       (unsigned long long)l->in.frames - 1, l->index, f->region, f->page,
                       why.msg);
    }
    g->left -= g->left < PAGES_CHUNK ? g->left : PAGES_CHUNK;
    return 0;
}

static int take_frame(struct emu_migrate *g, struct lane *l, const uint8_t *body, struct err *e)
{
    const struct stream_frame *f = &l->in.frame;
    bool first = l->index == 0 && l->in.frames == 1;

    if ((f->type == STREAM_INFO) != first ||
        (f->type == STREAM_MACHINE && (l->index != 0 || g->has_machine))) {
        return err_set(e, -EBADMSG, "frame %llu of stream %u: type %u has no place there",
                       (unsigned long long)l->in.frames - 1, l->index, f->type);
    }
    switch (f->type) {
    case STREAM_INFO:
        return take_info(g, f, body, e);
    case STREAM_PAGES:
        return take_pages(g, l, body, e);
    case STREAM_MACHINE:
        g->has_machine = true;
        buf_add(&g->machine, body, f->length);
        return 0;
    default:
        return 0;
    }
}

void migrate_in_all_here(struct emu_migrate *g)
{
    struct vm *vm = g->m->vm;

    if (!migrate_disks_closed(g)) {
        loop_timer_arm(g->disk_timer, CLOSED_NS);
        return;
    }
    if (!g->has_machine) {
        err_set(&g->e, -EBADMSG, "the streams ended without the machine's state");
    } else if (vm->state != VM_PAUSED) {
        err_set(&g->e, -EBUSY, "the VM ended before its state was here");
    } else {
        vmstate_load(vm, g->machine.data, g->machine.len, &g->e);
    }
    if (g->e.code != 0) {
        migrate_in_fail(g);
        return;
    }
    migrate_close(g);
    g->state = API_EMU_MIGRATE_STATE_RECEIVED;
    str_copy(g->m->reason, sizeof(g->m->reason), "incoming");
    control_event(g->m, "state", "incoming");
    answer(g);
}

/* ---- streams ---- */

static bool all_ended(const struct emu_migrate *g)
{
    bool all = true;

    for (unsigned i = 0; i < g->lanes; i++) {
        all &= g->lane[i].ended;
    }
    return all;
}

static void watch_lanes(struct emu_migrate *g)
{
    for (unsigned i = 0; i < g->lanes; i++) {
        struct lane *l = &g->lane[i];

        loop_fd_set(l->watch, !l->ended && (i == 0 || g->informed) ? LOOP_READ : 0);
    }
}

/* What the reader makes of the bytes that are there. */
static int lane_take(struct emu_migrate *g, struct lane *l, bool *took)
{
    const uint8_t *body;
    bool greeted = l->in.greeted, informed = g->informed;
    int rc = stream_take(&l->in, &body, &g->e);

    *took = rc == 1;
    if (rc == 1) {
        rc = take_frame(g, l, body, &g->e);
    }
    if (rc == 0 && !greeted && l->in.greeted &&
        (l->in.hello.index != l->index || l->in.hello.streams != g->lanes ||
         strcmp(l->in.hello.uuid, g->m->vm->uuid) != 0)) {
        rc = err_set(&g->e, -EBADMSG, "stream %u of %u says it is number %u of %u of VM %s",
                     l->index, g->lanes, l->in.hello.index, l->in.hello.streams,
                     l->in.hello.uuid);
    }
    l->ended = l->in.ended;
    if (rc == 0 && (g->informed != informed || l->ended)) {
        watch_lanes(g);
    }
    return rc;
}

static void on_readable(void *arg, int fd, unsigned events)
{
    struct lane *l = arg;
    struct emu_migrate *g = l->g;
    unsigned frames = 0;
    bool took = false;

    (void)events;
    while (frames < TURN_FRAMES && !l->ended) {
        size_t n = stream_wants(&l->in);
        ssize_t got;

        buf_reserve(&l->in.in, n + 1);
        got = recv(fd, l->in.in.data + l->in.in.len, n, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (got <= 0) {
            if (got < 0) {
                err_errno(&g->e, errno, "stream %u broke", l->index);
            } else {
                err_set(&g->e, -EBADMSG, "stream %u was cut off after %llu frames", l->index,
                        (unsigned long long)l->in.frames);
            }
            migrate_in_fail(g);
            return;
        }
        l->in.in.len += (size_t)got;
        g->sent += (uint64_t)got;
        if ((size_t)got == n && lane_take(g, l, &took) != 0) {
            migrate_in_fail(g);
            return;
        }
        frames += took;
    }
    if (all_ended(g)) {
        migrate_in_all_here(g);
    }
}

/* ---- beginning ---- */

static void clear_all(struct emu_migrate *g)
{
    for (unsigned i = 0; i < g->n_regions; i++) {
        struct mem_region *r = g->region[i].r;

        mem_region_clear(r, 0, mem_region_size(r));
        g->left += g->region[i].pages;
    }
}

void api_handle_emu_migrate_in(struct api_call *call, struct api_emu_migrate_in_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_migrate *g = migrate_of_vm(m);

    if (m->vm->state != VM_PAUSED || strcmp(m->reason, "start") != 0 || m->unfit ||
        state_at_work(m) || migrate_at_work(m)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL,
                 "only a VM that was started paused can take another in");
        return;
    }
    if (!migrate_has_lanes(g, call, in->streams)) {
        return;
    }
    migrate_hold_call(g, &g->call, call);
    g->state = API_EMU_MIGRATE_STATE_RECEIVING;
    g->e = (struct err)ERR_INIT;
    g->left = g->sent = 0;
    migrate_list_memory(g);
    clear_all(g);
    for (unsigned i = 0; i < g->lanes; i++) {
        struct lane *l = &g->lane[i];

        l->watch = loop_fd_new(m->loop, l->fd, i == 0 ? LOOP_READ : 0, on_readable, l);
    }
}
