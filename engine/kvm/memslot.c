/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory slots: KVM shows the RAM and ROM of the flat view, whole pages of it; everything else is an exit. Owns the slots and brings KVM's
 * dirty log to the bitmap of engine/core. Main thread.
 */
#include "engine/kvm/internal.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PAGE MEM_PAGE_SIZE

static int tell(struct kvm_vm *k, unsigned n, const struct kvm_slot *s)
{
    struct kvm_userspace_memory_region r = {
        .slot = n,
        .flags = s->flags,
        .guest_phys_addr = s->base,
        .memory_size = s->size,
        .userspace_addr = s->size ? (uintptr_t)s->range.host + (s->base - s->range.base) : 0,
    };
    return kvm_call(k->fd, KVM_SET_USER_MEMORY_REGION, &r);
}

/* Moves what KVM logged of a slot to where the flat view's readers look. */
static void sync_slot(struct kvm_vm *k, unsigned n)
{
    const struct kvm_slot *s = &k->slot[n];
    if (!(s->flags & KVM_MEM_LOG_DIRTY_PAGES) || !s->size) {
        return;
    }
    uint64_t pages = s->size / PAGE;
    size_t words = (size_t)((pages + 63) / 64);
    uint64_t *bits = xnew_n(uint64_t, words);
    struct kvm_dirty_log log = { .slot = n, .dirty_bitmap = bits };
    if (kvm_call(k->fd, KVM_GET_DIRTY_LOG, &log) != 0) {
        log_error("kvm",
                  "the dirty log of slot %u cannot be read: %s; all its pages count as dirty",
                  n, strerror(errno));
        memset(bits, 0xff, words * sizeof(*bits));
    }
    for (size_t w = 0; w < words; w++) {
        for (uint64_t left = bits[w]; left; left &= left - 1) {
            uint64_t page = w * 64 + (unsigned)__builtin_ctzll(left);
            if (page < pages) {
                mem_range_dirty(&s->range, s->base + page * PAGE);
            }
        }
    }
    free(bits);
}

void kvm_mem_dirty(struct vm *vm)
{
    struct kvm_vm *k = vm->engine_data;
    for (unsigned i = 0; i < k->n_slots; i++) {
        sync_slot(k, i);
    }
}

/* The slot that shows a range; false: it has no whole page, or none that the host has, too. */
static bool slot_of(const struct mem_range *r, struct kvm_slot *s)
{
    uint64_t lo = (r->base + PAGE - 1) & ~(uint64_t)(PAGE - 1),
             hi = (r->base + r->size) & ~(uint64_t)(PAGE - 1);
    if (!r->host || hi <= lo || ((uintptr_t)r->host + (lo - r->base)) % PAGE) {
        return false;
    }
    *s = (struct kvm_slot){ .range = *r,
                            .base = lo,
                            .size = hi - lo,
                            .flags = r->kind == MEM_ROM ? KVM_MEM_READONLY
                                     : r->dirty         ? KVM_MEM_LOG_DIRTY_PAGES
                                                        : 0 };
    return true;
}

static bool same_place(const struct kvm_slot *a, const struct kvm_slot *b)
{
    return a->base == b->base && a->size == b->size && a->range.host == b->range.host &&
           (a->range.kind == b->range.kind);
}

static void failed(struct vm *vm, const struct kvm_slot *s)
{
    log_error("kvm", "memory at 0x%" PRIx64 " (%" PRIu64 " KiB) cannot be given to KVM: %s",
              s->base, s->size / 1024, strerror(errno));
    vm_request(vm, VM_REQ_CRASH, "crash: KVM refused memory");
}

/* A slot that is there already takes its new flags and range; true: it was. */
static bool keep(struct vm *vm, struct kvm_slot *want, bool *kept)
{
    struct kvm_vm *k = vm->engine_data;
    for (unsigned i = 0; i < k->n_slots; i++) {
        if (k->slot[i].size && same_place(&k->slot[i], want)) {
            bool change = k->slot[i].flags != want->flags;
            k->slot[i] = *want;
            kept[i] = true;
            if (change && tell(k, i, want) != 0) {
                failed(vm, want);
            }
            return true;
        }
    }
    return false;
}

static void add(struct vm *vm, const struct kvm_slot *want)
{
    struct kvm_vm *k = vm->engine_data;
    unsigned i = 0;
    while (i < k->n_slots && k->slot[i].size) {
        i++;
    }
    if (i == k->n_slots) {
        k->slot = xrealloc_n(k->slot, k->n_slots + 1, sizeof(*k->slot));
        k->n_slots++;
    }
    k->slot[i] = *want;
    if (i >= k->max_slots || tell(k, i, want) != 0) {
        errno = i >= k->max_slots ? ENOSPC : errno;
        failed(vm, want);
        k->slot[i].size = 0;
    }
}

/* What has gone goes first, since slots may not overlap. */
void kvm_mem_commit(struct vm *vm, const struct mem_flat *flat)
{
    struct kvm_vm *k = vm->engine_data;
    if (!k) {
        return;
    }
    struct kvm_slot *want = xnew_n(struct kvm_slot, flat->n + 1);
    bool *kept = xnew_n(bool, k->n_slots + 1);
    unsigned n = 0;
    kvm_mem_dirty(vm); /* before a log goes */
    for (unsigned i = 0; i < flat->n; i++) {
        if (slot_of(&flat->r[i], &want[n]) && !keep(vm, &want[n], kept)) {
            n++;
        }
    }
    for (unsigned i = 0; i < k->n_slots; i++) {
        if (k->slot[i].size && !kept[i]) {
            k->slot[i].size = 0;
            k->slot[i].flags = 0;
            (void)tell(k, i, &k->slot[i]);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        add(vm, &want[i]);
    }
    free(kept);
    free(want);
    kvm_bells_commit(vm, vm, flat, 0, UINT64_MAX);
}

void kvm_mem_done(struct kvm_vm *k)
{
    free(k->slot);
    k->slot = NULL;
    k->n_slots = 0;
}
