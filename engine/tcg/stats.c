/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's counters as text for people and for engine/emu. Everything counted is counted outside translated code, so that
 * it costs nothing where time goes; what happens inside (links taken, jump-cache and TLB hits) shows only by its misses.
 *
 * Main thread. Counters of a vCPU are written by its own thread and read here as they are: a figure may be a moment old.
 */
#include "engine/tcg/internal.h"
#include "engine/tcg/tier2.h"

#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

struct row {
    const char *name;
    size_t offset;
    const char *doc;
};

#define VM(field) offsetof(struct tcg_stats, field)
static const struct row vm_rows[] = {
    { "blocks", VM(blocks), "blocks in the code cache" },
    { "translations", VM(made), "blocks translated" },
    { "insns", VM(insns), "guest instructions translated" },
    { "code_bytes", VM(code_bytes), "bytes of host code in the cache" },
    { "block_bytes", VM(table_bytes), "bytes of host memory for the tables of those blocks" },
    { "header_bytes", VM(header_bytes), "... what is known of each block" },
    { "exit_bytes", VM(exit_bytes), "... its exits" },
    { "site_bytes", VM(site_bytes), "... from host to guest addresses, packed" },
    { "extra_bytes", VM(extra_bytes), "... what few blocks have" },
    { "promoted", VM(promoted), "blocks that ran often enough to be compiled for speed" },
    { "links", VM(links), "direct jumps patched to lead from block to block" },
    { "forwards", VM(forwards), "invalid blocks patched to lead to their successor" },
    { "evictions", VM(evictions), "regions of the cache emptied for new code" },
    { "flushes", VM(flushes), "times all code was dropped" },
    { "invalidations", VM(invalidations),
      "blocks dropped because their guest bytes were written" },
    { "revokes", VM(revokes), "pages that lost fast writes because they hold code" },
};

#define CPU(field) offsetof(struct tcg_vcpu, field)
static const struct row cpu_rows[] = {
    { "enter", CPU(n_enter), "times the dispatcher entered translated code" },
    { "left_direct", CPU(n_left_direct),
      "... which was left by a jump not linked yet, or by a poll" },
    { "left_lookup", CPU(n_left_lookup),
      "... by an indirect jump or an end that needs the dispatcher" },
    { "left_stale", CPU(n_left_stale), "... by entering a block that had been invalidated" },
    { "left_raise", CPU(n_left_raise), "... by an exception" },
    { "left_halt", CPU(n_left_halt), "... to wait for an interrupt" },
    { "jump_hit", CPU(n_jump_hit), "dispatches that the jump cache answered" },
    { "jump2_hit", CPU(n_jump2_hit), "... its second level" },
    { "lookup", CPU(n_lookup), "dispatches that searched the block by its physical address" },
    { "translated", CPU(n_translate), "... and had to translate it" },
    { "walk_read", CPU(n_walk[TCG_READ]), "page walks for loads (TLB misses)" },
    { "walk_write", CPU(n_walk[TCG_WRITE]), "page walks for stores and atomics (TLB misses)" },
    { "walk_fetch", CPU(n_walk[TCG_FETCH]), "page walks for instruction fetches (TLB misses)" },
    { "tlb_fill", CPU(n_tlb_fill), "data TLB entries filled" },
    { "fill_read", CPU(n_fill[TCG_READ]), "... for a load" },
    { "fill_write", CPU(n_fill[TCG_WRITE]), "... for a store or an atomic" },
    { "fill_fetch", CPU(n_fill[TCG_FETCH]), "fetch TLB entries filled" },
    { "tlb2_hits", CPU(n_tlb2_hit), "soft TLB misses that the second level answered without a page walk" },
    { "guessed_wrong", CPU(n_guess), "addends that regions guessed wrong, counted when C code looks at them" },
    { "aliases", CPU(n_alias), "pages of RAM shown in windows, in the guest's order" },
    { "slow", CPU(n_slow), "loads and stores that took the slow path" },
    { "slow_load", CPU(n_load), "... loads" },
    { "slow_store", CPU(n_store), "... stores" },
    { "slow_atomic", CPU(n_atomic), "atomics by the slow path" },
    { "mmio_read", CPU(n_mmio_read), "reads of device registers" },
    { "mmio_write", CPU(n_mmio_write), "writes of device registers" },
    { "flush_all", CPU(n_flush_all), "TLB flushes of everything" },
    { "flush_asid", CPU(n_flush_asid), "TLB flushes of one address space" },
    { "flush_page", CPU(n_flush_page), "TLB flushes of one page" },
    { "exceptions", CPU(n_exception), "exceptions delivered to the guest" },
    { "interrupts", CPU(n_interrupt), "interrupts delivered to the guest" },
    { "kicks", CPU(n_kick), "times the run loop was left because somebody asked" },
    { "exclusive", CPU(n_exclusive), "times it stopped all other vCPUs to be alone" },
    { "spaces", CPU(n_space), "soft TLBs given to a new address space" },
};

