/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handler of snapshot.import: all of an archive is verified, then compared with the VM, and only then a row says what is being made of it.
 * Whatever dies after that, the next daemon undoes it (snapshot_work.c). Loop thread, but for run_*() and what they call.
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
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST_MAX (1 << 20)
#define COPY_PIECE (1 << 20)

/* ---- import: looking ---- */

static int damaged(struct work_on *k, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int damaged(struct work_on *k, struct err *e, const char *fmt, ...)
{
    va_list ap;
    char words[400];

    va_start(ap, fmt);
    vsnprintf(words, sizeof(words), fmt, ap);
    va_end(ap);
    return err_set(e, -EBADMSG, "'%s': %s", k->archive->file, words);
}

/* The entry of that name; NULL when there is none, or more than one. */
static struct json_object *entry(struct json_object *list, const char *name)
{
    struct json_object *found = NULL;

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        const char *is = api_json_get_str(o, "name");

        if (is && strcmp(is, name) == 0) {
            if (found) {
                return NULL;
            }
            found = o;
        }
    }
    return found;
}

/* Bytes of a member, with a zero behind them. */
static int slurp(struct work_on *k, struct json_object *list, const char *name, size_t max,
                 struct buf *out, struct err *e)
{
    struct json_object *o = entry(list, name);
    int64_t n = o ? api_json_get_int(o, "bytes", -1) : -1, at = api_json_get_int(o, "at", -1);

    if (!o) {
        return damaged(k, e, "%s is missing, or twice in it: it is no archive of a snapshot",
                       name);
    }
    if (n < 0 || (uint64_t)n > max || at < 0) {
        return damaged(k, e, "%s has more than %zu bytes", name, max);
    }
    buf_reserve(out, (size_t)n + 1);
    if (fd_pread(k->archive->fd, out->data, (size_t)n, (uint64_t)at) != (ssize_t)n) {
        return damaged(k, e, "%s cannot be read", name);
    }
    out->len = (size_t)n;
    out->data[n] = 0;
    return 0;
}

static int check_seal(struct work_on *k, struct json_object *list, const struct buf *text,
                      struct err *e)
{
    AUTO_BUF is = BUF_INIT;
    char want[ARCHIVE_SEAL_HEX + 1];
    int rc = slurp(k, list, ARCHIVE_SEAL, ARCHIVE_SEAL_HEX, &is, e);

    rc = rc == 0 ? archive_seal(k, k->archive->about.nonce, text->data, text->len, want, e)
                 : rc;
    if (rc != 0) {
        return rc;
    }
    if (is.len == ARCHIVE_SEAL_HEX && CRYPTO_memcmp(is.data, want, ARCHIVE_SEAL_HEX) == 0) {
        return 0;
    }
    return k->archive->foreign
               ? 0
               : damaged(k, e,
                         "its seal is not this host's: it was changed, or another host has "
                         "written it, and 'foreign' was not said");
}

/* Every part is there as it was written, and nothing else is. */
static int check_parts(struct work_on *k, struct json_object *list, struct err *e)
{
    struct snapshot_archive *a = k->archive;
    bool state = false;

    for (size_t i = 0; i < a->about.n_parts; i++) {
        const struct api_snapshot_part *p = &a->about.parts[i];
        struct json_object *o = entry(list, p->member);
        const char *hex = o ? api_json_get_str(o, "sha256") : NULL;

        if (!o || !hex) {
            return damaged(k, e, "%s is missing, or twice in it", p->member);
        }
        if (api_json_get_int(o, "bytes", -1) != p->bytes || strcasecmp(hex, p->sha256) != 0) {
            return damaged(k, e, "%s is damaged: its SHA-256 is %.64s, not %s", p->member, hex,
                           p->sha256);
        }
        if (!p->disk) {
            if (state || strcmp(p->member, ARCHIVE_STATE) != 0) {
                return damaged(k, e, "%s is a part of no known kind", p->member);
            }
            state = true;
            a->state_at = api_json_get_int(o, "at", -1);
        }
    }
    if (state != a->about.snapshot->memory || (state && a->state_at < 0)) {
        return damaged(k, e, "its state is %s", state ? "too much" : "missing");
    }
    return json_object_array_length(list) == a->about.n_parts + 2
               ? 0
               : damaged(k, e, "it holds more than it says");
}

