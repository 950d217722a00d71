/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page that an emulator publishes its statistics in: a memfd of 4096 bytes, size-sealed by
 * whoever made it, mapped writable by the emulator and read-only by the daemon. A sequence lock
 * guards it, so a reader never waits for a writer: it retries a bounded number of times and
 * then keeps its last good copy.
 *
 * The writer is not trusted: a reader copies the page, then checks counts with stats_page_ok().
 */
#ifndef VMD_BASE_STATSPAGE_H
#define VMD_BASE_STATSPAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define STATS_PAGE_SIZE 4096
#define STATS_MAGIC 0x5354415453444d56ull /* "VMDSTATS" */
#define STATS_VERSION 3
#define STATS_MAX_VCPUS 64 /* of more, the first 64 are listed; the sums cover all */
#define STATS_MAX_DISKS 8
#define STATS_MAX_NICS 8

enum stats_state { STATS_PAUSED, STATS_RUNNING, STATS_STOPPED };

#define STATS_NOT_COUNTED UINT64_MAX

struct stats_vcpu {
    uint64_t instructions; /* or STATS_NOT_COUNTED */
    uint64_t cpu_time_ns;  /* host CPU time of its thread */
    uint64_t halts;        /* times it waited for an interrupt */
    uint64_t halted;       /* 1: it waits now */
};

struct stats_disk {
    char name[64]; /* always terminated */
    uint64_t reads, read_bytes, writes, written_bytes, flushes, errors;
};

struct stats_nic {
    char name[32]; /* always terminated; of a longer one the beginning */
    uint64_t rx_frames, rx_bytes, rx_dropped, rx_errors;
    uint64_t tx_frames, tx_bytes, tx_dropped, tx_errors;
};

#define STATS_MAX_BALLOON 10
/* The memory balloon; memory 0: there is none. */
struct stats_balloon {
    uint64_t memory, target, actual, given_back, reported;
    uint64_t updated_ns; /* when the guest sent the figures below; 0: never */
    uint64_t driver;     /* 1: one is at work */
    uint64_t stat[STATS_MAX_BALLOON]; /* as virtio 1.2 §5.5.6.3 numbers them, or STATS_NOT_COUNTED */
};

/* Everything below `seq` is covered by it. Times are CLOCK_BOOTTIME. */
struct stats_page {
    uint64_t magic;
    uint32_t version, size;
    _Atomic uint64_t seq;  /* odd while being written */
    uint64_t published_ns; /* age stamp */
    uint64_t started_ns;   /* of the emulator */
    uint64_t interval_ns;  /* published at least this often while healthy */
    uint32_t pid;
    uint32_t state;  /* enum stats_state */
    char reason[64]; /* why it is in this state; terminated */
    uint64_t guest_time_ns;
    uint64_t cpu_time_ns;  /* of the process */
    uint64_t memory_rss;   /* bytes */
    uint64_t instructions; /* of all vCPUs, or STATS_NOT_COUNTED */
    uint64_t tb_translated, tb_flushes, cache_used, cache_size;
    uint64_t exits, mmio, interrupts;
    uint64_t console_in, console_out; /* bytes typed; bytes the guest wrote */
    uint32_t n_vcpus, n_disks;        /* entries filled below */
    struct stats_vcpu vcpu[STATS_MAX_VCPUS];
    struct stats_disk disk[STATS_MAX_DISKS];
    uint32_t n_nics, links; /* a bit a card: the guest sees a cable */
    struct stats_nic nic[STATS_MAX_NICS];
    struct stats_balloon balloon;
};
_Static_assert(sizeof(struct stats_page) <= STATS_PAGE_SIZE, "the statistics fit in a page");

/* The writer: one thread. `from` is a private copy; seq in it is ignored. */
static inline void stats_page_publish(struct stats_page *page, const struct stats_page *from)
{
    const size_t head = offsetof(struct stats_page, published_ns);
    uint64_t seq = atomic_load_explicit(&page->seq, memory_order_relaxed);

    page->magic = STATS_MAGIC;
    page->version = STATS_VERSION;
    page->size = sizeof(*page);
    atomic_store_explicit(&page->seq, seq | 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy((char *)page + head, (const char *)from + head, sizeof(*page) - head);
    atomic_store_explicit(&page->seq, (seq | 1) + 1, memory_order_release);
}

/* Whether a copy can be used: known layout, counts in range, texts terminated. */
static inline bool stats_page_ok(const struct stats_page *p)
{
    if (p->magic != STATS_MAGIC || p->version != STATS_VERSION || p->size != sizeof(*p) ||
        p->n_vcpus > STATS_MAX_VCPUS || p->n_disks > STATS_MAX_DISKS ||
        p->n_nics > STATS_MAX_NICS || p->state > STATS_STOPPED ||
        p->reason[sizeof(p->reason) - 1]) {
        return false;
    }
    for (unsigned i = 0; i < p->n_disks; i++) {
        if (p->disk[i].name[sizeof(p->disk[i].name) - 1]) {
            return false;
        }
    }
    for (unsigned i = 0; i < p->n_nics; i++) {
        if (p->nic[i].name[sizeof(p->nic[i].name) - 1]) {
            return false;
        }
    }
    return true;
}

/* Copies a consistent page; false after a bounded number of tries, or when nothing valid was
 * published yet: `out` is then untouched, so that it keeps the last good copy. Never blocks. */
static inline bool stats_page_read(const struct stats_page *page, struct stats_page *out)
{
    for (unsigned tries = 0; tries < 64; tries++) {
        struct stats_page copy;
        uint64_t seq = atomic_load_explicit(&((struct stats_page *)(uintptr_t)page)->seq,
                                            memory_order_acquire);

        if (seq == 0 || (seq & 1)) {
            continue;
        }
        memcpy(&copy, (const void *)page, sizeof(copy));
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&((struct stats_page *)(uintptr_t)page)->seq,
                                 memory_order_relaxed) != seq) {
            continue;
        }
        if (!stats_page_ok(&copy)) {
            return false;
        }
        memcpy(out, &copy, sizeof(*out));
        return true;
    }
    return false;
}

#endif
