/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `vmctl export`: a whole VM in one tar file. Disks are held against writers from the first to the last byte; what is whole of
 * an earlier attempt (FILE.part) is kept as long as definition and files are the same. One thread beside those of img_copy().
 */
#include "cli/image_export.h"

#include "api-schema/json/json.h"
#include "cli/remote.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- what belongs to a VM --- */

static void add_part(struct part *part, size_t *n, struct json_object *owner, const char *key,
                     const char *member)
{
    const char *path = api_json_get_str(owner, key);

    if (*n < EXPORT_FILES && path && path[0] == '/') { /* words like "default" are no files */
        part[(*n)++] = (struct part){ .owner = owner,
                                      .key = key,
                                      .path = xstrdup(path),
                                      .member = xstrdup(member),
                                      .fd = -1 };
    }
}

size_t export_parts(struct json_object *config, struct part *part)
{
    struct json_object *disks = api_json_get(config, "disks"),
                       *flash = api_json_get(config, "flash");
    size_t n = 0;

    for (size_t i = 0; disks && i < json_object_array_length(disks); i++) {
        struct json_object *d = json_object_array_get_idx(disks, i);
        const char *name = api_json_get_str(d, "name"), *format = api_json_get_str(d, "format");
        AUTO_FREE char *member = name ? xasprintf("%s.qcow2", name)
                                      : xasprintf("disk%zu.qcow2", i);
        size_t was = n;

        add_part(part, &n, d, "file", member);
        if (n > was) {
            part[was].format = format ? format : "raw";
        }
    }
    for (size_t i = 0; flash && i < json_object_array_length(flash); i++) {
        AUTO_FREE char *member = xasprintf("flash%zu", i);

        add_part(part, &n, json_object_array_get_idx(flash, i), "file", member);
    }
    add_part(part, &n, config, "kernel", "kernel");
    add_part(part, &n, config, "initrd", "initrd");
    add_part(part, &n, config, "firmware", "firmware");
    return n;
}

void export_parts_done(struct part *part, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        blk_close(part[i].node);
        fd_autoclose(&part[i].fd);
        free(part[i].path);
        free(part[i].member);
    }
}

int export_local(struct cli *c)
{
    int status = cli_connect(c);

    if (status == CLI_OK && c->place && !c->place->socket) {
        status = cli_fail(c, CLI_USAGE, "run it on that host",
                          "the daemon is on another host, whose files are not seen from here");
    }
    return status;
}

void export_sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    AUTO_FREE char *folder = slash ? xasprintf("%.*s", (int)(slash - path) + 1, path)
                                   : xstrdup(".");
    AUTO_FD fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        (void)fsync(fd);
    }
}

/* --- the sources --- */

struct export
{
    struct cli *c;
    struct cli_input *in;
    const char *file;
    char *part_file, *manifest;
    struct json_object *config;
    struct part part[EXPORT_FILES];
    size_t n;
    struct buf sums;
    struct tar tar;
};

/* Disks that are volumes of pools get their files. */
static int resolve_volumes(struct cli *c, struct json_object *config)
{
    struct json_object *disks = api_json_get(config, "disks");

    for (size_t i = 0; disks && i < json_object_array_length(disks); i++) {
        struct json_object *d = json_object_array_get_idx(disks, i), *about;
        AUTO_JSON volume = NULL;
        int status;

        if (!api_json_get_str(d, "pool")) {
            continue;
        }
        about = json_object_new_object();
        api_json_set_str(about, "pool", api_json_get_str(d, "pool"));
        api_json_set_str(about, "volume", api_json_get_str(d, "volume"));
        status = cli_call(c, "volume.get", about, &volume);
        if (status != CLI_OK) {
            return status;
        }
        api_json_set_str(d, "file", api_json_get_str(volume, "path"));
        api_json_set_str(d, "format", api_json_get_str(volume, "format"));
        json_object_object_del(d, "pool");
        json_object_object_del(d, "volume");
    }
    return CLI_OK;
}

static int get_config(struct export *x)
{
    struct json_object *about = json_object_new_object();
    const char *name = cli_own(x->in, "VM"), *state;
    AUTO_JSON info = NULL;
    int status;

    api_json_set_str(about, "vm", name);
    status = cli_call(x->c, "vm.get", about, &info);
    if (status != CLI_OK) {
        return status;
    }
    state = api_json_get_str(info, "state");
    if (!state || (strcmp(state, "stopped") && strcmp(state, "crashed"))) {
        return cli_fail(x->c, 5, "end it first: 'vmctl shutdown' or 'vmctl stop'",
                        "VM '%s' is %s", name, state ? state : "?");
    }
    if (api_json_get_bool(info, "saved", false)) {
        return cli_fail(x->c, 5, "start it and shut it down, or 'vmctl start --fresh'",
                        "VM '%s' has a saved state, which belongs to this host", name);
    }
    x->config = json_object_get(api_json_get(info, "config"));
    return resolve_volumes(x->c, x->config);
}

