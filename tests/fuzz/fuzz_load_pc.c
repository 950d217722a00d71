/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: states of q35 and microvm that are loaded, as fuzz_load does it with rv-virt. A board is used for a while, its state is
 * taken, some bytes of some parts are changed, with sums that are right, and it is loaded; then the guest goes on with what came of it. A
 * state that is refused must have a reason, and one that was not changed must be taken.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_load_pc";

#include "engine/base/buf.h"
#include "engine/core/vmstate.h"
#include "tests/fuzz/pc.h"
#include "tests/fuzz/spoil.h"

static void use(struct machine *m, struct fuzz_in *in, unsigned most)
{
    for (unsigned i = fuzz_below(in, most); i > 0; i--) {
        act(m, in);
    }
}

static void save_and_load(struct vm *vm, struct fuzz_in *in)
{
    struct err e = ERR_INIT;
    AUTO_BUF state = BUF_INIT;
    unsigned changed;
    int rc;

    vmstate_save(vm, &state);
    vm_reset(vm);
    changed = spoil((uint8_t *)state.data, state.len, in);
    rc = vmstate_load(vm, state.data, state.len, &e);
    if (rc != 0 && (changed == 0 || !e.msg[0])) {
        FUZZ_FAIL("a state of %u changes is refused: %s", changed, e.msg);
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;

    fuzz_in_init(&in, data, size);
    struct machine *m = &machine[fuzz_rarely(&in, 4) ? MICROVM : Q35];
    use(m, &in, 64);
    vm_pause(m->vm);
    for (unsigned i = 0; i < 1000 && !vmstate_quiet(m->vm); i++) {
        loop_run_once(loop, 0, NULL);
    }
    if (vmstate_quiet(m->vm)) {
        save_and_load(m->vm, &in);
    }
    vm_resume(m->vm);
    use(m, &in, 128);
    vm_reset(m->vm);
}
