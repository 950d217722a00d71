/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: states of devices that are loaded. The board of devices.h is used for a while, its state is taken, some bytes of some
 * parts are changed, with sums that are right, and it is loaded; then the guest goes on with what came of it. A state that is refused must
 * have a reason, and one that was not changed must be taken.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_load";

void act_on_devices(const uint8_t *data, size_t size);
#define fuzz_one act_on_devices
#include "tests/fuzz/devices.h"
#undef fuzz_one

#include "engine/base/buf.h"
#include "engine/core/vmstate.h"
#include "tests/fuzz/spoil.h"

void fuzz_act(struct fuzz_in *in)
{
    any_device(in);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;
    struct err e = ERR_INIT;
    AUTO_BUF state = BUF_INIT;
    unsigned changed;

    fuzz_in_init(&in, data, size);
    for (unsigned i = fuzz_below(&in, 24); i > 0; i--) {
        any_device(&in);
    }
    vm_pause(vm);
    for (unsigned i = 0; i < 1000 && !vmstate_quiet(vm); i++) {
        loop_run_once(loop, 0, NULL);
        echo_frames();
    }
    if (vmstate_quiet(vm)) {
        vmstate_save(vm, &state);
        vm_reset(vm);
        changed = spoil((uint8_t *)state.data, state.len, &in);
        int rc = vmstate_load(vm, state.data, state.len, &e);

        if (rc != 0 && (changed == 0 || !e.msg[0])) {
            FUZZ_FAIL("a state of %u changes is refused: %s", changed, e.msg);
        }
    }
    vm_resume(vm);
    act_on_devices(in.p, (size_t)(in.end - in.p));
}
