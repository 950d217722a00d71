/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files for an emulator that runs (give.h). Owns struct give while one is under way, and its descriptors. Loop thread.
 */
#include "daemon/run/give.h"

#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/run.h"
#include "daemon/run/spawner.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define GIVE_NS INT64_C(20000000000)

struct give {
    struct run *run; /* NULL once it has ended */
    char *vm;        /* name, for messages */
    struct json_object *images;
    int *fds;
    unsigned n, next; /* descriptors in all; the first that was not handed over yet */
    given_fn *fn;
    void *arg;
};

struct json_object *give_file(const char *what, const char *path, const char *format,
                              bool write)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "key", path);
    api_json_set_str(o, "path", path);
    api_json_set_str(o, "what", what);
    api_json_set_bool(o, "disk", format != NULL);
    api_json_set_bool(o, "write", write);
    if (format) {
        api_json_set_str(o, "format", format);
    }
    return o;
}

static void finish(struct give *g, const struct api_error *x)
{
    if (g->run) {
        run_on_end_cancel(g->run, g);
    }
    for (unsigned i = g->next; i < g->n; i++) {
        close(g->fds[i]);
    }
    g->fn(g->arg, x);
    json_object_put(g->images);
    free(g->fds);
    free(g->vm);
    free(g);
}

static void ended(struct give *g)
{
    struct api_error x = API_ERROR_INIT;
    api_error_set(&x, API_E_BAD_STATE, g->vm, "start it again",
                  "VM '%s' ended while it was given files", g->vm);
    finish(g, &x);
}

/* Whoever was asked last still answers, and then finds out, but for the emulator. */
static void on_end(void *arg, struct vm *vm, bool gone)
{
    struct give *g = arg;
    (void)vm;
    (void)gone;
    g->run = NULL;
    if (g->images) {
        ended(g);
    }
}

static void on_dropped(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

static void hand_over(struct give *g);

/* What the emulator has of this file already would be in the way the next time. */
static void drop_last(struct give *g)
{
    for (unsigned i = 0; i < g->next; i++) {
        struct json_object *o = json_object_array_get_idx(g->images, i);
        if (strcmp(api_json_get_str(o, "role"), "file") == 0) {
            struct json_object *in = json_object_new_object();
            api_json_set_str(in, "path", api_json_get_str(o, "key"));
            run_call_with(g->run, "emu.file_drop", in, GIVE_NS, on_dropped, NULL);
        }
    }
}

static void on_added(void *arg, struct json_object *result, const struct api_error *x)
{
    struct give *g = arg;
    (void)result;
    if (!g->run) {
        ended(g);
    } else if (x) {
        drop_last(g);
        finish(g, x);
    } else {
        hand_over(g);
    }
}

static void hand_over(struct give *g)
{
    if (g->next == g->n) {
        finish(g, NULL);
        return;
    }
    struct json_object *o = json_object_array_get_idx(g->images, g->next);
    struct json_object *in = json_object_new_object();
    const char *role = api_json_get_str(o, "role");
    bool file = strcmp(role, "file") == 0;
    int fd = g->fds[g->next++];
    api_json_set_str(in, "role", role);
    api_json_set_str(in, "path", api_json_get_str(o, file ? "key" : "path"));
    if (strcmp(role, "backing") == 0) {
        api_json_set_str(in, "format", api_json_get_str(o, "format"));
    }
    if (!run_call_fd(g->run, "emu.file_add", in, fd, GIVE_NS, on_added, g)) {
        struct api_error x = API_ERROR_INIT;
        api_error_set(&x, API_E_BAD_STATE, g->vm, "try again", "VM '%s' cannot be reached now",
                      g->vm);
        finish(g, &x);
    }
}

static void on_opened(void *arg, struct json_object *images, int *take_fds, unsigned n,
                      const char *path, const struct err *e)
{
    struct give *g = arg;
    if (e) {
        struct api_error x = API_ERROR_INIT;
        api_error_set(&x,
                      path[0]                 ? API_E_FILE_ERROR
                      : e->code == -ECANCELED ? API_E_CANCELLED
                                              : API_E_INTERNAL_ERROR,
                      path[0] ? path : g->vm,
                      path[0] ? "mend the file or name another" : "try again", "VM '%s': %s",
                      g->vm, e->msg);
        finish(g, &x);
        return;
    }
    g->images = json_object_get(images);
    g->fds = xmemdup(take_fds, n * sizeof(int));
    g->n = n;
    if (!g->run) {
        ended(g);
        return;
    }
    hand_over(g);
}

void give_files(struct run *run, struct json_object *take_list, given_fn *fn, void *arg)
{
    struct give *g = xnew(struct give);
    *g = (struct give){ .run = run, .vm = xstrdup(run->vm->config.name), .fn = fn, .arg = arg };
    run_on_end(run, on_end, g);
    spawner_open(run->d->spawner, g->vm, take_list, on_opened, g);
}
