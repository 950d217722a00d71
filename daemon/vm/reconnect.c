/* SPDX-License-Identifier: Apache-2.0 */
/* Connections for disks whose NBD server was lost (reconnect.h). Owns one struct attempt while it lasts. Loop thread. */
#include "daemon/vm/reconnect.h"

#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/give.h"
#include "daemon/run/run.h"
#include "daemon/run/supervise.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <string.h>

#define RECONNECT_NS INT64_C(20000000000)

struct attempt {
    struct run *run; /* lives until the emulator has the connection, see give_files() */
    char *vm, *disk, *file;
};

static void attempt_free(struct attempt *a)
{
    free(a->vm);
    free(a->disk);
    free(a->file);
    free(a);
}

static void on_done(void *arg, struct json_object *result, const struct api_error *x)
{
    struct attempt *a = arg;
    (void)result;
    if (x) {
        log_warn("vmd", "VM '%s': disk '%s' is not connected again: %s", a->vm, a->disk,
                 x->message);
    } else {
        log_info("vmd", "VM '%s': disk '%s' is connected again", a->vm, a->disk);
    }
    attempt_free(a);
}

static void on_given(void *arg, const struct api_error *x)
{
    struct attempt *a = arg;
    if (x) {
        on_done(a, NULL, x);
        return;
    }
    struct json_object *in = json_object_new_object();
    api_json_set_str(in, "disk", a->disk);
    api_json_set_str(in, "file", a->file);
    if (!run_call_with(a->run, "emu.disk_reconnect", in, RECONNECT_NS, on_done, a)) {
        struct api_error gone = API_ERROR_INIT;
        api_error_set(&gone, API_E_BAD_STATE, a->vm, "try again", "it cannot be reached now");
        on_done(a, NULL, &gone);
    }
}

void reconnect_learn(struct run *run, const struct api_disk *disk)
{
    if (!nbd_addr_is(disk->file)) {
        return;
    }
    for (size_t i = 0; i < run->n_far; i++) {
        if (strcmp(run->far[i].name, disk->name) == 0) { /* that one is gone */
            api_release(&api_type_disk, &run->far[i]);
            api_copy(&api_type_disk, disk, &run->far[i]);
            return;
        }
    }
    run->far = xrealloc_n(run->far, run->n_far + 1, sizeof(*run->far));
    api_copy(&api_type_disk, disk, &run->far[run->n_far++]);
}

void reconnect_forget(struct run *run)
{
    for (size_t i = 0; i < run->n_far; i++) {
        api_release(&api_type_disk, &run->far[i]);
    }
    free(run->far);
}

static const struct api_disk *find(const struct api_disk *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].name && strcmp(list[i].name, name) == 0 && nbd_addr_is(list[i].file)) {
            return &list[i];
        }
    }
    return NULL;
}

void reconnect_disk(struct run *run, const char *disk)
{
    const struct api_vm_config *c = &run->vm->config;
    const struct api_disk *k = find(run->far, run->n_far, disk);
    k = k ? k : find(c->disks, c->n_disks, disk);
    if (!k) {
        return;
    }
    struct attempt *a = xnew(struct attempt);
    struct json_object *list = json_object_new_array();
    AUTO_FREE char *what = xasprintf("disk '%s'", disk);
    *a = (struct attempt){
        .run = run, .vm = xstrdup(c->name), .disk = xstrdup(disk), .file = xstrdup(k->file)
    };
    json_object_array_add(list, give_file(what, k->file, api_disk_format_name(k->format),
                                          !k->readonly && !k->cdrom));
    give_files(run, list, on_given, a);
}
