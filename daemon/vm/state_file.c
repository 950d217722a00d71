/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of vm.state_export, vm.state_import, vm.state_show and vm.state_edit: saved states in files that are not vmd's own.
 *
 * Such a file is the sealed state as the emulator wrote it, then what is said of it (JSON: the definition), then where these begin
 * and a magic number, big-endian. The state counts in one place at a time: it is durable in the file before the VM loses it. Loop thread, but for what a
 * piece of work runs; the state itself is parsed by nobody here.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/storage/pools.h"
#include "daemon/storage/work.h"
#include "daemon/vm/save.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAYS_MAX (4 << 20)
#define PIECE (1 << 20)

static const char magic[8] = { 'V', 'M', 'D', 'S', 'A', 'V', 'E', '1' };

struct tail {
    uint64_t state, says; /* sizes */
    char magic[8];
};

/* What is done with one file. */
struct state_file {
    struct work w;
    struct vmd *d;
    struct api_call *call;
    struct op *op; /* NULL: no VM is concerned */
    int64_t vm;
    int (*act)(struct state_file *k, struct err *e);
    char *file, *state, *uuid; /* the VM's own file and identity; NULL: no VM is concerned */
    struct json_object *says;  /* what is written; what was read */
    uint64_t bytes;            /* of the state */
    bool exists;               /* it failed since that is in the way */
};

static void state_file_free(struct state_file *k)
{
    json_object_put(k->says);
    free(k->file);
    free(k->state);
    free(k->uuid);
    free(k);
}

/* ---- files, on a thread ---- */

static int open_whole(const char *path, int *fd, uint64_t *size, struct err *e)
{
    struct stat st;

    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0 || fstat(*fd, &st) < 0) {
        return err_errno(e, errno, "cannot read '%s'", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(e, -EINVAL, "'%s' is no file", path);
    }
    *size = (uint64_t)st.st_size;
    return 0;
}

/* Where the state ends and what is said of it. Anything that has not this form is -EBADMSG. */
static int read_says(int fd, uint64_t size, struct state_file *k, struct json_object **says,
                     struct err *e)
{
    struct tail t;
    int rc = 0;

    if (size < sizeof(t) ||
        fd_pread(fd, &t, sizeof(t), size - sizeof(t)) != (ssize_t)sizeof(t) ||
        memcmp(t.magic, magic, sizeof(magic)) != 0) {
        return err_set(e, -EBADMSG, "'%s' holds no state of a VM", k->file);
    }
    uint64_t state = be64toh(t.state), n = be64toh(t.says);
    if (n > SAYS_MAX || state > size || size - sizeof(t) - state != n) {
        return err_set(e, -EBADMSG, "'%s' is damaged", k->file);
    }
    char *text = xalloc(n + 1);
    if (fd_pread(fd, text, n, state) != (ssize_t)n) {
        rc = err_set(e, -EBADMSG, "'%s' cannot be read", k->file);
    } else if (says) {
        rc = api_json_parse(text, n, says, e);
    }
    free(text);
    k->bytes = state;
    return rc;
}

static int copy_by_hand(int from, int to, uint64_t at, uint64_t n, struct err *e)
{
    char *piece = xalloc(PIECE);
    int rc = 0;

    while (n > 0 && rc == 0) {
        size_t want = n < PIECE ? (size_t)n : PIECE;
        ssize_t got = fd_pread(from, piece, want, at);
        if (got <= 0) {
            rc = err_set(e, -EIO, "the state ends too soon");
        } else if (fd_pwrite(to, piece, (size_t)got, at) != got) {
            rc = err_errno(e, errno, "cannot write the state");
        } else {
            at += (uint64_t)got;
            n -= (uint64_t)got;
        }
    }
    free(piece);
    return rc;
}

/* The first n bytes; where the file system can, they are shared. */
static int copy_bytes(int from, int to, uint64_t n, struct err *e)
{
    off_t in = 0, out = 0;

    while ((uint64_t)in < n) {
        uint64_t left = n - (uint64_t)in;
        ssize_t did = copy_file_range(from, &in, to, &out,
                                      left < (1U << 30) ? (size_t)left : 1U << 30, 0);
        if (did <= 0) { /* not between these two, or a short file: the other way tells */
            return copy_by_hand(from, to, (uint64_t)in, left, e);
        }
    }
    return 0;
}

