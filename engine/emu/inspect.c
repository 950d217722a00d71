/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control methods that look into a VM: its disks, devices, registers and memory. They change nothing.
 * Main thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "devices/board/disks.h"
#include "devices/registry.h"
#include "engine/base/base64.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"
#include "engine/core/vmstate.h"
#include "engine/emu/emu.h"
#include "engine/emu/state/view.h"
#include "engine/emu/state/pager.h"
#include "storage/block.h"
#include "storage/disk.h"

#include <stdio.h>
#include <string.h>

enum { STATE_TEXT_MAX = 65536, PROPERTIES_MAX = 64 };

void api_handle_emu_blocks(struct api_call *call, struct api_emu_blocks_in *in)
{
    struct emu *m = control_emu(call);
    struct api_emu_block blocks[BOARD_MAX_DISKS];
    char device[BOARD_MAX_DISKS][24];
    struct api_disk_throttle limits[BOARD_MAX_DISKS];

    (void)in;
    for (unsigned i = 0; i < m->n_disks; i++) {
        bool limited = disks_get_limits(m, i, &limits[i]);
        bool empty = blk_is_nothing(m->disk[i]);
        struct dev_tray tray = { 0 };
        bool comes_out = media_tray(m, i, &tray);

        board_disk_device(&m->disks, i, device[i]);
        blocks[i] = (struct api_emu_block){ .name = (char *)blk_name(m->disk[i]),
                                            .device = device[i],
                                            .throttle = limited ? &limits[i] : NULL,
                                            .file = empty ? NULL
                                                          : (char *)blk_path(blk_disk_image(
                                                                m->disk[i])),
                                            .tray = comes_out,
                                            .tray_open = tray.open,
                                            .locked = tray.locked,
                                            .size = (int64_t)blk_size(m->disk[i]),
                                            .format = m->config.disks[i].format,
                                            .has_format = true,
                                            .readonly = blk_readonly(m->disk[i]),
                                            .cdrom = m->config.disks[i].cdrom,
                                            .removable = m->config.disks[i].removable };
    }
    api_reply_emu_blocks(
        call, &(struct api_emu_blocks_out){ .blocks = blocks, .n_blocks = m->n_disks });
}

void api_handle_emu_disk_resize(struct api_call *call, struct api_emu_disk_resize_in *in)
{
    struct emu *m = control_emu(call);
    struct blk_node *n = disks_find(m, in->disk);
    struct err e = ERR_INIT;

    if (!n) {
        api_fail(call, API_E_NOT_FOUND, in->disk, NULL, "there is no disk '%s'", in->disk);
    } else if ((uint64_t)in->size < blk_size(n)) {
        api_fail(call, API_E_INVALID_PARAMS, "size",
                 "stop the VM and use 'vmctl image resize --shrink'",
                 "disk '%s' has %llu bytes, and a guest may use them all", in->disk,
                 (unsigned long long)blk_size(n));
    } else if (blk_readonly(n)) {
        api_fail(call, API_E_INVALID_PARAMS, in->disk, NULL, "disk '%s' is read-only",
                 in->disk);
    } else if ((uint64_t)in->size > blk_size(n) && blk_resize(n, (uint64_t)in->size, &e) < 0) {
        api_fail(call, API_E_FILE_ERROR, in->disk, NULL, "%s", e.msg);
    } else {
        dev_backend_changed(m->vm, n);
        api_reply_emu_disk_resize(
            call, &(struct api_emu_disk_resize_out){ .size = (int64_t)blk_size(n) });
    }
}

/* --- registers and memory --------------------------------------------------------------------- */

struct look {
    struct emu *m;
    struct vcpu *c;
    struct buf *text;
    uint64_t address;
    uint8_t *bytes;
    size_t n, done;
    bool is_virtual;
};

static void print_registers(void *arg)
{
    struct look *l = arg;

    if (l->m->vm->engine->regs_get) {
        l->m->vm->engine->regs_get(l->c);
    }
    st_print(l->m->vm->arch->state, l->c->cpu, l->text);
}

static struct vcpu *find_vcpu(struct api_call *call, int64_t index)
{
    struct emu *m = control_emu(call);

    if (index < (int64_t)m->vm->n_vcpus) {
        return m->vm->vcpus[index];
    }
    api_fail(call, API_E_INVALID_PARAMS, "vcpu", NULL, "there is no vCPU %lld, only %u",
             (long long)index, m->vm->n_vcpus);
    return NULL;
}

/* Text for an answer: bounded, never NULL. */
static char *text_of(struct buf *b)
{
    if (b->len >= STATE_TEXT_MAX) {
        b->data[STATE_TEXT_MAX - 1] = 0;
    }
    return b->data ? b->data : (char *)"";
}

void api_handle_emu_registers(struct api_call *call, struct api_emu_registers_in *in)
{
    AUTO_BUF text = BUF_INIT;
    struct look l = { .m = control_emu(call), .text = &text };

    l.c = find_vcpu(call, in->vcpu);
    if (l.c) {
        vm_at_barrier(l.m->vm, print_registers, &l);
        api_reply_emu_registers(call,
                                &(struct api_emu_registers_out){ .text = text_of(&text) });
    }
}

