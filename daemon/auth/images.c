/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uploads, downloads and the threads that do their work on files. Owns the workers and the uploads.
 *
 * A call becomes an op: filled on the loop's thread, run by one worker (those of one upload by the
 * same, in order), answered on the loop's thread. `lock` protects the queues and `done`; an upload's
 * descriptor and position belong to its worker, the rest of it to the loop's thread.
 */
#include "daemon/auth/images.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "api-schema/tls/tls.h"
#include "daemon/auth/access.h"
#include "daemon/auth/image_files.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/run/proc.h"
#include "daemon/registry.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { WORKERS = 4, OPS_MAX = 256, UPLOADS_MAX = 64 };
#define IDLE_NS INT64_C(600000000000)

struct upload {
    struct list link; /* images.uploads */
    int64_t number, principal, total;
    int64_t next; /* offset the next write must have */
    int64_t used_ns;
    unsigned busy; /* ops under way */
    bool broken;   /* a write failed: begin again */
    char name[64], project[64];
    struct image_file file; /* worker */
};
struct op {
    struct list link; /* a worker's queue, then images.done */
    struct images *s;
    struct api_call *call;
    void (*run)(struct op *op);    /* worker: sets code and e, or the outputs */
    void (*answer)(struct op *op); /* loop: when code is 0 */
    struct upload *upload;
    struct image_work w;
    bool failed;
    struct err e;
};
struct worker {
    pthread_t thread;
    pthread_cond_t wake;
    struct list queue;
    struct images *s;
};
struct images {
    struct vmd *d;
    char *dir;
    pthread_mutex_t lock;
    struct worker workers[WORKERS];
    unsigned n_workers;
    struct list done, uploads;
    unsigned n_ops, n_uploads, turn;
    int64_t last;
    bool quit;
};

bool images_may_use(const struct vmd *d, const char *project, const char *path)
{
    AUTO_FREE char *prefix = xasprintf("%s/images/%s/", d->opt.lib, project);
    return str_is_name(project) && str_starts(path, prefix) &&
           str_is_name(path + strlen(prefix));
}

/* ---- workers ---- */

static void op_free(struct op *op)
{
    image_work_done(&op->w);
    free(op);
}

static void finish_op(struct op *op)
{
    struct images *s = op->s;
    s->n_ops--;
    if (op->upload) {
        op->upload->busy--;
        op->upload->used_ns = time_mono_ns();
        op->upload->broken |= op->failed && op->e.code != -EEXIST;
    }
    if (op->failed) {
        int code = op->e.code == -ENOENT                            ? API_E_NOT_FOUND
                   : op->e.code == -EEXIST                          ? API_E_EXISTS
                   : op->e.code == -ENOSPC || op->e.code == -EDQUOT ? API_E_HOST_LIMIT
                                                                    : API_E_FILE_ERROR;
        api_fail_err(op->call, code, op->w.name, image_remedy(op->e.code), &op->e);
    } else {
        op->answer(op);
    }
    op_free(op);
}

/* Loop thread. */
static void deliver(void *arg)
{
    struct images *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        struct op *op = list_empty(&s->done) ? NULL : list_entry(s->done.next, struct op, link);
        if (op) {
            list_remove(&op->link);
        }
        pthread_mutex_unlock(&s->lock);
        if (!op) {
            return;
        }
        finish_op(op);
    }
}

