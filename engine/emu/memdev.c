/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that comes and goes: from the configuration to the board, its control method, its event. Owns struct emu_memory. Main thread.
 */
#include "devices/misc/virtio_mem.h"
#include "devices/registry.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/device.h"
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TELL_NS INT64_C(200000000) /* changes of so long are one event */

/* A memory device. */
struct one {
    char name[64]; /* also its device's */
    bool changed;
    bool came; /* while the VM ran; then */
    uint64_t at, size;
    struct mem_region *ram;
};

struct emu_memory {
    struct emu *m;
    struct virtio_mem_watch watch;
    struct loop_timer *timer;
    struct one all[BOARD_MAX_MEMORY];
    unsigned n;
    bool armed;
};

static struct device *device_at(const struct emu *m, size_t i)
{
    return m->vm ? dev_find(m->vm, m->memory->all[i].name) : NULL;
}

static void on_tell(void *arg)
{
    struct emu_memory *k = arg;
    struct vmem_view v;

    k->armed = false;
    for (size_t i = 0; i < k->n; i++) {
        struct device *d = device_at(k->m, i);

        if (d && k->all[i].changed) {
            virtio_mem_view(d, &v);
            control_memory(k->m, k->all[i].name, v.plugged);
        }
        k->all[i].changed = false;
    }
}

static void on_changed(void *arg, struct device *d)
{
    struct emu_memory *k = arg;

    for (size_t i = 0; i < k->n; i++) {
        k->all[i].changed = k->all[i].changed || strcmp(k->all[i].name, d->id) == 0;
    }
    if (!k->armed) {
        k->armed = true;
        loop_timer_arm(k->timer, TELL_NS);
    }
}

