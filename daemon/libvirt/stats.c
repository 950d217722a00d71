/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics of all domains in one answer, written as they go: a thousand domains have some twenty thousand values. What an
 * emulator published last is given; none is asked.
 */
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/xdr.h"

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
    /* virConnectGetAllDomainStatsFlags, as list flags */
    ONLY_ACTIVE = 1,
    ONLY_INACTIVE = 2,
    ONLY_TRANSIENT = 8,
    ONLY_PERSISTENT = 4,
    ONLY_RUNNING = 16,
    ONLY_PAUSED = 32,
    ONLY_SHUTOFF = 64,
};

static void put(struct json_object *list, const char *type, struct json_object *value,
                const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void put(struct json_object *list, const char *type, struct json_object *value,
                const char *fmt, ...)
{
    char field[96];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(field, sizeof(field), fmt, ap);
    va_end(ap);
    json_object_array_add(list, lv_param(field, type, value));
}

static void put_int(struct json_object *list, const char *type, int64_t value,
                    const char *field)
{
    put(list, type, json_object_new_int64(value), "%s", field);
}

static int state_number(const char *state)
{
    return strcmp(state, "paused") == 0     ? 3
           : strcmp(state, "stopping") == 0 ? 4
           : lv_active(state)               ? 1
                                            : 5;
}

static void put_balloon(struct json_object *list, struct json_object *info,
                        struct json_object *stats)
{
    static const struct {
        const char *ours, *theirs;
        bool bytes;
    } known[] = { { "swap_in", "balloon.swap_in", true },
                  { "swap_out", "balloon.swap_out", true },
                  { "major_faults", "balloon.major_fault", false },
                  { "minor_faults", "balloon.minor_fault", false },
                  { "free", "balloon.unused", true },
                  { "available", "balloon.usable", true },
                  { "total", "balloon.available", true },
                  { "caches", "balloon.disk_caches", true } };
    struct json_object *b = api_json_get(stats, "balloon"), *v;
    int64_t memory = api_json_get_int(info, "memory", 0);

    put_int(list, "H", api_json_get_int(b, "actual", memory) / 1024, "balloon.current");
    put_int(list, "H", memory / 1024, "balloon.maximum");
    for (unsigned i = 0; b && i < ARRAY_LEN(known); i++) {
        v = api_json_get(b, known[i].ours);
        if (v) {
            put_int(list, "H", json_object_get_int64(v) / (known[i].bytes ? 1024 : 1),
                    known[i].theirs);
        }
    }
    if (stats) {
        put_int(list, "H", api_json_get_int(stats, "memory_rss", 0) / 1024, "balloon.rss");
    }
}

static void put_vcpus(struct json_object *list, struct json_object *info,
                      struct json_object *stats)
{
    struct json_object *vcpus = api_json_get(stats, "vcpus");
    int64_t n = api_json_get_int(info, "cpus", 1);

    put_int(list, "u", vcpus ? n : 0, "vcpu.current");
    put_int(list, "u", n, "vcpu.maximum");
    for (size_t i = 0; vcpus && i < json_object_array_length(vcpus); i++) {
        struct json_object *v = json_object_array_get_idx(vcpus, i);
        put(list, "i", json_object_new_int(1), "vcpu.%zu.state", i);
        put(list, "H", json_object_new_int64(api_json_get_int(v, "cpu_time_ns", 0)),
            "vcpu.%zu.time", i);
        put(list, "b", json_object_new_int(api_json_get_bool(v, "halted", false)),
            "vcpu.%zu.halted", i);
    }
}

/* Counters of a list of devices: PREFIX.count, PREFIX.N.name, PREFIX.N.COUNTER. */
struct counter {
    const char *ours, *theirs;
};

static void put_devices(struct json_object *list, struct json_object *devices,
                        const char *prefix, const struct counter *counters, unsigned n)
{
    size_t count = devices ? json_object_array_length(devices) : 0;

    put(list, "u", json_object_new_int64((int64_t)count), "%s.count", prefix);
    for (size_t i = 0; i < count; i++) {
        struct json_object *one = json_object_array_get_idx(devices, i);
        put(list, "s", json_object_get(api_json_get(one, "name")), "%s.%zu.name", prefix, i);
        for (unsigned k = 0; k < n; k++) {
            put(list, "H", json_object_new_int64(api_json_get_int(one, counters[k].ours, 0)),
                "%s.%zu.%s", prefix, i, counters[k].theirs);
        }
    }
}

static const struct counter nic_counters[] = {
    { "rx_bytes", "rx.bytes" },  { "rx_frames", "rx.pkts" },  { "rx_errors", "rx.errs" },
    { "rx_dropped", "rx.drop" }, { "tx_bytes", "tx.bytes" },  { "tx_frames", "tx.pkts" },
    { "tx_errors", "tx.errs" },  { "tx_dropped", "tx.drop" },
};
static const struct counter disk_counters[] = {
    { "reads", "rd.reqs" },          { "read_bytes", "rd.bytes" }, { "writes", "wr.reqs" },
    { "written_bytes", "wr.bytes" }, { "flushes", "fl.reqs" },
};

static struct json_object *params_of(struct json_object *info, int64_t wanted)
{
    struct json_object *list = json_object_new_array(), *stats = api_json_get(info, "stats");

    if (wanted & STATE) {
        put_int(list, "i", state_number(api_json_get_str(info, "state")), "state.state");
        put_int(list, "i", 1, "state.reason");
    }
    if ((wanted & CPU_TOTAL) && stats) {
        put_int(list, "H", api_json_get_int(stats, "cpu_time_ns", 0), "cpu.time");
    }
    if (wanted & BALLOON) {
        put_balloon(list, info, stats);
    }
    if (wanted & VCPU) {
        put_vcpus(list, info, stats);
    }
    if ((wanted & INTERFACE) && stats) {
        put_devices(list, api_json_get(stats, "nics"), "net", nic_counters,
                    ARRAY_LEN(nic_counters));
    }
    if ((wanted & BLOCK) && stats) {
        put_devices(list, api_json_get(stats, "disks"), "block", disk_counters,
                    ARRAY_LEN(disk_counters));
    }
    return list;
}

static bool asked_for(const struct lv_call *c, struct json_object *info)
{
    struct json_object *doms = api_json_get(c->args, "doms");
    const char *state = api_json_get_str(info, "state");
    int64_t flags = lv_int(c, "flags");
    bool active = lv_active(state), transient = api_json_get_bool(info, "transient", false);
    size_t n = doms ? json_object_array_length(doms) : 0;

    if (((flags & (ONLY_ACTIVE | ONLY_INACTIVE)) &&
         !(flags & (active ? ONLY_ACTIVE : ONLY_INACTIVE))) ||
        ((flags & (ONLY_TRANSIENT | ONLY_PERSISTENT)) &&
         !(flags & (transient ? ONLY_TRANSIENT : ONLY_PERSISTENT)))) {
        return false;
    }
    if ((flags & (ONLY_RUNNING | ONLY_PAUSED | ONLY_SHUTOFF)) &&
        !(flags & (strcmp(state, "running") == 0  ? ONLY_RUNNING
                   : strcmp(state, "paused") == 0 ? ONLY_PAUSED
                   : active                       ? 0
                                                  : ONLY_SHUTOFF))) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(api_json_get_str(json_object_array_get_idx(doms, i), "uuid"),
                   api_json_get_str(info, "uuid")) == 0) {
            return true;
        }
    }
    return n == 0;
}

static void on_listed(struct lv_call *c, struct json_object *result)
{
    struct json_object *vms = api_json_get(result, "vms");
    int64_t wanted = lv_int(c, "stats") ? lv_int(c, "stats") : SUPPORTED;
    AUTO_BUF out = BUF_INIT, records = BUF_INIT;
    uint32_t count = 0;

    for (size_t i = 0; i < json_object_array_length(vms); i++) {
        struct json_object *info = json_object_array_get_idx(vms, i);
        if (asked_for(c, info)) {
            AUTO_JSON record = json_object_new_object();
            api_json_set(record, "dom", lv_domain_of(c->d, info));
            api_json_set(record, "params", params_of(info, wanted));
            lv_encode("dom:D params:[T]", record, &records, NULL);
            count++;
        }
    }
    AUTO_JSON head = json_object_new_object();
    api_json_set_int(head, "n", count);
    lv_encode("n:u", head, &out, NULL);
    if (records.len) {
        buf_add(&out, records.data, records.len);
    }
    lv_reply_raw(c, &out);
}

void lv_do_domain_stats(struct lv_call *c)
{
    struct json_object *params = json_object_new_object();

    api_json_set_bool(params, "stats", true);
    lv_ask(c, NULL, "vm.list", params, on_listed);
}
