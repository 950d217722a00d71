/* SPDX-License-Identifier: Apache-2.0 */
/* What domains may take: shares of CPU, memory and disks, limits of disks and cards, memory, vCPUs. */
#include "api-schema/json/codec.h"
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"

#include <stdio.h>
#include <string.h>

/* --- limits of control groups ------------------------------------------------------------------------ */

enum { PERIOD_US = 100000 };

static const int64_t unlimited_kib = INT64_C(
    9007199254740991); /* what libvirt says for "none" */

/* The definition's limits, the caller's. */
static struct json_object *limits_of(const struct vm *vm)
{
    return vm && vm->config.limits ? api_encode(&api_type_limits, vm->config.limits)
                                   : json_object_new_object();
}

/* The limits with a member changed, in place of those that were. */
static void change_limit(struct lv_call *c, const char *member, struct json_object *take_value)
{
    struct json_object *limits = limits_of(lv_the_vm(c));

    if (take_value) {
        api_json_set(limits, member, take_value);
    } else {
        json_object_object_del(limits, member);
    }
    lv_change(c, "limits", limits);
}

static void on_scheduler_type(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = lv_object("type", "posix");

    (void)info;
    api_json_set_int(o, "nparams", 3);
    lv_reply(c, o);
}

void lv_do_domain_scheduler_type(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_scheduler_type);
}

static void on_scheduler(struct lv_call *c, struct json_object *info)
{
    AUTO_JSON limits = limits_of(lv_the_vm(c));
    struct json_object *list = json_object_new_array(), *o = json_object_new_object();
    int64_t percent = api_json_get_int(limits, "cpu_percent", 0);

    (void)info;
    lv_param(list, "cpu_shares", 'H', api_json_get_int(limits, "cpu_weight", 100));
    lv_param(list, "global_period", 'H', PERIOD_US);
    lv_param(list, "global_quota", 'h', percent ? percent * (PERIOD_US / 100) : -1);
    api_json_set(o, "params", list);
    lv_reply(c, o);
}

void lv_do_domain_scheduler(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_scheduler);
}

void lv_do_domain_set_scheduler(struct lv_call *c)
{
    static const char *const known[] = { "cpu_shares", "global_period", "global_quota", NULL };
    struct json_object *shares = lv_given(c, "cpu_shares"),
                       *quota = lv_given(c, "global_quota"),
                       *period = lv_given(c, "global_period"), *limits;
    int64_t us = period ? json_object_get_int64(period) : PERIOD_US, percent;

    if (!lv_only(c, known)) {
        return;
    }
    if (us < 1000 || us > 1000000 || (period && !quota)) {
        lv_fail(c, LV_E_INVALID_ARG,
                "global_period is given with global_quota, between 1000 and 1000000");
        return;
    }
    limits = limits_of(lv_the_vm(c));
    if (shares) {
        api_json_set(limits, "cpu_weight", json_object_get(shares));
    }
    if (quota && json_object_get_int64(quota) <= 0) {
        json_object_object_del(limits, "cpu_percent");
    } else if (quota) {
        percent = json_object_get_int64(quota) / us * 100 +
                  json_object_get_int64(quota) % us * 100 / us;
        api_json_set_int(limits, "cpu_percent", percent > 0 ? percent : 1);
    }
    lv_change(c, "limits", limits);
}

static void on_memory(struct lv_call *c, struct json_object *info)
{
    AUTO_JSON limits = limits_of(lv_the_vm(c));
    struct json_object *list = json_object_new_array();
    int64_t most = api_json_get_int(limits, "memory_max", 0);

    (void)info;
    lv_param(list, "hard_limit", 'H', most ? most / 1024 : unlimited_kib);
    lv_param(list, "soft_limit", 'H', unlimited_kib);
    lv_param(list, "swap_hard_limit", 'H', unlimited_kib);
    lv_reply_params(c, list);
}

void lv_do_domain_memory_parameters(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_memory);
}

