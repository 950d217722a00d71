/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `vmctl import`: a VM of a file that `vmctl export` wrote, or of an OVA. Nothing in it becomes a path on this machine: files are
 * found by their names in the archive and get names of ours. Each new file is written as FILE.part, verified, and renamed; a list of
 * those that are whole (FOLDER/NAME.import) lets the same command go on after a failure. One thread beside those of img_copy().
 */
#include "cli/image_export.h"
#include "cli/image_ova.h"
#include "cli/image_sums.h"

#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/window.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STATUS_CONFLICT = 5, MAX_SUMS = 1 << 20, MAX_NAME = 64 };

struct import {
    struct cli *c;
    struct cli_input *in;
    const char *file, *name;
    const char *descriptor; /* the member that the definition is from */
    char *folder;           /* absolute */
    struct tar tar;
    struct json_object *config;
    char *sums; /* SHA256SUMS, or the .mf of an OVA; NULL: it has none */
    bool ova;
    char *list;               /* path of the list of whole files */
    struct json_object *done; /* path to SHA-256 of its member */
};

/* --- checksums --- */

/* Its SHA-256 goes to `own`. What has no checksum in our own archives is no part of them. */
static int verify(struct import *x, const struct tar_member *m, char own[TAR_HEX])
{
    char kind[SUMS_KIND], want[TAR_HEX], is[TAR_HEX];
    struct err e = ERR_INIT;

    if (tar_digest(&x->tar, m, "SHA256", own, &e) != 0) {
        return img_error(x->c, &e);
    }
    if (!sums_find(x->sums, x->ova, m->name, kind, want)) {
        return x->ova ? CLI_OK
                      : cli_fail(x->c, CLI_FAILED, NULL, "%s: %s has no checksum", x->file,
                                 m->name);
    }
    if (strcmp(kind, "SHA256") == 0) {
        snprintf(is, sizeof(is), "%s", own);
    } else if (tar_digest(&x->tar, m, kind, is, &e) != 0) {
        return img_error(x->c, &e);
    }
    return strcasecmp(is, want) == 0 ? CLI_OK
                                     : cli_fail(x->c, CLI_FAILED, "fetch the file again",
                                                "%s: %s is damaged: its %s is %s, not %s",
                                                x->file, m->name, kind, is, want);
}

/* --- files --- */

/* A failure that leaves whole what is whole. */
static int go_on(struct import *x, const struct err *e)
{
    return cli_fail(x->c, CLI_FAILED, "the same command goes on with what is missing", "%s",
                    e->msg);
}

static int failed_at(struct import *x, const char *path)
{
    struct err e = ERR_INIT;

    err_errno(&e, errno, "cannot write %s", path);
    return go_on(x, &e);
}

/* Is it there already, of an earlier attempt with the same archive? */
static int look(struct import *x, const char *path, const char *hex, bool *have)
{
    const char *was = api_json_get_str(x->done, path);

    *have = false;
    if (access(path, F_OK) != 0) {
        return CLI_OK;
    }
    *have = was && strcmp(was, hex) == 0;
    return *have ? CLI_OK
                 : cli_fail(x->c, STATUS_CONFLICT,
                            "choose another folder or another name: --folder, --name",
                            "%s is there already", path);
}

static int finish(struct import *x, const char *part, const char *path, const char *hex)
{
    AUTO_FD fd = open(part, O_RDONLY | O_CLOEXEC);
    const char *text;
    struct err e = ERR_INIT;

    if (fd < 0 || fsync(fd) != 0 || rename(part, path) != 0) {
        return failed_at(x, path);
    }
    export_sync_folder(path);
    api_json_set_str(x->done, path, hex);
    text = api_json_text(x->done);
    return file_replace(x->list, text, strlen(text), 0600, &e) == 0 ? CLI_OK
                                                                    : img_error(x->c, &e);
}

