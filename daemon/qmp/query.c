/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands that tell what the daemon knows: state, identity, vCPUs, memory, statistics; and those about devices
 * that no VM has. No emulator is asked. Loop thread.
 */
#include "daemon/qmp/cmd.h"

#include "api-schema/gen/types.h"
#include "daemon/qmp/plug.h"
#include "daemon/qmp/session.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "daemon/run/supervise.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_VCPUS = 512 };

/* --- the VM --------------------------------------------------------------------------------------------- */

void qmp_do_query_status(struct qmp_cmd *c)
{
    struct json_object *o = json_object_new_object();
    const char *state = qmp_run_state(c->vm);

    api_json_set_str(o, "status", state);
    api_json_set_bool(o, "singlestep", false);
    api_json_set_bool(o, "running", strcmp(state, "running") == 0);
    qmp_return(c, o);
}

void qmp_do_query_name(struct qmp_cmd *c)
{
    qmp_return(c, qmp_named(c->vm->config.name));
}

void qmp_do_query_uuid(struct qmp_cmd *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "UUID", c->vm->config.uuid);
    qmp_return(c, o);
}

void qmp_do_query_kvm(struct qmp_cmd *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_bool(o, "enabled", false);
    api_json_set_bool(o, "present", false); /* no engine of this build uses it */
    qmp_return(c, o);
}

void qmp_do_query_target(struct qmp_cmd *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "arch", api_arch_name(c->vm->config.arch));
    qmp_return(c, o);
}

void qmp_do_query_machines(struct qmp_cmd *c)
{
    struct json_object *list = json_object_new_array(), *o;
    bool pc = c->vm->config.machine != API_MACHINE_RV_VIRT;

    o = qmp_named(api_machine_name(c->vm->config.machine));
    if (!pc) {
        api_json_set_str(o, "alias", "virt");
    }
    api_json_set_bool(o, "is-default", true);
    api_json_set_int(o, "cpu-max", MAX_VCPUS);
    api_json_set_bool(o, "hotpluggable-cpus", false);
    api_json_set_bool(o, "numa-mem-supported", false);
    api_json_set_bool(o, "deprecated", false);
    api_json_set_str(o, "default-cpu-type", "max");
    api_json_set_str(o, "default-ram-id", "ram");
    json_object_array_add(list, o);
    qmp_return(c, list);
}

void qmp_do_query_current_machine(struct qmp_cmd *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_bool(o, "wakeup-suspend-support", qmp_guest_sleeps(c->vm));
    qmp_return(c, o);
}

void qmp_do_query_cpu_definitions(struct qmp_cmd *c)
{
    static const char *const base[] = {
        [API_ARCH_RISCV64] = "rv64", [API_ARCH_RISCV32] = "rv32", [API_ARCH_X86_64] = "x86-64"
    };
    const char *const names[] = { "max", base[c->vm->config.arch] };
    struct json_object *list = json_object_new_array();

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        struct json_object *o = qmp_named(names[i]);
        api_json_set_bool(o, "static", false);
        api_json_set_str(o, "typename", names[i]);
        api_json_set_bool(o, "deprecated", false);
        json_object_array_add(list, o);
    }
    qmp_return(c, list);
}

/* --- vCPUs ----------------------------------------------------------------------------------------------- */