/* Nobody may write to them until all is done. */
static int open_part(struct export *x, struct part *p)
{
    struct img_source s = { .path = p->path, .format = p->format };

    if (p->format) {
        return img_open(x->c, &s, &p->node);
    }
    p->fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return p->fd >= 0 ? CLI_OK
                      : cli_fail(x->c, CLI_FAILED, NULL, "cannot open %s: %s", p->path,
                                 strerror(errno));
}

static void stamp(struct buf *b, const char *path)
{
    struct stat st;

    if (stat(path, &st) == 0) {
        buf_printf(b, "%llu.%09ld %lld %llu %llu\n", (unsigned long long)st.st_mtim.tv_sec,
                   st.st_mtim.tv_nsec, (long long)st.st_size, (unsigned long long)st.st_ino,
                   (unsigned long long)st.st_dev);
    }
}

/* Changes when any file below changes. */
static void stamp_part(const struct part *p, struct buf *b)
{
    if (!p->node) {
        stamp(b, p->path);
    }
    for (const struct blk_node *n = p->node; n; n = blk_child(n, BLK_BACKING)) {
        stamp(b, blk_path(n));
        if (blk_child(n, BLK_DATA)) {
            stamp(b, blk_path(blk_child(n, BLK_DATA)));
        }
    }
}

/* vm.json: the same text for the same VM. */
static void make_manifest(struct export *x)
{
    AUTO_JSON o = json_object_new_object();
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < x->n; i++) {
        struct part *p = &x->part[i];
        struct json_object *f = json_object_new_object();
        AUTO_FREE char *at = xasprintf(EXPORT_FOLDER "%s", p->member);
        AUTO_BUF b = BUF_INIT;

        stamp_part(p, &b);
        api_json_set_str(f, "member", p->member);
        if (p->node) {
            api_json_set_int(f, "size", (int64_t)blk_size(p->node));
        }
        api_json_set_str(f, "changed", b.data ? b.data : "");
        json_object_array_add(list, f);
        api_json_set_str(p->owner, p->key, at);
    }
    api_json_set_int(o, EXPORT_VERSION, 1);
    api_json_set(o, "files", list);
    api_json_set(o, "config", json_object_get(x->config));
    x->manifest = xstrdup(api_json_text(o));
}

/* --- the archive --- */

static int convert(struct export *x, struct part *p, const char *to)
{
    const char *threads = cli_own(x->in, "threads");
    struct blk_option zstd = { .key = "compression_type", .value = "zstd" };
    struct blk_create create = { .path = to,
                                 .driver = "qcow2",
                                 .size = blk_size(p->node),
                                 .option = &zstd,
                                 .n_options = 1 };
    struct img_source s = { .path = to, .format = "qcow2", .write = true, .unsafe = true };
    struct img_progress progress;
    struct img_copy k = { .from = p->node,
                          .compress = true,
                          .to_is_zero = true,
                          .sparse = 4096,
                          .threads = threads ? (unsigned)strtoul(threads, NULL, 10) : 0,
                          .progress = &progress };
    struct err e = ERR_INIT;
    int status;

    if (blk_create(&create, &e) != 0) {
        return img_error(x->c, &e);
    }
    status = img_open(x->c, &s, &k.to);
    if (status != CLI_OK) {
        return status;
    }
    img_progress_begin(&progress, x->c, x->in);
    if (img_copy(&k, &e) != 0) {
        status = img_error(x->c, &e);
    }
    img_progress_end(&progress);
    return img_close(x->c, k.to, status);
}

static int add_disk(struct export *x, struct part *p, char hex[TAR_HEX])
{
    AUTO_FREE char *temp = xasprintf("%s.disk", x->part_file);
    AUTO_FD fd = -1;
    struct err e = ERR_INIT;
    int status = convert(x, p, temp);

    if (status == CLI_OK) {
        fd = open(temp, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            status = cli_fail(x->c, CLI_FAILED, NULL, "cannot open %s: %s", temp,
                              strerror(errno));
        } else if (tar_add_file(&x->tar, p->member, fd, temp, hex, &e) != 0) {
            status = img_error(x->c, &e);
        }
    }
    (void)unlink(temp);
    return status;
}