static int extract(struct import *x, const struct tar_member *m, const char *path,
                   const char *hex)
{
    AUTO_FREE char *part = xasprintf("%s.part", path);
    AUTO_FD fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    char is[TAR_HEX];
    struct err e = ERR_INIT;

    if (fd < 0) {
        return failed_at(x, part);
    }
    if (tar_extract(&x->tar, m, fd, part, is, &e) != 0) {
        return go_on(x, &e);
    }
    return finish(x, part, path, hex);
}

/* The image that a member is, or NULL after a message. Without backing files: it names none of ours. */
static struct blk_node *open_member(struct import *x, const struct tar_member *m,
                                    const char *format)
{
    struct blk_options o = { .name = m->name,
                             .path = x->file,
                             .driver = format ? format : "raw",
                             .protocol = &blk_window_driver,
                             .start = m->at,
                             .length = m->size,
                             .fd = -1,
                             .readonly = true };
    struct err e = ERR_INIT;
    struct blk_node *n;
    int rc = blk_open(NULL, &o, &n, &e);

    if (rc == 0 && !format) {
        rc = blk_probe_node(n, &o.driver, &e);
        if (rc != 0 || strcmp(o.driver, "raw") != 0) {
            blk_close(n);
            rc = rc ? rc : blk_open(NULL, &o, &n, &e);
        }
    }
    if (rc != 0) {
        (void)img_error(x->c, &e);
        return NULL;
    }
    return n;
}

static int write_disk(struct import *x, struct blk_node *from, const char *format,
                      const char *part)
{
    const char *threads = cli_own(x->in, "threads");
    struct blk_create create = { .path = part, .driver = format, .size = blk_size(from) };
    struct img_source s = { .path = part, .format = format, .write = true, .unsafe = true };
    struct img_progress progress;
    struct img_copy k = { .from = from,
                          .to_is_zero = true,
                          .sparse = 4096,
                          .threads = threads ? (unsigned)strtoul(threads, NULL, 10) : 0,
                          .progress = &progress };
    struct err e = ERR_INIT;
    int status;

    if (blk_create(&create, &e) != 0) {
        return go_on(x, &e);
    }
    (void)chmod(part, 0600);
    status = img_open(x->c, &s, &k.to);
    if (status != CLI_OK) {
        return status;
    }
    img_progress_begin(&progress, x->c, x->in);
    if (img_copy(&k, &e) != 0) {
        err_prefix(&e, "%s", blk_name(from));
        status = go_on(x, &e);
    }
    img_progress_end(&progress);
    return img_close(x->c, k.to, status);
}

static int convert(struct import *x, const struct tar_member *m, const char *from_format,
                   const char *format, const char *path, const char *hex)
{
    AUTO_FREE char *part = xasprintf("%s.part", path);
    struct blk_node *from = open_member(x, m, from_format);
    int status = from ? write_disk(x, from, format, part) : CLI_FAILED;

    blk_close(from);
    return status == CLI_OK ? finish(x, part, path, hex) : status;
}

/* A member becomes a file: a disk (format of it there, format here), or as it is. */
static int bring(struct import *x, const struct tar_member *m, const char *from_format,
                 const char *format, const char *path)
{
    char hex[TAR_HEX];
    bool have;
    int status = verify(x, m, hex);

    status = status ? status : look(x, path, hex, &have);
    if (status != CLI_OK || have) {
        return status;
    }
    return format ? convert(x, m, from_format, format, path, hex) : extract(x, m, path, hex);
}

static int find(struct import *x, const char *name, const struct tar_member **m)
{
    *m = tar_find(&x->tar, name);
    return *m ? CLI_OK
              : cli_fail(x->c, CLI_FAILED, "fetch the file again",
                         "%s: %s is missing, or twice in it", x->file, name);
}

/* --- our own archives --- */