/* What was written under another name is made durable and takes its place. */
static int place(int fd, const char *new, const char *path, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(path);
    const char *folder = dirname(copy);
    AUTO_FD dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fsync(fd) != 0 || rename(new, path) != 0) {
        return err_errno(e, errno, "cannot write '%s'", path);
    }
    return dir >= 0 && fsync(dir) == 0 ? 0 : err_errno(e, errno, "cannot write '%s'", folder);
}

/* A file of this kind may be replaced, no other. */
static int may_replace(struct state_file *k, struct err *e)
{
    AUTO_FD fd = -1;
    uint64_t size;
    struct stat st;

    if (lstat(k->file, &st) < 0 && errno == ENOENT) {
        return 0;
    }
    if (open_whole(k->file, &fd, &size, e) < 0 || read_says(fd, size, k, NULL, e) < 0) {
        k->exists = true;
        return err_set(e, -EEXIST, "'%s' is there already, and no saved state", k->file);
    }
    return 0;
}

/* The state, n bytes of `from`, and what k says of it, into k's file. */
static int write_file(struct state_file *k, int from, uint64_t n, struct err *e)
{
    const char *text = api_json_text(k->says);
    struct tail t = { .state = htobe64(n), .says = htobe64(strlen(text)) };
    AUTO_FREE char *new = xasprintf("%s.XXXXXX", k->file);
    AUTO_FD fd = mkostemp(new, O_CLOEXEC);
    int rc;

    memcpy(t.magic, magic, sizeof(magic));
    if (fd < 0) {
        return err_errno(e, errno, "cannot make '%s'", k->file);
    }
    rc = copy_bytes(from, fd, n, e);
    if (rc == 0 && (fd_pwrite(fd, text, strlen(text), n) != (ssize_t)strlen(text) ||
                    fd_pwrite(fd, &t, sizeof(t), n + strlen(text)) != (ssize_t)sizeof(t))) {
        rc = err_errno(e, errno, "cannot write '%s'", k->file);
    }
    rc = rc == 0 ? place(fd, new, k->file, e) : rc;
    if (rc < 0) {
        unlink(new);
    }
    k->bytes = n;
    return rc;
}

static int do_export(struct state_file *k, struct err *e)
{
    AUTO_FD fd = -1;
    uint64_t size;
    int rc = may_replace(k, e);

    rc = rc == 0 ? open_whole(k->state, &fd, &size, e) : rc;
    return rc == 0 ? write_file(k, fd, size, e) : rc;
}

static const char *uuid_of(struct json_object *says)
{
    const char *uuid = api_json_get_str(api_json_get(says, "config"), "uuid");

    return uuid ? uuid : "?";
}