/* Fills tid[n] from the names of the emulator's threads. */
static void vcpu_threads(const struct vm *vm, int *tid, unsigned n)
{
    char path[64], name[32];
    struct dirent *de;
    DIR *dir;

    memset(tid, 0, n * sizeof(*tid));
    if (!vm->run || run_pid(vm->run) <= 0) {
        return;
    }
    snprintf(path, sizeof(path), "/proc/%d/task", (int)run_pid(vm->run));
    dir = opendir(path);
    while (dir && (de = readdir(dir))) {
        unsigned index;
        char file[300];
        ssize_t got;

        snprintf(file, sizeof(file), "%s/comm", de->d_name);
        AUTO_FD fd = openat(dirfd(dir), file, O_RDONLY | O_CLOEXEC);
        got = fd >= 0 ? read(fd, name, sizeof(name) - 1) : -1;
        if (got <= 0) {
            continue;
        }
        name[got] = 0;
        if (sscanf(name, "vcpu%u", &index) == 1 && index < n) {
            tid[index] = atoi(de->d_name);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

int qmp_vcpu_thread(const struct vm *vm, int64_t index)
{
    int tid[MAX_VCPUS];

    vcpu_threads(vm, tid, MAX_VCPUS);
    return index >= 0 && index < MAX_VCPUS ? tid[index] : 0;
}

void qmp_do_query_cpus_fast(struct qmp_cmd *c)
{
    struct json_object *list = json_object_new_array();
    int tid[MAX_VCPUS];

    vcpu_threads(c->vm, tid, MAX_VCPUS);
    for (int64_t i = 0; i < c->vm->config.cpus && i < MAX_VCPUS; i++) {
        struct json_object *o = json_object_new_object(), *props = json_object_new_object();
        char path[40];

        snprintf(path, sizeof(path), "/machine/cpu[%d]", (int)i);
        api_json_set_int(o, "thread-id", tid[i]);
        api_json_set_int(props, "core-id", i);
        api_json_set(o, "props", props);
        api_json_set_str(o, "qom-path", path);
        api_json_set_int(o, "cpu-index", i);
        api_json_set_str(o, "target", api_arch_name(c->vm->config.arch));
        json_object_array_add(list, o);
    }
    qmp_return(c, list);
}

/* --- statistics -------------------------------------------------------------------------------------------- */

struct figure {
    const char *name;
    const char *unit; /* NULL: a number */
    bool instant;
    size_t vm; /* offset in struct api_vm_stats, or NOWHERE */
    size_t vcpu;
};
#define NOWHERE SIZE_MAX

static const struct figure figures[] = {
    { "cpu-time", "seconds", false, offsetof(struct api_vm_stats, cpu_time_ns),
      offsetof(struct api_vcpu_stats, cpu_time_ns) },
    { "guest-time", "seconds", false, offsetof(struct api_vm_stats, guest_time_ns), NOWHERE },
    { "uptime", "seconds", false, offsetof(struct api_vm_stats, uptime_ns), NOWHERE },
    { "memory-rss", "bytes", true, offsetof(struct api_vm_stats, memory_rss), NOWHERE },
    { "code-cache-used", "bytes", true, offsetof(struct api_vm_stats, cache_used), NOWHERE },
    { "blocks-translated", NULL, false, offsetof(struct api_vm_stats, tb_translated), NOWHERE },
    { "exits", NULL, false, offsetof(struct api_vm_stats, exits), NOWHERE },
    { "mmio", NULL, false, offsetof(struct api_vm_stats, mmio), NOWHERE },
    { "interrupts", NULL, false, offsetof(struct api_vm_stats, interrupts), NOWHERE },
    { "console-in", "bytes", false, offsetof(struct api_vm_stats, console_in), NOWHERE },
    { "console-out", "bytes", false, offsetof(struct api_vm_stats, console_out), NOWHERE },
};

static bool listed(struct json_object *words, const char *word)
{
    bool found = !words;

    for (size_t i = 0; words && i < json_object_array_length(words); i++) {
        const char *one = json_object_get_string(json_object_array_get_idx(words, i));
        found |= one && strcmp(one, word) == 0;
    }
    return found;
}

/* The names that were asked for, NULL: all. */
static struct json_object *names_wanted(struct qmp_cmd *c)
{
    struct json_object *providers = api_json_get(c->args, "providers");

    return providers && json_object_array_length(providers) > 0
               ? api_json_get(json_object_array_get_idx(providers, 0), "names")
               : NULL;
}

static struct json_object *stats_result(const void *from, bool vcpu, struct json_object *names,
                                        const char *path)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    for (unsigned i = 0; i < ARRAY_LEN(figures); i++) {
        size_t at = vcpu ? figures[i].vcpu : figures[i].vm;
        if (at != NOWHERE && listed(names, figures[i].name)) {
            struct json_object *one = qmp_named(figures[i].name);
            api_json_set_int(one, "value", *(const int64_t *)((const char *)from + at));
            json_object_array_add(list, one);
        }
    }
    api_json_set_str(o, "provider", "vmd");
    if (path) {
        api_json_set_str(o, "qom-path", path);
    }
    api_json_set(o, "stats", list);
    return o;
}

void qmp_do_query_stats(struct qmp_cmd *c)
{
    struct json_object *out = json_object_new_array(), *names = names_wanted(c);
    struct json_object *vcpus = api_json_get(c->args, "vcpus");
    struct api_vm_stats s;

    if (!c->vm->run || run_has_ended(c->vm->run) || !run_stats(c->vm->run, &s)) {
        qmp_return(c, out);
        return;
    }
    if (strcmp(qmp_arg(c, "target"), "vm") == 0) {
        json_object_array_add(out, stats_result(&s, false, names, NULL));
    } else {
        for (size_t i = 0; i < s.n_vcpus; i++) {
            char path[40];
            snprintf(path, sizeof(path), "/machine/cpu[%zu]", i);
            if (listed(vcpus, path)) {
                json_object_array_add(out, stats_result(&s.vcpus[i], true, names, path));
            }
        }
    }
    api_vm_stats_release(&s);
    qmp_return(c, out);
}

static struct json_object *stats_schema(bool vcpu)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    for (unsigned i = 0; i < ARRAY_LEN(figures); i++) {
        const struct figure *f = &figures[i];
        struct json_object *one;
        if ((vcpu ? f->vcpu : f->vm) == NOWHERE) {
            continue;
        }
        one = qmp_named(f->name);
        api_json_set_str(one, "type", f->instant ? "instant" : "cumulative");
        if (f->unit) {
            api_json_set_str(one, "unit", f->unit);
        }
        if (f->unit && strcmp(f->unit, "seconds") == 0) {
            api_json_set_int(one, "base", 10);
        }
        api_json_set_int(one, "exponent", f->unit && strcmp(f->unit, "seconds") == 0 ? -9 : 0);
        json_object_array_add(list, one);
    }
    api_json_set_str(o, "provider", "vmd");
    api_json_set_str(o, "target", vcpu ? "vcpu" : "vm");
    api_json_set(o, "stats", list);
    return o;
}

void qmp_do_query_stats_schemas(struct qmp_cmd *c)
{
    struct json_object *out = json_object_new_array();

    json_object_array_add(out, stats_schema(false));
    json_object_array_add(out, stats_schema(true));
    qmp_return(c, out);
}

/* --- memory, consoles, buses --------------------------------------------------------------------------------- */

static void on_plugged(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *list = api_json_get(result, "devices");
    int64_t all = 0;

    for (size_t i = 0;
         json_object_is_type(list, json_type_array) && i < json_object_array_length(list);
         i++) {
        all += api_json_get_int(json_object_array_get_idx(list, i), "plugged", 0) >> 20;
    }
    api_json_set_int(c->kept, "plugged-memory", all << 20);
    qmp_return(c, json_object_get(c->kept));
}

void qmp_do_query_memory_size_summary(struct qmp_cmd *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "base-memory", c->vm->config.memory);
    if (c->vm->config.n_memory_devices > 0 || c->vm->config.has_memory_max) {
        c->kept = o;
        qmp_ask(c, "emu.memory_devices", NULL, on_plugged);
    } else {
        qmp_return(c, o);
    }
}

