/* SPDX-License-Identifier: Apache-2.0 */
/* Image files on the disk. See image_files.h. */
#include "daemon/auth/image_files.h"

#include "api-schema/tls/tls.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RESERVE                                                                                \
    (INT64_C(64) << 20) /* what an upload leaves free for others, the store above all */

const char *image_remedy(int code)
{
    switch (code) {
    case -ENOENT:
        return "'vmctl image list' shows the images there are";
    case -EEXIST:
        return "choose another name, or ask to replace it";
    case -ENOSPC:
    case -EDQUOT:
        return "delete images that are not needed";
    case -EBADMSG:
        return "send it again";
    default:
        return "see the log of vmd and the disk under its folder";
    }
}

void image_work_done(struct image_work *w)
{
    free(w->data);
    free(w->found);
}

void image_close(struct image_file *f)
{
    if (f->fd >= 0) {
        close(f->fd);
        f->fd = -1;
    }
}

/* An unfinished file: its name begins with a dot, which no image's does. */
static char *part_name(const char *name, int64_t total)
{
    return xasprintf(".%s.%" PRId64 ".part", name, total);
}

/* "…": name and size out of it; false when it is none. */
static bool part_parse(const char *file, char name[64], int64_t *total)
{
    size_t n = strlen(file);
    const char *end = file + n - 5, *dot;
    if (n < 9 || file[0] != '.' || strcmp(end, ".part") != 0) {
        return false;
    }
    for (dot = end - 1; dot > file && *dot != '.'; dot--) {
    }
    AUTO_FREE char *digits = xstrndup(dot + 1, (size_t)(end - dot - 1));
    AUTO_FREE char *found = xstrndup(file + 1, dot > file ? (size_t)(dot - file - 1) : 0);
    uint64_t value;
    if (!str_is_name(found) || str_to_u64(digits, 0, INT64_MAX, "size", &value, NULL) < 0) {
        return false;
    }
    str_copy(name, 64, found);
    *total = (int64_t)value;
    return true;
}

static int open_folder(const char *path, bool make, struct err *e)
{
    if (make && mkdir(path, 0750) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make folder '%s'", path);
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? err_errno(e, errno, "cannot open folder '%s'", path) : fd;
}

static int open_project(const struct image_work *w, bool make, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/%s", w->dir, w->project);
    if (!str_is_name(w->project)) {
        return err_set(e, -ENOENT, "'%s' is no project", w->project);
    }
    if (make) {
        AUTO_FD top = open_folder(w->dir, true, e);
        if (top < 0) {
            return top;
        }
    }
    return open_folder(path, make, e);
}

static int64_t project_bytes(int dir)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
    int64_t sum = 0, total;
    struct dirent *entry;
    struct stat st;
    char name[64];
    while (d && (entry = readdir(d))) {
        if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
            sum += part_parse(entry->d_name, name, &total) ? total : st.st_size;
        }
    }
    if (d) {
        closedir(d);
    }
    return sum;
}

static int check_room(int dir, const struct image_work *w, int64_t has, struct err *e)
{
    struct statvfs v;
    if (w->quota > 0) {
        int64_t used = project_bytes(dir) - w->total; /* its unfinished file counts as a whole */
        if (used + w->total > w->quota) {
            return err_set(e, -EDQUOT,
                           "image '%s' has %" PRId64 " bytes; project '%s' may keep %" PRId64
                           " and keeps %" PRId64,
                           w->name, w->total, w->project, w->quota, used);
        }
    }
    if (fstatvfs(dir, &v) == 0) {
        int64_t room = (int64_t)v.f_bavail * (int64_t)v.f_frsize - RESERVE;
        if (w->total - has > room) {
            return err_set(e, -ENOSPC,
                           "image '%s' needs %" PRId64
                           " bytes more, the filesystem of '%s' has "
                           "room for %" PRId64,
                           w->name, w->total - has, w->dir, room > 0 ? room : 0);
        }
    }
    return 0;
}

int image_begin(struct image_file *f, struct image_work *w, struct err *e)
{
    AUTO_FD dir = open_project(w, true, e);
    AUTO_FREE char *part = part_name(w->name, w->total);
    struct stat st;
    if (dir < 0) {
        return dir;
    }
    AUTO_FD fd = openat(dir, part,
                        O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (w->restart ? O_TRUNC : 0),
                        0640);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return err_errno(e, errno ? errno : EINVAL, "cannot write image '%s'", w->name);
    }
    w->offset = st.st_size > w->total ? 0 : st.st_size;
    if (st.st_size > w->total && ftruncate(fd, 0) < 0) {
        return err_errno(e, errno, "cannot write image '%s'", w->name);
    }
    int rc = check_room(dir, w, w->offset, e);
    if (rc < 0) {
        if (w->offset == 0) {
            unlinkat(dir, part, 0);
        }
        return rc;
    }
    f->fd = take_fd(&fd);
    return 0;
}

