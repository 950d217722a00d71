/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics: collected from VM, engine, console and disks; published once a second, and at
 * every change of state, into the page that the spawner passed (engine/base/statspage.h). Main
 * thread.
 */
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "devices/net/virtio_net.h"
#include "engine/base/str.h"
#include "engine/emu/console.h"
#include "engine/emu/emu.h"
#include "network/port.h"
#include "storage/block.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_NS 1000000000ll

struct emu_stats {
    struct stats_page *page; /* shared; NULL: nobody asked for one */
    struct loop_timer *timer;
    uint64_t started_ns;
    int statm_fd; /* /proc/self/statm, opened before the sandbox; -1 where there is no /proc */
};

static uint64_t now_ns(clockid_t id)
{
    struct timespec t = { 0 };

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t memory_rss(const struct emu_stats *s)
{
    char text[128] = { 0 };
    unsigned long long total, resident;

    if (s->statm_fd < 0 || fd_pread(s->statm_fd, text, sizeof(text) - 1, 0) <= 0 ||
        sscanf(text, "%llu %llu", &total, &resident) != 2) {
        return 0;
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* --- engine counters: "name value" lines
 * ----------------------------------------------------- */

/* Which counter of the engine goes where; those of a vCPU ("cpu3.enter") are added up. */
static const struct {
    const char *name;
    size_t offset;
} counters[] = {
    { "translations", offsetof(struct stats_page, tb_translated) },
    { "evictions", offsetof(struct stats_page, tb_flushes) },
    { "code_bytes", offsetof(struct stats_page, cache_used) },
    { "cache_size", offsetof(struct stats_page, cache_size) },
    { "enter", offsetof(struct stats_page, exits) },
    { "mmio", offsetof(struct stats_page, mmio) },
    { "interrupts", offsetof(struct stats_page, interrupts) },
};

static void take_counter(struct stats_page *p, const char *name, uint64_t value)
{
    const char *dot = strchr(name, '.');
    unsigned vcpu = STATS_MAX_VCPUS;

    if (dot && sscanf(name, "cpu%u.", &vcpu) != 1) {
        return;
    }
    name = dot ? dot + 1 : name;
    if (strcmp(name, "instructions") == 0) {
        p->instructions = p->instructions == STATS_NOT_COUNTED ? value
                                                               : p->instructions + value;
        if (vcpu < STATS_MAX_VCPUS) {
            p->vcpu[vcpu].instructions = value;
        }
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(counters); i++) {
        if (strcmp(counters[i].name, name) == 0) {
            *(uint64_t *)((char *)p + counters[i].offset) += value;
        }
    }
}

static void engine_counters(struct emu *m, struct stats_page *p)
{
    AUTO_BUF b = BUF_INIT;
    char *line, *rest, name[64];
    unsigned long long value;

    p->instructions = STATS_NOT_COUNTED; /* until the engine says otherwise */
    for (unsigned i = 0; i < STATS_MAX_VCPUS; i++) {
        p->vcpu[i].instructions = STATS_NOT_COUNTED;
    }
    if (!m->vm->engine->stats) {
        return;
    }
    m->vm->engine->stats(m->vm, &b);
    rest = b.data;
    while (rest && (line = strsep(&rest, "\n"))) {
        if (sscanf(line, "%63s %llu", name, &value) == 2) {
            take_counter(p, name, value);
        }
    }
    if (p->cache_size == 0) {
        p->cache_size = m->tcg.cache_size;
    }
}

/* --- collecting
 * ------------------------------------------------------------------------------ */

static void vcpu_figures(struct emu *m, struct stats_page *p)
{
    p->n_vcpus = m->vm->n_vcpus < STATS_MAX_VCPUS ? m->vm->n_vcpus : STATS_MAX_VCPUS;
    for (unsigned i = 0; i < p->n_vcpus; i++) {
        struct vcpu *c = m->vm->vcpus[i];
        clockid_t id;

        if (c->started && pthread_getcpuclockid(c->thread, &id) == 0) {
            p->vcpu[i].cpu_time_ns = now_ns(id);
        }
        pthread_mutex_lock(&c->lock);
        p->vcpu[i].halts = c->halts;
        p->vcpu[i].halted = c->halted;
        pthread_mutex_unlock(&c->lock);
    }
}

static void disk_figures(struct emu *m, struct stats_page *p)
{
    p->n_disks = m->n_disks < STATS_MAX_DISKS ? m->n_disks : STATS_MAX_DISKS;
    for (unsigned i = 0; i < p->n_disks; i++) {
        struct blk_counters c;

        blk_count(m->disk[i], &c);
        str_copy(p->disk[i].name, sizeof(p->disk[i].name), blk_name(m->disk[i]));
        p->disk[i].reads = c.reads;
        p->disk[i].read_bytes = c.read_bytes;
        p->disk[i].writes = c.writes;
        p->disk[i].written_bytes = c.written_bytes;
        p->disk[i].flushes = c.flushes;
        p->disk[i].errors = c.errors;
    }
}

static void nic_figures(struct emu *m, struct stats_page *p)
{
    size_t n = m->board ? m->config.n_nics : 0;

    p->n_nics = n < STATS_MAX_NICS ? (uint32_t)n : STATS_MAX_NICS;
    for (unsigned i = 0; i < p->n_nics; i++) {
        struct stats_nic *s = &p->nic[i];
        struct device *d = nic_device(m, i);
        struct vnet_view v = { 0 };

        str_copy(s->name, sizeof(s->name), m->config.nics[i].name);
        if (d) {
            virtio_net_view(d, &v);
        }
        p->links |= (uint32_t)v.link << i;
        if (v.port) {
            s->rx_frames = v.port->rx.frames;
            s->rx_bytes = v.port->rx.bytes;
            s->rx_dropped = v.port->rx.dropped;
            s->rx_errors = v.port->rx.errors;
            s->tx_frames = v.port->tx.frames;
            s->tx_bytes = v.port->tx.bytes;
            s->tx_dropped = v.port->tx.dropped;
            s->tx_errors = v.port->tx.errors;
        }
    }
}

void stats_collect(struct emu *m, struct stats_page *p)
{
    static const uint32_t states[] = {
        [VM_PAUSED] = STATS_PAUSED, [VM_RUNNING] = STATS_RUNNING, [VM_STOPPED] = STATS_STOPPED
    };

    memset(p, 0, sizeof(*p));
    p->published_ns = now_ns(CLOCK_BOOTTIME);
    p->started_ns = m->stats->started_ns;
    p->interval_ns = INTERVAL_NS;
    p->pid = (uint32_t)m->pid;
    p->state = states[m->vm->state];
    str_copy(p->reason, sizeof(p->reason), m->reason);
    p->guest_time_ns = clock_now(m->vm->clock);
    p->cpu_time_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    p->memory_rss = memory_rss(m->stats);
    console_counts(m->console, &p->console_in, &p->console_out);
    engine_counters(m, p);
    vcpu_figures(m, p);
    disk_figures(m, p);
    nic_figures(m, p);
    balloon_figures(m, &p->balloon);
}

void stats_publish(struct emu *m)
{
    if (m->stats && m->stats->page) {
        struct stats_page p;

        stats_collect(m, &p);
        stats_page_publish(m->stats->page, &p);
    }
}

static void on_timer(void *arg)
{
    struct emu *m = arg;

    stats_publish(m);
    loop_timer_arm(m->stats->timer, INTERVAL_NS);
}

static int map_page(struct emu *m, struct err *e)
{
    AUTO_FD fd = take_fd(&m->opt.stats_fd);
    struct stat st;
    void *p;

    if (fstat(fd, &st) != 0 || st.st_size < STATS_PAGE_SIZE) {
        return err_set(e, -EINVAL, "--stats-fd: not a file of at least %d bytes",
                       STATS_PAGE_SIZE);
    }
    p = mmap(NULL, STATS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        return err_errno(e, errno, "--stats-fd: cannot map the page");
    }
    m->stats->page = p;
    return 0;
}

int stats_start(struct emu *m, struct err *e)
{
    int rc;

    m->stats = xnew(struct emu_stats);
    m->stats->started_ns = now_ns(CLOCK_BOOTTIME);
    m->stats->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (m->opt.stats_fd < 0) {
        return 0;
    }
    rc = map_page(m, e);
    if (rc == 0) {
        m->stats->timer = loop_timer_new(m->loop, on_timer, m);
        on_timer(m);
    }
    return rc;
}

void stats_free(struct emu *m)
{
    if (!m->stats) {
        return;
    }
    loop_timer_free(m->stats->timer);
    if (m->stats->page) {
        munmap(m->stats->page, STATS_PAGE_SIZE);
    }
    fd_autoclose(&m->stats->statm_fd);
    free(m->stats);
    m->stats = NULL;
}
