/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See balloon.h. Owns struct balloons.
 *
 * The automatic mode looks at the host every other second, and at what the guests themselves say they have available:
 *  - the host is short (MemAvailable below --balloon-low percent of its memory): a guest that has more available than a sixteenth of its
 *    memory gives half of the rest, an eighth of its memory at a time, down to its minimum;
 *  - the host has plenty (above --balloon-high percent): a guest gets an eighth of its memory back;
 *  - in between, only a guest that runs short itself (less than a thirty-second available) gets an eighth back.
 * A guest that is still busy with the last step is left alone, and one without a driver or figures always.
 */
#include "daemon/vm/balloon.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/relay.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVERY_NS INT64_C(2000000000)
#define ASK_NS INT64_C(10000000000)
#define OLD_MS 60000 /* figures of a guest that are no longer believed */

struct balloons {
    struct vmd *d;
    struct loop_timer *timer;
};

/* ---- the host ---- */

static bool meminfo(const char *text, const char *name, int64_t *kib)
{
    const char *at = strstr(text, name);

    return at && sscanf(at + strlen(name), ": %" SCNd64, kib) == 1;
}

/* Percent of the host's memory that programs could have; -1: it does not say. */
static int host_available(void)
{
    char text[2048] = { 0 };
    int64_t total, available;
    AUTO_FD fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fd_pread(fd, text, sizeof(text) - 1, 0) <= 0 ||
        !meminfo(text, "MemTotal", &total) || !meminfo(text, "MemAvailable", &available) ||
        total <= 0 || available < 0) {
        return -1;
    }
    return (int)(available >= total ? 100 : available * 100 / total);
}

/* ---- a guest ---- */

static void ignore(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

static void set_target(struct vm *vm, int64_t target, const char *why)
{
    struct json_object *p = json_object_new_object();

    target &= ~INT64_C(4095);
    log_debug("daemon", "VM '%s' is asked to get by with %" PRId64 " bytes: %s",
              vm->config.name, target, why);
    api_json_set_int(p, "memory", target);
    (void)run_call_with(vm->run, "emu.balloon", p, ASK_NS, ignore, NULL);
}

static void take(struct vm *vm, const struct api_balloon_stats *s)
{
    int64_t least = vm->config.balloon->has_minimum ? vm->config.balloon->minimum
                                                    : s->memory / 4;
    int64_t spare = s->available - s->memory / 16, step = s->memory / 8;

    if (spare <= 0 || s->actual <= least) {
        return;
    }
    step = spare / 2 < step ? spare / 2 : step;
    set_target(vm, s->actual - step > least ? s->actual - step : least,
               "the host is short of memory");
}

static void give(struct vm *vm, const struct api_balloon_stats *s, const char *why)
{
    int64_t target = s->actual + s->memory / 8;

    if (s->target < s->memory) {
        set_target(vm, target < s->memory ? target : s->memory, why);
    }
}

static void look_at(struct vm *vm, int available)
{
    const struct vmd_options *o = &vm->d->opt;
    struct api_vm_stats stats;
    const struct api_balloon_stats *s;

    if (!vm->run || run_has_ended(vm->run) || vm->state != API_VM_STATE_RUNNING ||
        !run_stats(vm->run, &stats)) {
        return;
    }
    s = stats.balloon;
    if (s && s->driver && s->has_available && s->has_age_ms && s->age_ms < OLD_MS &&
        llabs(s->actual - s->target) < s->memory / 64) {
        if (available < o->balloon_low) {
            take(vm, s);
        } else if (available > o->balloon_high) {
            give(vm, s, "the host has plenty");
        } else if (s->available < s->memory / 32) {
            give(vm, s, "it runs short");
        }
    }
    api_release(&api_type_vm_stats, &stats);
}

static void on_timer(void *arg)
{
    struct balloons *b = arg;
    int available = -1;
    size_t n;
    struct vm **list = vm_list(b->d, &n);

    for (size_t i = 0; i < n; i++) {
        const struct api_balloon *c = list[i]->config.balloon;

        if (c && c->mode == API_BALLOON_MODE_AUTO) {
            available = available < 0 ? host_available() : available;
            if (available < 0) {
                break;
            }
            look_at(list[i], available);
        }
    }
    free(list);
    loop_timer_arm(b->timer, EVERY_NS);
}

struct balloons *balloons_new(struct vmd *d)
{
    struct balloons *b = xnew(struct balloons);

    b->d = d;
    b->timer = loop_timer_new(d->loop, on_timer, b);
    return b;
}

void balloons_begin(struct balloons *b)
{
    loop_timer_arm(b->timer, EVERY_NS);
}

void balloons_free(struct balloons *b)
{
    if (b) {
        loop_timer_free(b->timer);
        free(b);
    }
}

void balloons_told(struct vm *vm, int64_t actual)
{
    struct json_object *detail = json_object_new_object();
    struct change *c = change_new(vm->d);

    api_json_set_int(detail, "actual", actual);
    change_must_tell(c);
    vm_event(vm, c, API_EVENT_TYPE_VM_BALLOON, NULL, detail);
    change_commit(c, NULL, NULL);
    json_object_put(detail);
}

/* ---- vm.balloon ---- */

void api_handle_vm_balloon(struct api_call *call, struct api_vm_balloon_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *o;

    if (!vm) {
        return;
    }
    o = json_object_new_object();
    if (in->has_memory) {
        api_json_set_int(o, "memory", in->memory);
    }
    if (in->has_period) {
        api_json_set_int(o, "period", in->period);
    }
    relay_call(call, vm, "emu.balloon", o);
}
