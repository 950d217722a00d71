/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the copies of a VM are to be: definitions with what belongs to one VM alone made anew, and the files that they need. Loop thread.
 */
#include "daemon/vm/fork.h"

#include "api-schema/json/codec.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/vm/preflight.h"
#include "daemon/vm/snapshot.h"
#include "daemon/vm/supply.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MARK ".fork-"

bool fork_is_written(const struct api_disk *disk)
{
    return !disk->readonly && !disk->cdrom;
}

static bool cannot(struct api_error *x, const char *object, const char *remedy, const char *fmt,
                   ...) __attribute__((format(printf, 4, 5)));

static bool cannot(struct api_error *x, const char *object, const char *remedy, const char *fmt,
                   ...)
{
    va_list ap;

    va_start(ap, fmt);
    api_error_vset(x, API_E_UNSUPPORTED, object, remedy, fmt, ap);
    va_end(ap);
    return false;
}

/* ---- what cannot be copied ---- */

static bool disks_may(const struct api_vm_config *config, struct api_error *x)
{
    for (size_t i = 0; i < config->n_disks; i++) {
        const struct api_disk *disk = &config->disks[i];

        if (fork_is_written(disk) && (!disk->file || disk->file[0] != '/')) {
            return cannot(x, disk->name, "attach it read-only, or copy it to a file",
                          "disk '%s' is %s: overlays are made of files alone", disk->name,
                          disk->file ? "no local file" : "a volume of a pool");
        }
    }
    for (size_t i = 0; i < config->n_flash; i++) {
        if (!config->flash[i].readonly) {
            return cannot(x, config->flash[i].file, "attach it read-only",
                          "bank %zu of flash is written, and copies cannot share it", i);
        }
    }
    return true;
}

bool fork_may(const struct vm *vm, struct api_error *x)
{
    if (!vm_is_live(vm)) {
        api_error_set(x, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                      "VM '%s' is %s", vm->config.name, api_vm_state_name(vm->state));
        return false;
    }
    if (vm->moving) {
        api_error_set(x, API_E_BAD_STATE, vm->config.name, "'vmctl migrate list' shows it",
                      "VM '%s' %s", vm->config.name, vm->moving);
        return false;
    }
    if (vm->restart_needed) {
        api_error_set(
            x, API_E_BAD_STATE, vm->config.name, "restart it",
            "VM '%s' runs with a former definition, and copies are made by the new one",
            vm->config.name);
        return false;
    }
    if (snapshots_any(vm)) {
        return cannot(x, vm->config.name, "delete them",
                      "VM '%s' has snapshots, inside images that its copies would stand on",
                      vm->config.name);
    }
    for (size_t i = 0; i < vm->config.n_shares; i++) {
        if (vm->config.shares[i].socket) {
            return cannot(x, vm->config.shares[i].tag, "detach it",
                          "shared folder '%s' is served by a program that vmd did not start",
                          vm->config.shares[i].tag);
        }
    }
    return disks_may(&vm->config, x);
}

/* ---- one copy's definition ---- */

/* tcp:[ADDRESS]:PORT-...: the host's port by the table; NULL: it is not in it. The caller's. */
static char *forward_of(const char *forward, const struct api_vm_fork_in *in, size_t number)
{
    const char *end = strchr(forward, '-'), *colon = end;

    while (colon && colon > forward && *colon != ':') {
        colon--;
    }
    for (size_t i = 0; colon && i < in->n_ports; i++) {
        int64_t port = in->ports[i].to + (int64_t)number;

        if (atoll(colon + 1) == in->ports[i].from && port <= 65535) {
            return xasprintf("%.*s:%lld%s", (int)(colon - forward), forward, (long long)port,
                             end);
        }
    }
    return NULL;
}

static char *template_of(const char *text, const char *name, size_t number)
{
    AUTO_BUF out = BUF_INIT;

    for (const char *p = text; *p;) {
        if (str_starts(p, "{name}")) {
            buf_add_str(&out, name);
            p += 6;
        } else if (str_starts(p, "{n}")) {
            buf_printf(&out, "%zu", number + 1);
            p += 3;
        } else {
            buf_add_char(&out, *p++);
        }
    }
    return xstrdup(out.data ? out.data : "");
}

static bool copy_nic(struct api_nic *nic, const struct api_vm_fork_in *in, const char *name,
                     size_t number, struct api_error *x)
{
    size_t kept = 0;

    free(take_ptr(nic->mac));
    for (size_t i = 0; i < nic->n_forward; i++) {
        char *forward = forward_of(nic->forward[i], in, number);

        free(nic->forward[i]);
        if (forward) {
            nic->forward[kept++] = forward;
        }
    }
    nic->n_forward = kept;
    if (nic->type == API_NIC_TYPE_STREAM || nic->type == API_NIC_TYPE_DGRAM ||
        nic->type == API_NIC_TYPE_VHOST_USER) {
        return cannot(x, nic->name, "detach it",
                      "card '%s' is connected to a socket, which has one end", nic->name);
    }
    if (nic->ifname) {
        const char *to = NULL;

        for (size_t i = 0; i < in->n_taps; i++) {
            to = strcmp(in->taps[i].from, nic->ifname) == 0 ? in->taps[i].to : to;
        }
        if (!to && nic->type == API_NIC_TYPE_TAP) {
            return cannot(x, nic->ifname, "say which it gets: --tap NAME,to=NAME{n}",
                          "the copies need interfaces of their own in place of '%s'",
                          nic->ifname);
        }
        free(nic->ifname);
        nic->ifname = to ? template_of(to, name, number) : NULL;
    }
    if (nic->type != API_NIC_TYPE_USER) {
        nic->link = false; /* its guest still uses the source's address */
    }
    return true;
}