static int bring_parts(struct import *x)
{
    struct part part[EXPORT_FILES];
    size_t n = export_parts(x->config, part), len = strlen(EXPORT_FOLDER);
    int status = CLI_OK;

    for (size_t i = 0; i < n && status == CLI_OK; i++) {
        struct part *p = &part[i];
        const struct tar_member *m;
        const char *member = p->path + len;
        AUTO_FREE char *path = NULL;

        if (strncmp(p->path, EXPORT_FOLDER, len) != 0) {
            status = cli_fail(x->c, CLI_FAILED, NULL,
                              "%s: its definition names %s, a file outside the archive",
                              x->file, p->path);
            break;
        }
        path = p->format ? xasprintf("%s/%s-%.*s.%s", x->folder, x->name,
                                     (int)(strlen(p->member) - strlen(".qcow2")), p->member,
                                     p->format)
                         : xasprintf("%s/%s-%s", x->folder, x->name, p->member);
        status = find(x, member, &m);
        status = status ? status : bring(x, m, p->format ? "qcow2" : NULL, p->format, path);
        if (status == CLI_OK) {
            api_json_set_str(p->owner, p->key, path);
        }
    }
    export_parts_done(part, n);
    return status;
}

/* The definition as the API knows it: what it does not know is refused before anything is written. */
static int check_config(struct import *x)
{
    struct api_vm_config config;
    struct api_error why = API_ERROR_INIT;

    if (api_decode(&api_type_vm_config, x->config, API_STRICT, "config", &config, &why) < 0) {
        return cli_fail(x->c, CLI_FAILED, NULL, "%s: %s: %s", x->file, x->descriptor,
                        why.message);
    }
    api_release(&api_type_vm_config, &config);
    return CLI_OK;
}

static int read_manifest(struct import *x, const struct tar_member *m)
{
    AUTO_BUF b = BUF_INIT, sums = BUF_INIT;
    AUTO_JSON o = NULL;
    const struct tar_member *s;
    struct err e = ERR_INIT;
    char hex[TAR_HEX];
    int status = find(x, EXPORT_SUMS, &s);

    if (status != CLI_OK) {
        return status;
    }
    if (tar_slurp(&x->tar, s, MAX_SUMS, &sums, &e) != 0) {
        return img_error(x->c, &e);
    }
    x->sums = buf_take(&sums);
    status = verify(x, m, hex);
    if (status != CLI_OK) {
        return status;
    }
    if (tar_slurp(&x->tar, m, API_JSON_MAX_SIZE, &b, &e) != 0 ||
        api_json_parse(b.data ? b.data : "", b.len, &o, &e) != 0) {
        return cli_fail(x->c, CLI_FAILED, NULL, "%s: %s: %s", x->file, m->name, e.msg);
    }
    if (api_json_get_int(o, EXPORT_VERSION, 0) != 1) {
        return cli_fail(x->c, CLI_FAILED, "import it with the vmctl that wrote it, or a newer",
                        "%s: a version of its format that is not known", x->file);
    }
    x->config = json_object_get(api_json_get(o, "config"));
    return check_config(x);
}

/* --- OVA --- */

/* A name for us of one for them: letters, digits, '.', '-' and '_'. */
static char *tidy(const char *name)
{
    char *out = xasprintf("%.*s", MAX_NAME - 1, name && *name ? name : "imported");

    for (char *p = out; *p; p++) {
        bool fine = isalnum((unsigned char)*p) || (p > out && strchr("._-", *p));
        *p = fine ? *p : p > out ? '-' : 'v';
    }
    return out;
}

static void make_nics(struct import *x, const struct ovf *o)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < o->n_nics; i++) {
        struct json_object *nic = json_object_new_object();

        api_json_set_str(nic, "type", "user");
        json_object_array_add(list, nic);
    }
    api_json_set(x->config, "nics", list);
}

static int make_disk(struct import *x, const struct ovf_disk *d, size_t i,
                     struct json_object *disk)
{
    AUTO_FREE char *path = xasprintf("%s/%s-disk%zu.qcow2", x->folder, x->name, i);
    AUTO_FREE char *name = xasprintf("disk%zu", i);
    const struct tar_member *m;
    int status = CLI_OK;