static void *work(void *arg)
{
    struct worker *k = arg;
    struct images *s = k->s;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (list_empty(&k->queue) && !s->quit) {
            pthread_cond_wait(&k->wake, &s->lock);
        }
        if (list_empty(&k->queue)) {
            break;
        }
        struct op *op = list_entry(k->queue.next, struct op, link);
        list_remove(&op->link);
        pthread_mutex_unlock(&s->lock);
        op->run(op);
        pthread_mutex_lock(&s->lock);
        list_append(&s->done, &op->link);
        if (!s->quit) {
            loop_post(s->d->loop, deliver, s);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* When the first op comes: a daemon that keeps no images has no threads for them. */
static bool need_workers(struct images *s)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (s->n_workers < WORKERS) {
        struct worker *k = &s->workers[s->n_workers];
        k->s = s;
        list_init(&k->queue);
        pthread_cond_init(&k->wake, NULL);
        if (pthread_create(&k->thread, NULL, work, k) != 0) {
            pthread_cond_destroy(&k->wake);
            break;
        }
        s->n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return s->n_workers == WORKERS;
}

static struct op *op_new(struct api_call *call, void (*run)(struct op *),
                         void (*answer)(struct op *))
{
    struct images *s = call_daemon(call)->images;
    if (s->n_ops >= OPS_MAX || !need_workers(s)) {
        api_fail(call, API_E_OVERLOAD, NULL, "wait for answers before asking for more",
                 "too many pieces of images are under way");
        return NULL;
    }
    struct op *op = xnew(struct op);
    op->s = s;
    op->call = call;
    op->run = run;
    op->answer = answer;
    op->w.dir = s->dir;
    s->n_ops++;
    return op;
}

static void op_start(struct op *op)
{
    struct images *s = op->s;
    unsigned which = op->upload ? (unsigned)(op->upload->number % WORKERS)
                                : s->turn++ % WORKERS;
    if (op->upload) {
        op->upload->busy++;
    }
    pthread_mutex_lock(&s->lock);
    list_append(&s->workers[which].queue, &op->link);
    pthread_cond_signal(&s->workers[which].wake);
    pthread_mutex_unlock(&s->lock);
}

struct images *images_new(struct vmd *d)
{
    struct images *s = xnew(struct images);
    s->d = d;
    s->dir = xasprintf("%s/images", d->opt.lib);
    pthread_mutex_init(&s->lock, NULL);
    list_init(&s->done);
    list_init(&s->uploads);
    return s;
}

static void upload_free(struct upload *u)
{
    image_close(&u->file);
    list_remove(&u->link);
    free(u);
}

void images_free(struct images *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    for (unsigned i = 0; i < s->n_workers; i++) {
        pthread_cond_signal(&s->workers[i].wake);
    }
    pthread_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < s->n_workers; i++) {
        pthread_join(s->workers[i].thread, NULL);
        pthread_cond_destroy(&s->workers[i].wake);
    }
    while (!list_empty(&s->done)) {
        struct op *op = list_entry(s->done.next, struct op, link);
        list_remove(&op->link);
        api_fail(op->call, API_E_CANCELLED, op->w.name, "call again once vmd is back",
                 "vmd is shutting down");
        op_free(op);
    }
    list_for_each_safe (n, &s->uploads) {
        upload_free(list_entry(n, struct upload, link));
    }
    pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}

/* ---- uploads ---- */

/* Drops those of the same name, and idle ones when there are many; what is on the disk stays. */
static void make_room(struct images *s, const char *project, const char *name)
{
    int64_t now = time_mono_ns();
    list_for_each_safe (n, &s->uploads) {
        struct upload *u = list_entry(n, struct upload, link);
        bool same = strcmp(u->project, project) == 0 && strcmp(u->name, name) == 0;
        if (!u->busy && (same || now - u->used_ns > IDLE_NS || u->broken)) {
            s->n_uploads--;
            upload_free(u);
        }
    }
}

static bool is_open(struct images *s, const char *project, const char *name)
{
    list_for_each (n, &s->uploads) {
        struct upload *u = list_entry(n, struct upload, link);
        if (strcmp(u->project, project) == 0 && strcmp(u->name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void run_begin(struct op *op)
{
    op->failed = image_begin(&op->upload->file, &op->w, &op->e) < 0;
}

static void answer_begin(struct op *op)
{
    struct upload *u = op->upload;
    u->next = op->w.offset;
    api_reply_image_begin(op->call, &(struct api_image_begin_out){ .upload = u->number,
                                                                   .offset = u->next,
                                                                   .chunk = IMAGE_CHUNK });
}

void api_handle_image_begin(struct api_call *call, struct api_image_begin_in *in)
{
    struct vmd *d = call_daemon(call);
    struct images *s = d->images;
    make_room(s, in->project, in->name);
    if (s->n_uploads >= UPLOADS_MAX || is_open(s, in->project, in->name)) {
        api_fail(call, API_E_OVERLOAD, in->name, "try again when it has ended",
                 s->n_uploads >= UPLOADS_MAX ? "%d uploads are under way, the limit"
                                             : "it is being written just now",
                 UPLOADS_MAX);
        return;
    }
    struct op *op = op_new(call, run_begin, answer_begin);
    if (!op) {
        return;
    }
    struct upload *u = xnew(struct upload);
    u->number = ++s->last;
    u->principal = api_call_peer(call)->principal;
    u->total = in->size;
    u->file.fd = -1;
    str_copy(u->name, sizeof(u->name), in->name);
    str_copy(u->project, sizeof(u->project), in->project);
    list_append(&s->uploads, &u->link);
    s->n_uploads++;
    op->upload = u;
    op->w.total = in->size;
    op->w.restart = in->restart;
    op->w.quota = d->opt.image_quota;
    str_copy(op->w.name, sizeof(op->w.name), in->name);
    str_copy(op->w.project, sizeof(op->w.project), in->project);
    op_start(op);
}

/* The caller's upload; NULL after the call was answered. */
static struct upload *call_upload(struct api_call *call, int64_t number)
{
    struct vmd *d = call_daemon(call);
    const struct rpc_peer *p = api_call_peer(call);
    list_for_each (n, &d->images->uploads) {
        struct upload *u = list_entry(n, struct upload, link);
        if (u->number != number || u->principal != p->principal ||
            access_role(d, p, u->project) < API_ROLE_OPERATOR) {
            continue;
        }
        if (u->broken) {
            api_fail(call, API_E_BAD_STATE, u->name, "begin it again with image.begin",
                     "a piece of image '%s' could not be written", u->name);
            return NULL;
        }
        return u;
    }
    api_fail(call, API_E_NOT_FOUND, "upload", "begin one with image.begin",
             "you have no upload %lld", (long long)number);
    return NULL;
}

static void run_write(struct op *op)
{
    op->failed = image_write(&op->upload->file, &op->w, &op->e) < 0;
}

static void answer_write(struct op *op)
{
    api_reply_image_write(op->call, &(struct api_image_write_out){ .offset = op->w.offset });
}

void api_handle_image_write(struct api_call *call, struct api_image_write_in *in)
{
    struct upload *u = call_upload(call, in->upload);
    if (!u) {
        return;
    }
    size_t n = strlen(in->data);
    if (in->offset != u->next) {
        api_fail(call, API_E_BAD_STATE, u->name, "go on from there",
                 "image '%s' has %lld bytes, not %lld", u->name, (long long)u->next,
                 (long long)in->offset);
        return;
    }
    AUTO_FREE unsigned char *data = xalloc(n / 4 * 3 + 4);
    int len = n % 4 == 0 ? EVP_DecodeBlock(data, (const unsigned char *)in->data, (int)n) : -1;
    len -= len > 0 && n && in->data[n - 1] == '=';
    len -= len > 0 && n > 1 && in->data[n - 2] == '=';
    if (len < 0 || u->next + len > u->total) {
        api_fail(call, API_E_INVALID_PARAMS, "data", NULL,
                 len < 0 ? "data: no base64" : "data: more than the size that was announced");
        return;
    }
    struct op *op = op_new(call, run_write, answer_write);
    if (op) {
        op->upload = u;
        op->w.offset = in->offset;
        op->w.data = take_ptr(data);
        op->w.len = (size_t)len;
        str_copy(op->w.name, sizeof(op->w.name), u->name);
        u->next += len;
        op_start(op);
    }
}

static void run_finish(struct op *op)
{
    op->failed = image_finish(&op->upload->file, &op->w, &op->e) < 0;
}

static char *image_path(struct images *s, const char *project, const char *name)
{
    return xasprintf("%s/%s/%s", s->dir, project, name);
}

static void answer_finish(struct op *op)
{
    struct images *s = op->s;
    struct upload *u = op->upload;
    AUTO_FREE char *path = image_path(s, u->project, u->name);
    AUTO_FREE char *object = xasprintf("%s/%s", u->project, u->name);
    struct api_image out = { .name = u->name,
                             .project = u->project,
                             .size = u->total,
                             .path = path,
                             .changed_ms = time_real_ns() / 1000000 };
    struct json_object *o = api_encode(&api_type_image, &out);
    op->upload = NULL;
    s->n_uploads--;
    upload_free(u);
    call_finish(s->d, op->call, object, o);
}

void api_handle_image_finish(struct api_call *call, struct api_image_finish_in *in)
{
    struct upload *u = call_upload(call, in->upload);
    if (!u) {
        return;
    }
    if (u->next != u->total) {
        api_fail(call, API_E_BAD_STATE, u->name, "send the rest first",
                 "image '%s' has %lld of %lld bytes", u->name, (long long)u->next,
                 (long long)u->total);
        return;
    }
    struct op *op = op_new(call, run_finish, answer_finish);
    if (op) {
        op->upload = u;
        op->w.replace = in->replace;
        str_copy(op->w.name, sizeof(op->w.name), u->name);
        str_copy(op->w.project, sizeof(op->w.project), u->project);
        str_copy(op->w.sha256, sizeof(op->w.sha256), in->sha256 ? in->sha256 : "");
        op_start(op);
    }
}

/* ---- reading, listing, deleting ---- */

static void run_read(struct op *op)
{
    op->failed = image_read(&op->w, &op->e) < 0;
}

static void answer_read(struct op *op)
{
    AUTO_FREE char *text = xalloc(op->w.len / 3 * 4 + 8);
    EVP_EncodeBlock((unsigned char *)text, op->w.data, (int)op->w.len);
    api_reply_image_read(op->call,
                         &(struct api_image_read_out){ .data = text, .size = op->w.total });
}

void api_handle_image_read(struct api_call *call, struct api_image_read_in *in)
{
    struct op *op = op_new(call, run_read, answer_read);
    if (op) {
        str_copy(op->w.name, sizeof(op->w.name), in->name);
        str_copy(op->w.project, sizeof(op->w.project), in->project);
        op->w.offset = in->offset;
        op->w.len = (size_t)in->length;
        op_start(op);
    }
}

static void run_list(struct op *op)
{
    op->failed = image_list(&op->w, &op->e) < 0;
}

static void answer_list(struct op *op)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    for (size_t i = 0; i < op->w.n_found; i++) {
        struct image_found *f = &op->w.found[i];
        if (!access_sees(op->call, f->project)) {
            continue;
        }
        AUTO_FREE char *path = image_path(op->s, f->project, f->name);
        struct api_image one = { .name = f->name,
                                 .project = f->project,
                                 .size = f->size,
                                 .total = f->total,
                                 .has_total = f->partial,
                                 .path = path,
                                 .changed_ms = f->changed_ms };
        json_object_array_add(list, api_encode(&api_type_image, &one));
    }
    api_json_set(o, "images", list);
    api_reply_json(op->call, o);
}

void api_handle_image_list(struct api_call *call, struct api_image_list_in *in)
{
    struct op *op = op_new(call, run_list, answer_list);
    if (op) {
        str_copy(op->w.project, sizeof(op->w.project), in->project ? in->project : "");
        op_start(op);
    }
}

static void run_delete(struct op *op)
{
    op->failed = image_delete(&op->w, &op->e) < 0;
}

static void answer_delete(struct op *op)
{
    AUTO_FREE char *object = xasprintf("%s/%s", op->w.project, op->w.name);
    call_finish(op->s->d, op->call, object, json_object_new_object());
}

static bool names(const char *member, const char *path)
{
    return member && strcmp(member, path) == 0;
}

/* The VM that names the file, NULL when none does. */
static struct vm *user_of(struct vmd *d, const char *path)
{
    size_t n;
    struct vm **list = vm_list(d, &n), *found = NULL;
    for (size_t i = 0; i < n && !found; i++) {
        const struct api_vm_config *k = &list[i]->config;
        bool uses = names(k->kernel, path) || names(k->initrd, path) ||
                    names(k->firmware, path);
        for (size_t j = 0; j < k->n_disks; j++) {
            uses |= names(k->disks[j].file, path);
        }
        for (size_t j = 0; j < k->n_flash; j++) {
            uses |= names(k->flash[j].file, path);
        }
        found = uses ? list[i] : NULL;
    }
    free(list);
    return found;
}

void api_handle_image_delete(struct api_call *call, struct api_image_delete_in *in)
{
    struct vmd *d = call_daemon(call);
    AUTO_FREE char *path = image_path(d->images, in->project, in->name);
    struct vm *vm = user_of(d, path);
    make_room(d->images, in->project, in->name);
    if (vm || is_open(d->images, in->project, in->name)) {
        api_fail(call, API_E_BUSY, in->name, "delete the VM first, or take the image from it",
                 vm ? "VM '%s' uses image '%s'" : "%s'%s' is being written",
                 vm ? vm->config.name : "image ", in->name);
        return;
    }
    struct op *op = op_new(call, run_delete, answer_delete);
    if (op) {
        str_copy(op->w.name, sizeof(op->w.name), in->name);
        str_copy(op->w.project, sizeof(op->w.project), in->project);
        op_start(op);
    }
}