/* Reads page by page, since each has a translation of its own; stops at what is no memory. */
static void read_memory(void *arg)
{
    struct look *l = arg;
    struct vm *vm = l->m->vm;

    while (l->done < l->n) {
        uint64_t at = l->address + l->done, gpa = at;
        size_t step = 4096 - at % 4096;

        step = step < l->n - l->done ? step : l->n - l->done;
        if (l->is_virtual && !vm->engine->debug_translate(l->c, at, &gpa)) {
            return;
        }
        if (mem_dma_read(vm->mem, gpa, l->bytes + l->done, step) != 0) {
            return;
        }
        l->done += step;
    }
}

void api_handle_emu_memory(struct api_call *call, struct api_emu_memory_in *in)
{
    AUTO_FREE uint8_t *bytes = xalloc((size_t)in->size);
    AUTO_BUF text = BUF_INIT;
    struct err e = ERR_INIT;
    struct look l = { .m = control_emu(call),
                      .bytes = bytes,
                      .n = (size_t)in->size,
                      .is_virtual = in->has_vcpu };

    if (str_to_u64(in->address, 0, UINT64_MAX, "address", &l.address, &e) != 0) {
        api_fail(call, API_E_INVALID_PARAMS, "address", "write it as 0x80000000", "%s", e.msg);
        return;
    }
    if (in->has_vcpu && !(l.c = find_vcpu(call, in->vcpu))) {
        return;
    }
    if (l.is_virtual && !l.m->vm->engine->debug_translate) {
        api_fail(call, API_E_UNSUPPORTED, l.m->vm->name, "use a physical address",
                 "engine %s translates no addresses for others", l.m->vm->engine->name);
        return;
    }
    vm_at_barrier(l.m->vm, read_memory, &l);
    if (l.done < l.n) {
        api_fail(call, API_E_INVALID_PARAMS, "address", NULL, "there is no memory at 0x%llx",
                 (unsigned long long)(l.address + l.done));
        return;
    }
    base64_add(&text, bytes, l.n);
    api_reply_emu_memory(call, &(struct api_emu_memory_out){ .data = text.data });
}

/* Where a text of base64 stands in memory that the guest may change meanwhile: ranges of RAM and ROM, a budget of bytes a call. */
#define SEARCH_BYTES (128u << 20)

struct hunt {
    struct emu *m;
    const uint8_t *bytes;
    size_t n, limit;
    uint64_t from, budget;
    struct json_object *found;
    bool more;
};

/* In what a range holds from l->from on; what was never touched is passed over, and a match there is none of the guest's. */
static void hunt_range(struct hunt *l, const struct mem_range *r)
{
    uint64_t end = r->base + r->size, held = 0;

    while (l->from + l->n <= end && l->budget > 0) {
        bool holds = pager_filling(l->m->pager) ? (held = end - l->from, true)
                                                : mem_range_holds(r, l->from, &held);
        const uint8_t *p = r->host + (l->from - r->base);
        uint64_t n = held < l->budget ? held : l->budget;

        if (!holds) { /* what begins in zeroes may go on behind them */
            bool may = l->bytes[0] == 0 && held >= l->n;
            l->from += may ? held - (l->n - 1) : held;
            continue;
        }
        n = n + l->n - 1 < end - l->from ? n + l->n - 1 : end - l->from;
        const uint8_t *hit = memmem(p, n, l->bytes, l->n);
        uint64_t step = hit ? (uint64_t)(hit - p) + 1 : n - (l->n - 1);

        if (hit && json_object_array_length(l->found) == l->limit) {
            l->from += step - 1;
            break;
        }
        l->from += step;
        l->budget -= step < l->budget ? step : l->budget;
        if (hit) {
            char text[24];
            snprintf(text, sizeof(text), "0x%llx", (unsigned long long)(l->from - 1));
            json_object_array_add(l->found, json_object_new_string(text));
        }
    }
    l->more = l->from + l->n <= end;
}

void api_handle_emu_memory_search(struct api_call *call, struct api_emu_memory_search_in *in)
{
    struct emu *m = control_emu(call);
    const struct mem_flat *f = mem_flat(m->vm->mem);
    AUTO_BUF bytes = BUF_INIT;
    struct err e = ERR_INIT;
    struct hunt l = { .m = m, .limit = (size_t)in->limit, .budget = SEARCH_BYTES };
    struct json_object *o;

    if (!base64_take(&bytes, in->bytes) || bytes.len < 1 || bytes.len > 256) {
        api_fail(call, API_E_INVALID_PARAMS, "bytes", "pass 1 to 256 bytes as base64",
                 "there is nothing to look for");
        return;
    }
    if (in->address && str_to_u64(in->address, 0, UINT64_MAX, "address", &l.from, &e) != 0) {
        api_fail(call, API_E_INVALID_PARAMS, "address", "write it as 0x80000000", "%s", e.msg);
        return;
    }
    l.bytes = (const uint8_t *)bytes.data;
    l.n = bytes.len;
    l.found = json_object_new_array();
    for (unsigned i = 0; i < f->n && !l.more; i++) {
        const struct mem_range *r = &f->r[i];

        if (r->host && r->size >= l.n && (l.from < r->base || l.from - r->base < r->size)) {
            l.from = l.from < r->base ? r->base : l.from;
            hunt_range(&l, r);
        }
    }
    o = json_object_new_object();
    api_json_set(o, "found", l.found);
    if (l.more) {
        char text[24];
        snprintf(text, sizeof(text), "0x%llx", (unsigned long long)l.from);
        api_json_set_str(o, "next", text);
    }
    api_reply_json(call, o);
}