static struct json_object *chardev(const char *label, const char *path, bool open)
{
    struct json_object *o = json_object_new_object();
    AUTO_FREE char *name = path ? xasprintf("unix:%s,server=on", path) : xstrdup("null");

    api_json_set_bool(o, "frontend-open", open);
    api_json_set_str(o, "filename", name);
    api_json_set_str(o, "label", label);
    return o;
}

void qmp_do_query_chardev(struct qmp_cmd *c)
{
    struct json_object *list = json_object_new_array();
    AUTO_FREE char *console = runfs_path(&c->d->opt, c->vm->id, VM_CONSOLE);

    if (c->vm->qmp) {
        json_object_array_add(list, chardev("compat_monitor0", c->vm->qmp->path, true));
    }
    if (c->vm->run) {
        bool serial = c->vm->config.console == API_CONSOLE_KIND_SERIAL;
        json_object_array_add(list, chardev(serial ? "serial0" : "console0", console, true));
    }
    if (c->vm->qmp) {
        list_for_each (it, &c->vm->qmp->backs) {
            const struct qmp_back *b = list_entry(it, struct qmp_back, link);

            if (b->kind == QMP_BACK_CHARDEV) {
                json_object_array_add(list, chardev(b->id, b->path, b->users > 0));
            }
        }
    }
    qmp_return(c, list);
}

