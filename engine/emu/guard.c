/* SPDX-License-Identifier: Apache-2.0 */
/* What is done when a guest does not feed its watchdog. Owns struct emu_guard. Main thread. */
#include "devices/misc/i6300esb.h"

#include "engine/base/mem.h"
#include "engine/core/vm.h"
#include "engine/emu/emu.h"

#include <stdlib.h>

struct emu_guard {
    struct emu *m;
    struct watchdog_host host;
    enum api_guest_watchdog_action action;
};

static void on_pause(void *arg)
{
    struct emu *m = arg;

    if (m->vm && m->vm->state == VM_RUNNING) {
        m->pausing_why = "guest-watchdog";
        vm_pause(m->vm);
        m->pausing_why = NULL;
    }
}

static void on_expired(void *arg)
{
    struct emu_guard *g = arg;
    struct emu *m = g->m;
    enum api_guest_watchdog_action action = g->action;

    control_event(m, "watchdog", api_enum_name(&api_type_guest_watchdog_action, (int)action));
    if (action == API_GUEST_WATCHDOG_ACTION_RESET) {
        vm_request(m->vm, VM_REQ_RESET, "guest-reset");
    } else if (action == API_GUEST_WATCHDOG_ACTION_POWEROFF) {
        vm_request(m->vm, VM_REQ_POWEROFF, "poweroff");
    } else if (action == API_GUEST_WATCHDOG_ACTION_PAUSE) {
        loop_post(m->loop, on_pause, m);
    }
}

void guard_new(struct emu *m, struct board_config *b)
{
    if (m->config.guest_watchdog) {
        m->guard = xnew(struct emu_guard);
        m->guard->m = m;
        m->guard->action = m->config.guest_watchdog->action;
        m->guard->host = (struct watchdog_host){ on_expired, m->guard };
        b->watchdog = true;
        b->guard = &m->guard->host;
    }
}

bool guard_set(struct emu *m, enum api_guest_watchdog_action action)
{
    if (m->guard) {
        m->guard->action = action;
    }
    return m->guard != NULL;
}

void guard_free(struct emu *m)
{
    free(m->guard);
    m->guard = NULL;
}