void lv_do_domain_set_memory_parameters(struct lv_call *c)
{
    static const char *const known[] = { "hard_limit", NULL };
    struct json_object *most = lv_given(c, "hard_limit");
    int64_t kib = json_object_get_int64(most);

    if (lv_only(c, known)) {
        change_limit(c, "memory_max",
                     most && kib > 0 && kib < unlimited_kib
                         ? json_object_new_int64(kib / 4 * 4096)
                         : NULL);
    }
}

static void on_blkio(struct lv_call *c, struct json_object *info)
{
    AUTO_JSON limits = limits_of(lv_the_vm(c));
    struct json_object *list = json_object_new_array();

    (void)info;
    lv_param(list, "weight", 'u', api_json_get_int(limits, "io_weight", 100));
    lv_reply_params(c, list);
}

void lv_do_domain_blkio(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_blkio);
}

void lv_do_domain_set_blkio(struct lv_call *c)
{
    static const char *const known[] = { "weight", NULL };
    struct json_object *weight = lv_given(c, "weight");

    if (lv_only(c, known)) {
        change_limit(c, "io_weight", weight ? json_object_get(weight) : NULL);
    }
}

/* --- limits of disks ------------------------------------------------------------------------------------ */

static const char *const tunes[] = { "total_bytes_sec",
                                     "read_bytes_sec",
                                     "write_bytes_sec",
                                     "total_iops_sec",
                                     "read_iops_sec",
                                     "write_iops_sec",
                                     "total_bytes_sec_max",
                                     "read_bytes_sec_max",
                                     "write_bytes_sec_max",
                                     "total_iops_sec_max",
                                     "read_iops_sec_max",
                                     "write_iops_sec_max",
                                     "size_iops_sec",
                                     "total_bytes_sec_max_length",
                                     "read_bytes_sec_max_length",
                                     "write_bytes_sec_max_length",
                                     "total_iops_sec_max_length",
                                     "read_iops_sec_max_length",
                                     "write_iops_sec_max_length",
                                     "group_name",
                                     NULL };

enum { TUNE_NUMBERS = sizeof(tunes) / sizeof(tunes[0]) - 2 };

/* The limits that the definition has; the caller's. */
static struct json_object *throttle_of(const struct vm *vm, int at)
{
    const struct api_disk_throttle *t = vm->config.disks[at].throttle;

    return t ? api_encode(&api_type_disk_throttle, t) : json_object_new_object();
}

static void on_tuned(struct lv_call *c, struct json_object *info)
{
    enum { STRINGS_TOO = 4 };
    const struct vm *vm = lv_the_vm(c);
    struct json_object *list;
    AUTO_JSON t = NULL;
    const char *group;
    int at = 0;

    (void)info;
    if (lv_str(c, "disk")) {
        at = lv_disk(c, vm, lv_str(c, "disk"));
        if (at < 0) {
            return;
        }
        t = throttle_of(vm, at);
    }
    list = json_object_new_array();
    for (unsigned i = 0; i < TUNE_NUMBERS; i++) {
        lv_param(list, tunes[i], 'H', api_json_get_int(t, tunes[i], 0));
    }
    group = api_json_get_str(t, "group_name");
    if (lv_int(c, "flags") & STRINGS_TOO) {
        lv_param_str(list, "group_name", group ? group : "");
    }
    lv_reply_params(c, list);
}

void lv_do_domain_iotune(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_tuned);
}

/* What is given stands over what was there; a total takes the place of reads and writes, and the other way round. */
static void merge_tune(struct lv_call *c, struct json_object *t)
{
    static const char *const kinds[] = { "bytes_sec", "iops_sec", "bytes_sec_max",
                                         "iops_sec_max" };
    char both[40], one[40];

    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        snprintf(both, sizeof(both), "total_%s", kinds[i]);
        bool total = json_object_get_int64(lv_given(c, both)) > 0;
        for (unsigned k = 0; k < 2; k++) {
            snprintf(one, sizeof(one), "%s_%s", k ? "write" : "read", kinds[i]);
            if (total) {
                json_object_object_del(t, one);
            } else if (json_object_get_int64(lv_given(c, one)) > 0) {
                json_object_object_del(t, both);
            }
        }
    }
    for (unsigned i = 0; tunes[i]; i++) {
        struct json_object *v = lv_given(c, tunes[i]);
        bool empty = v && (json_object_is_type(v, json_type_string)
                               ? json_object_get_string_len(v) == 0
                               : json_object_get_int64(v) == 0);
        if (empty) {
            json_object_object_del(t, tunes[i]);
        } else if (v) {
            api_json_set(t, tunes[i], json_object_get(v));
        }
    }
}