static int add_part_file(struct export *x, struct part *p)
{
    const struct tar_member *have = tar_find(&x->tar, p->member);
    struct err e = ERR_INIT;
    char hex[TAR_HEX];
    int status = CLI_OK;

    if (have ? tar_digest(&x->tar, have, "SHA256", hex, &e) != 0
             : !p->node && tar_add_file(&x->tar, p->member, p->fd, p->path, hex, &e) != 0) {
        return img_error(x->c, &e);
    }
    if (!have && p->node) {
        status = add_disk(x, p, hex);
    }
    if (status == CLI_OK) {
        buf_printf(&x->sums, "%s  %s\n", hex, p->member);
    }
    return status;
}

/* What is whole of an earlier attempt at the same VM stays. */
static int begin_archive(struct export *x)
{
    const struct tar_member *m;
    AUTO_BUF was = BUF_INIT;
    struct err e = ERR_INIT;
    char hex[TAR_HEX];

    if (tar_open(&x->tar, x->part_file, true, true, &e) != 0) {
        return img_error(x->c, &e);
    }
    m = tar_find(&x->tar, EXPORT_MANIFEST);
    if (!m || tar_slurp(&x->tar, m, API_JSON_MAX_SIZE, &was, NULL) != 0 || !was.data ||
        strcmp(was.data, x->manifest) != 0 || tar_find(&x->tar, EXPORT_SUMS)) {
        tar_done(&x->tar);
        if (unlink(x->part_file) != 0 || tar_open(&x->tar, x->part_file, true, true, &e) != 0 ||
            tar_add(&x->tar, EXPORT_MANIFEST, x->manifest, strlen(x->manifest), &e) != 0) {
            return e.code ? img_error(x->c, &e)
                          : cli_fail(x->c, CLI_FAILED, NULL, "cannot write %s: %s",
                                     x->part_file, strerror(errno));
        }
    }
    m = tar_find(&x->tar, EXPORT_MANIFEST);
    if (tar_digest(&x->tar, m, "SHA256", hex, &e) != 0) {
        return img_error(x->c, &e);
    }
    buf_printf(&x->sums, "%s  %s\n", hex, EXPORT_MANIFEST);
    return CLI_OK;
}

static int end_archive(struct export *x)
{
    struct err e = ERR_INIT;

    if (tar_add(&x->tar, EXPORT_SUMS, x->sums.data, x->sums.len, &e) != 0 ||
        tar_end(&x->tar, &e) != 0) {
        return img_error(x->c, &e);
    }
    if (rename(x->part_file, x->file) != 0) {
        return cli_fail(x->c, CLI_FAILED, NULL, "cannot rename %s to %s: %s", x->part_file,
                        x->file, strerror(errno));
    }
    export_sync_folder(x->file);
    return CLI_OK;
}

static int run(struct export *x)
{
    int status = get_config(x);

    if (status != CLI_OK) {
        return status;
    }
    x->n = export_parts(x->config, x->part);
    for (size_t i = 0; i < x->n && status == CLI_OK; i++) {
        status = open_part(x, &x->part[i]);
    }
    if (status != CLI_OK) {
        return status;
    }
    make_manifest(x);
    status = begin_archive(x);
    for (size_t i = 0; i < x->n && status == CLI_OK; i++) {
        status = add_part_file(x, &x->part[i]);
    }
    return status == CLI_OK ? end_archive(x) : status;
}

int cli_verb_export(struct cli *c, struct cli_input *in)
{
    const char *vm = cli_own(in, "VM"), *file = cli_own(in, "FILE");
    AUTO_FREE char *own = file ? NULL : xasprintf("%s.vm", vm);
    struct export x = { .c = c, .in = in, .file = file ? file : own, .tar = { .fd = -1 } };
    int status = export_local(c);

    if (status != CLI_OK) {
        return status;
    }
    if (access(x.file, F_OK) == 0 && !img_flag(in, "replace")) {
        return cli_fail(c, 5, "choose another name, or --replace", "%s is there already",
                        x.file);
    }
    x.part_file = xasprintf("%s.part", x.file);
    status = run(&x);
    export_parts_done(x.part, x.n);
    tar_done(&x.tar);
    json_object_put(x.config);
    buf_done(&x.sums);
    free(x.part_file);
    free(x.manifest);
    if (status == CLI_OK && c->json) {
        AUTO_JSON o = json_object_new_object();

        api_json_set_str(o, "vm", vm);
        api_json_set_str(o, "file", x.file);
        cli_print_json(o);
    } else if (status == CLI_OK && !c->quiet) {
        printf("%s: exported to %s\n", vm, x.file);
    }
    return status;
}