    api_json_set_str(disk, "name", name);
    api_json_set_str(disk, "file", path);
    api_json_set_str(disk, "format", "qcow2");
    if (d->bus != OVF_BUS_OTHER) {
        api_json_set_str(disk, "bus", d->bus == OVF_BUS_SCSI ? "scsi" : "sata");
    }
    if (d->file) {
        status = find(x, d->file, &m);
        return status ? status : bring(x, m, NULL, "qcow2", path);
    }
    struct blk_create create = { .path = path,
                                 .driver = "qcow2",
                                 .size = (d->capacity + BLK_SECTOR - 1) / BLK_SECTOR *
                                         BLK_SECTOR };
    struct err e = ERR_INIT;
    bool have;

    status = look(x, path, "empty", &have);
    if (status == CLI_OK && !have && blk_create(&create, &e) != 0) {
        status = img_error(x->c, &e);
    }
    return status == CLI_OK && !have ? finish(x, path, path, "empty") : status;
}

static int make_ova(struct import *x, const struct ovf *o)
{
    struct json_object *disks = json_object_new_array();
    int status = CLI_OK;

    if (o->cpus) {
        api_json_set_int(x->config, "cpus", (int64_t)o->cpus);
    }
    if (o->memory) {
        api_json_set_int(x->config, "memory", (int64_t)o->memory);
    }
    make_nics(x, o);
    api_json_set(x->config, "disks", disks);
    status = check_config(x);
    for (size_t i = 0; i < o->n_disks && status == CLI_OK; i++) {
        struct json_object *disk = json_object_new_object();

        json_object_array_add(disks, disk);
        status = make_disk(x, &o->disk[i], i, disk);
    }
    if (status == CLI_OK && (o->left_out || o->n_cdroms) && !x->c->quiet) {
        fprintf(stderr, "vmctl: %s: left out: %s%s%s\n", x->file,
                o->left_out ? o->left_out : "", o->left_out && o->n_cdroms ? ", " : "",
                o->n_cdroms ? "CD-ROM drive without a medium" : "");
    }
    return status;
}

static int read_sums(struct import *x)
{
    const struct tar_member *mf = tar_find_end(&x->tar, ".mf");
    AUTO_BUF b = BUF_INIT;
    struct err e = ERR_INIT;

    x->ova = true;
    if (mf && tar_slurp(&x->tar, mf, MAX_SUMS, &b, &e) != 0) {
        return img_error(x->c, &e);
    }
    x->sums = mf ? buf_take(&b) : NULL;
    return CLI_OK;
}

static int read_ova(struct import *x, const struct tar_member *m, struct ovf *o)
{
    AUTO_BUF b = BUF_INIT;
    struct err e = ERR_INIT;
    char hex[TAR_HEX];
    int status = read_sums(x);

    status = status ? status : verify(x, m, hex);
    if (status != CLI_OK) {
        return status;
    }
    if (tar_slurp(&x->tar, m, OVF_MAX, &b, &e) != 0 ||
        ovf_read(b.data ? b.data : "", b.len, o, &e) != 0) {
        return cli_fail(x->c, CLI_FAILED, NULL, "%s: %s: %s", x->file, m->name, e.msg);
    }
    x->config = json_object_new_object();
    AUTO_FREE char *name = tidy(o->name);
    api_json_set_str(x->config, "name", name);
    return CLI_OK;
}

/* --- the VM --- */

static bool exists(struct import *x, const char *who, int *status)
{
    struct json_object *about = json_object_new_object();
    struct api_error why = API_ERROR_INIT;

    api_json_set_str(about, "vm", who);
    if (cli_call_quiet(x->c, "vm.get", about, NULL, &why) == 0) {
        return true;
    }
    *status = why.code == API_E_NOT_FOUND ? CLI_OK : cli_error(x->c, &why);
    return false;
}

