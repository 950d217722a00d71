/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both do with archives, and the handler of snapshot.export. An archive is a tar file: the snapshot's state file, sealed anew with a key of the
 * archive's own; a qcow2 image for each disk; snapshot.json, which says what there is, with that key; and `seal`, which shows this host
 * that it has written the archive (ADR 0042). The daemon parses neither tar nor images nor states: vmd-image and vmd-state do.
 * Owns struct snapshot_archive. Loop thread, but for run_*() and what they call.
 */
#include "daemon/vm/snapshot_archive.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/storage/pools.h"
#include "daemon/storage/work.h"
#include "daemon/vm/state_tool.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

const char *archive_file(const struct snapshot_archive *a)
{
    return a ? a->file : "";
}

void archive_free(struct snapshot_archive *a)
{
    if (!a) {
        return;
    }
    fd_autoclose(&a->fd);
    if (a->decoded) {
        api_release(&api_type_snapshot_archive, &a->about);
    }
    free(a->file);
    free(a->as);
    free(a);
}

static void on_cancel(void *arg)
{
    struct work_on *k = arg;

    atomic_store(&k->archive->stop, true);
}

struct work_on *archive_begin(struct op *op, struct snapshot *s, struct wish *take_wish)
{
    struct work_on *k = work_new(op, s);

    k->archive = xnew(struct snapshot_archive);
    k->archive->fd = -1;
    k->archive->file = take_ptr(take_wish->file);
    k->archive->as = s ? NULL : take_ptr(take_wish->name);
    k->archive->foreign = take_wish->foreign;
    wish_free(take_wish);
    if (op->job) {
        op->job->on_cancel = on_cancel;
        op->job->arg = k;
    }
    wish_progress(op);
    return k;
}

int archive_stopped(const struct work_on *k, struct err *e)
{
    return atomic_load(&k->archive->stop) ? err_set(e, -ECANCELED, "the job was cancelled") : 0;
}

