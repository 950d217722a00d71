/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's state as a stream of parts. Owns nothing. Main thread, the VM paused.
 */
#include "engine/core/vmstate.h"

#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/clock.h"
#include "engine/core/device.h"
#include "engine/core/state.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_LEN 255

/* What no device and no vCPU holds. */
struct machine {
    uint64_t clock_ns, wall_offset;
    uint32_t n_vcpus;
    bool ended;
};

static const struct st_field machine_fields[] = {
    ST_FIELD(struct machine, clock_ns, ST_U64, 1, "virtual time"),
    ST_FIELD(struct machine, wall_offset, ST_U64, 1,
             "what is added to the host's time of day, ns, two's complement"),
    ST_FIELD(struct machine, n_vcpus, ST_U32, 1, "vCPUs"),
    ST_FIELD(struct machine, ended, ST_BOOL, 1, "the guest has powered off and is kept"),
    ST_END,
};
static const struct st_table machine_state = { .name = "machine",
                                               .version = 1,
                                               .fields = machine_fields };

/* Of a vCPU, beside its architecture's state. */
struct thread {
    bool halted;
};

static const struct st_field thread_fields[] = {
    ST_FIELD(struct thread, halted, ST_BOOL, 1, "waits for an interrupt"),
    ST_END,
};
static const struct st_table thread_state = { .name = "vcpu",
                                              .version = 1,
                                              .fields = thread_fields };

bool vmstate_quiet(struct vm *vm)
{
    bool quiet = true;
    list_for_each (it, &vm->devices) {
        struct device *d = list_entry(it, struct device, node);
        if (d->cls->quiesce) {
            quiet &= d->cls->quiesce(d);
        }
    }
    return quiet;
}

/* ---- saving ---- */

static void put_text(struct buf *b, const char *s)
{
    size_t n = strlen(s);
    n = n < NAME_MAX_LEN ? n : NAME_MAX_LEN;
    buf_add_char(b, (char)n);
    buf_add(b, s, n);
}

static void put_part(struct buf *b, const char *name, const char *cls, const struct st_table *t,
                     const void *obj)
{
    put_text(b, name);
    put_text(b, cls);
    st_save(t, obj, b);
}

static void save_vcpu(struct vcpu *c, struct buf *out)
{
    struct thread t = { .halted = c->halted };
    char name[32];
    if (c->vm->engine->regs_get) {
        c->vm->engine->regs_get(c);
    }
    snprintf(name, sizeof(name), "vcpu%u", c->index);
    put_part(out, name, "vcpu", &thread_state, &t);
    snprintf(name, sizeof(name), "cpu%u", c->index);
    put_part(out, name, c->vm->arch->name, c->vm->arch->state, c->cpu);
}

void vmstate_save(struct vm *vm, struct buf *out)
{
    struct machine m = { .clock_ns = clock_now(vm->clock),
                         .wall_offset = (uint64_t)clock_wall_offset(vm->clock),
                         .n_vcpus = vm->n_vcpus,
                         .ended = vm->ended };
    put_part(out, "machine", vm->arch->name, &machine_state, &m);
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        save_vcpu(vm->vcpus[i], out);
    }
    list_for_each (it, &vm->devices) {
        struct device *d = list_entry(it, struct device, node);
        if (d->cls->state) {
            AUTO_FREE char *name = xasprintf("device:%s", d->id);
            bus_lock(&d->lock);
            put_part(out, name, d->cls->name, d->cls->state, d);
            bus_unlock(&d->lock);
        }
    }
    buf_add_char(out, 0);
}

/* ---- loading ---- */

struct source {
    const uint8_t *p;
    size_t n;
};