void lv_do_domain_set_iotune(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);
    struct json_object *params, *t;
    char name[80];
    int at = lv_disk(c, vm, lv_str(c, "disk"));

    if (at < 0 || !lv_only(c, tunes)) {
        return;
    }
    t = throttle_of(vm, at);
    merge_tune(c, t);
    lv_disk_name(vm, at, name, sizeof(name));
    params = lv_vm(c);
    api_json_set_str(params, "disk", name);
    api_json_set(params, "throttle", t);
    lv_ask(c, "domain", "disk.throttle", params, lv_done);
}

/* --- bandwidth of cards --------------------------------------------------------------------------------- */

static const char *const widths[] = { "inbound.average",
                                      "inbound.peak",
                                      "inbound.burst",
                                      "outbound.average",
                                      "outbound.peak",
                                      "outbound.burst",
                                      NULL };

static void on_width(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = lv_the_vm(c);
    struct json_object *list;
    int at = lv_nic(c, vm, lv_str(c, "device"));

    (void)info;
    if (at < 0) {
        return;
    }
    AUTO_JSON config = lv_config(vm);
    struct json_object *nic = json_object_array_get_idx(api_json_get(config, "nics"),
                                                        (size_t)at);
    list = json_object_new_array();
    for (unsigned i = 0; widths[i]; i++) {
        struct json_object *way = api_json_get(nic, i < 3 ? "inbound" : "outbound");
        lv_param(list, widths[i], 'u',
                 api_json_get_int(way, strchr(widths[i], '.') + 1, 0) / 1024);
    }
    lv_reply_params(c, list);
}

void lv_do_domain_interface_parameters(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_width);
}

/* Of one way: what is given over what the card had; NULL: no limit. */
static struct json_object *width_of(struct lv_call *c, struct json_object *nic, unsigned first)
{
    struct json_object *was = api_json_get(nic, first ? "outbound" : "inbound"),
                       *o = json_object_new_object();

    for (unsigned i = first; i < first + 3; i++) {
        const char *member = strchr(widths[i], '.') + 1;
        struct json_object *v = lv_given(c, widths[i]);
        int64_t n = v ? lv_bytes(json_object_get_int64(v)) : api_json_get_int(was, member, 0);
        if (n > 0) {
            api_json_set_int(o, member, n);
        }
    }
    if (json_object_object_length(o) == 0) {
        json_object_put(o);
        return NULL;
    }
    return o;
}

static bool gives(struct lv_call *c, unsigned first)
{
    return lv_given(c, widths[first]) || lv_given(c, widths[first + 1]) ||
           lv_given(c, widths[first + 2]);
}

static void then_define(struct lv_call *c, struct json_object *result)
{
    (void)result;
    lv_change(c, "nics", json_object_get(c->kept));
}

void lv_do_domain_set_interface_parameters(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);
    int at = lv_nic(c, vm, lv_str(c, "device"));
    struct json_object *params, *nic, *way;
    bool live, config;
    char name[80];

    if (at < 0 || !lv_only(c, widths) || !lv_where(c, vm, &live, &config)) {
        return;
    }
    AUTO_JSON definition = lv_config(vm);
    c->kept = json_object_get(api_json_get(definition, "nics"));
    nic = json_object_array_get_idx(c->kept, (size_t)at);
    lv_nic_name(vm, at, name, sizeof(name));
    params = lv_vm(c);
    api_json_set_str(params, "nic", name);
    for (unsigned i = 0; i < 6; i += 3) {
        if (!gives(c, i)) {
            continue;
        }
        way = width_of(c, nic, i);
        api_json_set(params, i ? "outbound" : "inbound",
                     way ? json_object_get(way) : json_object_new_object());
        json_object_object_del(nic, i ? "outbound" : "inbound");
        if (way) {
            api_json_set(nic, i ? "outbound" : "inbound", way);
        }
    }
    if (live) {
        lv_ask(c, "domain", "network.port", params, config ? then_define : lv_done);
    } else {
        json_object_put(params);
        then_define(c, NULL);
    }
}