/* Room for so many bytes more below the folder. */
int archive_room(const char *dir, int64_t bytes, struct err *e)
{
    struct statvfs v;

    if (statvfs(dir, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize < (uint64_t)bytes) {
        return err_set(e, -ENOSPC, "no space: '%s' has %llu bytes free, %lld are needed", dir,
                       (unsigned long long)v.f_bavail * v.f_frsize, (long long)bytes);
    }
    return 0;
}

/* A file in the folder that has no name. */
int archive_nameless(const char *dir, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/.archive", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0 && errno == EEXIST) { /* of a daemon that died in between */
        (void)unlink(path);
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    if (fd < 0) {
        return err_errno(e, errno, "cannot make '%s'", path);
    }
    (void)unlink(path);
    return fd;
}

/* What this host seals the archive of that nonce with: no VM's key. */
static int host_key_of(struct work_on *k, const char *nonce, uint8_t key[STATE_KEY_BYTES],
                       struct err *e)
{
    AUTO_FREE char *whose = xasprintf("archive %s", nonce);

    return save_key(k->key_file, whose, key, e);
}

int archive_seal(struct work_on *k, const char *nonce, const void *text, size_t n,
                 char hex[ARCHIVE_SEAL_HEX + 1], struct err *e)
{
    uint8_t key[STATE_KEY_BYTES], mac[EVP_MAX_MD_SIZE];
    unsigned len = sizeof(mac);
    int rc = host_key_of(k, nonce, key, e);

    if (rc == 0 && !HMAC(EVP_sha256(), key, sizeof(key), text, n, mac, &len)) {
        rc = err_set(e, -ENOMEM, "the archive's seal cannot be computed");
    }
    OPENSSL_cleanse(key, sizeof(key));
    for (unsigned i = 0; rc == 0 && i < ARCHIVE_SEAL_HEX / 2; i++) {
        snprintf(hex + 2 * (size_t)i, 3, "%02x", mac[i]);
    }
    return rc;
}

/* Has vmd-state write a state anew, from one file and key to another. */
int archive_reseal(struct work_on *k, int from, const uint8_t key[STATE_KEY_BYTES], int to,
                   const uint8_t to_key[STATE_KEY_BYTES], const char *uuid, struct err *e)
{
    AUTO_JSON request = json_object_new_object();
    AUTO_BUF text = BUF_INIT;
    const int files[] = { from, to };
    int rc;

    base64_add(&text, to_key, STATE_KEY_BYTES);
    api_json_set_str(request, "do", "reseal");
    api_json_set_str(request, "to_key", text.data);
    api_json_set_str(request, "uuid", uuid);
    rc = state_tool(k->d->pools->works, k->program, request, key, files, 2, NULL, e);
    OPENSSL_cleanse(text.data, text.len);
    return rc;
}

/* One call of vmd-image on the archive; out may be NULL. */
int archive_image(struct work_on *k, const char *dir, const char *const *args, int second,
                  struct json_object **out, struct err *e)
{
    const int files[] = { k->archive->fd, second };
    AUTO_BUF text = BUF_INIT;
    int rc = works_image_with(k->d->pools->works, dir, args, files, second >= 0 ? 2 : 1, &text,
                              e);

    if (rc == 0 && out && api_json_parse(text.data ? text.data : "", text.len, out, e) < 0) {
        rc = err_set(e, -EIO, "the process that works on images answers what is no JSON");
    }
    return rc;
}

void archive_set_why(struct work_on *k)
{
    int code = k->w.e.code == -ECANCELED ? API_E_CANCELLED
               : k->archive->code        ? k->archive->code
                                         : API_E_FILE_ERROR;

    work_set_why(k, code,
                 code == API_E_EXISTS     ? "choose another name"
                 : k->w.e.code == -ENOSPC ? "make room, or choose another folder"
                                          : NULL,
                 "%s", k->w.e.msg);
}

/* ---- export ---- */

static struct api_snapshot_part *part_add(struct snapshot_archive *a)
{
    a->about.parts = xrealloc_n(a->about.parts, a->about.n_parts + 1, sizeof(*a->about.parts));
    memset(&a->about.parts[a->about.n_parts], 0, sizeof(*a->about.parts));
    return &a->about.parts[a->about.n_parts++];
}

/* Adds what a descriptor holds. */
static int add_bytes(struct work_on *k, const char *member, int fd, struct json_object **out,
                     struct err *e)
{
    const char *const args[] = { "member", "--json", "--fds", "--add", member,
                                 "--from", "4",      "3",     NULL };

    return archive_image(k, NO_FOLDER, args, fd, out, e);
}

static int add_text(struct work_on *k, const char *member, const char *text, struct err *e)
{
    AUTO_FD fd = memfd_create("member", MFD_CLOEXEC);

    if (fd < 0) {
        return err_errno(e, errno, "cannot pass '%s'", member);
    }
    return fd_write_all(fd, text, strlen(text), member, e) < 0
               ? e->code
               : add_bytes(k, member, fd, NULL, e);
}

static void take_part(struct snapshot_archive *a, const struct json_object *o, const char *disk)
{
    struct api_snapshot_part *p = part_add(a);
    const char *member = api_json_get_str(o, "name"), *hex = api_json_get_str(o, "sha256");

    p->member = xstrdup(member ? member : "");
    p->disk = disk ? xstrdup(disk) : NULL;
    p->size = api_json_get_int(o, "size", 0);
    p->bytes = api_json_get_int(o, "bytes", 0);
    p->sha256 = xstrdup(hex ? hex : "");
}

static int add_disk(struct work_on *k, size_t i, struct err *e)
{
    AUTO_FREE char *dir = work_folder_of(k->image[i]);
    AUTO_FREE char *member = xasprintf("%s.qcow2", k->disk[i]);
    const char *const args[] = { "member",     "--json",       "--fds", "--add",     member,
                                 "--snapshot", k->s->info.tag, "3",     k->image[i], NULL };
    AUTO_JSON o = NULL;
    int rc = archive_stopped(k, e);

    rc = rc == 0 && !dir ? err_set(e, -EINVAL, "'%s' is no absolute path", k->image[i]) : rc;
    rc = rc == 0 ? archive_image(k, dir, args, -1, &o, e) : rc;
    if (rc == 0) {
        take_part(k->archive, o, k->disk[i]);
    }
    return rc;
}

static int add_state(struct work_on *k, struct err *e)
{
    struct snapshot_archive *a = k->archive;
    AUTO_FREE char *path = snapshot_file(k->dir, k->s);
    AUTO_FD from = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), to = -1;
    AUTO_BUF key = BUF_INIT;
    AUTO_JSON o = NULL;
    int rc = archive_stopped(k, e);

    if (rc != 0) {
        return rc;
    }
    if (from < 0) {
        return err_errno(e, errno, "cannot read '%s'", path);
    }
    to = archive_nameless(k->dir, e);
    rc = to < 0 ? to : archive_room(k->dir, k->s->info.bytes, e);
    rc = rc == 0 ? save_key(k->key_file, k->uuid, k->key, e) : rc;
    if (rc != 0) {
        return rc;
    }
    (void)base64_take(&key, a->about.key);
    rc = archive_reseal(k, from, k->key, to, (const uint8_t *)key.data, k->uuid, e);
    OPENSSL_cleanse(key.data, key.len);
    if (rc != 0) {
        err_prefix(e, "'%s'", path);
        return rc;
    }
    rc = add_bytes(k, ARCHIVE_STATE, to, &o, e);
    if (rc == 0) {
        take_part(a, o, NULL);
    }
    return rc;
}

