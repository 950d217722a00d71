/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that go with a VM, at the source: which they are, what the other daemon is told of them, progress. Part of struct
 * migrate_out. Loop thread.
 */
#include "daemon/vm/migrate_out.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "engine/base/mem.h"

#include <string.h>

#define LOOK_NS INT64_C(20000000000)

void migrate_out_disks_take(struct migrate_out *k, const struct api_migrate_start_in *in)
{
    k->copies = in->copy_storage_all || in->copy_storage_inc;
    k->folder = in->disk_folder ? xstrdup(in->disk_folder) : NULL;
    k->only = xnew_n(char *, in->n_migrate_disks + 1);
    for (size_t i = 0; i < in->n_migrate_disks; i++) {
        k->only[k->n_only++] = xstrdup(in->migrate_disks[i]);
    }
}

void migrate_out_disks_free(struct migrate_out *k)
{
    for (size_t i = 0; i < k->n_only; i++) {
        free(k->only[i]);
    }
    for (unsigned i = 0; i < k->n_disks; i++) {
        free(k->disk[i].name);
        free(k->disk[i].backing);
        free(k->disk[i].backing_format);
    }
    free(take_ptr(k->only));
    free(take_ptr(k->folder));
    k->n_only = k->n_disks = 0;
}

/* ---- which ---- */

static bool is_named(const struct migrate_out *k, const char *name)
{
    for (size_t i = 0; i < k->n_only; i++) {
        if (strcmp(k->only[i], name) == 0) {
            return true;
        }
    }
    return k->n_only == 0;
}

static const struct api_emu_migrate_disk *find(const struct api_emu_migrate_disks_out *out,
                                               const char *name)
{
    for (size_t i = 0; i < out->n_disks; i++) {
        if (strcmp(out->disks[i].name, name) == 0) {
            return &out->disks[i];
        }
    }
    return NULL;
}

static bool take_one(struct migrate_out *k, const struct api_disk *disk,
                     const struct api_emu_migrate_disk *seen)
{
    struct migrate_out_disk *to = &k->disk[k->n_disks];
    if (!seen || seen->stays) {
        migrate_out_why(k, API_E_BAD_STATE, "wait for it, end it, or leave the disk out",
                        "disk '%s' of VM '%s' cannot be copied: %s", disk->name, k->name,
                        seen ? seen->stays : "its emulator does not have it");
        return false;
    }
    if (k->n_disks == PEER_LANES - 1) {
        migrate_out_why(k, API_E_UNSUPPORTED, NULL, "VM '%s': at most %d disks go with a VM",
                        k->name, PEER_LANES - 1);
        return false;
    }
    *to = (struct migrate_out_disk){ .name = xstrdup(disk->name),
                                     .size = seen->size,
                                     .used = seen->used };
    if (k->in.copy_storage_inc && seen->backing) {
        to->backing = xstrdup(seen->backing);
        to->backing_format = seen->backing_format ? xstrdup(seen->backing_format) : NULL;
    } else {
        to->used = seen->used_all;
    }
    k->n_disks++;
    return true;
}

static bool choose(struct migrate_out *k, const struct api_emu_migrate_disks_out *out)
{
    const struct vm *vm = migrate_out_vm(k);
    size_t found = 0;
    for (size_t i = 0; i < vm->config.n_disks; i++) {
        const struct api_disk *disk = &vm->config.disks[i];
        if (disk->readonly || disk->cdrom || !disk->name || !is_named(k, disk->name)) {
            continue;
        }
        found++;
        if (!take_one(k, disk, find(out, disk->name))) {
            return false;
        }
    }
    if (found < k->n_only) {
        migrate_out_why(k, API_E_NOT_FOUND, "'vmctl show' tells the names of disks",
                        "not all of the named disks are disks that VM '%s' writes", k->name);
        return false;
    }
    if (k->in.streams + k->n_disks > PEER_LANES) {
        k->in.streams = PEER_LANES - k->n_disks;
    }
    return true;
}

static void on_disks(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    struct api_emu_migrate_disks_out out;
    if (!migrate_out_answered(k) || k->step != FIT) {
        return;
    }
    if (x ||
        api_decode(&api_type_emu_migrate_disks_out, result, API_LENIENT, "", &out, NULL) != 0) {
        migrate_out_emulator(k, x);
        return;
    }
    bool fine = choose(k, &out);
    api_release(&api_type_emu_migrate_disks_out, &out);
    if (fine) {
        migrate_out_dial(k);
    } else {
        migrate_out_fail(k);
    }
}

void migrate_out_disks_look(struct migrate_out *k)
{
    struct vm *vm = migrate_out_vm(k);
    if (!vm || !vm->run ||
        !migrate_out_asked(k, run_call(vm->run, "emu.migrate_disks", LOOK_NS, on_disks, k))) {
        migrate_out_emulator(k, NULL);
    }
}

/* ---- what the other daemon is told ---- */

void migrate_out_disks_tell(const struct migrate_out *k, struct json_object *prepare)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < k->n_disks; i++) {
        const struct migrate_out_disk *disk = &k->disk[i];
        const struct api_migrate_disk out = { .name = disk->name,
                                              .size = disk->size,
                                              .used = disk->used,
                                              .backing = disk->backing,
                                              .backing_format = disk->backing_format };
        json_object_array_add(list, api_encode(&api_type_migrate_disk, &out));
    }
    api_json_set(prepare, "disks", list);
    if (k->folder) {
        api_json_set_str(prepare, "disk_folder", k->folder);
    }
    api_json_set_bool(prepare, "reuse_images", k->in.reuse_images);
}

const struct migrate_out_disk *migrate_out_disk_of(const struct migrate_out *k, unsigned number)
{
    unsigned streams = (unsigned)k->in.streams;
    return number >= streams && number < streams + k->n_disks ? &k->disk[number - streams]
                                                              : NULL;
}

/* ---- progress ---- */

void migrate_out_progress(struct migrate_out *k, struct json_object *status)
{
    const struct vm *vm = migrate_out_vm(k);
    struct job *job = job_find(k->d, k->job);
    int64_t memory = api_json_get_int(status, "total", 0),
            disks = api_json_get_int(status, "disk_total", 0),
            left = api_json_get_int(status, "disk_remaining", 0);
    if (!job || !vm || (memory == 0 && disks == 0)) {
        return;
    }
    left += k->step == FOLLOW ? vm->config.memory : api_json_get_int(status, "remaining", 0);
    memory = k->step == FOLLOW ? vm->config.memory : memory;
    k->rounds = k->step == FOLLOW ? 0 : api_json_get_int(status, "rounds", 0);
    struct change *c = change_new(k->d);
    job->info.total = memory + disks;
    job_progress(job, c, memory + disks > left ? memory + disks - left : 0);
    change_commit(c, NULL, NULL);
}
