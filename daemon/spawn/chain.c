/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The images below a disk: each names the next one, and each is opened by policy, read-only (a data file as its
 * image). What an image may name is bounded: plain paths, in the folder of the disk's own image or in one that the
 * administrator allows, so that an image somebody brought along reads no other file of the host. vmd-spawn's one thread.
 */
#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "daemon/host/filecheck.h"
#include "daemon/spawn/header.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One disk's walk. */
struct walk {
    struct start *st;
    struct header_reader *reader;
    const struct spawn_file *disk;
    unsigned file;    /* its index */
    char *home;       /* folder of the disk's own image, resolved */
    unsigned depth;   /* images so far, the disk's own included */
    const char **bad; /* where a path that failed goes */
};

static bool below(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') {
        n--;
    }
    return n == 1 || (strncmp(path, folder, n) == 0 && path[n] == '/');
}

/* `path` has no links left in it. */
static bool allowed(const struct walk *w, const char *path)
{
    struct json_object *list = w->st->folders;
    size_t n = list && json_object_is_type(list, json_type_array)
                   ? json_object_array_length(list)
                   : 0;
    bool in = w->home && below(path, w->home);
    for (size_t i = 0; i < n && !in; i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        const char *text = json_object_is_type(o, json_type_string) ? json_object_get_string(o)
                                                                    : "";
        AUTO_FREE char *real = text[0] == '/' ? realpath(text, NULL) : NULL;
        in = real && below(path, real);
    }
    return in;
}

static int outside(const struct walk *w, const char *kind, const char *path, const char *of,
                   struct err *e)
{
    return err_set(
        e, -EACCES,
        "%s: the %s file '%s' of '%s' is outside the folders that images may name (%s); "
        "move it there, or give its folder to vmd with --image-dir",
        w->disk->what, kind, path, of, w->home ? w->home : "none");
}

/* The path as the image's folder sees it; the caller's. NULL and *e when it is no plain path. */
static char *plain_path(const struct walk *w, const char *kind, const char *named,
                        const char *of, struct err *e)
{
    const char *name = strncmp(named, "file:", 5) == 0 ? named + 5 : named;
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');
    if (!name[0] || (colon && (!slash || colon < slash))) {
        err_set(
            e, -ENOTSUP,
            "%s: the %s file '%.200s' of '%s' is no plain path; give it one with 'vmctl image "
            "rebase -u'",
            w->disk->what, kind, named, of);
        return NULL;
    }
    const char *end = strrchr(of, '/');
    return name[0] == '/' || !end ? xstrdup(name)
                                  : xasprintf("%.*s/%s", (int)(end - of), of, name);
}

/* A path that leads nowhere yet tells only what is allowed to be known. */
static bool may_look(const struct walk *w, const char *path)
{
    AUTO_FREE char *real = realpath(path, NULL);
    if (real) {
        return allowed(w, real);
    }
    return !strstr(path, "/../") && (allowed(w, path) || (w->home && below(path, w->home)));
}

static int open_named(const struct walk *w, const char *kind, const char *path, const char *of,
                      bool write, struct err *e)
{
    char link[64], real[PATH_MAX];
    if (!may_look(w, path)) {
        return outside(w, kind, path, of, e);
    }
    AUTO_FREE char *what = xasprintf("%s: the %s file of '%s',", w->disk->what, kind, of);
    AUTO_FD fd = file_open_checked(what, path, FILE_DISK, write, e);
    if (fd < 0) {
        return fd;
    }
    /* What was opened, whatever the path has become meanwhile. */
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, real, sizeof(real) - 1);
    real[n > 0 ? n : 0] = 0;
    return n > 0 && allowed(w, real) ? take_fd(&fd) : outside(w, kind, path, of, e);
}

static struct spawn_image *add_image(const struct walk *w, bool data, const char *format,
                                     char *take_path, bool write, int take_fd)
{
    struct start *st = w->st;
    st->images = xrealloc_n(st->images, st->n_images + 1, sizeof(*st->images));
    struct spawn_image *m = &st->images[st->n_images++];
    *m = (struct spawn_image){
        .path = take_path, .file = w->file, .data = data, .write = write, .fd = take_fd
    };
    str_copy(m->format, sizeof(m->format), format);
    return m;
}

/* Is the file one of those of this disk already? */
static bool met(const struct walk *w, const struct stat *st)
{
    struct stat s;
    if (fstat(w->disk->fd, &s) == 0 && s.st_dev == st->st_dev && s.st_ino == st->st_ino) {
        return true;
    }
    for (unsigned i = 0; i < w->st->n_images; i++) {
        const struct spawn_image *m = &w->st->images[i];
        if (m->file == w->file && fstat(m->fd, &s) == 0 && s.st_dev == st->st_dev &&
            s.st_ino == st->st_ino) {
            return true;
        }
    }
    return false;
}