static int add_manifest(struct work_on *k, struct err *e)
{
    const char *const end[] = { "member", "--fds", "--end", "3", NULL };
    AUTO_JSON o = api_encode(&api_type_snapshot_archive, &k->archive->about);
    const char *text = api_json_text(o);
    char hex[ARCHIVE_SEAL_HEX + 1];
    int rc = archive_seal(k, k->archive->about.nonce, text, strlen(text), hex, e);

    rc = rc == 0 ? add_text(k, ARCHIVE_MANIFEST, text, e) : rc;
    rc = rc == 0 ? add_text(k, ARCHIVE_SEAL, hex, e) : rc;
    return rc == 0 ? archive_image(k, NO_FOLDER, end, -1, NULL, e) : rc;
}

/* A file without a name where the file system has such, else under its name: *named. */
static int make_file(struct work_on *k, const char *dir, bool *named, struct err *e)
{
    struct snapshot_archive *a = k->archive;

    if (access(a->file, F_OK) == 0) {
        a->code = API_E_EXISTS;
        return err_set(e, -EEXIST, "'%s' is there already", a->file);
    }
    a->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    *named = a->fd < 0 && errno != ENOENT && errno != EACCES;
    if (*named) {
        a->fd = open(a->file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    return a->fd >= 0 ? 0 : err_errno(e, errno, "cannot make '%s'", a->file);
}

static int name_file(struct work_on *k, struct err *e)
{
    AUTO_FREE char *self = xasprintf("/proc/self/fd/%d", k->archive->fd);

    if (linkat(AT_FDCWD, self, AT_FDCWD, k->archive->file, AT_SYMLINK_FOLLOW) == 0) {
        return 0;
    }
    k->archive->code = errno == EEXIST ? API_E_EXISTS : 0;
    return err_errno(e, errno, "cannot make '%s'", k->archive->file);
}

static void run_export(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);
    struct snapshot_archive *a = k->archive;
    AUTO_FREE char *dir = work_folder_of(a->file);
    bool named = false;
    int rc = dir ? archive_room(dir, k->s->info.bytes, &w->e)
                 : err_set(&w->e, -EINVAL, "'%s' is no absolute path", a->file);

    rc = rc == 0 ? make_file(k, dir, &named, &w->e) : rc;
    for (size_t i = 0; i < k->n_images && rc == 0; i++) {
        rc = add_disk(k, i, &w->e);
    }
    if (rc == 0 && k->s->info.memory) {
        rc = add_state(k, &w->e);
    }
    rc = rc == 0 ? add_manifest(k, &w->e) : rc;
    rc = rc == 0 && !named ? name_file(k, &w->e) : rc;
    rc = rc == 0 ? work_sync_dir(dir, &w->e) : rc;
    if (rc != 0 && named && a->fd >= 0) {
        (void)unlink(a->file);
    }
}

static void exported(struct work_on *k)
{
    if (k->w.e.code) {
        archive_set_why(k);
    }
    work_finish(k, change_new(k->d), k->s);
}

static bool describe(struct work_on *k)
{
    struct api_snapshot_archive *about = &k->archive->about;
    uint8_t random[STATE_KEY_BYTES + 16];
    struct api_vm_config *config = xnew(struct api_vm_config);
    AUTO_BUF key = BUF_INIT;

    if (getrandom(random, sizeof(random), 0) != sizeof(random) ||
        !snapshot_config(k->s, config)) {
        free(config);
        work_set_why(k, API_E_INTERNAL_ERROR, NULL, "its definition is unreadable");
        return false;
    }
    k->archive->decoded = true;
    about->version = ARCHIVE_VERSION;
    about->name = xstrdup(k->s->info.name);
    about->config = config;
    about->snapshot = xnew(struct api_snapshot);
    api_copy(&api_type_snapshot, &k->s->info, about->snapshot);
    about->snapshot->current = false;
    free(about->snapshot->memory_file);
    about->snapshot->memory_file = NULL;
    base64_add(&key, random, STATE_KEY_BYTES);
    about->key = buf_take(&key);
    about->nonce = xalloc(2 * 16 + 1);
    for (unsigned i = 0; i < 16; i++) {
        snprintf(about->nonce + 2 * (size_t)i, 3, "%02x", random[STATE_KEY_BYTES + i]);
    }
    OPENSSL_cleanse(random, sizeof(random));
    list_for_each (it, &k->d->snapshots) {
        const struct snapshot *s = list_entry(it, struct snapshot, link);

        if (strcmp(s->vm, k->uuid) == 0 && s->info.parent &&
            strcmp(s->info.parent, k->s->info.name) == 0) {
            about->children = xrealloc_n(about->children, about->n_children + 1,
                                         sizeof(*about->children));
            about->children[about->n_children++] = xstrdup(s->info.name);
        }
    }
    return true;
}

static void export_begin(struct op *op)
{
    struct wish *wish = take_ptr(op->in);
    struct api_error x = API_ERROR_INIT;
    struct snapshot *s = snapshot_find(op->vm->d, op->vm->config.uuid, wish->name);
    struct work_on *k;

    if (!wish_called_off(op, &x) && (!s || s->info.state != API_SNAPSHOT_STATE_KEPT)) {
        api_error_set(&x, s ? API_E_BAD_STATE : API_E_NOT_FOUND, wish->name,
                      "'vmctl snapshot list' shows what there is",
                      s ? "snapshot '%s' is not whole" : "there is no snapshot '%s' any more",
                      wish->name);
    }
    if (x.code) {
        wish_free(wish);
        wish_refuse(op, &x);
        return;
    }
    k = archive_begin(op, s, wish);
    if (!work_find_images(k) || !describe(k)) {
        work_finish(k, change_new(k->d), NULL);
    } else {
        work_start(k, run_export, exported);
    }
}

void api_handle_snapshot_export(struct api_call *call, struct api_snapshot_export_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct api_error x = API_ERROR_INIT;

    if (!vm) {
        return;
    }
    if (access_file(call, vm->config.project, "file", in->file, &x) < 0) {
        api_reply_error(call, &x);
    } else if (snapshot_is_there(call, vm, in->name)) {
        struct wish *wish = wish_new(vm, in->name, export_begin);

        wish->file = xstrdup(in->file);
        wish_begin_job(call, vm, "snapshot.export", wish);
    }
}