static void print(struct buf *out, const char *prefix, const struct row *r, const void *base)
{
    uint64_t value = *(const uint64_t *)(const void *)((const char *)base + r->offset);
    buf_printf(out, "%s%s %" PRIu64 " %s\n", prefix, r->name, value, r->doc);
}

static uint64_t space_bytes(const struct tcg_vcpu *v)
{
    uint64_t n = TLB2_SETS * sizeof(v->tlb2[0]) + (v->jump2 ? v->jump2_mask + 1 : 0) * sizeof(v->jump2[0]);
    for (unsigned i = 0; i < TCG_SPACES; i++) {
        n += v->spaces[i] ? sizeof(struct tcg_space) : 0;
    }
    return n;
}

/* Where the memory under the limit is, and that of the compilers beside it. Lock held. */
static void memory_stats(const struct tcg_vm *t, struct buf *out)
{
    struct tcg_memory m;
    cache_memory(t, &m);
    uint64_t total = m.regions + m.index + m.hash + m.pages + m.spaces;
    const struct {
        const char *name;
        uint64_t value;
        const char *doc;
    } rows[] = {
        { "cache_size", t->config.cache_size, "bytes that translated code and all its tables may take" },
        { "cache_bytes", total, "... and take: the sum of the next five" },
        { "region_bytes", m.regions, "code, tables of blocks and what is free in the regions in use" },
        { "index_bytes", m.index, "blocks by host address" },
        { "hash_bytes", m.hash, "blocks by guest address" },
        { "page_bytes", m.pages, "pages of guest RAM" },
        { "space_bytes", m.spaces, "soft TLBs and jump caches of all vCPUs" },
        { "table_bytes", total - m.regions + t->stats.table_bytes, "of cache_bytes all tables, those of blocks too" },
        { "scratch_bytes", m.scratch + tier2_memory(t), "beside the limit: what the compilers work in" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        buf_printf(out, "%s %" PRIu64 " %s\n", rows[i].name, rows[i].value, rows[i].doc);
    }
}

void tcg_stats(struct vm *vm, struct buf *out)
{
    struct tcg_vm *t = vm->engine_data;
    pthread_mutex_lock(&t->lock);
    struct tcg_stats s = t->stats;
    for (unsigned i = 0; i < ARRAY_LEN(vm_rows); i++) {
        print(out, "", &vm_rows[i], &s);
    }
    memory_stats(t, out);
    pthread_mutex_unlock(&t->lock);
    tier2_stats(t, out);
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        const struct tcg_vcpu *v = t->vcpus[i];
        char prefix[32];
        snprintf(prefix, sizeof(prefix), "cpu%u.", v->vcpu->index);
        for (unsigned k = 0; k < ARRAY_LEN(cpu_rows); k++) {
            print(out, prefix, &cpu_rows[k], v);
        }
        buf_printf(out, "%smmio %" PRIu64 " accesses to device registers\n", prefix,
                   v->n_mmio_read + v->n_mmio_write);
        if (t->icount) {
            buf_printf(out, "%sinstructions %" PRIu64 " guest instructions retired\n", prefix, v->retired);
        }
        buf_printf(out, "%stlb_bytes %" PRIu64 " bytes of host memory for its soft TLBs\n",
                   prefix, space_bytes(v));
    }
}
