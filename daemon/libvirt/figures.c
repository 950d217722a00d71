/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of one domain: of disks, cards, memory, vCPUs. What an emulator published last is given. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"

#include <string.h>
#include <sys/stat.h>

/* The statistics of what vm.stats answered; NULL: it does not run, and the call has failed. */
static struct json_object *stats_of(struct lv_call *c, struct json_object *result)
{
    struct json_object *info = json_object_array_get_idx(api_json_get(result, "vms"), 0),
                       *stats = api_json_get(info, "stats");

    if (!stats) {
        lv_fail(c, LV_E_OPERATION_INVALID, "the domain is not running");
    }
    return stats;
}

static struct json_object *named(struct json_object *list, const char *name)
{
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *one = json_object_array_get_idx(list, i);
        if (strcmp(api_json_get_str(one, "name"), name) == 0) {
            return one;
        }
    }
    return NULL;
}

/* --- disks -------------------------------------------------------------------------------------------- */

/* The figures of the disk of the argument "path", which may have come while the domain runs. NULL: the call has failed. */
static struct json_object *disk_figures(struct lv_call *c, struct json_object *result)
{
    struct json_object *stats = stats_of(c, result), *disk;
    const char *path = lv_str(c, "path");
    char name[80];
    int at;

    if (!stats) {
        return NULL;
    }
    disk = named(api_json_get(stats, "disks"), path);
    if (!disk) {
        at = lv_disk(c, lv_the_vm(c), path);
        if (at < 0) {
            return NULL;
        }
        lv_disk_name(lv_the_vm(c), at, name, sizeof(name));
        disk = named(api_json_get(stats, "disks"), name);
        if (!disk) {
            lv_fail(c, LV_E_OPERATION_INVALID, "disk '%s' is not there while the domain runs",
                    path);
        }
    }
    return disk;
}

static void on_block(struct lv_call *c, struct json_object *result)
{
    struct json_object *disk = disk_figures(c, result), *o;

    if (disk) {
        o = json_object_new_object();
        api_json_set_int(o, "rd_req", api_json_get_int(disk, "reads", 0));
        api_json_set_int(o, "rd_bytes", api_json_get_int(disk, "read_bytes", 0));
        api_json_set_int(o, "wr_req", api_json_get_int(disk, "writes", 0));
        api_json_set_int(o, "wr_bytes", api_json_get_int(disk, "written_bytes", 0));
        api_json_set_int(o, "errs", api_json_get_int(disk, "errors", 0));
        lv_reply(c, o);
    }
}

void lv_do_domain_block_stats(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.stats", lv_vm(c), on_block);
}

static void on_block_flags(struct lv_call *c, struct json_object *result)
{
    static const struct {
        const char *field, *member;
    } rows[] = { { "rd_operations", "reads" },      { "rd_bytes", "read_bytes" },
                 { "wr_operations", "writes" },     { "wr_bytes", "written_bytes" },
                 { "flush_operations", "flushes" }, { "errs", "errors" } };
    struct json_object *disk = disk_figures(c, result), *list;

    if (disk) {
        list = json_object_new_array();
        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            lv_param(list, rows[i].field, 'h', api_json_get_int(disk, rows[i].member, 0));
        }
        lv_reply_params(c, list);
    }
}

void lv_do_domain_block_stats_flags(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.stats", lv_vm(c), on_block_flags);
}

static void reply_block_info(struct lv_call *c, int64_t capacity, int64_t allocation,
                             int64_t physical)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "allocation", allocation);
    api_json_set_int(o, "capacity", capacity);
    api_json_set_int(o, "physical", physical);
    lv_reply(c, o);
}