static int find(const struct emu *m, const char *name)
{
    for (unsigned i = 0; i < memory_count(m); i++) {
        if (strcmp(m->memory->all[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* The name that a device without one gets. */
static void name_it(struct emu *m, const struct api_memory_device *c, char *out, size_t room)
{
    unsigned i = memory_count(m);

    str_copy(out, room, c->name ? c->name : "");
    while (!c->name && (i == memory_count(m) || find(m, out) >= 0)) {
        snprintf(out, room, "memory%u", i++);
    }
}

/* Its name, and whether its sizes fit each other. */
static int check(struct emu *m, const struct api_memory_device *c, struct one *o, struct err *e)
{
    struct err why = ERR_INIT;
    uint64_t size = (uint64_t)c->size,
             block = c->has_block ? (uint64_t)c->block : virtio_mem_block(size);

    name_it(m, c, o->name, sizeof(o->name));
    if (find(m, o->name) >= 0) {
        return err_set(e, -EEXIST, "two memory devices are named '%s'", o->name);
    }
    if (virtio_mem_check(size, block, (uint64_t)c->requested, &why) != 0) {
        return err_set(e, -EINVAL, "memory device '%s': %s", o->name, why.msg);
    }
    return 0;
}

int memory_new(struct emu *m, struct board_config *b, struct err *e)
{
    int64_t all = m->config.memory;
    int rc = 0;

    m->memory = xnew(struct emu_memory);
    m->memory->m = m;
    m->memory->watch = (struct virtio_mem_watch){ on_changed, m->memory };
    m->memory->timer = loop_timer_new(m->loop, on_tell, m->memory);
    for (size_t i = 0; i < m->config.n_memory_devices && i < BOARD_MAX_MEMORY && rc == 0; i++) {
        const struct api_memory_device *c = &m->config.memory_devices[i];
        struct one *o = &m->memory->all[m->memory->n];

        rc = check(m, c, o, e);
        m->memory->n++;
        b->memory_device[i] = (struct board_memory){ .id = o->name,
                                                     .size = (uint64_t)c->size,
                                                     .block = (uint64_t)c->block,
                                                     .requested = (uint64_t)c->requested,
                                                     .watch = &m->memory->watch };
        b->n_memory_devices++;
        all += c->size;
    }
    if (rc == 0 && m->config.has_memory_max && m->config.memory_max < all) {
        rc = err_set(e, -EINVAL, "memory_max: the VM has more from the start");
    } else if (rc == 0 && m->config.has_memory_max) {
        b->memory_room = (uint64_t)(m->config.memory_max - all);
    }
    return rc;
}

void memory_free(struct emu *m)
{
    if (m->memory) {
        for (unsigned i = 0; i < m->memory->n; i++) {
            mem_free(m->memory->all[i].ram); /* of those that came */
        }
        loop_timer_free(m->memory->timer);
        free(m->memory);
        m->memory = NULL;
    }
}

/* ---- what comes and goes ---- */

unsigned memory_count(const struct emu *m)
{
    return m->memory ? m->memory->n : 0;
}

const char *memory_name(const struct emu *m, unsigned i)
{
    return m->memory->all[i].name;
}

/* A place for so many bytes in the board's room for what comes; false: there is none. */
static bool find_place(struct emu *m, uint64_t size, uint64_t *at)
{
    uint64_t from, room, end;
    bool moved = true;

    if (!m->board_class->memory_room || !m->board_class->memory_room(m->board, &from, &room)) {
        return false;
    }
    end = from + room;
    for (*at = from; moved;) { /* at most once for each device */
        moved = false;
        for (unsigned i = 0; i < m->memory->n; i++) {
            const struct one *o = &m->memory->all[i];

            if (o->came && *at < o->at + o->size && o->at < *at + size) {
                *at = (o->at + o->size + VIRTIO_MEM_ALIGN - 1) & ~(VIRTIO_MEM_ALIGN - 1);
                moved = true;
            }
        }
    }
    return size <= room && *at <= end - size;
}

/* Bytes that memory_max leaves. */
static uint64_t room_left(const struct emu *m)
{
    uint64_t left = m->config.has_memory_max
                        ? (uint64_t)(m->config.memory_max - m->config.memory)
                        : 0;

    for (size_t i = 0; i < m->config.n_memory_devices; i++) {
        left -= (uint64_t)m->config.memory_devices[i].size; /* memory_new() has looked */
    }
    for (unsigned i = 0; i < m->memory->n; i++) {
        left -= m->memory->all[i].came ? m->memory->all[i].size : 0;
    }
    return left;
}

static int fits(struct emu *m, const struct api_memory_device *c, struct one *o, struct err *e)
{
    int rc = check(m, c, o, e);

    if (rc != 0) {
        return rc;
    }
    if (m->memory->n >= BOARD_MAX_MEMORY) {
        return err_set(e, -ENOSPC, "it has %d memory devices already", BOARD_MAX_MEMORY);
    }
    if (dev_find(m->vm, o->name)) {
        return err_set(e, -EEXIST, "it has a device '%s' already", o->name);
    }
    if (o->size > room_left(m) || !find_place(m, o->size, &o->at)) {
        return err_set(e, -ENOSPC,
                       "'memory_max' of its definition leaves %llu MiB for memory that comes, "
                       "a device of %llu MiB has no place there",
                       (unsigned long long)(room_left(m) >> 20),
                       (unsigned long long)(o->size >> 20));
    }
    return hotplug_has_slot(m, e) ? 0 : -ENOSPC;
}

static int new_device(struct emu *m, const struct api_memory_device *c, struct one *o,
                      struct device **out, struct err *e)
{
    int rc = dev_new(m->vm, &virtio_mem_class, o->name, out, e);

    if (rc == 0) {
        rc = dev_set_ptr(*out, "ram", o->ram, e);
    }
    if (rc == 0) {
        rc = dev_set_ptr(*out, "watch", &m->memory->watch, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(*out, "memaddr", o->at, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(*out, "max-size", o->size, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(*out, "block-size", (uint64_t)c->block, e);
    }
    return rc == 0 ? dev_set_u64(*out, "requested-size", (uint64_t)c->requested, e) : rc;
}

static int attach(struct emu *m, const struct api_memory_device *c, int take_ram, struct err *e)
{
    struct one o = { .came = true, .size = (uint64_t)c->size };
    AUTO_FD ram = take_ram;
    struct device *d = NULL;
    int rc;

    if (ram < 0) {
        return err_set(e, -EINVAL, "no descriptor came with the call");
    }
    rc = fits(m, c, &o, e);
    rc = rc == 0 ? mem_new_ram_in(o.name, o.size, take_fd(&ram), &o.ram, e) : rc;
    if (rc != 0) {
        return rc;
    }
    rc = new_device(m, c, &o, &d, e);
    if (rc != 0) {
        dev_free(d);
    } else {
        rc = hotplug_plug(m, d, e);
    }
    if (rc != 0) {
        mem_free(o.ram);
        return rc;
    }
    m->memory->all[m->memory->n++] = o;
    hotplug_came(m, "memory device", o.name);
    return 0;
}

void api_handle_emu_attach_memory(struct api_call *call, struct api_emu_attach_memory_in *in)
{
    struct emu *m = control_emu(call);
    struct err e = ERR_INIT;
    int rc = attach(m, in->memory_device, control_passed_fd(call), &e);

    if (rc != 0) {
        api_fail_err(call,
                     rc == -EEXIST   ? API_E_EXISTS
                     : rc == -ENOSPC ? API_E_HOST_LIMIT
                     : rc == -ENOMEM ? API_E_HOST_LIMIT
                                     : API_E_INVALID_PARAMS,
                     in->memory_device->name ? in->memory_device->name : "memory_device",
                     rc == -ENOSPC ? "detach something, or give the VM more 'root_ports' and a "
                                     "larger 'memory_max', and start it anew"
                                   : NULL,
                     &e);
        return;
    }
    api_reply_emu_attach_memory(call, &(struct api_emu_attach_memory_out){
                                          .device = m->memory->all[m->memory->n - 1].name });
}

struct mem_region *memory_take(struct emu *m, const char *name)
{
    int i = find(m, name);
    struct mem_region *ram = m->memory->all[i].ram;

    m->memory->n--;
    memmove(&m->memory->all[i], &m->memory->all[i + 1],
            (m->memory->n - (unsigned)i) * sizeof(m->memory->all[0]));
    return ram;
}

/* ---- sizes ---- */

/* Device i as the API has it; `address` holds its text. */
static struct api_memory_device_state state_of(const struct emu *m, size_t i, char address[24])
{
    struct vmem_view v;

    virtio_mem_view(device_at(m, i), &v);
    snprintf(address, 24, "0x%llx", (unsigned long long)v.addr);
    return (struct api_memory_device_state){ .name = m->memory->all[i].name,
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
    size_t n = memory_count(m), i = 0;
    struct err e = ERR_INIT;

    if (!in->name && n > 1) {
        api_fail(call, API_E_INVALID_PARAMS, "name", "say which",
                 "the VM has %zu memory devices", n);
        return false;
    }
    for (; in->name && i < n && strcmp(m->memory->all[i].name, in->name) != 0; i++) {
    }
    if (i == n) {
        api_fail(call, API_E_NOT_FOUND, in->name, NULL, "the VM has no such memory device");
        return false;
    }
    if (virtio_mem_request(device_at(m, i), (uint64_t)in->requested, &e) != 0) {
        api_fail(call, API_E_INVALID_PARAMS, "requested", NULL, "memory device '%s': %s",
                 m->memory->all[i].name, e.msg);
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

    if (memory_count(m) == 0 && (in->has_requested || !m->config.has_memory_max)) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name,
                 "give it one: 'vmctl set VM --memory-device 4G', then start it anew, or, "
                 "where it has "
                 "'memory_max', 'vmctl attach --memory-device 4G VM'",
                 "the VM has no memory device");
        return;
    }
    if (in->has_requested && !resize(m, call, in)) {
        return;
    }
    for (; out.n_devices < memory_count(m); out.n_devices++) {
        s[out.n_devices] = state_of(m, out.n_devices, address[out.n_devices]);
    }
    api_reply_emu_memory_devices(call, &out);
}