/* Without a former fork's mark: the names do not grow. */
static int stem(const char *file)
{
    const char *mark = strstr(file, MARK), *last = NULL;

    for (; mark; mark = strstr(mark + 1, MARK)) {
        last = mark;
    }
    return last && strlen(last) == strlen(MARK) + 8 ? (int)(last - file) : (int)strlen(file);
}

static char *overlay_of(const struct fork_disk *disk, const struct api_vm_fork_in *in,
                        const char *name, size_t number)
{
    for (size_t i = 0; i < in->n_disks; i++) {
        if (strcmp(in->disks[i].disk, disk->name) == 0) {
            return template_of(in->disks[i].file, name, number);
        }
    }
    return xasprintf("%.*s.%s", stem(disk->file), disk->file, name);
}

/* Owned by the caller, also when it fails. */
static bool copy_config(struct fork *k, const struct vm *vm, const struct api_vm_fork_in *in,
                        size_t number, struct api_vm_config *out, struct api_error *x)
{
    struct fork_copy *copy = &k->copy[number];
    size_t at = 0;

    api_copy(&api_type_vm_config, &vm->config, out);
    free(out->name);
    out->name = xasprintf("%s-%zu", in->prefix ? in->prefix : vm->config.name, number + 1);
    free(take_ptr(out->uuid));
    if (out->autostart) {
        api_release(&api_type_autostart, out->autostart);
        free(take_ptr(out->autostart));
    }
    copy->over = xnew_n(char *, k->n_disks + 1);
    for (size_t i = 0; i < out->n_disks; i++) {
        struct api_disk *disk = &out->disks[i];

        if (fork_is_written(disk)) {
            copy->over[at] = overlay_of(&k->disk[at], in, out->name, number);
            free(disk->file);
            disk->file = xstrdup(copy->over[at++]);
            disk->format = API_DISK_FORMAT_QCOW2;
        }
    }
    for (size_t i = 0; i < out->n_nics; i++) {
        if (!copy_nic(&out->nics[i], in, out->name, number, x)) {
            return false;
        }
    }
    return true;
}

/* ---- all of it ---- */

static void plan_disks(struct fork *k, const struct vm *vm)
{
    uint32_t mark = 0;

    (void)!getrandom(&mark, sizeof(mark), 0);
    k->disk = xnew_n(struct fork_disk, vm->config.n_disks + 1);
    for (size_t i = 0; i < vm->config.n_disks; i++) {
        const struct api_disk *disk = &vm->config.disks[i];

        if (fork_is_written(disk)) {
            k->disk[k->n_disks++] = (struct fork_disk){
                .name = xstrdup(disk->name),
                .file = xstrdup(disk->file),
                .over = xasprintf("%.*s" MARK "%08x", stem(disk->file), disk->file, mark),
                .format = disk->format,
                .fd = -1,
            };
        }
    }
}

static bool plan_copy(struct fork *k, struct api_call *call, const struct vm *vm,
                      const struct api_vm_fork_in *in, size_t number, struct api_error *x)
{
    struct api_vm_config config = { .name = NULL };
    bool ok = copy_config(k, vm, in, number, &config, x) &&
              preflight_define(k->d, &config, x) >= 0 &&
              access_config(call, &config, API_ROLE_OPERATOR, x) >= 0 &&
              supply_quota(k->d, &config, NULL, x) >= 0;

    if (ok) {
        k->copy[number].k = k;
        k->copy[number].vm = vm_new(k->d, &config, api_call_peer(call)->principal, false)->id;
    }
    api_release(&api_type_vm_config, &config);
    return ok;
}

bool fork_plan(struct fork *k, struct api_call *call, const struct vm *vm,
               const struct api_vm_fork_in *in, struct api_error *x)
{
    bool ok = true;

    plan_disks(k, vm);
    for (size_t i = 0; i < k->n_disks && ok; i++) {
        ok = access_file(call, vm->config.project, "file", k->disk[i].over, x) >= 0;
    }
    k->n_copies = (size_t)in->count;
    k->copy = xnew_n(struct fork_copy, k->n_copies);
    for (size_t i = 0; i < k->n_copies && ok; i++) {
        ok = plan_copy(k, call, vm, in, i, x);
    }
    return ok;
}
