/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emu.save: the machine stands still, its devices become quiet, its state and memory go to a file; memory behind its back when
 * it is to run on and the host can (pager.h). When that fails it runs on as if nothing had been.
 */
#include "engine/emu/state/state.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/rpc/call.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vmstate.h"
#include "storage/block.h"

#include <errno.h>
#include <time.h>

#define SETTLE_NS 200000  /* between two looks whether all is quiet */
#define SETTLE_TURNS 5000 /* of them: a second */

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int save_piece(struct state_hand *h)
{
    struct emu_state *s = h->s;
    struct mem_region *r = s->region[h->region].r;

    if (state_is_apart(s, h->region)) {
        uint64_t at = h->page * MEM_PAGE_SIZE, left = mem_region_size(r) - at;
        uint64_t end = at + (left < CHUNK_BYTES ? left : CHUNK_BYTES), length;
        int rc = 0;

        for (; at < end && rc == 0; at += length) {
            bool holds = mem_region_holds(r, at, &length);

            length = length < end - at ? length : end - at;
            rc = holds ? state_put_apart(s, at / MEM_PAGE_SIZE, mem_ram_host(r) + at, length,
                                         &h->e)
                       : 0;
        }
        return rc;
    }
    if (!chunk_pack(&h->codec, s->region[h->region].r, h->page)) {
        return 0;
    }
    return state_out_put(&s->out, STATE_MEMORY, h->region, h->page, h->codec.bytes.data,
                         h->codec.bytes.len, &h->e);
}

/* While it still runs. */
static int write_head(struct emu_state *s)
{
    AUTO_BUF info = BUF_INIT;
    int rc = state_out_begin(&s->out, s->fd, s->m->vm->uuid, s->key, &s->e);

    if (rc == 0) {
        state_list_memory(s);
        state_info(s, &info);
        rc = state_out_put(&s->out, STATE_INFO, 0, 0, info.data, info.len, &s->e);
    }
    return rc;
}

static int write_machine(struct emu_state *s, const struct buf *machine)
{
    return state_out_put(&s->out, STATE_MACHINE, 0, 0, machine->data, machine->len, &s->e);
}

/* Nothing that waits for a person may be under way. */
static bool disks_fit(struct emu_state *s)
{
    struct emu *m = s->m;

    for (unsigned i = 0; i < m->n_disks; i++) {
        if (blk_kept(m->disk[i]) > 0) {
            err_set(&s->e, -EBUSY,
                    "disk '%s' has a request that failed and waits; mend the cause and resume "
                    "the VM first",
                    blk_name(m->disk[i]));
            return false;
        }
    }
    return true;
}

/* ---- behind a guest that runs ---- */

static int live_piece(void *arg, struct chunk_codec *c, unsigned region, uint64_t page,
                      uint8_t *bytes, size_t n, struct err *e)
{
    struct emu_state *s = arg;

    if (state_is_apart(s, region)) {
        return state_put_apart(s, page, bytes, n, e);
    }
    return chunk_pack_copy(c, bytes, n) ? state_out_put(&s->out, STATE_MEMORY, region, page,
                                                        c->bytes.data, c->bytes.len, e)
                                        : 0;
}

static void live_over(void *arg, const struct err *e)
{
    struct emu_state *s = arg;

    if (e && s->e.code == 0) {
        s->e = *e;
    }
    save_end(s);
}

static void ran_again(struct emu_state *s)
{
    if (s->paused_at) {
        s->pause_ns = now() - s->paused_at;
        s->paused_at = 0;
    }
}

/* The instant is taken. Negative: this host, or this memory, cannot; nothing has begun. */
static int begin_live(struct emu_state *s)
{
    const struct pager_op op = { .region = s->region,
                                 .n_regions = s->n_regions,
                                 .piece = live_piece,
                                 .over = live_over,
                                 .arg = s };
    struct err e = ERR_INIT;
    int rc = s->m->pager ? pager_begin(s->m->pager, &op, &e) : -ENOTSUP;

    if (rc == 0) {
        s->behind = true;
        if (s->ran) {
            vm_resume(s->m->vm);
            ran_again(s);
        }
    } else if (s->m->pager) {
        log_info("emu", "the VM stands still while it is saved: %s", e.msg);
    }
    return rc;
}

/* Nothing is in flight and no vCPU runs: the disks are as the devices' state will have them. */
static int take_disks(struct emu_state *s)
{
    int rc = s->snapshot ? disks_snapshot(s->m, s->snapshot, &s->e) : 0;

    s->disks_taken = s->snapshot && rc == 0;
    if (rc == 0 && s->n_actions) {
        rc = disks_act(s->m, s->action, s->n_actions, &s->e);
        s->acted = rc == 0;
        if (rc != 0) {
            save_drop_disks(s);
        }
    }
    return rc;
}