#define EMPTY(name)                                                                            \
    void qmp_do_##name(struct qmp_cmd *c)                                                      \
    {                                                                                          \
        qmp_return(c, json_object_new_array());                                                \
    }

EMPTY(query_fdsets)

/* --- what VMs do not have ---------------------------------------------------------------------------------- */

#define REFUSED(name, class, text)                                                             \
    void qmp_do_##name(struct qmp_cmd *c)                                                      \
    {                                                                                          \
        qmp_error(c, class, text);                                                             \
    }

REFUSED(query_hotpluggable_cpus, "GenericError",
        "The feature 'query-hotpluggable-cpus' is not enabled")

static void with_link(struct qmp_cmd *c, struct json_object *result)
{
    (void)result;
    qmp_return_nothing(c);
}

static const struct api_nic *find_nic(const struct vm *vm, const char *name)
{
    for (size_t i = 0; i < vm->config.n_nics; i++) {
        if (strcmp(vm->config.nics[i].name, name) == 0) {
            return &vm->config.nics[i];
        }
    }
    return NULL;
}

/* Cards that were attached to the running VM alone are known to nobody here: the emulator says whether there is one. */
void qmp_do_set_link(struct qmp_cmd *c)
{
    const char *name = qmp_arg(c, "name");
    const struct qmp_plugged *p = qmp_plugged_on(c->vm, name); /* QEMU takes either name */
    struct json_object *o;

    name = p ? p->name : name;
    if (!c->vm->run && !find_nic(c->vm, name)) {
        qmp_error(c, "DeviceNotFound", "Device '%s' not found", name);
        return;
    }
    o = json_object_new_object();
    api_json_set_str(o, "nic", name);
    api_json_set_bool(o, "up", api_json_get_bool(c->args, "up", false));
    qmp_ask(c, "emu.nic_link", o, with_link);
}

/* QEMU's words for what vm.nic_filter says. */
static struct json_object *rx_filter(struct json_object *n)
{
    static const char *const same[][2] = { { "name", "name" },
                                           { "main-mac", "mac" },
                                           { "promiscuous", "promiscuous" },
                                           { "broadcast-allowed", "broadcast" },
                                           { "unicast", "unicast" },
                                           { "multicast", "multicast" },
                                           { "unicast-overflow", "unicast_overflow" },
                                           { "multicast-overflow", "multicast_overflow" },
                                           { "unicast-table", "unicast_table" },
                                           { "multicast-table", "multicast_table" },
                                           { "vlan-table", "vlans" } };
    struct json_object *o = json_object_new_object();

    for (unsigned i = 0; i < ARRAY_LEN(same); i++) {
        api_json_set(o, same[i][0], json_object_get(api_json_get(n, same[i][1])));
    }
    api_json_set_str(o, "vlan", api_json_get_bool(n, "vlan_filter", false) ? "normal" : "all");
    return o;
}

static void with_filters(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *list = json_object_new_array(), *nics = api_json_get(result, "nics");

    for (size_t i = 0; nics && i < json_object_array_length(nics); i++) {
        json_object_array_add(list, rx_filter(json_object_array_get_idx(nics, i)));
    }
    qmp_return(c, list);
}

void qmp_do_query_rx_filter(struct qmp_cmd *c)
{
    const char *name = qmp_arg(c, "name");
    struct json_object *o = json_object_new_object();

    if (name) {
        api_json_set_str(o, "nic", name);
    }
    qmp_ask(c, "emu.nic_filter", o, with_filters);
}