/* --- memory, vCPUs ---------------------------------------------------------------------------------------- */

void lv_do_domain_set_max_memory(struct lv_call *c)
{
    lv_change(c, "memory", json_object_new_int64(lv_bytes(lv_int(c, "memory"))));
}

void lv_do_domain_set_stats_period(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);
    int64_t ms = lv_int(c, "period") * 1000;
    struct json_object *params, *balloon;
    bool live, config;

    if (ms < 0 || !lv_where(c, vm, &live, &config)) {
        if (ms < 0) {
            lv_fail(c, LV_E_INVALID_ARG, "a period is not negative");
        }
        return;
    }
    if (config && live) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "say --live or --config, one at a time");
    } else if (config) {
        if (!vm || !vm->config.balloon) {
            lv_fail(c, LV_E_OPERATION_INVALID, "the domain has no memory balloon");
            return;
        }
        balloon = api_encode(&api_type_balloon, vm->config.balloon);
        api_json_set_int(balloon, "period", ms);
        lv_change(c, "balloon", balloon);
    } else {
        params = lv_vm(c);
        api_json_set_int(params, "period", ms);
        lv_ask(c, "domain", "vm.balloon", params, lv_done);
    }
}

enum { VCPU_MAXIMUM = 4, VCPU_GUEST = 8 };

/* As many as there are at most: vCPUs neither come nor go while a guest runs. */
void lv_do_domain_set_vcpus(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);
    bool live, config;

    if (lv_int(c, "flags") & ~(LV_LIVE | LV_CONFIG | VCPU_MAXIMUM)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "vCPUs are set in the definition; those that a guest uses by 'guestvcpus'");
    } else if (lv_where(c, vm, &live, &config)) {
        if (live) {
            lv_fail(
                c, LV_E_OPERATION_INVALID,
                "vCPUs neither come nor go while a guest runs: --config sets them for the next "
                "start");
            return;
        }
        lv_change(c, "cpus", json_object_new_int64(lv_int(c, "nvcpus")));
    }
}

static void on_guest_vcpus(struct lv_call *c, struct json_object *result)
{
    struct json_object *list = api_json_get(result, "result");
    int64_t n = 0;

    for (size_t i = 0;
         json_object_is_type(list, json_type_array) && i < json_object_array_length(list);
         i++) {
        n += api_json_get_bool(json_object_array_get_idx(list, i), "online", false);
    }
    lv_reply_int(c, "num", n);
}

static void on_vcpus(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = lv_the_vm(c);

    if ((lv_int(c, "flags") & LV_LIVE) && !(vm && lv_active(vm->state))) {
        lv_fail(c, LV_E_OPERATION_INVALID, "the domain is not running");
    } else {
        lv_reply_int(c, "num", api_json_get_int(info, "cpus", 1));
    }
}

void lv_do_domain_vcpu_count(struct lv_call *c)
{
    if (lv_int(c, "flags") & VCPU_GUEST) {
        lv_agent(c, "guest-get-vcpus", NULL, on_guest_vcpus);
    } else {
        lv_ask(c, "domain", "vm.get", lv_vm(c), on_vcpus);
    }
}

/* --- what follows on a crash ------------------------------------------------------------------------------ */

void lv_do_domain_set_lifecycle(struct lv_call *c)
{
    enum { POWEROFF, REBOOT, CRASH };
    enum { DESTROY, RESTART };
    int64_t type = lv_int(c, "type"), action = lv_int(c, "action");
    const struct vm *vm = lv_the_vm(c);
    struct json_object *restart;

    if (type != CRASH || action > RESTART) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "what follows on a crash can be set: 'destroy' or 'restart'");
        return;
    }
    restart = vm && vm->config.restart
                  ? api_encode(&api_type_restart_policy, vm->config.restart)
                  : json_object_new_object();
    api_json_set_str(restart, "mode", action == RESTART ? "on-failure" : "never");
    lv_change(c, "restart", restart);
}