struct whole {
    struct emu *m;
    struct buf bytes;
};

static void take_state(void *arg)
{
    struct whole *w = arg;

    vmstate_save(w->m->vm, &w->bytes);
}

void api_handle_emu_state(struct api_call *call, struct api_emu_state_in *in)
{
    struct whole w = { .m = control_emu(call) };
    struct json_object *o = json_object_new_object();
    struct err e = ERR_INIT;

    vm_at_barrier(w.m->vm, take_state, &w);
    if (view_fields(w.bytes.data, w.bytes.len, in->part, (uint64_t)in->after, o, &e) != 0) {
        json_object_put(o);
        api_fail(call, API_E_INTERNAL_ERROR, w.m->vm->name, NULL, "%s", e.msg);
    } else {
        api_reply_json(call, o);
    }
    buf_done(&w.bytes);
}

/* --- devices ---------------------------------------------------------------------------------- */

static const char *const kinds[] = {
    [PROP_U64] = "int", [PROP_BOOL] = "bool", [PROP_STR] = "str", [PROP_PTR] = "link"
};

/* What a device has, or (d NULL) what a class begins with; the caller's. */
static struct json_object *value_of(const struct dev_prop *p, const struct device *d)
{
    const char *at = d ? (const char *)d + p->offset : NULL;

    if (p->kind == PROP_U64) {
        return json_object_new_uint64(at ? *(const uint64_t *)at : p->def);
    }
    if (p->kind == PROP_BOOL) {
        return json_object_new_boolean(at ? *(const bool *)at : p->def != 0);
    }
    if (p->kind == PROP_STR && at && *(char *const *)at) {
        return json_object_new_string(*(char *const *)at);
    }
    return NULL;
}

static size_t list_properties(const struct device_class *cls, const struct device *d,
                              struct api_emu_property *out)
{
    size_t n = 0;

    for (const struct dev_prop *p = cls->props; p && p->name && n < PROPERTIES_MAX; p++) {
        out[n++] = (struct api_emu_property){ .name = (char *)p->name,
                                              .type = (char *)kinds[p->kind],
                                              .value = value_of(p, d),
                                              .doc = (char *)p->doc };
    }
    return n;
}

static void free_properties(struct api_emu_property *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        json_object_put(p[i].value);
    }
}

struct device_list {
    struct emu *m;
    const char *id;
    struct json_object *out;
};

static void list_devices(void *arg)
{
    struct device_list *l = arg;

    list_for_each (it, &l->m->vm->devices) {
        struct device *d = list_entry(it, struct device, node);
        struct api_emu_property props[PROPERTIES_MAX];
        AUTO_BUF state = BUF_INIT;

        if (l->id && strcmp(l->id, d->id) != 0) {
            continue;
        }
        if (d->cls->state) {
            st_print(d->cls->state, d, &state);
        }
        struct api_emu_device one = { .id = d->id,
                                      .device_class = (char *)d->cls->name,
                                      .properties = props,
                                      .n_properties = list_properties(d->cls, d, props),
                                      .state = text_of(&state) };
        json_object_array_add(l->out, api_emu_device_encode(&one));
        free_properties(props, one.n_properties);
    }
}

void api_handle_emu_devices(struct api_call *call, struct api_emu_devices_in *in)
{
    struct json_object *o = json_object_new_object();
    struct device_list l = { .m = control_emu(call),
                             .id = in->id,
                             .out = json_object_new_array() };

    vm_at_barrier(l.m->vm, list_devices, &l);
    api_json_set(o, "devices", l.out);
    api_reply_json(call, o);
}

void api_handle_emu_device_class(struct api_call *call, struct api_emu_device_class_in *in)
{
    const struct device_class *cls = device_class_find(in->name);
    struct api_emu_property props[PROPERTIES_MAX];

    if (!cls) {
        api_fail(call, API_E_NOT_FOUND, in->name, NULL, "there is no class of devices '%s'",
                 in->name);
        return;
    }
    struct api_emu_device_class_out out = { .properties = props,
                                            .n_properties = list_properties(cls, NULL, props) };
    api_reply_emu_device_class(call, &out);
    free_properties(props, out.n_properties);
}
