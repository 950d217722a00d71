/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs "disk.transaction". Their result names the overlays. Owns struct intent: one for each that the last daemon left at work,
 * until the emulator has said which images the disks stand on. Loop thread.
 */
#include "daemon/vm/disk_intent.h"

#include "api-schema/gen/types.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/blockjobs.h"
#include "daemon/waits.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <string.h>
#include <sys/stat.h>

#define KIND "disk.transaction"
#define LOOK_NS INT64_C(300000000)
#define ASK_NS INT64_C(20000000000)
/* Of an emulator that may still be at it. */
#define LOOKS 10

struct intent {
    struct list link; /* vmd.dintents */
    struct vmd *d;
    int64_t job;
    unsigned looks;
    struct loop_timer *tick;
};

struct json_object *disk_intent_of(const struct api_disk_action *a)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "disk", a->disk);
    api_json_set_str(o, "file", a->file);
    api_json_set_str(
        o, "format",
        api_disk_format_name(a->has_image_format ? a->image_format : API_DISK_FORMAT_QCOW2));
    api_json_set_bool(o, "reuse", a->reuse);
    return o;
}

int64_t disk_intent_begin(struct vm *vm, struct change *c, struct json_object *take_overlays,
                          int64_t owner)
{
    struct job *job = job_new(vm->d, c, KIND, vm->config.uuid, vm->config.name,
                              (int64_t)json_object_array_length(take_overlays), "disks", owner,
                              NULL);

    job->info.result = json_object_new_object();
    api_json_set(job->info.result, "overlays", take_overlays);
    job_progress(job, c, 0);
    return job->info.job;
}

void disk_intent_end(struct vmd *d, int64_t number, struct change *c, const struct api_error *x)
{
    struct job *job = job_find(d, number);

    if (job) {
        struct json_object *result = take_ptr(job->info.result);

        change_must_tell(c);
        job_end(d, job, c, x, result);
    }
}

/* ---- what the last daemon left ---- */

static void intent_free(struct intent *k)
{
    list_remove(&k->link);
    loop_timer_free(k->tick);
    free(k);
}

static struct json_object *overlays_of(const struct job *job)
{
    struct json_object *list = api_json_get(job->info.result, "overlays");

    return json_object_is_type(list, json_type_array) ? list : NULL;
}

static const char *file_of(const struct api_emu_blocks_out *now, const char *disk)
{
    for (size_t i = 0; disk && i < now->n_blocks; i++) {
        if (strcmp(now->blocks[i].name, disk) == 0) {
            return now->blocks[i].file;
        }
    }
    return NULL;
}

/* Without an emulator that could tell: what it had not written yet it did not stand on. And where it did not go on with an
 * overlay that it wrote, that is empty, and reads as the image below, whatever was written there. */
static bool is_written(struct json_object *overlay, const char *file)
{
    struct stat st;

    return !api_json_get_bool(overlay, "reuse", false) && stat(file, &st) == 0 &&
           (S_ISBLK(st.st_mode) || st.st_size > 0);
}

static bool take(struct vm *vm, struct json_object *overlay,
                 const struct api_emu_blocks_out *now)
{
    const char *name = api_json_get_str(overlay, "disk");
    const char *file = api_json_get_str(overlay, "file");
    const char *word = api_json_get_str(overlay, "format");
    int format = word ? api_enum_value(&api_type_disk_format, word) : -1;
    const char *is = now ? file_of(now, name) : NULL;

    if (!name || !file || format < 0 ||
        !(now ? is && strcmp(is, file) == 0 : is_written(overlay, file))) {
        return false;
    }
    for (size_t i = 0; i < vm->config.n_disks; i++) {
        struct api_disk *disk = &vm->config.disks[i];

        if (disk->name && strcmp(disk->name, name) == 0) {
            log_warn("daemon",
                     "VM '%s': disk '%s' goes on with '%s', as was begun before vmd ended",
                     vm->config.name, name, file);
            if (now && vm->run && !run_has_ended(vm->run) && disk->file &&
                disk->file[0] == '/') {
                run_disk_covered_at(vm->run, disk->file, file);
            }
            disk_takes_file(disk, file, (enum api_disk_format)format);
            return true;
        }
    }
    return false;
}

