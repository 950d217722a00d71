/* SPDX-License-Identifier: Apache-2.0 */
/* Two machines for the same program: see twins.h. */
#include "tests/isa/twins.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t twin_state;

void twin_begin_case(uint64_t seed, uint64_t number)
{
    twin_state = seed * 0x100000001b3ull ^ number * 0x9e3779b97f4a7c15ull;
}

uint64_t twin_random(void *opaque)
{
    uint64_t z;

    (void)opaque;
    twin_state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    z = twin_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint64_t stop_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)offset;
    (void)size;
    return 0;
}

static void stop_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct twin *m = opaque;

    (void)offset;
    (void)value;
    (void)size;
    /* A program's own store there is not the end: where it would be stopped is left open. */
    if (m->cpu->mcause != 0) {
        m->ended = true;
        m->vm->engine->kick(m->vm->vcpus[0]);
    }
}

static int make(struct twin *m, const struct arch_ops *arch, const char *model,
                struct loop *loop, struct err *e)
{
    static const struct mem_io_ops stop_ops = { stop_read, stop_write, 1, 8 };

    if (vm_new("case", arch, &tcg_engine_ops, loop, &m->config, &m->vm, e) < 0 ||
        vm_add_vcpus(m->vm, 1, model, e) < 0 || mem_new_ram("ram", m->split, &m->low, e) < 0 ||
        mem_map(m->vm->root, TWIN_RAM, 0, m->low, e) < 0) {
        return -1;
    }
    if (m->split < m->size && (mem_new_ram("high", m->size - m->split, &m->high, e) < 0 ||
                               mem_map(m->vm->root, TWIN_RAM + m->split, 0, m->high, e) < 0)) {
        return -1;
    }
    m->stop = mem_new_io("stop", 0x1000, &stop_ops, m, &m->lock);
    return mem_map(m->vm->root, 0, 0, m->stop, e);
}

void twin_make(struct twin *m, const struct arch_ops *arch, const char *model,
               const struct tcg_config *config, unsigned split, unsigned size,
               struct loop *loop)
{
    struct err e = ERR_INIT;

    memset(m, 0, sizeof(*m));
    m->config = *config;
    m->split = split;
    m->size = size;
    bus_lock_init(&m->lock);
    if (make(m, arch, model, loop, &e) < 0) {
        fprintf(stderr, "a machine for the case: %s\n", e.msg);
        exit(1);
    }
    mem_commit(m->vm->mem);
    m->cpu = m->vm->vcpus[0]->cpu;
}

void twin_free(struct twin *m)
{
    vm_free(m->vm);
    mem_free(m->low);
    mem_free(m->high);
    mem_free(m->stop);
}

uint8_t *twin_ram(const struct twin *m, unsigned at)
{
    return at < m->split ? (uint8_t *)mem_ram_host(m->low) + at
                         : (uint8_t *)mem_ram_host(m->high) + (at - m->split);
}

void twin_put_handler(struct twin *m)
{
    static const uint32_t handler[] = { 0x20000023, 0x0000006f }; /* sb x0, 0x200(x0); j . */

    memcpy(twin_ram(m, (unsigned)(TWIN_HANDLER - TWIN_RAM)), handler, sizeof(handler));
}

bool twin_same(const char *what, unsigned n, uint64_t a, uint64_t b)
{
    if (a != b) {
        printf("  %s%u: jit %016" PRIx64 ", interpreter %016" PRIx64 "\n", what, n, a, b);
    }
    return a == b;
}

/* A piece that does not cross the split. */
static bool ram_alike(const struct twin *jit, const struct twin *interp, unsigned from,
                      unsigned to)
{
    if (from == to || memcmp(twin_ram(jit, from), twin_ram(interp, from), to - from) == 0) {
        return true;
    }
    while (*twin_ram(jit, from) == *twin_ram(interp, from)) {
        from++;
    }
    printf("  memory differs first at %" PRIx64 "\n", TWIN_RAM + from);
    return false;
}

bool twins_alike(const struct twin *jit, const struct twin *interp)
{
    const struct riscv_cpu *a = jit->cpu, *b = interp->cpu;
    bool ok = true;

    for (unsigned n = 0; n < 32; n++) {
        ok &= twin_same("x", n, a->x[n], b->x[n]);
        ok &= twin_same("f", n, a->f[n], b->f[n]);
    }
    ok &= twin_same("mepc", 0, a->mepc, b->mepc);
    ok &= twin_same("mcause", 0, a->mcause, b->mcause);
    ok &= twin_same("mtval", 0, a->mtval, b->mtval);
    ok &= twin_same("fflags", 0, a->fflags, b->fflags);
    ok &= twin_same("mstatus", 0, a->mstatus, b->mstatus);
    return ram_alike(jit, interp, 0, jit->split) &&
           ram_alike(jit, interp, jit->split, jit->size) && ok;
}
