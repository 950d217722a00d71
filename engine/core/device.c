/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices: instances, properties, life. Owns struct device and the regions of its register
 * blocks. Main thread. The decoding of registers is in device_regs.c, the reference in
 * device_doc.c.
 */
#include "engine/core/device.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

static void *prop_ptr(struct device *d, const struct dev_prop *p)
{
    return (char *)d + p->offset;
}

static void set_defaults(struct device *d)
{
    for (const struct dev_prop *p = d->cls->props; p && p->name; p++) {
        if (p->kind == PROP_U64) {
            *(uint64_t *)prop_ptr(d, p) = p->def;
        } else if (p->kind == PROP_BOOL) {
            *(bool *)prop_ptr(d, p) = p->def != 0;
        }
    }
}

int dev_new(struct vm *vm, const struct device_class *cls, const char *id, struct device **out,
            struct err *e)
{
    assert(cls->size >= sizeof(struct device));
    if (!str_is_name(id)) {
        return err_set(e, -EINVAL, "'%s' is no name for a %s device", id, cls->name);
    }
    if (vm && dev_find(vm, id)) {
        return err_set(e, -EEXIST, "a device '%s' exists already", id);
    }
    struct device *d = xalloc(cls->size);
    d->cls = cls;
    d->vm = vm;
    d->id = xstrdup(id);
    list_init(&d->node);
    bus_lock_init(&d->lock);
    set_defaults(d);
    *out = d;
    return 0;
}

/* ---- properties ---- */

static int no_such_prop(struct device *d, const char *name, struct err *e)
{
    AUTO_BUF names = BUF_INIT;
    for (const struct dev_prop *p = d->cls->props; p && p->name; p++) {
        buf_printf(&names, "%s%s", names.len ? ", " : "", p->name);
    }
    return err_set(e, -ENOENT, "device '%s' (%s) has no property '%s'; it has: %s", d->id,
                   d->cls->name, name, names.len ? names.data : "none");
}

static const char *const prop_kinds[] = { [PROP_U64] = "a number",
                                          [PROP_BOOL] = "a yes or no",
                                          [PROP_STR] = "a text",
                                          [PROP_PTR] = "an object" };

/* Finds a property that may be set now and holds this kind. */
static int find_prop(struct device *d, const char *name, enum dev_prop_kind kind,
                     const struct dev_prop **out, struct err *e)
{
    for (const struct dev_prop *p = d->cls->props; p && p->name; p++) {
        if (strcmp(p->name, name) != 0) {
            continue;
        }
        if (p->kind != kind) {
            return err_set(e, -EINVAL, "property '%s' of device '%s' holds %s, not %s", name,
                           d->id, prop_kinds[p->kind], prop_kinds[kind]);
        }
        if (d->realized) {
            return err_set(e, -EBUSY, "property '%s' of device '%s' cannot change any more",
                           name, d->id);
        }
        assert(p - d->cls->props < 64);
        *out = p;
        return 0;
    }
    return no_such_prop(d, name, e);
}

static void mark_set(struct device *d, const struct dev_prop *p)
{
    d->props_set |= 1ull << (p - d->cls->props);
}

int dev_set_u64(struct device *d, const char *prop, uint64_t v, struct err *e)
{
    const struct dev_prop *p;
    int ret = find_prop(d, prop, PROP_U64, &p, e);
    if (ret < 0) {
        return ret;
    }
    if (v < p->min || (p->max && v > p->max)) {
        return err_set(e, -ERANGE,
                       "property '%s' of device '%s' cannot be %" PRIu64 ": it takes %" PRIu64
                       " to %" PRIu64,
                       prop, d->id, v, p->min, p->max ? p->max : UINT64_MAX);
    }
    *(uint64_t *)prop_ptr(d, p) = v;
    mark_set(d, p);
    return 0;
}

int dev_set_bool(struct device *d, const char *prop, bool v, struct err *e)
{
    const struct dev_prop *p;
    int ret = find_prop(d, prop, PROP_BOOL, &p, e);
    if (ret < 0) {
        return ret;
    }
    *(bool *)prop_ptr(d, p) = v;
    mark_set(d, p);
    return 0;
}