static int look(struct work_on *k, struct err *e)
{
    const char *const args[] = { "member", "--json", "--fds", "3", NULL };
    struct snapshot_archive *a = k->archive;
    AUTO_BUF text = BUF_INIT;
    AUTO_JSON list = NULL;
    AUTO_JSON o = NULL;
    struct api_error x = API_ERROR_INIT;
    int rc = archive_image(k, NO_FOLDER, args, -1, &list, e);

    if (rc != 0) {
        err_prefix(e, "'%s'", a->file);
        return rc;
    }
    if (!json_object_is_type(list, json_type_array)) {
        return damaged(k, e, "its files cannot be listed");
    }
    rc = slurp(k, list, ARCHIVE_MANIFEST, MANIFEST_MAX, &text, e);
    if (rc != 0) {
        return rc;
    }
    if (api_json_parse(text.data, text.len, &o, e) < 0) {
        err_prefix(e, "'%s': " ARCHIVE_MANIFEST, a->file);
        return e->code;
    }
    if (api_json_get_int(o, "version", 0) != ARCHIVE_VERSION) {
        return damaged(k, e, "a version of its format that is not known");
    }
    if (api_decode(&api_type_snapshot_archive, o, API_STRICT, "", &a->about, &x) < 0) {
        return damaged(k, e, ARCHIVE_MANIFEST ": %s", x.message);
    }
    a->decoded = true;
    rc = check_seal(k, list, &text, e);
    return rc == 0 ? check_parts(k, list, e) : rc;
}

static void run_look(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);
    struct snapshot_archive *a = k->archive;
    struct stat st;

    a->fd = open(a->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (a->fd < 0 || fstat(a->fd, &st) != 0) {
        err_errno(&w->e, errno, "cannot read '%s'", a->file);
    } else if (!S_ISREG(st.st_mode)) {
        err_set(&w->e, -EINVAL, "'%s' is no regular file", a->file);
    } else {
        (void)look(k, &w->e);
    }
}

/* ---- import: does it fit? ---- */