/* QMP's query-block: c->number is the disk's place, c->kept its name. */
static void on_query_block(struct lv_call *c, struct json_object *result)
{
    struct json_object *list = api_json_get(result, "result"), *image;
    const char *name = api_json_get_str(c->kept, "name");

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *one = json_object_array_get_idx(list, i);
        const char *device = api_json_get_str(one, "device"),
                   *qdev = api_json_get_str(one, "qdev");
        image = api_json_get(api_json_get(one, "inserted"), "image");
        if (image &&
            ((device && strcmp(device, name) == 0) || (qdev && strcmp(qdev, name) == 0))) {
            int64_t actual = api_json_get_int(image, "actual-size", 0);
            reply_block_info(c, api_json_get_int(image, "virtual-size", 0), actual, actual);
            return;
        }
    }
    lv_fail(c, LV_E_OPERATION_INVALID, "the emulator does not tell the size of disk '%s'",
            name);
}

static void on_block_info(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = lv_the_vm(c);
    int at = lv_disk(c, vm, lv_str(c, "path"));
    struct json_object *params;
    const struct api_disk *d;
    struct stat st;
    char name[80];

    (void)info;
    if (at < 0) {
        return;
    }
    d = &vm->config.disks[at];
    if (lv_active(vm->state)) {
        lv_disk_name(vm, at, name, sizeof(name));
        c->kept = lv_object("name", name);
        params = lv_vm(c);
        api_json_set_str(params, "execute", "query-block");
        lv_ask(c, "domain", "vm.qmp", params, on_query_block);
    } else if (d->format == API_DISK_FORMAT_RAW && d->file && stat(d->file, &st) == 0 &&
               S_ISREG(st.st_mode)) {
        reply_block_info(c, st.st_size, st.st_blocks * 512, st.st_size);
    } else {
        lv_fail(c, LV_E_OPERATION_INVALID,
                "the size of an image of this format is known while the domain runs");
    }
}

void lv_do_domain_block_info(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_block_info);
}

static void on_errors(struct lv_call *c, struct json_object *result)
{
    enum { UNSPECIFIED = 1 };
    struct json_object *stats = stats_of(c, result), *from, *list, *o;

    if (!stats) {
        return;
    }
    from = api_json_get(stats, "disks");
    list = json_object_new_array();
    for (size_t i = 0; from && i < json_object_array_length(from); i++) {
        struct json_object *disk = json_object_array_get_idx(from, i);
        if ((int64_t)json_object_array_length(list) < lv_int(c, "maxerrors") &&
            api_json_get_int(disk, "errors", 0) > 0) {
            o = lv_object("disk", api_json_get_str(disk, "name"));
            api_json_set_int(o, "remote_error", UNSPECIFIED);
            json_object_array_add(list, o);
        }
    }
    o = json_object_new_object();
    api_json_set_int(o, "nerrors",
                     (int64_t)(lv_int(c, "maxerrors") ? json_object_array_length(list)
                               : from                 ? json_object_array_length(from)
                                                      : 0));
    api_json_set(o, "errors", list);
    lv_reply(c, o);
}

void lv_do_domain_disk_errors(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.stats", lv_vm(c), on_errors);
}

/* --- cards -------------------------------------------------------------------------------------------- */

static void on_interface(struct lv_call *c, struct json_object *result)
{
    static const struct {
        const char *field, *member;
    } rows[] = { { "rx_bytes", "rx_bytes" }, { "rx_packets", "rx_frames" },
                 { "rx_errs", "rx_errors" }, { "rx_drop", "rx_dropped" },
                 { "tx_bytes", "tx_bytes" }, { "tx_packets", "tx_frames" },
                 { "tx_errs", "tx_errors" }, { "tx_drop", "tx_dropped" } };
    struct json_object *stats = stats_of(c, result), *nic, *o;
    const char *device = lv_str(c, "device");
    char name[80];
    int at;

    if (!stats) {
        return;
    }
    nic = named(api_json_get(stats, "nics"), device);
    if (!nic) {
        at = lv_nic(c, lv_the_vm(c), device);
        if (at < 0) {
            return;
        }
        lv_nic_name(lv_the_vm(c), at, name, sizeof(name));
        nic = named(api_json_get(stats, "nics"), name);
    }
    if (!nic) {
        lv_fail(c, LV_E_OPERATION_INVALID, "card '%s' is not there while the domain runs",
                device);
        return;
    }
    o = json_object_new_object();
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        api_json_set_int(o, rows[i].field, api_json_get_int(nic, rows[i].member, 0));
    }
    lv_reply(c, o);
}

