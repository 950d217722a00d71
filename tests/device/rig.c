/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rig of the device tests (rig.h).
 */
#include "tests/device/rig.h"

#include "engine/arch/riscv/cpu.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"

static int null_vcpu_init(struct vcpu *c, struct err *e)
{
    (void)e;
    c->cpu = xalloc(c->vm->arch->cpu_size);
    return 0;
}

static void null_vcpu_done(struct vcpu *c)
{
    free(c->cpu);
    c->cpu = NULL;
}

static enum vcpu_exit null_run(struct vcpu *c)
{
    (void)c;
    return VCPU_EXIT_HALT;
}

static void null_kick(struct vcpu *c)
{
    (void)c;
}

const struct engine_ops rig_engine = {
    .name = "null",
    .vcpu_init = null_vcpu_init,
    .vcpu_done = null_vcpu_done,
    .run = null_run,
    .kick = null_kick,
    .irq = null_kick,
};

struct rig *rig_new(unsigned vcpus)
{
    struct rig *r = xnew(struct rig);
    struct err e = ERR_INIT;

    r->loop = loop_new(&e);
    ck_assert_msg(r->loop != NULL, "%s", e.msg);
    ck_assert_msg(vm_new("rig", &riscv64_arch, &rig_engine, r->loop, NULL, &r->vm, &e) == 0,
                  "%s", e.msg);
    ck_assert_msg(vm_add_vcpus(r->vm, vcpus, "max", &e) == 0, "%s", e.msg);
    ck_assert_int_eq(mem_new_ram("ram", RIG_RAM_SIZE, &r->ram, &e), 0);
    ck_assert_int_eq(mem_map(r->vm->root, RIG_RAM, 0, r->ram, &e), 0);
    mem_commit(r->vm->mem);
    return r;
}

void rig_free(struct rig *r)
{
    (void)loop_run_once(r->loop, 0, NULL); /* what was posted for devices, which go */
    vm_free(r->vm);
    (void)loop_run_once(r->loop, 0, NULL); /* what was posted lets go of it */
    mem_free(r->ram);
    loop_free(r->loop);
    free(r);
}

void rig_start(struct rig *r)
{
    struct err e = ERR_INIT;

    ck_assert_msg(vm_start(r->vm, &e) == 0, "%s", e.msg);
    vm_resume(r->vm);
}

struct device *rig_device(struct rig *r, const struct device_class *cls)
{
    struct device *d = NULL;
    struct err e = ERR_INIT;
    static unsigned count; /* ids are unique within a process, whatever the test */
    char id[64];

    snprintf(id, sizeof(id), "%s-%u", cls->name, count++);
    ck_assert_msg(dev_new(r->vm, cls, id, &d, &e) == 0, "%s", e.msg);
    return d;
}

void rig_place(struct rig *r, struct device *d, uint64_t at)
{
    struct err e = ERR_INIT;

    ck_assert_msg(dev_realize(d, &e) == 0, "%s", e.msg);
    for (unsigned i = 0; i < DEV_MAX_BLOCKS && d->mmio[i]; i++) {
        ck_assert_int_eq(mem_map(r->vm->root, at, 0, d->mmio[i], &e), 0);
        at += mem_region_size(d->mmio[i]);
    }
    mem_commit(r->vm->mem);
}

uint64_t rig_read(struct rig *r, uint64_t gpa, unsigned size)
{
    const struct mem_range *range = mem_find(r->vm->mem, gpa);
    uint64_t v = 0;

    return range && bus_read(range, gpa, size, &v) == BUS_OK ? v : 0;
}

void rig_write(struct rig *r, uint64_t gpa, uint64_t value, unsigned size)
{
    const struct mem_range *range = mem_find(r->vm->mem, gpa);

    if (range) {
        (void)bus_write(r->vm->mem, range, gpa, size, value);
    }
}

void *rig_ram(struct rig *r, uint64_t gpa)
{
    ck_assert(gpa >= RIG_RAM && gpa < RIG_RAM + RIG_RAM_SIZE);
    return mem_ram_host(r->ram) + (gpa - RIG_RAM);
}

void rig_turn(struct rig *r)
{
    struct err e = ERR_INIT;

    ck_assert_int_eq(loop_run_once(r->loop, 0, &e), 0);
}

void rig_until(struct rig *r, bool (*done)(void *arg), void *arg)
{
    struct err e = ERR_INIT;

    for (unsigned i = 0; !done(arg); i++) {
        ck_assert_msg(i < 1000, "it never happened");
        ck_assert_int_eq(loop_run_once(r->loop, 10000000, &e), 0);
    }
}

static void line_set(void *opaque, unsigned n, bool level)
{
    struct rig_line *l = opaque;

    (void)n;
    l->rises += level && !l->level;
    l->level = level;
}

struct irq_line rig_line(struct rig_line *l)
{
    return (struct irq_line){ .set = line_set, .opaque = l };
}

static size_t chr_mem_write(struct chr *chr, const uint8_t *p, size_t n)
{
    struct rig_chr *c = container_of(chr, struct rig_chr, chr);

    n = n < c->room ? n : c->room;
    n = n < sizeof(c->out) - c->n_out ? n : sizeof(c->out) - c->n_out;
    memcpy(c->out + c->n_out, p, n);
    c->n_out += n;
    c->room -= n;
    return n;
}

static void chr_mem_accept(struct chr *chr)
{
    container_of(chr, struct rig_chr, chr)->accepts++;
}

void rig_chr_init(struct rig_chr *c, size_t room)
{
    static const struct chr_back_ops ops = { .write = chr_mem_write, .accept = chr_mem_accept };

    memset(c, 0, sizeof(*c));
    c->chr.back = &ops;
    c->room = room;
}

void rig_state_round_trip(struct device *d)
{
    struct buf before = BUF_INIT, after = BUF_INIT;
    struct err e = ERR_INIT;
    size_t used = 0;

    st_save(d->cls->state, d, &before);
    ck_assert_msg(st_load(d->cls->state, d, d->cls->size, before.data, before.len, &used, &e) ==
                      0,
                  "%s", e.msg);
    ck_assert_uint_eq(used, before.len);
    st_save(d->cls->state, d, &after);
    ck_assert_uint_eq(before.len, after.len);
    ck_assert_int_eq(memcmp(before.data, after.data, before.len), 0);
    buf_done(&before);
    buf_done(&after);
}