int image_write(struct image_file *f, struct image_work *w, struct err *e)
{
    size_t at = 0;
    while (at < w->len) {
        ssize_t n = pwrite(f->fd, w->data + at, w->len - at, w->offset + (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return err_errno(e, n < 0 ? errno : ENOSPC, "cannot write image '%s'", w->name);
        }
        at += (size_t)n;
    }
    w->offset += (int64_t)w->len;
    return 0;
}

static int check_digest(int fd, const struct image_work *w, struct err *e)
{
    AUTO_FREE unsigned char *piece = xalloc(1 << 20);
    unsigned char digest[32];
    char hex[65];
    off_t at = 0;
    ssize_t n;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    while ((n = pread(fd, piece, 1 << 20, at)) > 0) {
        EVP_DigestUpdate(ctx, piece, (size_t)n);
        at += n;
    }
    EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    tls_hex(digest, sizeof(digest), hex);
    if (n < 0) {
        return err_errno(e, errno, "cannot read image '%s'", w->name);
    }
    if (strcasecmp(hex, w->sha256) != 0) {
        return err_set(e, -EBADMSG, "image '%s' arrived damaged: its SHA-256 is %s, not %s",
                       w->name, hex, w->sha256);
    }
    return 0;
}

int image_finish(struct image_file *f, struct image_work *w, struct err *e)
{
    AUTO_FD dir = open_project(w, false, e);
    struct stat st;
    if (dir < 0) {
        return dir;
    }
    if (fstat(f->fd, &st) < 0 || fsync(f->fd) < 0) {
        return err_errno(e, errno, "cannot make image '%s' durable", w->name);
    }
    AUTO_FREE char *part = part_name(w->name, st.st_size);
    int rc = w->sha256[0] ? check_digest(f->fd, w, e) : 0;
    if (rc == -EBADMSG) {
        unlinkat(dir, part, 0); /* no use in going on with it */
    }
    if (rc < 0) {
        return rc;
    }
    if (renameat2(dir, part, dir, w->name, w->replace ? 0 : RENAME_NOREPLACE) < 0) {
        return errno == EEXIST ? err_set(e, -EEXIST, "there is an image '%s' in project '%s'",
                                         w->name, w->project)
                               : err_errno(e, errno, "cannot name image '%s'", w->name);
    }
    if (fsync(dir) < 0) {
        return err_errno(e, errno, "cannot make image '%s' durable", w->name);
    }
    return 0;
}

static int no_image(const struct image_work *w, struct err *e)
{
    return err_set(e, -ENOENT, "there is no image '%s' in project '%s'", w->name, w->project);
}

int image_read(struct image_work *w, struct err *e)
{
    struct stat st;
    struct err ignored = ERR_INIT;
    AUTO_FD dir = open_project(w, false, &ignored);
    if (dir < 0) {
        return no_image(w, e);
    }
    AUTO_FD fd = openat(dir, w->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return no_image(w, e);
    }
    w->data = xalloc(w->len);
    ssize_t n = pread(fd, w->data, w->len, w->offset);
    if (n < 0) {
        return err_errno(e, errno, "cannot read image '%s'", w->name);
    }
    w->len = (size_t)n;
    w->total = st.st_size;
    return 0;
}

static void list_project(struct image_work *w, const char *project)
{
    AUTO_FREE char *path = xasprintf("%s/%s", w->dir, project);
    int fd = open_folder(path, false, NULL);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    struct stat st;
    while (d && w->n_found < IMAGES_LISTED && (entry = readdir(d))) {
        struct image_found f = { .changed_ms = 0 };
        f.partial = part_parse(entry->d_name, f.name, &f.total);
        if ((!f.partial && !str_is_name(entry->d_name)) ||
            fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        if (!f.partial) {
            str_copy(f.name, sizeof(f.name), entry->d_name);
        }
        str_copy(f.project, sizeof(f.project), project);
        f.size = st.st_size;
        f.changed_ms = st.st_mtim.tv_sec * INT64_C(1000) + st.st_mtim.tv_nsec / 1000000;
        w->found = xrealloc_n(w->found, w->n_found + 1, sizeof(f));
        w->found[w->n_found++] = f;
    }
    if (d) {
        closedir(d);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct image_found *x = a, *y = b;
    int way = strcmp(x->project, y->project);
    return way ? way : strcmp(x->name, y->name);
}

int image_list(struct image_work *w, struct err *e)
{
    (void)e;
    if (w->project[0]) {
        list_project(w, w->project);
    } else {
        DIR *d = opendir(w->dir);
        struct dirent *entry;
        while (d && (entry = readdir(d))) {
            if (str_is_name(entry->d_name)) {
                list_project(w, entry->d_name);
            }
        }
        if (d) {
            closedir(d);
        }
    }
    if (w->n_found) {
        qsort(w->found, w->n_found, sizeof(*w->found), by_name);
    }
    return 0;
}

/* Removes unfinished files of the name; how many there were. */
static unsigned delete_parts(int dir, const char *name)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
    struct dirent *entry;
    char found[64];
    int64_t total;
    unsigned n = 0;
    while (d && (entry = readdir(d))) {
        if (part_parse(entry->d_name, found, &total) && strcmp(found, name) == 0) {
            n += unlinkat(dir, entry->d_name, 0) == 0;
        }
    }
    if (d) {
        closedir(d);
    }
    return n;
}

int image_delete(struct image_work *w, struct err *e)
{
    struct err ignored = ERR_INIT;
    AUTO_FD dir = open_project(w, false, &ignored);
    if (dir < 0) {
        return no_image(w, e);
    }
    unsigned n = delete_parts(dir, w->name);
    if (unlinkat(dir, w->name, 0) < 0) {
        if (errno != ENOENT) {
            return err_errno(e, errno, "cannot delete image '%s'", w->name);
        }
        if (n == 0) {
            return no_image(w, e);
        }
    }
    (void)fsync(dir);
    return 0;
}