/* Who it is going to be; nothing is written when there is such a VM already. */
static int identify(struct import *x)
{
    const char *name = cli_own(x->in, "name"), *project = cli_own(x->in, "project"), *uuid;
    struct json_object *nics = api_json_get(x->config, "nics");
    int status = CLI_OK;

    if (name) {
        api_json_set_str(x->config, "name", name);
    }
    if (project) {
        api_json_set_str(x->config, "project", project);
    }
    if (img_flag(x->in, "new-id")) {
        json_object_object_del(x->config, "uuid");
        for (size_t i = 0; nics && i < json_object_array_length(nics); i++) {
            json_object_object_del(json_object_array_get_idx(nics, i), "mac");
        }
    }
    status = check_config(x);
    if (status != CLI_OK) {
        return status;
    }
    x->name = api_json_get_str(x->config, "name");
    uuid = api_json_get_str(x->config, "uuid");
    if (!x->name) {
        return cli_fail(x->c, CLI_USAGE, "--name", "the VM needs a name");
    }
    if (exists(x, x->name, &status)) {
        return cli_fail(x->c, STATUS_CONFLICT, "choose another: --name",
                        "there is a VM '%s' already", x->name);
    }
    if (status == CLI_OK && uuid && exists(x, uuid, &status)) {
        status = cli_fail(x->c, STATUS_CONFLICT, "make it another one: --new-id",
                          "the VM with the UUID %s is there already", uuid);
    }
    return status;
}

/* Which files an earlier attempt has finished. */
static int open_list(struct import *x)
{
    AUTO_BUF b = BUF_INIT;

    x->list = xasprintf("%s/%s.import", x->folder, x->name);
    if (file_slurp(x->list, &b, API_JSON_MAX_SIZE, NULL) != 0 || !b.data ||
        api_json_parse(b.data, b.len, &x->done, NULL) != 0 ||
        !json_object_is_type(x->done, json_type_object)) {
        json_object_put(x->done);
        x->done = json_object_new_object();
    }
    return CLI_OK;
}

static int define(struct import *x)
{
    struct json_object *params = json_object_new_object();
    AUTO_JSON info = NULL;
    int status;

    api_json_set(params, "config", json_object_get(x->config));
    status = cli_call(x->c, "vm.define", params, &info);
    if (status == CLI_OK) {
        (void)unlink(x->list);
        if (x->c->json) {
            cli_print_json(info);
        } else if (!x->c->quiet) {
            printf("%s: imported\n", x->name);
        }
    }
    return status;
}

static int run(struct import *x)
{
    const struct tar_member *ours = tar_find(&x->tar, EXPORT_MANIFEST);
    const struct tar_member *theirs = ours ? NULL : tar_find_end(&x->tar, ".ovf");
    struct ovf ovf = { 0 };
    int status;

    if (!ours && !theirs) {
        return cli_fail(x->c, CLI_FAILED, NULL,
                        "%s is neither a file of 'vmctl export' nor an OVA: it has neither %s "
                        "nor an .ovf",
                        x->file, EXPORT_MANIFEST);
    }
    x->descriptor = (ours ? ours : theirs)->name;
    status = ours ? read_manifest(x, ours) : read_ova(x, theirs, &ovf);
    status = status ? status : identify(x);
    status = status ? status : open_list(x);
    status = status ? status : ours ? bring_parts(x) : make_ova(x, &ovf);
    ovf_done(&ovf);
    return status ? status : define(x);
}

int cli_verb_import(struct cli *c, struct cli_input *in)
{
    const char *folder = cli_own(in, "folder");
    struct import x = { .c = c, .in = in, .file = cli_own(in, "FILE"), .tar = { .fd = -1 } };
    struct err e = ERR_INIT;
    int status = export_local(c);

    if (status != CLI_OK) {
        return status;
    }
    x.folder = realpath(folder ? folder : ".", NULL);
    if (!x.folder) {
        return cli_fail(c, CLI_FAILED, "make it first", "folder %s: %s", folder ? folder : ".",
                        strerror(errno));
    }
    status = tar_open(&x.tar, x.file, false, false, &e) != 0 ? img_error(c, &e) : run(&x);
    tar_done(&x.tar);
    json_object_put(x.config);
    json_object_put(x.done);
    free(x.folder);
    free(x.sums);
    free(x.list);
    return status;
}
