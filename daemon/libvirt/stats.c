/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics of all domains in one answer, written as they go: a thousand domains have some twenty thousand values. What an
 * emulator published last is given; none is asked.
 */
#include "api-schema/json/codec.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/xdr.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"

#include <stdio.h>
#include <string.h>

enum {
    /* virDomainStatsTypes */
    STATE = 1,
    CPU_TOTAL = 2,
    BALLOON = 4,
    VCPU = 8,
    INTERFACE = 16,
    BLOCK = 32,
    SUPPORTED = STATE | CPU_TOTAL | BALLOON | VCPU | INTERFACE | BLOCK,
    /* virConnectGetAllDomainStatsFlags: those of CONNECT_LIST_ALL_DOMAINS, and others above them */
    LIST_FLAGS = 255,
};

/* One record's parameters; they are counted as they are written. */
struct record {
    struct buf params;
    uint32_t n;
};

static void put(struct record *r, char type, uint64_t value, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void put(struct record *r, char type, uint64_t value, const char *fmt, ...)
{
    char field[96];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(field, sizeof(field), fmt, ap);
    va_end(ap);
    lv_put_param(&r->params, field, type, value);
    r->n++;
}

static void put_name(struct record *r, const char *prefix, size_t i, const char *name)
{
    char field[96];

    snprintf(field, sizeof(field), "%s.%zu.name", prefix, i);
    lv_put_param_text(&r->params, field, name);
    r->n++;
}

static void put_state(struct record *r, const struct vm *vm)
{
    enum { RUNNING = 1, PAUSED = 3, SHUTDOWN = 4, SHUTOFF = 5 };

    put(r, 'i',
        vm->state == API_VM_STATE_PAUSED     ? PAUSED
        : vm->state == API_VM_STATE_STOPPING ? SHUTDOWN
        : lv_active(vm->state)               ? RUNNING
                                             : SHUTOFF,
        "state.state");
    put(r, 'i', 1, "state.reason");
}

static void put_balloon(struct record *r, const struct vm *vm, const struct api_vm_stats *s)
{
    const struct api_balloon_stats *b = s ? s->balloon : NULL;

    put(r, 'H', (uint64_t)(b ? b->actual : vm->config.memory) / 1024, "balloon.current");
    put(r, 'H', (uint64_t)vm->config.memory / 1024, "balloon.maximum");
    if (b && b->has_free) {
        put(r, 'H', (uint64_t)b->free / 1024, "balloon.unused");
    }
    if (b && b->has_available) {
        put(r, 'H', (uint64_t)b->available / 1024, "balloon.usable");
    }
    if (b && b->has_total) {
        put(r, 'H', (uint64_t)b->total / 1024, "balloon.available");
    }
    if (b && b->has_caches) {
        put(r, 'H', (uint64_t)b->caches / 1024, "balloon.disk_caches");
    }
    if (b && b->has_swap_in) {
        put(r, 'H', (uint64_t)b->swap_in / 1024, "balloon.swap_in");
    }
    if (b && b->has_swap_out) {
        put(r, 'H', (uint64_t)b->swap_out / 1024, "balloon.swap_out");
    }
    if (b && b->has_major_faults) {
        put(r, 'H', (uint64_t)b->major_faults, "balloon.major_fault");
    }
    if (b && b->has_minor_faults) {
        put(r, 'H', (uint64_t)b->minor_faults, "balloon.minor_fault");
    }
    if (s) {
        put(r, 'H', (uint64_t)s->memory_rss / 1024, "balloon.rss");
    }
}

static void put_vcpus(struct record *r, const struct vm *vm, const struct api_vm_stats *s)
{
    put(r, 'u', s ? (uint64_t)vm->config.cpus : 0, "vcpu.current");
    put(r, 'u', (uint64_t)vm->config.cpus, "vcpu.maximum");
    for (size_t i = 0; s && i < s->n_vcpus; i++) {
        put(r, 'i', 1, "vcpu.%zu.state", i); /* running */
        put(r, 'H', (uint64_t)s->vcpus[i].cpu_time_ns, "vcpu.%zu.time", i);
        put(r, 'b', s->vcpus[i].halted, "vcpu.%zu.halted", i);
    }
}

static void put_nics(struct record *r, const struct api_vm_stats *s)
{
    put(r, 'u', s->n_nics, "net.count");
    for (size_t i = 0; i < s->n_nics; i++) {
        const struct api_nic_stats *n = &s->nics[i];
        put_name(r, "net", i, n->name);
        put(r, 'H', (uint64_t)n->rx_bytes, "net.%zu.rx.bytes", i);
        put(r, 'H', (uint64_t)n->rx_frames, "net.%zu.rx.pkts", i);
        put(r, 'H', (uint64_t)n->rx_errors, "net.%zu.rx.errs", i);
        put(r, 'H', (uint64_t)n->rx_dropped, "net.%zu.rx.drop", i);
        put(r, 'H', (uint64_t)n->tx_bytes, "net.%zu.tx.bytes", i);
        put(r, 'H', (uint64_t)n->tx_frames, "net.%zu.tx.pkts", i);
        put(r, 'H', (uint64_t)n->tx_errors, "net.%zu.tx.errs", i);
        put(r, 'H', (uint64_t)n->tx_dropped, "net.%zu.tx.drop", i);
    }
}

static void put_disks(struct record *r, const struct api_vm_stats *s)
{
    put(r, 'u', s->n_disks, "block.count");
    for (size_t i = 0; i < s->n_disks; i++) {
        const struct api_disk_stats *d = &s->disks[i];
        put_name(r, "block", i, d->name);
        put(r, 'H', (uint64_t)d->reads, "block.%zu.rd.reqs", i);
        put(r, 'H', (uint64_t)d->read_bytes, "block.%zu.rd.bytes", i);
        put(r, 'H', (uint64_t)d->writes, "block.%zu.wr.reqs", i);
        put(r, 'H', (uint64_t)d->written_bytes, "block.%zu.wr.bytes", i);
        put(r, 'H', (uint64_t)d->flushes, "block.%zu.fl.reqs", i);
    }
}

static void put_record(struct buf *out, const struct vm *vm, int64_t wanted)
{
    struct api_vm_stats stats;
    bool has = vm->run && !run_has_ended(vm->run) && run_stats(vm->run, &stats);
    struct record r = { .params = BUF_INIT };

    if (wanted & STATE) {
        put_state(&r, vm);
    }
    if ((wanted & CPU_TOTAL) && has) {
        put(&r, 'H', (uint64_t)stats.cpu_time_ns, "cpu.time");
    }
    if (wanted & BALLOON) {
        put_balloon(&r, vm, has ? &stats : NULL);
    }
    if (wanted & VCPU) {
        put_vcpus(&r, vm, has ? &stats : NULL);
    }
    if ((wanted & INTERFACE) && has) {
        put_nics(&r, &stats);
    }
    if ((wanted & BLOCK) && has) {
        put_disks(&r, &stats);
    }
    lv_put_domain(out, vm);
    lv_put_word(out, r.n);
    if (r.params.len) {
        buf_add(out, r.params.data, r.params.len);
    }
    buf_done(&r.params);
    if (has) {
        api_release(&api_type_vm_stats, &stats);
    }
}

static bool asked_for(const struct lv_call *c, const struct vm *vm)
{
    struct json_object *doms = api_json_get(c->args, "doms");
    size_t n = doms ? json_object_array_length(doms) : 0;

    for (size_t i = 0; i < n; i++) {
        if (strcmp(api_json_get_str(json_object_array_get_idx(doms, i), "uuid"),
                   vm->config.uuid) == 0) {
            return true;
        }
    }
    return n == 0;
}

void lv_do_domain_stats(struct lv_call *c)
{
    int64_t wanted = lv_int(c, "stats") ? lv_int(c, "stats") : SUPPORTED;
    AUTO_BUF out = BUF_INIT, records = BUF_INIT;
    uint32_t count = 0;
    size_t n;
    struct vm **list = lv_domains(c, lv_int(c, "flags") & LIST_FLAGS, &n);

    for (size_t i = 0; i < n; i++) {
        if (asked_for(c, list[i])) {
            put_record(&records, list[i], wanted);
            count++;
        }
    }
    free(list);
    lv_put_word(&out, count);
    if (records.len) {
        buf_add(&out, records.data, records.len);
    }
    lv_reply_raw(c, &out);
}
