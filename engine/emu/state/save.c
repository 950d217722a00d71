/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emu.save: the machine stands still, its devices become quiet, its state and memory go to a file. When that fails it runs
 * on as if nothing had been.
 */
#include "engine/emu/state/state.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/str.h"
#include "engine/core/vmstate.h"
#include "storage/block.h"

#include <errno.h>

#define SETTLE_NS 200000  /* between two looks whether all is quiet */
#define SETTLE_TURNS 5000 /* of them: a second */

int save_piece(struct state_hand *h)
{
    struct emu_state *s = h->s;

    if (!chunk_pack(&h->codec, s->region[h->region].r, h->page)) {
        return 0;
    }
    return state_out_put(&s->out, STATE_MEMORY, h->region, h->page, h->codec.bytes.data,
                         h->codec.bytes.len, &h->e);
}

static int write_head(struct emu_state *s)
{
    AUTO_BUF info = BUF_INIT, machine = BUF_INIT;
    int rc = state_out_begin(&s->out, s->fd, s->m->vm->uuid, &s->e);

    if (rc == 0) {
        state_list_memory(s);
        state_info(s, &info);
        rc = state_out_put(&s->out, STATE_INFO, 0, 0, info.data, info.len, &s->e);
    }
    if (rc == 0) {
        vmstate_save(s->m->vm, &machine);
        rc = state_out_put(&s->out, STATE_MACHINE, 0, 0, machine.data, machine.len, &s->e);
    }
    return rc;
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

/* What is under way ends, with its results in the guest's memory; then the state is taken. */
void save_settle(struct emu_state *s)
{
    if (s->e.code == 0 && s->m->vm->state != VM_PAUSED) {
        err_set(&s->e, -EBUSY, "the VM ended before its state was whole");
    }
    if (s->e.code != 0 || !disks_fit(s)) {
        save_end(s);
    } else if (!vmstate_quiet(s->m->vm)) {
        if (++s->turns == SETTLE_TURNS) { /* what limits hold back need not wait for its turn */
            for (unsigned i = 0; i < s->m->n_disks; i++) {
                blk_settle(s->m->disk[i]);
            }
        }
        loop_timer_arm(s->timer, SETTLE_NS);
    } else {
        s->settling = false;
        if (write_head(s) != 0) {
            save_end(s);
        } else {
            state_pieces(s);
        }
    }
}

void save_end(struct emu_state *s)
{
    struct vm *vm = s->m->vm;
    bool runs;

    if (s->e.code == 0 && vm->state != VM_PAUSED) {
        err_set(&s->e, -EBUSY, "the VM ended before its state was whole");
    }
    if (s->e.code == 0) {
        state_out_end(&s->out, s->key, &s->size, &s->e);
    }
    runs = s->e.code != 0 ? s->ran : s->resume;
    s->active = false;
    if (runs && vm->state == VM_PAUSED) {
        vm_resume(vm);
    }
    state_over(s);
}

void api_handle_emu_save(struct api_call *call, struct api_emu_save_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_state *s = state_of_vm(m);

    if (m->vm->state == VM_STOPPED) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "the guest has ended");
        return;
    }
    if (!state_take_args(s, call, in->key)) {
        return;
    }
    s->loading = false;
    s->ran = m->vm->state == VM_RUNNING;
    s->resume = in->resume && s->ran;
    s->active = true; /* nobody resumes it from here on */
    vm_pause(m->vm);
    s->settling = true;
    s->turns = 0;
    save_settle(s);
}