int dev_set_str(struct device *d, const char *prop, const char *v, struct err *e)
{
    const struct dev_prop *p;
    int ret = find_prop(d, prop, PROP_STR, &p, e);
    if (ret < 0) {
        return ret;
    }
    char **s = prop_ptr(d, p);
    free(*s);
    *s = v ? xstrdup(v) : NULL;
    mark_set(d, p);
    return 0;
}

int dev_set_ptr(struct device *d, const char *prop, void *v, struct err *e)
{
    const struct dev_prop *p;
    int ret = find_prop(d, prop, PROP_PTR, &p, e);
    if (ret < 0) {
        return ret;
    }
    *(void **)prop_ptr(d, p) = v;
    mark_set(d, p);
    return 0;
}

static int check_required(struct device *d, struct err *e)
{
    for (const struct dev_prop *p = d->cls->props; p && p->name; p++) {
        bool set = d->props_set & (1ull << (p - d->cls->props));
        if (set && (p->kind == PROP_STR || p->kind == PROP_PTR)) {
            set = *(void **)prop_ptr(d, p) != NULL;
        }
        if (p->required && !set) {
            return err_set(e, -EINVAL, "device '%s' (%s) needs its property '%s': %s", d->id,
                           d->cls->name, p->name, p->doc ? p->doc : "it has no default");
        }
    }
    return 0;
}

/* ---- life ---- */

static void drop_regions(struct device *d)
{
    for (unsigned i = 0; i < DEV_MAX_BLOCKS; i++) {
        mem_free(d->mmio[i]);
        d->mmio[i] = NULL;
    }
}

static void make_regions(struct device *d)
{
    unsigned n = 0;
    for (const struct dev_reg_block *b = d->cls->blocks; b && b->name; b++, n++) {
        assert(n < DEV_MAX_BLOCKS);
        AUTO_FREE char *name = xasprintf("%s.%s", d->id, b->name);
        struct dev_port *port = &d->port[n];
        port->device = d;
        port->block = b;
        port->ops = dev_reg_ops;
        port->ops.min_size = b->min_size;
        port->ops.max_size = b->max_size;
        d->mmio[n] = b->ops ? mem_new_io(name, b->size, b->ops, d, &d->lock)
                            : mem_new_io(name, b->size, &port->ops, port, &d->lock);
    }
}

int dev_realize(struct device *d, struct err *e)
{
    assert(!d->realized);
    int ret = check_required(d, e);
    if (ret < 0) {
        return ret;
    }
    if (d->vm && dev_find(d->vm, d->id)) {
        return err_set(e, -EEXIST, "a device '%s' exists already", d->id);
    }
    make_regions(d);
    ret = d->cls->realize ? d->cls->realize(d, e) : 0;
    if (ret < 0) {
        return ret;
    }
    d->realized = true;
    if (d->vm) {
        list_append(&d->vm->devices, &d->node);
    }
    dev_reset(d);
    return 0;
}

void dev_reset(struct device *d)
{
    bus_lock(&d->lock);
    for (const struct dev_reg_block *b = d->cls->blocks; b && b->name; b++) {
        dev_regs_reset(d, b);
    }
    bus_unlock(&d->lock);
    if (d->cls->reset) {
        d->cls->reset(d);
    }
}

void dev_free(struct device *d)
{
    if (!d) {
        return;
    }
    list_remove(&d->node);
    for (unsigned i = 0; i < DEV_MAX_BLOCKS; i++) {
        if (d->mmio[i]) {
            mem_unmap(d->mmio[i]);
        }
    }
    if (d->cls->destroy) {
        d->cls->destroy(d);
    }
    drop_regions(d);
    for (const struct dev_prop *p = d->cls->props; p && p->name; p++) {
        if (p->kind == PROP_STR) {
            free(*(char **)prop_ptr(d, p));
        }
    }
    bus_lock_done(&d->lock);
    free(d->id);
    free(d);
}

void dev_backend_changed(struct vm *vm, const void *backend)
{
    list_for_each(it, &vm->devices)
    {
        struct device *d = list_entry(it, struct device, node);

        if (d->realized && d->cls->changed) {
            d->cls->changed(d, backend);
        }
    }
}

struct device *dev_find(struct vm *vm, const char *id)
{
    list_for_each (it, &vm->devices) {
        struct device *d = list_entry(it, struct device, node);
        if (strcmp(d->id, id) == 0) {
            return d;
        }
    }
    return NULL;
}
