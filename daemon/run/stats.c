/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics of an emulator, from the page it shares. Owns the mapping and the last good copy. Loop
 * thread.
 */
#include "daemon/run/stats.h"

#include "api-schema/guest/balloon.h"
#include "daemon/spawn/proto.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/statspage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STALE_INTERVALS 4 /* without news for so many of its intervals: stale */
#define STALE_LEAST_NS INT64_C(2000000000)

struct stats_view {
    const struct stats_page *page; /* mapped read-only */
    struct stats_page last;
    bool has_last;
};

struct stats_view *stats_open(int take_fd, struct err *e)
{
    AUTO_FD fd = take_fd;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 ||
        st.st_size < STATS_PAGE_SIZE) {
        err_set(e, -EPROTO, "the statistics page is not a sealed memory file");
        return NULL;
    }
    void *p = mmap(NULL, STATS_PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        err_errno(e, errno, "cannot map the statistics page");
        return NULL;
    }
    struct stats_view *s = xnew(struct stats_view);
    s->page = p;
    return s;
}

void stats_close(struct stats_view *s)
{
    if (s) {
        munmap((void *)s->page, STATS_PAGE_SIZE);
        free(s);
    }
}

int stats_of_monitor(pid_t monitor, struct err *e)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)monitor, MONITOR_STATS_FD);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? err_errno(e, errno, "%s", path) : fd;
}

/* JSON numbers of the API are signed; a liar's figures stay within. */
static int64_t num(uint64_t v)
{
    return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

static int64_t boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t since(int64_t now, uint64_t then)
{
    return (uint64_t)now > then ? now - (int64_t)then : 0;
}

static void fill_lists(const struct stats_page *p, struct api_vm_stats *out)
{
    out->n_vcpus = p->n_vcpus;
    out->vcpus = xnew_n(struct api_vcpu_stats, p->n_vcpus ? p->n_vcpus : 1);
    for (unsigned i = 0; i < p->n_vcpus; i++) {
        out->vcpus[i] = (struct api_vcpu_stats){ .index = i,
                                                 .instructions = num(p->vcpu[i].instructions),
                                                 .has_instructions = p->vcpu[i].instructions !=
                                                                     STATS_NOT_COUNTED,
                                                 .cpu_time_ns = num(p->vcpu[i].cpu_time_ns),
                                                 .halted = p->vcpu[i].halted != 0 };
    }
    out->n_disks = p->n_disks;
    out->disks = xnew_n(struct api_disk_stats, p->n_disks ? p->n_disks : 1);
    for (unsigned i = 0; i < p->n_disks; i++) {
        char name[sizeof(p->disk[i].name)];
        for (unsigned k = 0; k < sizeof(name); k++) {
            char ch = p->disk[i].name[k];
            name[k] = ch == 0 || (ch >= 0x20 && ch < 0x7f) ? ch : '?';
        }
        out->disks[i] = (struct api_disk_stats){ .name = xstrdup(name),
                                                 .reads = num(p->disk[i].reads),
                                                 .read_bytes = num(p->disk[i].read_bytes),
                                                 .writes = num(p->disk[i].writes),
                                                 .written_bytes = num(p->disk[i].written_bytes),
                                                 .flushes = num(p->disk[i].flushes),
                                                 .errors = num(p->disk[i].errors) };
    }
}

static void fill_nics(const struct stats_page *p, struct api_vm_stats *out)
{
    out->n_nics = p->n_nics;
    out->nics = xnew_n(struct api_nic_stats, p->n_nics ? p->n_nics : 1);
    for (unsigned i = 0; i < p->n_nics; i++) {
        const struct stats_nic *n = &p->nic[i];
        char name[sizeof(n->name)];
        for (unsigned k = 0; k < sizeof(name); k++) {
            char ch = n->name[k];
            name[k] = ch == 0 || (ch >= 0x20 && ch < 0x7f) ? ch : '?';
        }
        out->nics[i] = (struct api_nic_stats){ .name = xstrdup(name),
                                               .link = p->links >> i & 1,
                                               .rx_frames = num(n->rx_frames),
                                               .rx_bytes = num(n->rx_bytes),
                                               .rx_dropped = num(n->rx_dropped),
                                               .rx_errors = num(n->rx_errors),
                                               .tx_frames = num(n->tx_frames),
                                               .tx_bytes = num(n->tx_bytes),
                                               .tx_dropped = num(n->tx_dropped),
                                               .tx_errors = num(n->tx_errors) };
    }
}

int64_t stats_age_ms(struct stats_view *s)
{
    s->has_last |= stats_page_read(s->page, &s->last);
    return s->has_last ? since(boot_ns(), s->last.published_ns) / 1000000 : -1;
}

bool stats_read(struct stats_view *s, struct api_vm_stats *out)
{
    s->has_last |= stats_page_read(s->page, &s->last);
    if (!s->has_last) {
        return false;
    }
    const struct stats_page *p = &s->last;
    struct api_balloon_stats balloon;
    int64_t now = boot_ns();
    int64_t age = since(now, p->published_ns);
    int64_t limit = p->interval_ns < 60000000000u ? num(p->interval_ns) * STALE_INTERVALS : 0;
    *out = (struct api_vm_stats){
        .age_ms = age / 1000000,
        .stale = age > (limit > STALE_LEAST_NS ? limit : STALE_LEAST_NS),
        .uptime_ns = since(now, p->started_ns),
        .guest_time_ns = num(p->guest_time_ns),
        .cpu_time_ns = num(p->cpu_time_ns),
        .instructions = num(p->instructions),
        .has_instructions = p->instructions != STATS_NOT_COUNTED,
        .memory_rss = num(p->memory_rss),
        .tb_translated = num(p->tb_translated),
        .tb_flushes = num(p->tb_flushes),
        .cache_used = num(p->cache_used),
        .cache_size = num(p->cache_size),
        .exits = num(p->exits),
        .mmio = num(p->mmio),
        .interrupts = num(p->interrupts),
        .console_in = num(p->console_in),
        .console_out = num(p->console_out),
    };
    fill_lists(p, out);
    fill_nics(p, out);
    if (balloon_stats(&p->balloon, now, &balloon)) {
        out->balloon = xalloc(sizeof(balloon));
        *out->balloon = balloon;
    }
    return true;
}