static int check_image(const struct walk *w, const char *kind, const char *path, const char *of,
                       int fd, struct err *e)
{
    struct stat s;
    if (fstat(fd, &s) == 0 && met(w, &s)) {
        return err_set(e, -ELOOP,
                       "%s: the backing chain is a loop: '%s' names '%s', which is part of it "
                       "already; give one of them another %s file",
                       w->disk->what, of, path, kind);
    }
    if (w->st->n_images >= SPAWN_IMAGES_MAX) {
        return err_set(e, -E2BIG,
                       "VM '%s': more than %d images below its disks; shorten the chains with "
                       "'vmctl image commit' or 'rebase'",
                       w->st->name, SPAWN_IMAGES_MAX);
    }
    return 0;
}

static bool format_ok(const char *s)
{
    return s[0] && s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-")] == 0;
}

static int walk_data(struct walk *w, const struct image_names *names, const char *of,
                     bool write, struct err *e)
{
    if (!names->has_data || !names->data[0]) {
        return 0; /* who opens the image says that it names none */
    }
    AUTO_FREE char *path = plain_path(w, "data", names->data, of, e);
    if (!path) {
        return e->code;
    }
    AUTO_FD fd = open_named(w, "data", path, of, write, e);
    int rc = fd < 0 ? fd : check_image(w, "data", path, of, fd, e);
    if (rc == 0) {
        add_image(w, true, "raw", take_ptr(path), write, take_fd(&fd));
    }
    return rc;
}

/* The backing file of `of`; *next: its index among the images, or -1. */
static int walk_backing(struct walk *w, const struct image_names *names, const char *of,
                        int *next, struct err *e)
{
    *next = -1;
    if (!names->backing[0]) {
        return 0;
    }
    if (++w->depth > SPAWN_DEPTH_MAX) {
        return err_set(
            e, -ELOOP,
            "%s: more than %d images in the backing chain; shorten it with 'vmctl image "
            "commit' or 'rebase'",
            w->disk->what, SPAWN_DEPTH_MAX);
    }
    AUTO_FREE char *path = plain_path(w, "backing", names->backing, of, e);
    if (!path) {
        return e->code;
    }
    if (!format_ok(names->format)) {
        return err_set(e, -EINVAL,
                       "%s: '%s' does not say which format its backing file has; say it with "
                       "'vmctl image rebase -u -b %s -F FORMAT %s'",
                       w->disk->what, of, names->backing, of);
    }
    AUTO_FD fd = open_named(w, "backing", path, of, false, e);
    int rc = fd < 0 ? fd : check_image(w, "backing", path, of, fd, e);
    if (rc == 0) {
        add_image(w, false, names->format, take_ptr(path), false, take_fd(&fd));
        *next = (int)w->st->n_images - 1;
    }
    return rc;
}

static int walk_disk(struct walk *w, struct err *e)
{
    struct image_names names;
    const char *path = w->disk->path, *format = w->disk->format;
    int fd = w->disk->fd, next = 0, rc = 0;
    bool write = w->disk->write;
    while (rc == 0 && strcmp(format, "qcow2") == 0) {
        AUTO_FREE char *what = xasprintf("%s '%s'", w->disk->what, path);
        *w->bad = w->disk->path;
        rc = header_read(w->reader, fd, what, &names, e);
        rc = rc ? rc : walk_data(w, &names, path, write, e);
        rc = rc ? rc : walk_backing(w, &names, path, &next, e);
        if (rc != 0 || next < 0) {
            break;
        }
        path = w->st->images[next].path;
        format = w->st->images[next].format;
        fd = w->st->images[next].fd;
        write = false;
    }
    return rc;
}

int chain_open(struct start *st, const char **bad, struct err *e)
{
    struct header_reader reader = { .pid = 0 };
    int rc = 0;
    for (unsigned i = 0; i < st->n_files && rc == 0; i++) {
        struct spawn_file *f = &st->files[i];
        if (!f->disk || !f->format || strcmp(f->format, "raw") == 0 || nbd_addr_is(f->path)) {
            continue;
        }
        AUTO_FREE char *real = realpath(f->path, NULL);
        char *slash = real ? strrchr(real, '/') : NULL;
        if (slash) {
            slash[slash == real] = 0;
        }
        struct walk w = { .st = st,
                          .reader = &reader,
                          .disk = f,
                          .file = i,
                          .home = real,
                          .depth = 1,
                          .bad = bad };
        rc = walk_disk(&w, e);
    }
    header_reader_done(&reader);
    return rc;
}
