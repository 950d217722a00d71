/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory balloon: from the configuration to the board, its control method, its event. Owns struct emu_balloon. Main thread.
 */
#include "devices/misc/virtio_balloon.h"

#include "api-schema/gen/methods.h"
#include "api-schema/guest/balloon.h"
#include "api-schema/rpc/call.h"
#include "engine/base/mem.h"
#include "engine/base/statspage.h"
#include "engine/core/device.h"
#include "engine/core/vm.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define TELL_NS INT64_C(200000000) /* changes of so long are one event */

struct emu_balloon {
    struct emu *m;
    struct balloon_watch watch;
    struct loop_timer *timer;
    bool armed;
};

static struct device *balloon_device(const struct emu *m)
{
    return m->balloon && m->vm ? dev_find(m->vm, "balloon0") : NULL;
}

static void on_tell(void *arg)
{
    struct emu_balloon *b = arg;
    struct device *d = balloon_device(b->m);
    struct balloon_view v;

    b->armed = false;
    if (d) {
        virtio_balloon_view(d, &v);
        control_balloon(b->m, v.actual);
    }
}

static void on_changed(void *arg)
{
    struct emu_balloon *b = arg;

    if (!b->armed) {
        b->armed = true;
        loop_timer_arm(b->timer, TELL_NS);
    }
}

int balloon_new(struct emu *m, struct board_config *b, struct err *e)
{
    const struct api_balloon *c = m->config.balloon;

    if (!c) {
        return 0;
    }
    if (c->memory > m->config.memory || c->minimum > m->config.memory) {
        return err_set(e, -EINVAL,
                       "balloon: the guest cannot get by with more memory than it has");
    }
    m->balloon = xnew(struct emu_balloon);
    m->balloon->m = m;
    m->balloon->watch = (struct balloon_watch){ on_changed, m->balloon };
    m->balloon->timer = loop_timer_new(m->loop, on_tell, m->balloon);
    b->balloon = (struct board_balloon){ .on = true,
                                         .target = (uint64_t)c->memory,
                                         .period = (unsigned)c->period,
                                         .deflate_on_oom = c->deflate_on_oom,
                                         .reporting = c->free_page_reporting,
                                         .watch = &m->balloon->watch };
    return 0;
}

void balloon_free(struct emu *m)
{
    if (m->balloon) {
        loop_timer_free(m->balloon->timer);
        free(m->balloon);
        m->balloon = NULL;
    }
}

void balloon_figures(struct emu *m, struct stats_balloon *s)
{
    struct device *d = balloon_device(m);
    struct balloon_view v;

    if (!d) {
        return;
    }
    virtio_balloon_view(d, &v);
    *s = (struct stats_balloon){ .memory = (uint64_t)m->config.memory,
                                 .target = v.target,
                                 .actual = v.actual,
                                 .given_back = v.given_back,
                                 .reported = v.reported,
                                 .updated_ns = v.updated_ns,
                                 .driver = v.driver };
    for (unsigned i = 0; i < BALLOON_N_STATS; i++) {
        s->stat[i] = v.stat[i];
    }
}

void api_handle_emu_balloon(struct api_call *call, struct api_emu_balloon_in *in)
{
    struct emu *m = control_emu(call);
    struct device *d = balloon_device(m);
    struct stats_balloon s = { 0 };
    struct api_balloon_stats out;
    struct timespec now = { 0 };

    if (!d) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name,
                 "give it one: 'vmctl set VM --balloon manual', then start it anew",
                 "the VM has no balloon");
        return;
    }
    if (in->has_memory && in->memory > m->config.memory) {
        api_fail(call, API_E_INVALID_PARAMS, "memory", NULL,
                 "the guest was started with %lld bytes and cannot have more",
                 (long long)m->config.memory);
        return;
    }
    if (in->has_memory) {
        virtio_balloon_set_target(d, (uint64_t)in->memory);
    }
    if (in->has_period) {
        virtio_balloon_set_period(d, (unsigned)in->period);
    }
    balloon_figures(m, &s);
    clock_gettime(CLOCK_BOOTTIME, &now);
    (void)balloon_stats(&s, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec, &out);
    api_reply_emu_balloon(call, &out);
}