/* now NULL: the emulator has gone. False: no disk stands on its overlay. */
static bool conclude(struct vmd *d, struct job *job, const struct api_emu_blocks_out *now,
                     bool last)
{
    struct vm *vm = job->info.vm ? vm_find(d, job->info.vm, false) : NULL;
    struct json_object *list = overlays_of(job);
    struct api_error x = API_ERROR_INIT;
    struct change *c;
    size_t taken = 0;

    for (size_t i = 0; vm && list && i < json_object_array_length(list); i++) {
        taken += take(vm, json_object_array_get_idx(list, i), now);
    }
    if (taken == 0 && !last) {
        return false;
    }
    c = change_new(d);
    if (taken) {
        vm_put(vm, c);
        vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, NULL, NULL);
    } else {
        api_error_set(&x, API_E_CANCELLED, job->info.name, "begin it again",
                      "vmd ended before the disks had their overlays");
    }
    disk_intent_end(d, job->info.job, c, taken ? NULL : &x);
    wait_job_end(d, job->info.job, c);
    return true;
}

struct ticket {
    struct vmd *d;
    int64_t job;
};

static struct intent *find(struct vmd *d, int64_t job)
{
    list_for_each (it, &d->dintents) {
        struct intent *k = list_entry(it, struct intent, link);

        if (k->job == job) {
            return k;
        }
    }
    return NULL;
}

static void on_blocks(void *arg, struct json_object *result, const struct api_error *x)
{
    struct ticket *t = arg;
    struct intent *k = find(t->d, t->job);
    struct job *job = k ? job_find(k->d, k->job) : NULL;
    struct api_emu_blocks_out out;

    free(t);
    if (!job || x ||
        api_decode(&api_type_emu_blocks_out, result, API_LENIENT, "", &out, NULL) < 0) {
        return; /* the timer asks again */
    }
    if (conclude(k->d, job, &out, ++k->looks >= LOOKS)) {
        intent_free(k);
    }
    api_release(&api_type_emu_blocks_out, &out);
}

static void on_tick(void *arg)
{
    struct intent *k = arg;
    struct job *job = job_find(k->d, k->job);
    struct vm *vm = job && job->info.vm ? vm_find(k->d, job->info.vm, false) : NULL;
    struct ticket *t;

    if (!job || !vm || !vm->run || run_has_ended(vm->run)) {
        if (job) {
            (void)conclude(k->d, job, NULL, true);
        }
        intent_free(k);
        return;
    }
    t = xnew(struct ticket);
    *t = (struct ticket){ .d = k->d, .job = k->job };
    if (!run_call(vm->run, "emu.blocks", ASK_NS, on_blocks, t)) {
        free(t);
    }
    loop_timer_arm(k->tick, LOOK_NS);
}

bool disk_intent_follow(struct vmd *d, struct job *job)
{
    struct vm *vm = job->info.vm ? vm_find(d, job->info.vm, false) : NULL;
    struct intent *k;

    if (!job->info.kind || strcmp(job->info.kind, KIND) != 0) {
        return false;
    }
    if (!vm || !vm->run || run_pid(vm->run) <= 0) {
        return conclude(d, job, NULL, true);
    }
    k = xnew(struct intent);
    *k = (struct intent){ .d = d, .job = job->info.job };
    k->tick = loop_timer_new(d->loop, on_tick, k);
    list_append(&d->dintents, &k->link);
    on_tick(k);
    return true;
}

void disk_intents_end(struct vmd *d)
{
    while (!list_empty(&d->dintents)) {
        intent_free(list_entry(d->dintents.next, struct intent, link));
    }
}
