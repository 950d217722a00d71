/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that comes and goes: from the configuration to the board, its control method, its event. Owns struct emu_memory. Main thread.
 */
#include "devices/misc/virtio_mem.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/device.h"
#include "engine/core/vm.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TELL_NS INT64_C(200000000) /* changes of so long are one event */

struct emu_memory {
    struct emu *m;
    struct virtio_mem_watch watch;
    struct loop_timer *timer;
    char name[BOARD_MAX_MEMORY][64];
    bool changed[BOARD_MAX_MEMORY], armed;
};

static struct device *device_at(const struct emu *m, size_t i)
{
    return m->memory && m->vm ? dev_find(m->vm, m->memory->name[i]) : NULL;
}

static void on_tell(void *arg)
{
    struct emu_memory *k = arg;
    struct vmem_view v;

    k->armed = false;
    for (size_t i = 0; i < k->m->config.n_memory_devices; i++) {
        struct device *d = device_at(k->m, i);

        if (d && k->changed[i]) {
            virtio_mem_view(d, &v);
            control_memory(k->m, k->name[i], v.plugged);
        }
        k->changed[i] = false;
    }
}

static void on_changed(void *arg, struct device *d)
{
    struct emu_memory *k = arg;

    for (size_t i = 0; i < k->m->config.n_memory_devices; i++) {
        k->changed[i] = k->changed[i] || strcmp(k->name[i], d->id) == 0;
    }
    if (!k->armed) {
        k->armed = true;
        loop_timer_arm(k->timer, TELL_NS);
    }
}

/* Its name, and whether its sizes fit each other. */
static int check(struct emu *m, size_t i, struct err *e)
{
    const struct api_memory_device *c = &m->config.memory_devices[i];
    char *name = m->memory->name[i];
    struct err why = ERR_INIT;
    uint64_t size = (uint64_t)c->size,
             block = c->has_block ? (uint64_t)c->block : virtio_mem_block(size);

    if (c->name) {
        str_copy(name, sizeof(m->memory->name[i]), c->name);
    } else {
        snprintf(name, sizeof(m->memory->name[i]), "memory%zu", i);
    }
    for (size_t k = 0; k < i; k++) {
        if (strcmp(m->memory->name[k], name) == 0) {
            return err_set(e, -EEXIST, "two memory devices are named '%s'", name);
        }
    }
    if (virtio_mem_check(size, block, (uint64_t)c->requested, &why) != 0) {
        return err_set(e, -EINVAL, "memory device '%s': %s", name, why.msg);
    }
    return 0;
}

int memory_new(struct emu *m, struct board_config *b, struct err *e)
{
    int rc = 0;

    if (m->config.n_memory_devices == 0) {
        return 0;
    }
    m->memory = xnew(struct emu_memory);
    m->memory->m = m;
    m->memory->watch = (struct virtio_mem_watch){ on_changed, m->memory };
    m->memory->timer = loop_timer_new(m->loop, on_tell, m->memory);
    for (size_t i = 0; i < m->config.n_memory_devices && i < BOARD_MAX_MEMORY && rc == 0; i++) {
        const struct api_memory_device *c = &m->config.memory_devices[i];

        rc = check(m, i, e);
        b->memory_device[i] = (struct board_memory){ .id = m->memory->name[i],
                                                     .size = (uint64_t)c->size,
                                                     .block = (uint64_t)c->block,
                                                     .requested = (uint64_t)c->requested,
                                                     .watch = &m->memory->watch };
        b->n_memory_devices++;
    }
    return rc;
}

void memory_free(struct emu *m)
{
    if (m->memory) {
        loop_timer_free(m->memory->timer);
        free(m->memory);
        m->memory = NULL;
    }
}

/* Device i as the API has it; `address` holds its text. */
static struct api_memory_device_state state_of(const struct emu *m, size_t i, char address[24])
{
    struct vmem_view v;

    virtio_mem_view(device_at(m, i), &v);
    snprintf(address, 24, "0x%llx", (unsigned long long)v.addr);
    return (struct api_memory_device_state){ .name = m->memory->name[i],
                                             .address = address,
                                             .size = (int64_t)v.size,
                                             .block = (int64_t)v.block,
                                             .requested = (int64_t)v.requested,
                                             .plugged = (int64_t)v.plugged,
                                             .driver = v.driver };
}

/* False: the call was answered. */
static bool resize(struct emu *m, struct api_call *call,
                   const struct api_emu_memory_devices_in *in)
{
    size_t n = m->config.n_memory_devices, i = 0;
    struct err e = ERR_INIT;

    if (!in->name && n > 1) {
        api_fail(call, API_E_INVALID_PARAMS, "name", "say which",
                 "the VM has %zu memory devices", n);
        return false;
    }
    for (; in->name && i < n && strcmp(m->memory->name[i], in->name) != 0; i++) {
    }
    if (i == n) {
        api_fail(call, API_E_NOT_FOUND, in->name, NULL, "the VM has no such memory device");
        return false;
    }
    if (virtio_mem_request(device_at(m, i), (uint64_t)in->requested, &e) != 0) {
        api_fail(call, API_E_INVALID_PARAMS, "requested", NULL, "memory device '%s': %s",
                 m->memory->name[i], e.msg);
        return false;
    }
    return true;
}

void api_handle_emu_memory_devices(struct api_call *call, struct api_emu_memory_devices_in *in)
{
    struct emu *m = control_emu(call);
    struct api_memory_device_state s[BOARD_MAX_MEMORY];
    char address[BOARD_MAX_MEMORY][24];
    struct api_emu_memory_devices_out out = { .devices = s };

    if (!m->memory) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name,
                 "give it one: 'vmctl set VM --memory-device 4G', then start it anew",
                 "the VM has no memory device");
        return;
    }
    if (in->has_requested && !resize(m, call, in)) {
        return;
    }
    for (; out.n_devices < m->config.n_memory_devices; out.n_devices++) {
        s[out.n_devices] = state_of(m, out.n_devices, address[out.n_devices]);
    }
    api_reply_emu_memory_devices(call, &out);
}