static int do_import(struct state_file *k, struct err *e)
{
    AUTO_FREE char *new = xasprintf("%s.new", k->state);
    AUTO_FD from = -1, to = -1;
    uint64_t size;
    int rc = open_whole(k->file, &from, &size, e);

    rc = rc == 0 ? read_says(from, size, k, &k->says, e) : rc;
    if (rc < 0) {
        return rc;
    }
    if (strcmp(uuid_of(k->says), k->uuid) != 0) {
        return err_set(e, -EINVAL, "'%s' is the state of VM %s, not of %s", k->file,
                       uuid_of(k->says), k->uuid);
    }
    to = open(new, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (to < 0) {
        return err_errno(e, errno, "cannot make '%s'", new);
    }
    rc = copy_bytes(from, to, k->bytes, e);
    rc = rc == 0 ? place(to, new, k->state, e) : rc;
    if (rc < 0) {
        unlink(new);
    }
    return rc;
}

static int do_show(struct state_file *k, struct err *e)
{
    AUTO_FD fd = -1;
    uint64_t size;
    int rc = open_whole(k->file, &fd, &size, e);

    return rc == 0 ? read_says(fd, size, k, &k->says, e) : rc;
}

static int do_edit(struct state_file *k, struct err *e)
{
    AUTO_JSON old = NULL;
    AUTO_FD fd = -1;
    uint64_t size;
    int rc = open_whole(k->file, &fd, &size, e);

    rc = rc == 0 ? read_says(fd, size, k, &old, e) : rc;
    if (rc < 0) {
        return rc;
    }
    if (!api_json_get(k->says, "config")) {
        api_json_set(k->says, "config", json_object_get(api_json_get(old, "config")));
    } else if (strcmp(uuid_of(k->says), uuid_of(old)) != 0) {
        return err_set(e, -EINVAL, "'%s' is the state of VM %s, and stays it", k->file,
                       uuid_of(old));
    }
    if (!api_json_get(k->says, "paused")) {
        api_json_set_bool(k->says, "paused", api_json_get_bool(old, "paused", false));
    }
    return write_file(k, fd, k->bytes, e);
}

static void run_work(struct work *w)
{
    struct state_file *k = container_of(w, struct state_file, w);

    w->failed = k->act(k, &w->e) < 0;
}

/* ---- ends ---- */

static int error_of(const struct state_file *k)
{
    return k->exists                   ? API_E_EXISTS
           : k->w.e.code == -ESHUTDOWN ? API_E_OVERLOAD
                                       : API_E_FILE_ERROR;
}

/* Of a VM: it has its state no more, or has it again. */
static void vm_ended(struct work *w)
{
    struct state_file *k = container_of(w, struct state_file, w);
    struct vm *vm = vm_by_id(k->d, k->vm);
    bool out = k->act == do_export;
    struct err e = ERR_INIT;

    if (!vm || vm->op != k->op) { /* the VM has gone, and its call was told */
        state_file_free(k);
        return;
    }
    if (w->failed) {
        op_failf(k->op, error_of(k),
                 k->exists ? "choose another name"
                           : "see that files can be made there, with room for them",
                 "VM '%s': %s", vm->config.name, w->e.msg);
    } else if (out && save_drop(vm, &e) < 0) {
        op_failf(k->op, API_E_FILE_ERROR, "mend the folder", "VM '%s': %s", vm->config.name,
                 e.msg);
    } else {
        vm->saved = !out;
        op_reply_info(k->op);
    }
    state_file_free(k);
}

static void show_ended(struct work *w)
{
    struct state_file *k = container_of(w, struct state_file, w);
    struct api_vm_state_show_out out = { 0 };
    struct api_error x = API_ERROR_INIT;

    if (w->failed) {
        api_fail(k->call, error_of(k), k->file, "'vmctl state export' makes one", "%s",
                 w->e.msg);
        state_file_free(k);
        return;
    }
    api_json_set_int(k->says, "bytes", (int64_t)k->bytes);
    if (api_decode(&api_type_vm_state_show_out, k->says, API_LENIENT, "", &out, &x) < 0) {
        api_fail(k->call, API_E_FILE_ERROR, k->file, NULL, "'%s' is damaged: %s", k->file,
                 x.message);
    } else {
        api_reply(k->call, &out);
        api_release(&api_type_vm_state_show_out, &out);
    }
    state_file_free(k);
}

static void edit_ended(struct work *w)
{
    struct state_file *k = container_of(w, struct state_file, w);

    if (w->failed) {
        api_fail(k->call, error_of(k), k->file, NULL, "%s", w->e.msg);
    } else {
        call_finish(k->d, k->call, k->file, json_object_new_object());
    }
    state_file_free(k);
}

/* ---- begins ---- */

static struct state_file *state_file_new(struct vmd *d, struct api_call *call, const char *file,
                                         int (*act)(struct state_file *k, struct err *e),
                                         void (*ended)(struct work *w))
{
    struct state_file *k = xnew(struct state_file);

    k->w.run = run_work;
    k->w.ended = ended;
    k->d = d;
    k->call = call;
    k->act = act;
    k->file = xstrdup(file);
    return k;
}

/* The VM's turn has come. */
static void begin(struct op *op, const char *file, struct json_object *take_says,
                  int (*act)(struct state_file *k, struct err *e))
{
    struct vm *vm = op->vm;
    struct state_file *k = state_file_new(vm->d, op->call, file, act, vm_ended);

    k->op = op;
    k->vm = vm->id;
    k->state = runfs_lib(&vm->d->opt, vm->id, VM_STATE);
    k->uuid = xstrdup(vm->config.uuid);
    k->says = take_says;
    if (!works_start(vm->d->pools->works, &k->w)) {
        state_file_free(k);
        op_failf(op, API_E_HOST_LIMIT, "try again later", "too much is under way");
    }
}

static void export_begin(struct op *op)
{
    const struct api_vm_state_export_in *in = op->in;
    struct vm *vm = op->vm;
    struct json_object *says;

    if (vm->run || !vm->saved) {
        op_failf(op, API_E_BAD_STATE, "'vmctl save' makes one", "VM '%s' has no saved state",
                 vm->config.name);
        return;
    }
    if (in->config && (!in->config->uuid || strcmp(in->config->uuid, vm->config.uuid) != 0)) {
        op_failf(op, API_E_INVALID_PARAMS, "leave it as it is",
                 "the definition's UUID is not that of VM '%s'", vm->config.name);
        return;
    }
    says = json_object_new_object();
    api_json_set(says, "config",
                 api_encode(&api_type_vm_config, in->config ? in->config : &vm->config));
    api_json_set_bool(says, "paused", in->paused);
    begin(op, in->file, says, do_export);
}

static void import_begin(struct op *op)
{
    const struct api_vm_state_import_in *in = op->in;
    struct vm *vm = op->vm;
    struct err e = ERR_INIT;

    if (vm->run) {
        op_failf(op, API_E_BAD_STATE, "stop it first", "VM '%s' is %s", vm->config.name,
                 api_vm_state_name(vm->state));
    } else if (vm->saved) {
        op_failf(op, API_E_BAD_STATE, "start it, or forget that: 'vmctl forget'",
                 "VM '%s' has a saved state already", vm->config.name);
    } else if (runfs_make_lib(&vm->d->opt, vm->id, &e) < 0) {
        op_failf(op, API_E_FILE_ERROR, "mend the folder", "VM '%s': %s", vm->config.name,
                 e.msg);
    } else {
        begin(op, in->file, NULL, do_import);
    }
}

static void queue(struct api_call *call, const char *ref, const char *file, void *in,
                  void (*fn)(struct op *op))
{
    struct vm *vm = call_vm(call, ref);
    struct api_error x = API_ERROR_INIT;

    if (vm && access_file(call, vm->config.project, "file", file, &x) < 0) {
        api_reply_error(call, &x);
    } else if (vm) {
        op_queue(vm, call, NULL, in, fn, false);
    }
}

void api_handle_vm_state_export(struct api_call *call, struct api_vm_state_export_in *in)
{
    queue(call, in->vm, in->file, in, export_begin);
}

void api_handle_vm_state_import(struct api_call *call, struct api_vm_state_import_in *in)
{
    queue(call, in->vm, in->file, in, import_begin);
}

static void start(struct state_file *k, const char *project)
{
    struct api_error x = API_ERROR_INIT;

    if (access_file(k->call, project, "file", k->file, &x) < 0) {
        api_reply_error(k->call, &x);
        state_file_free(k);
    } else if (!works_start(k->d->pools->works, &k->w)) {
        api_fail(k->call, API_E_HOST_LIMIT, k->file, "try again later",
                 "too much is under way");
        state_file_free(k);
    }
}

void api_handle_vm_state_show(struct api_call *call, struct api_vm_state_show_in *in)
{
    start(state_file_new(call_daemon(call), call, in->file, do_show, show_ended), in->project);
}

void api_handle_vm_state_edit(struct api_call *call, struct api_vm_state_edit_in *in)
{
    struct state_file *k = state_file_new(call_daemon(call), call, in->file, do_edit,
                                          edit_ended);

    k->says = json_object_new_object();
    if (in->config) {
        api_json_set(k->says, "config", api_encode(&api_type_vm_config, in->config));
    }
    if (in->has_paused) {
        api_json_set_bool(k->says, "paused", in->paused);
    }
    start(k, in->project);
}