/* Snapshots of a machine whose state is not whole are of no use to anybody. */
void save_drop_disks(struct emu_state *s)
{
    struct err e = ERR_INIT;

    if (s->disks_taken && disks_snapshot_delete(s->m, s->snapshot, &e) != 0) {
        log_error("emu", "%s: snapshot '%s' stays behind", e.msg, s->snapshot);
    }
    s->disks_taken = false;
}

static void take_instant(struct emu_state *s)
{
    AUTO_BUF machine = BUF_INIT;

    s->settling = false;
    if (take_disks(s) != 0) {
        save_end(s);
        return;
    }
    vmstate_save(s->m->vm, &machine);
    s->live = s->live && begin_live(s) == 0;
    if (write_machine(s, &machine) != 0) {
        if (s->live) {
            pager_cancel(s->m->pager);
        } else {
            save_end(s);
        }
    } else if (!s->live) {
        state_pieces(s);
    }
}

/* What is under way ends, with its results in the guest's memory; then the state is taken. */
void save_settle(struct emu_state *s)
{
    if (s->e.code == 0 && s->m->vm->state != VM_PAUSED) {
        err_set(&s->e, -EBUSY, "the VM ended before its state was whole");
    }
    if (s->e.code != 0 || !disks_fit(s) || shares_idle(s->m, &s->e) != 0 ||
        hotplug_none(s->m, &s->e) != 0) {
        save_end(s);
    } else if (!vmstate_quiet(s->m->vm)) {
        if (++s->turns == SETTLE_TURNS) { /* what limits hold back need not wait for its turn */
            for (unsigned i = 0; i < s->m->n_disks; i++) {
                blk_settle(s->m->disk[i]);
            }
        }
        loop_timer_arm(s->timer, SETTLE_NS);
    } else {
        take_instant(s);
    }
}

void save_end(struct emu_state *s)
{
    struct vm *vm = s->m->vm;
    bool runs;

    if (s->e.code == 0 && vm->state != VM_PAUSED && !s->behind) { /* it was */
        err_set(&s->e, -EBUSY, "the VM ended before its state was whole");
    }
    if (s->e.code == 0) {
        state_out_end(&s->out, &s->size, &s->e);
    }
    if (s->e.code != 0) {
        save_drop_disks(s);
    }
    runs = !s->behind && (s->e.code != 0 ? s->ran : s->resume);
    s->active = false;
    if (runs && vm->state == VM_PAUSED) {
        vm_resume(vm);
        ran_again(s);
    }
    state_over(s);
}

void save_begin(struct emu_state *s)
{
    struct vm *vm = s->m->vm;

    s->behind = false;
    s->ran = vm->state == VM_RUNNING;
    s->resume = s->resume && s->ran;
    if (s->e.code != 0 || write_head(s) != 0) {
        save_end(s);
        return;
    }
    s->paused_at = s->ran ? now() : 0;
    vm_pause(vm);
    s->settling = true;
    s->turns = 0;
    save_settle(s);
}

void api_handle_emu_save(struct api_call *call, struct api_emu_save_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_state *s = state_of_vm(m);

    if (m->vm->state == VM_STOPPED) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "the guest has ended");
        return;
    }
    struct err busy = ERR_INIT;
    if (shares_idle(m, &busy) != 0) {
        api_fail_err(call, API_E_BAD_STATE, m->vm->name, NULL, &busy);
        return;
    }
    if (hotplug_none(m, &busy) != 0) {
        api_fail_err(call, API_E_BAD_STATE, m->vm->name, HOTPLUG_REMEDY, &busy);
        return;
    }
    if (!state_choose_apart(s, call, in->memory_apart) || !state_take_args(s, call, in->key)) {
        return;
    }
    s->loading = false;
    s->resume = in->resume || in->live;
    s->live = in->live;
    free(s->snapshot);
    s->snapshot = in->snapshot ? xstrdup(in->snapshot) : NULL;
    s->disks_taken = s->acted = false;
    s->action = xnew_n(struct api_disk_action, in->n_actions + 1);
    for (; s->n_actions < in->n_actions; s->n_actions++) {
        api_copy(&api_type_disk_action, &in->actions[s->n_actions], &s->action[s->n_actions]);
    }
    s->pause_ns = s->paused_at = 0;
    s->active = true; /* nobody resumes it from here on */
    if (pager_filling(m->pager)) {
        s->waiting = s->behind = true;
        loop_timer_arm(s->timer, 0);
    } else {
        save_begin(s);
    }
}