static int get_text(struct source *s, char out[NAME_MAX_LEN + 1], struct err *e)
{
    size_t n = s->n > 0 ? s->p[0] : 0;
    if (s->n == 0 || s->n - 1 < n) {
        return err_set(e, -EBADMSG, "the machine's state ends in the middle of a name");
    }
    for (size_t i = 0; i < n; i++) { /* shown to people */
        uint8_t c = s->p[1 + i];
        out[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    out[n] = '\0';
    s->p += 1 + n;
    s->n -= 1 + n;
    return 0;
}

/* The next part must be this one. */
static int take_part(struct source *s, const char *name, const char *cls,
                     const struct st_table *t, void *obj, size_t size, struct err *e)
{
    char has[NAME_MAX_LEN + 1], is[NAME_MAX_LEN + 1];
    struct err why = ERR_INIT;
    size_t used = 0;
    int rc = get_text(s, has, e);
    if (rc == 0 && !has[0]) {
        return err_set(e, -EINVAL, "the saved machine has no '%s', this one has", name);
    }
    rc = rc == 0 ? get_text(s, is, e) : rc;
    if (rc == 0 && (strcmp(has, name) != 0 || strcmp(is, cls) != 0)) {
        rc = err_set(e, -EINVAL, "the saved machine has '%s' (%s) where this one has '%s' (%s)",
                     has, is, name, cls);
    }
    if (rc == 0 && (rc = st_load(t, obj, size, s->p, s->n, &used, &why)) < 0) {
        err_set(e, rc, "%s: %s", name, why.msg);
    }
    s->p += used;
    s->n -= used;
    return rc;
}

static int load_machine(struct vm *vm, struct source *s, struct err *e)
{
    struct machine m = { 0 };
    int rc = take_part(s, "machine", vm->arch->name, &machine_state, &m, sizeof(m), e);
    if (rc == 0 && m.n_vcpus != vm->n_vcpus) {
        rc = err_set(e, -EINVAL, "the saved machine has %u vCPUs, this one has %u", m.n_vcpus,
                     vm->n_vcpus);
    }
    if (rc == 0) {
        clock_set(vm->clock, m.clock_ns);
        clock_set_wall_offset(vm->clock, (int64_t)m.wall_offset);
        vm->ended = m.ended;
    }
    return rc;
}

static int load_vcpu(struct vcpu *c, struct source *s, struct err *e)
{
    const struct arch_ops *arch = c->vm->arch;
    struct thread t = { false };
    char name[32];
    snprintf(name, sizeof(name), "vcpu%u", c->index);
    int rc = take_part(s, name, "vcpu", &thread_state, &t, sizeof(t), e);
    if (rc == 0) {
        snprintf(name, sizeof(name), "cpu%u", c->index);
        rc = take_part(s, name, arch->name, arch->state, c->cpu, arch->cpu_size, e);
    }
    if (rc == 0) {
        vcpu_cleared(c);
        vcpu_set_halted(c, t.halted);
    }
    return rc;
}

static int load_parts(struct vm *vm, struct source *s, struct err *e)
{
    int rc = load_machine(vm, s, e);
    for (unsigned i = 0; i < vm->n_vcpus && rc == 0; i++) {
        rc = load_vcpu(vm->vcpus[i], s, e);
    }
    list_for_each (it, &vm->devices) {
        struct device *d = list_entry(it, struct device, node);
        if (rc == 0 && d->cls->state) {
            AUTO_FREE char *name = xasprintf("device:%s", d->id);
            rc = take_part(s, name, d->cls->name, d->cls->state, d, d->cls->size, e);
        }
    }
    return rc;
}

int vmstate_load(struct vm *vm, const void *p, size_t n, struct err *e)
{
    struct source s = { p, n };
    char name[NAME_MAX_LEN + 1];
    int rc = load_parts(vm, &s, e);
    rc = rc == 0 ? get_text(&s, name, e) : rc;
    if (rc == 0 && name[0]) {
        rc = err_set(e, -EINVAL, "the saved machine has '%s', this one has not", name);
    }
    if (rc == 0 && s.n > 0) {
        rc = err_set(e, -EBADMSG, "the machine's state has %zu bytes too many", s.n);
    }
    vm_remap(vm);
    for (unsigned i = 0; i < vm->n_vcpus && vm->engine->regs_put; i++) {
        vm->engine->regs_put(vm->vcpus[i]);
    }
    return rc;
}