/* What a host or a name makes of a VM, and the guest does not see. */
static bool is_ours(const char *key)
{
    static const char *const ours[] = {
        "name",       "uuid",     "title",         "description", "metadata",
        "engine",     "firmware", "kernel",        "initrd",      "append",
        "cloud_init", "vnc",      "tcg",           "project",     "autostart",
        "restart",    "watchdog", "host_shutdown", "limits",      "io_threads"
    };

    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        if (strcmp(key, ours[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* The same of a disk, a card, a folder... */
static bool is_ours_inside(const char *list, const char *key)
{
    static const char *const any[] = { "file",   "pool",  "volume",   "path",
                                       "socket", "cache", "throttle", "io_thread" };
    static const char *const of_nic[] = { "name", "bus", "mtu", "queues", "hotplug" };

    for (size_t i = 0; i < ARRAY_LEN(any); i++) {
        if (strcmp(key, any[i]) == 0) {
            return true;
        }
    }
    for (size_t i = 0; strcmp(list, "nics") == 0 && i < ARRAY_LEN(of_nic); i++) {
        if (strcmp(key, of_nic[i]) == 0) {
            return false;
        }
    }
    return strcmp(list, "nics") == 0;
}

static void strip(struct json_object *config)
{
    struct json_object_iterator it = json_object_iter_begin(config),
                                end = json_object_iter_end(config);
    AUTO_JSON gone = json_object_new_array();

    for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it)) {
        const char *key = json_object_iter_peek_name(&it);
        struct json_object *list = json_object_iter_peek_value(&it);

        if (is_ours(key)) {
            json_object_array_add(gone, json_object_new_string(key));
        }
        for (size_t i = 0;
             json_object_is_type(list, json_type_array) && i < json_object_array_length(list);
             i++) {
            struct json_object *o = json_object_array_get_idx(list, i);
            AUTO_JSON out = json_object_new_object();

            if (!json_object_is_type(o, json_type_object)) {
                continue;
            }
            json_object_object_foreach(o, inner, value)
            {
                if (!is_ours_inside(key, inner)) {
                    api_json_set(out, inner, json_object_get(value));
                }
            }
            json_object_array_put_idx(list, i, json_object_get(out));
        }
    }
    for (size_t i = 0; i < json_object_array_length(gone); i++) {
        json_object_object_del(config,
                               json_object_get_string(json_object_array_get_idx(gone, i)));
    }
}

/* The first member in which the shapes differ; NULL: none. Static while both live. */
static const char *differs(struct json_object *a, struct json_object *b)
{
    json_object_object_foreach(a, key, value)
    {
        if (!json_object_equal(value, api_json_get(b, key))) {
            return key;
        }
    }
    json_object_object_foreach(b, other, was)
    {
        (void)was;
        if (!api_json_get(a, other)) {
            return other;
        }
    }
    return NULL;
}

static bool shape_fits(struct work_on *k)
{
    AUTO_JSON there = api_encode(&api_type_vm_config, k->archive->about.config);
    AUTO_JSON here = api_encode(&api_type_vm_config, &work_vm(k)->config);
    const char *key;

    strip(there);
    strip(here);
    key = differs(there, here);
    if (key) {
        struct json_object *was = api_json_get(there, key), *is = api_json_get(here, key);

        work_set_why(k, API_E_BAD_STATE, "give the VM that shape: 'vmctl set'",
                     "VM '%s' has another shape than the snapshot's: '%s' is %.120s, and was "
                     "%.120s",
                     work_vm(k)->config.name, key, is ? api_json_text(is) : "not there",
                     was ? api_json_text(was) : "not there");
    }
    return !key;
}

static const struct api_snapshot_part *part_of(const struct snapshot_archive *a,
                                               const char *disk)
{
    const struct api_snapshot_part *found = NULL;

    for (size_t i = 0; i < a->about.n_parts; i++) {
        if (a->about.parts[i].disk && strcmp(a->about.parts[i].disk, disk) == 0) {
            if (found) {
                return NULL;
            }
            found = &a->about.parts[i];
        }
    }
    return found;
}

/* Is it of memory alone, as far as this disk is concerned? */
static bool leaves_out(const struct api_snapshot *s, const char *disk)
{
    for (size_t i = 0; i < s->n_disks && disk; i++) {
        if (strcmp(s->disks[i].name, disk) == 0) {
            return s->disks[i].snapshot == API_SNAPSHOT_MODE_NO;
        }
    }
    return false;
}

/* Each disk that it holds is one of the VM's that can hold it. */
static bool disks_fit(struct work_on *k)
{
    const struct vm *vm = work_vm(k);
    const struct snapshot_archive *a = k->archive;
    size_t held = 0;

    for (size_t i = 0; i < vm->config.n_disks; i++) {
        const struct api_disk *d = &vm->config.disks[i];
        bool written = !d->readonly && !d->cdrom;
        const struct api_snapshot_part *p = d->name ? part_of(a, d->name) : NULL;

        if (p && (!written || d->format != API_DISK_FORMAT_QCOW2)) {
            work_set_why(k, API_E_BAD_STATE, "convert it to qcow2, and let the guest write it",
                         "disk '%s' of VM '%s' cannot hold a snapshot", d->name,
                         vm->config.name);
            return false;
        }
        if (!p && written && a->about.snapshot->memory &&
            !leaves_out(a->about.snapshot, d->name)) {
            work_set_why(k, API_E_BAD_STATE, NULL,
                         "the archive holds nothing of disk '%s' of VM '%s'", d->name,
                         vm->config.name);
            return false;
        }
        held += p != NULL;
    }
    if (held + a->about.snapshot->memory != a->about.n_parts) {
        work_set_why(k, API_E_BAD_STATE, "give it disks of these names",
                     "VM '%s' does not have the disks that the archive holds", vm->config.name);
        return false;
    }
    return true;
}

static bool name_fits(struct work_on *k, const char *name)
{
    size_t n = 0;

    list_for_each (it, &k->d->snapshots) {
        n += strcmp(list_entry(it, struct snapshot, link)->vm, k->uuid) == 0;
    }
    if (snapshot_find(k->d, k->uuid, name)) {
        work_set_why(k, API_E_EXISTS, "delete that one, or call it otherwise: --name",
                     "VM '%s' has a snapshot '%s' already", work_vm(k)->config.name, name);
    } else if (n >= SNAPSHOTS_MAX) {
        work_set_why(k, API_E_OVERLOAD, "delete some", "VM '%s' has %zu snapshots",
                     work_vm(k)->config.name, n);
    } else {
        return true;
    }
    return false;
}

/* ---- import: making it ---- */

/* The snapshot's own place in the tree, as far as those around it are there. */
static void find_place(struct work_on *k, struct snapshot *s)
{
    const struct api_snapshot *was = k->archive->about.snapshot;

    if (was->parent && snapshot_find(k->d, k->uuid, was->parent)) {
        s->info.parent = xstrdup(was->parent);
    }
}

/* Those whose parent it was come back to it, unless they have got another since. */
static void take_children(struct work_on *k, struct change *c)
{
    const struct api_snapshot_archive *about = &k->archive->about;
    const char *parent = k->s->info.parent;

    if (!about->config->uuid || strcmp(about->config->uuid, k->uuid) != 0) {
        return; /* another VM's have the same names by chance */
    }
    for (size_t i = 0; i < about->n_children; i++) {
        struct snapshot *s = snapshot_find(k->d, k->uuid, about->children[i]);

        if (s && s != k->s && s->info.created_ms >= k->s->info.created_ms &&
            (s->info.parent ? parent && strcmp(s->info.parent, parent) == 0 : !parent)) {
            free(s->info.parent);
            s->info.parent = xstrdup(k->s->info.name);
            snapshot_put(s, c);
        }
    }
}

static struct snapshot *make(struct work_on *k, const char *name)
{
    struct vm *vm = work_vm(k);
    AUTO_JSON config = api_encode(&api_type_vm_config, &vm->config);
    struct snapshot *s = xnew(struct snapshot);
    uint32_t mark = 0;

    if (getrandom(&mark, sizeof(mark), 0) != sizeof(mark)) {
        mark = (uint32_t)time_real_ns();
    }
    api_copy(&api_type_snapshot, k->archive->about.snapshot, &s->info);
    s->vm = xstrdup(k->uuid);
    s->config = xstrdup(api_json_text(config));
    free(s->info.name);
    free(s->info.tag);
    free(s->info.parent);
    free(s->info.memory_file);
    s->info.memory_file = NULL;
    s->info.name = xstrdup(name);
    s->info.tag = xasprintf("%s.%08x", name, mark);
    s->info.parent = NULL;
    s->info.current = false;
    s->info.bytes = 0;
    s->info.imported = true;
    s->info.state = API_SNAPSHOT_STATE_MAKING;
    find_place(k, s);
    snapshot_insert(k->d, s);
    return s;
}

/* The state file of the archive, as one of this VM's. */
static int bring_state(struct work_on *k, struct err *e)
{
    const struct snapshot_archive *a = k->archive;
    const struct api_snapshot_part *p = NULL;
    AUTO_FREE char *piece = xalloc(COPY_PIECE);
    AUTO_BUF key = BUF_INIT;
    AUTO_FD from = -1;
    struct stat st;
    int rc;

    for (size_t i = 0; i < a->about.n_parts && !p; i++) {
        p = a->about.parts[i].disk ? NULL : &a->about.parts[i];
    }
    if (!base64_take(&key, a->about.key) || key.len != STATE_KEY_BYTES) {
        return damaged(k, e, "its key is none");
    }
    from = archive_nameless(k->dir, e);
    rc = from < 0 ? from : archive_room(k->dir, 2 * p->bytes, e);
    for (int64_t done = 0; done < p->bytes && rc == 0;) {
        size_t n = p->bytes - done < COPY_PIECE ? (size_t)(p->bytes - done) : COPY_PIECE;
        ssize_t got = fd_pread(a->fd, piece, n, (uint64_t)(a->state_at + done));

        rc = got <= 0 ? damaged(k, e, "its state cannot be read")
                      : fd_write_all(from, piece, (size_t)got, ARCHIVE_STATE, e);
        done += got;
    }
    rc = rc == 0 ? archive_reseal(k, from, (const uint8_t *)key.data, k->fd, k->key, k->uuid, e)
                 : rc;
    OPENSSL_cleanse(key.data, key.len);
    if (rc == 0 && fstat(k->fd, &st) == 0) {
        k->s->info.bytes = st.st_size;
    }
    return rc;
}

static int bring_disk(struct work_on *k, size_t i, struct err *e)
{
    const struct api_snapshot_part *p = part_of(k->archive, k->disk[i]);
    AUTO_FREE char *dir = work_folder_of(k->image[i]);
    const char *const args[] = { "member",     "--fds",
                                 "--put",      p ? p->member : "",
                                 "--sha256",   p ? p->sha256 : "",
                                 "--snapshot", k->s->info.tag,
                                 "3",          k->image[i],
                                 NULL };
    int rc = archive_stopped(k, e);

    if (rc == 0 && (!p || !dir)) {
        return err_set(e, -EINVAL, "disk '%s' is not in the archive", k->disk[i]);
    }
    rc = rc == 0 ? archive_room(dir, p->bytes, e) : rc;
    return rc == 0 ? archive_image(k, dir, args, -1, NULL, e) : rc;
}

static void run_bring(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);
    int rc = 0;

    if (k->s->info.memory) {
        work_run_make(w);
        rc = w->e.code;
        rc = rc == 0 ? bring_state(k, &w->e) : rc;
        if (rc == 0) {
            work_run_sync(w);
            rc = w->e.code;
        }
    }
    for (size_t i = 0; i < k->n_images && rc == 0; i++) {
        rc = bring_disk(k, i, &w->e);
    }
}

static void brought(struct work_on *k)
{
    struct job *job = job_find(k->d, k->job);
    struct change *c;

    if (job) {
        job->on_cancel = NULL;
    }
    if (k->w.e.code) {
        archive_set_why(k);
        work_drop(k);
        return;
    }
    c = change_new(k->d);
    k->s->info.state = API_SNAPSHOT_STATE_KEPT;
    snapshot_put(k->s, c);
    take_children(k, c);
    work_tell(k, c, "imported");
    work_finish(k, c, k->s);
}

static void import_durable(void *arg, const struct err *e)
{
    struct work_on *k = arg;

    if (k->dead) {
        return;
    }
    if (e) {
        struct snapshot *s = k->s;

        work_set_why(k, API_E_STORE_ERROR, NULL, "%s", e->msg);
        work_finish(k, change_new(k->d), NULL);
        snapshot_free(s);
    } else if (!work_find_images(k)) {
        work_drop(k);
    } else {
        work_start(k, run_bring, brought);
    }
}

/* All of the archive is as it was written. */
static void looked(struct work_on *k)
{
    const struct snapshot_archive *a = k->archive;
    const char *name = a->as ? a->as : a->about.name;
    struct change *c;

    if (k->w.e.code) {
        archive_set_why(k);
    } else if (name_fits(k, name) && disks_fit(k) &&
               (!a->about.snapshot->memory || shape_fits(k))) {
        k->s = make(k, name);
        c = change_new(k->d);
        snapshot_put(k->s, c);
        change_commit(c, import_durable, k);
        return;
    }
    work_finish(k, change_new(k->d), NULL);
}

static bool may_import(const struct vm *vm, struct api_error *x)
{
    const char *name = vm->config.name;

    if (vm->run || (vm->state != API_VM_STATE_STOPPED && vm->state != API_VM_STATE_CRASHED)) {
        api_error_set(x, API_E_BAD_STATE, name, "stop it first: 'vmctl shutdown'",
                      "VM '%s' is %s: its images are in use", name,
                      api_vm_state_name(vm->state));
    } else if (vm->transient) {
        api_error_set(x, API_E_UNSUPPORTED, name, "define it: 'vmctl define'",
                      "VM '%s' is transient: it has no snapshots", name);
    } else if (snapshot_in_doubt(vm)) {
        api_error_set(x, API_E_BAD_STATE, name, "see 'vmctl snapshot list'",
                      "snapshot '%s' of VM '%s' is not whole", snapshot_in_doubt(vm)->info.name,
                      name);
    } else {
        return true;
    }
    return false;
}

static void import_begin(struct op *op)
{
    struct wish *wish = take_ptr(op->in);
    struct api_error x = API_ERROR_INIT;

    if (wish_called_off(op, &x) || !may_import(op->vm, &x)) {
        wish_free(wish);
        wish_refuse(op, &x);
        return;
    }
    work_start(archive_begin(op, NULL, wish), run_look, looked);
}

void api_handle_snapshot_import(struct api_call *call, struct api_snapshot_import_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct api_error x = API_ERROR_INIT;

    if (!vm) {
        return;
    }
    if (access_file(call, vm->config.project, "file", in->file, &x) < 0 ||
        !may_import(vm, &x)) {
        api_reply_error(call, &x);
    } else {
        struct wish *wish = wish_new(vm, in->name, import_begin);

        wish->file = xstrdup(in->file);
        wish->foreign = in->foreign;
        wish_begin_job(call, vm, "snapshot.import", wish);
    }
}