void lv_do_domain_interface_stats(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.stats", lv_vm(c), on_interface);
}

/* --- memory ------------------------------------------------------------------------------------------- */

static void on_memory(struct lv_call *c, struct json_object *result)
{
    /* virDomainMemoryStatTags; sizes are in KiB */
    static const struct {
        int tag;
        const char *member;
        int unit;
    } rows[] = { { 0, "swap_in", 1024 },        { 1, "swap_out", 1024 },
                 { 2, "major_faults", 1 },      { 3, "minor_faults", 1 },
                 { 4, "free", 1024 },           { 5, "total", 1024 },
                 { 6, "actual", 1024 },         { 8, "available", 1024 },
                 { 10, "caches", 1024 },        { 11, "huge_pages_taken", 1 },
                 { 12, "huge_pages_failed", 1 } };
    enum { ACTUAL = 6, RSS = 7 };
    struct json_object *stats = stats_of(c, result), *balloon, *list, *o;
    const struct vm *vm = lv_the_vm(c);

    if (!stats) {
        return;
    }
    balloon = api_json_get(stats, "balloon");
    list = json_object_new_array();
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool has = api_json_get(balloon, rows[i].member) != NULL;
        if (has || (rows[i].tag == ACTUAL && vm)) {
            o = json_object_new_object();
            api_json_set_int(o, "tag", rows[i].tag);
            api_json_set_int(
                o, "val",
                (has ? api_json_get_int(balloon, rows[i].member, 0) : vm->config.memory) /
                    rows[i].unit);
            json_object_array_add(list, o);
        }
    }
    o = json_object_new_object();
    api_json_set_int(o, "tag", RSS);
    api_json_set_int(o, "val", api_json_get_int(stats, "memory_rss", 0) / 1024);
    json_object_array_add(list, o);
    o = json_object_new_object();
    api_json_set(o, "stats", list);
    lv_reply(c, o);
}

void lv_do_domain_memory_stats(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.stats", lv_vm(c), on_memory);
}

/* --- vCPUs -------------------------------------------------------------------------------------------- */

/* `n` maps of `len` bytes that name each of `cpus` CPUs: vmd pins nothing. */
static struct json_object *all_cpus(int64_t n, int64_t len, int64_t cpus)
{
    AUTO_BUF map = BUF_INIT;

    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < len; k++) {
            int64_t left = cpus - k * 8;
            buf_add_char(&map, (char)(left >= 8 ? 0xff : left > 0 ? (1 << left) - 1 : 0));
        }
    }
    return json_object_new_string_len(map.data ? map.data : "", (int)map.len);
}

enum { MAP_MAX = 1024, VCPUS_MAX = 512 };

static void on_vcpus(struct lv_call *c, struct json_object *host)
{
    struct json_object *o = json_object_new_object();
    int64_t n = (int64_t)json_object_array_length(c->kept);

    api_json_set(o, "info", json_object_get(c->kept));
    api_json_set(o, "cpumaps",
                 all_cpus(n, lv_int(c, "maplen"), api_json_get_int(host, "cpus", 1)));
    lv_reply(c, o);
}

static void on_vcpu_stats(struct lv_call *c, struct json_object *result)
{
    enum { RUNNING = 1 };
    struct json_object *stats = stats_of(c, result), *from, *one, *o;

    if (!stats) {
        return;
    }
    from = api_json_get(stats, "vcpus");
    c->kept = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(from) && (int64_t)i < lv_int(c, "maxinfo");
         i++) {
        one = json_object_array_get_idx(from, i);
        o = json_object_new_object();
        api_json_set_int(o, "number", api_json_get_int(one, "index", 0));
        api_json_set_int(o, "state", RUNNING);
        api_json_set_int(o, "cpu_time", api_json_get_int(one, "cpu_time_ns", 0));
        api_json_set_int(o, "cpu", -1); /* wherever the kernel lets it run */
        json_object_array_add(c->kept, o);
    }
    lv_ask(c, NULL, "host.info", NULL, on_vcpus);
}

static bool map_fits(struct lv_call *c)
{
    if (lv_int(c, "maplen") < 0 || lv_int(c, "maplen") > MAP_MAX) {
        lv_fail(c, LV_E_INVALID_ARG, "a map of CPUs has at most %d bytes", MAP_MAX);
        return false;
    }
    return true;
}

void lv_do_domain_vcpus(struct lv_call *c)
{
    if (map_fits(c)) {
        lv_ask(c, "domain", "vm.stats", lv_vm(c), on_vcpu_stats);
    }
}

static void on_pins(struct lv_call *c, struct json_object *host)
{
    struct json_object *o = json_object_new_object();
    bool emulator = strcmp(c->p->name, "DOMAIN_GET_EMULATOR_PIN_INFO") == 0;
    int64_t n = emulator ? 1 : c->number;

    if (!emulator && n > lv_int(c, "ncpumaps")) {
        n = lv_int(c, "ncpumaps") > 0 ? lv_int(c, "ncpumaps") : 0;
    }
    api_json_set(o, "cpumaps",
                 all_cpus(n, lv_int(c, "maplen"), api_json_get_int(host, "cpus", 1)));
    api_json_set_int(o, emulator ? "ret" : "num", n);
    lv_reply(c, o);
}

static void on_pinned(struct lv_call *c, struct json_object *info)
{
    c->number = api_json_get_int(info, "cpus", 1);
    lv_ask(c, NULL, "host.info", NULL, on_pins);
}

void lv_do_domain_vcpu_pins(struct lv_call *c)
{
    if (map_fits(c)) {
        lv_ask(c, "domain", "vm.get", lv_vm(c), on_pinned);
    }
}

static void on_iothreads_host(struct lv_call *c, struct json_object *host)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    int64_t cpus = api_json_get_int(host, "cpus", 1);

    for (int64_t i = 1; i <= c->number; i++) {
        struct json_object *one = json_object_new_object();

        api_json_set_int(one, "iothread_id", i);
        api_json_set(one, "cpumap", all_cpus(1, (cpus + 7) / 8, cpus));
        json_object_array_add(list, one);
    }
    api_json_set(o, "info", list);
    api_json_set_int(o, "ret", c->number);
    lv_reply(c, o);
}

static void on_iothreads(struct lv_call *c, struct json_object *info)
{
    c->number = api_json_get_int(api_json_get(info, "config"), "io_threads", 0);
    lv_ask(c, NULL, "host.info", NULL, on_iothreads_host);
}

void lv_do_domain_iothreads(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_iothreads);
}

static void on_cpu_total(struct lv_call *c, struct json_object *result)
{
    struct json_object *stats = stats_of(c, result), *o, *list;

    if (!stats) {
        return;
    }
    o = json_object_new_object();
    list = json_object_new_array();
    if (lv_int(c, "nparams") > 0) {
        lv_param(list, "cpu_time", 'H', api_json_get_int(stats, "cpu_time_ns", 0));
    }
    api_json_set(o, "params", list);
    api_json_set_int(o, "nparams", 1);
    lv_reply(c, o);
}

void lv_do_domain_cpu_stats(struct lv_call *c)
{
    if (lv_int(c, "start_cpu") != -1) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "time is not counted by CPU of the host: ask for the total (--total)");
        return;
    }
    lv_ask(c, "domain", "vm.stats", lv_vm(c), on_cpu_total);
}
