/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a pool. See files.h. */
#include "daemon/storage/files.h"

#include "api-schema/json/json.h"
#include "daemon/storage/work.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define NEW ".vmd-new." /* .vmd-new.WHAT.TOKEN.NAME */
#define GONE ".vmd-gone."
enum { WIPE_PIECE = 1 << 20, FOUND_MAX = 100000, LOCK_TRIES = 50, LOCK_NAP_US = 20000 };
enum { GHOST_TRIES = 400, GHOST_NAP_US = 5000 };

void measure_done(struct measure *m)
{
    free(m->backing);
    free(m->backing_format);
    free(m->export);
    *m = (struct measure){ .capacity = 0 };
}

/* ---- the folder ---- */

int folder_open(struct folder *f, const struct folder_make *m, struct err *e)
{
    const char *path = f->path;
    bool made = m->build && mkdir(path, 0750) == 0;
    if (m->build && !made && errno != EEXIST) {
        return err_errno(e, errno, "cannot make folder '%s'", path);
    }
    AUTO_FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open folder '%s'", path);
    }
    if (made && (m->owner >= 0 || m->group >= 0) &&
        fchown(fd, (uid_t)m->owner, (gid_t)m->group) < 0) {
        return err_errno(e, errno, "cannot give folder '%s' away", path);
    }
    if (made && m->mode >= 0 && fchmod(fd, (mode_t)m->mode) < 0) {
        return err_errno(e, errno, "cannot set the mode of folder '%s'", path);
    }
    int rc = flock(fd, LOCK_EX | LOCK_NB);
    for (int i = 0; rc < 0 && errno == EWOULDBLOCK && i < LOCK_TRIES; i++) {
        usleep(LOCK_NAP_US); /* work of a former use may be about to end */
        rc = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (rc < 0) {
        return errno == EWOULDBLOCK
                   ? err_set(e, -EBUSY, "folder '%s' is in use by another vmd", path)
                   : err_errno(e, errno, "cannot lock folder '%s'", path);
    }
    f->fd = take_fd(&fd);
    return 0;
}

void folder_room(const struct folder *f, int64_t *capacity, int64_t *available)
{
    struct statvfs v;
    if (fstatvfs(f->fd, &v) == 0) {
        *capacity = (int64_t)v.f_blocks * (int64_t)v.f_frsize;
        *available = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    }
}

static int sync_folder(const struct folder *f, struct err *e)
{
    return fsync(f->fd) < 0 ? err_errno(e, errno, "cannot make folder '%s' durable", f->path)
                            : 0;
}

char *file_temp(const struct folder *f, const char *volume, const char *what)
{
    return xasprintf("%s%s.%s.%s", strcmp(what, "gone") == 0 ? GONE : NEW, what, f->token,
                     volume);
}

/* Opens a plain file; NONBLOCK, since a name may be a pipe that somebody put there. */
static int open_file(const struct folder *f, const char *name, int flags, struct err *e)
{
    struct stat st;
    AUTO_FD fd = openat(f->fd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open '%s/%s'", f->path, name);
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return err_set(e, -EINVAL, "'%s/%s' is no plain file", f->path, name);
    }
    return take_fd(&fd);
}

/* ---- one file ---- */

static int read_info(struct buf *text, struct measure *m, struct err *e)
{
    AUTO_JSON o = NULL;
    const char *backing, *format;
    if (api_json_parse((const char *)text->data, text->len, &o, e) < 0) {
        return e->code;
    }
    m->capacity = api_json_get_int(o, "virtual-size", 0);
    backing = api_json_get_str(o, "backing-filename");
    format = api_json_get_str(o, "backing-filename-format");
    m->backing = backing ? xstrdup(backing) : NULL;
    m->backing_format = format ? xstrdup(format) : NULL;
    return 0;
}

int file_measure(const struct folder *f, const char *name, const char *format,
                 struct measure *m, struct err *e)
{
    struct stat st;
    char magic[4] = "";
    AUTO_BUF out = BUF_INIT;
    AUTO_FD fd = open_file(f, name, O_RDONLY, e);
    *m = (struct measure){ .capacity = 0 };
    if (fd < 0) {
        return fd;
    }
    if (fstat(fd, &st) < 0 || pread(fd, magic, sizeof(magic), 0) < 0) {
        return err_errno(e, errno, "cannot read '%s/%s'", f->path, name);
    }
    if (!format) {
        format = memcmp(magic, "QFI\xfb", 4) == 0 ? "qcow2" : "raw";
    }
    str_copy(m->format, sizeof(m->format), format);
    m->capacity = st.st_size;
    m->allocation = (int64_t)st.st_blocks * 512;
    m->ino = (int64_t)st.st_ino;
    if (strcmp(format, "raw") == 0) {
        return 0;
    }
    AUTO_FREE char *path = xasprintf("%s/%s", f->path, name);
    const char *const args[] = { "info", "-U", "--output", "json", "-f", format, path, NULL };
    int rc = works_image(f->works, f->path, args, &out, e);
    return rc < 0 ? rc : read_info(&out, m, e);
}

int file_sync(const struct folder *f, const char *name, struct err *e)
{
    AUTO_FD fd = open_file(f, name, O_RDONLY, e);
    if (fd < 0) {
        return fd;
    }
    return fsync(fd) < 0 ? err_errno(e, errno, "cannot make '%s/%s' durable", f->path, name)
                         : 0;
}

int file_name(const struct folder *f, const char *from, const char *to, bool exchange,
              struct err *e)
{
    unsigned flags = exchange ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    if (renameat2(f->fd, from, f->fd, to, flags) < 0) {
        return errno == EEXIST
                   ? err_set(e, -EEXIST, "there is a file '%s/%s' already", f->path, to)
                   : err_errno(e, errno, "cannot give '%s/%s' its name", f->path, to);
    }
    return sync_folder(f, e);
}

int file_remove(const struct folder *f, const char *name, struct err *e)
{
    if (unlinkat(f->fd, name, 0) < 0 && errno != ENOENT) {
        return err_errno(e, errno, "cannot delete '%s/%s'", f->path, name);
    }
    return sync_folder(f, e);
}

/* Who holds an image lock also marks a byte far behind all data with a lock that tells its pid (storage/lock.c). */
static pid_t holder(int fd)
{
    struct flock mark = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (1ll << 62) + 64, .l_len = 1
    };
    return fcntl(fd, F_GETLK, &mark) == 0 && mark.l_type != F_UNLCK ? mark.l_pid : 0;
}

static int in_use(pid_t pid, const struct folder *f, const char *name, struct err *e)
{
    AUTO_FREE char *path = xasprintf("/proc/%d/comm", (int)pid);
    AUTO_BUF comm = BUF_INIT;
    if (pid <= 0 || file_slurp(path, &comm, 64, NULL) < 0 || comm.len == 0) {
        return err_set(e, -EBUSY, "'%s/%s' is in use", f->path, name);
    }
    comm.data[strcspn((char *)comm.data, "\n")] = 0;
    return str_starts((char *)comm.data, "vm:")
               ? err_set(e, -EBUSY, "'%s/%s' is in use by VM '%s' (pid %d)", f->path, name,
                         (char *)comm.data + 3, (int)pid)
               : err_set(e, -EBUSY, "'%s/%s' is in use by %s (pid %d)", f->path, name,
                         (char *)comm.data, (int)pid);
}

/* The image's bytes of locks, as those who use images lock them. The ring of a process that died holds its files, and so
 * its locks, a moment longer than the process lived: that is waited for. */
int file_lock_all(int fd, const struct folder *f, const char *name, struct err *e)
{
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 200 };
    int rc = fcntl(fd, F_OFD_SETLK, &l);
    for (int i = 0; rc < 0 && (errno == EAGAIN || errno == EACCES); i++) {
        pid_t pid = holder(fd);
        if (i == GHOST_TRIES || pid > 0) {
            return in_use(pid, f, name, e);
        }
        usleep(GHOST_NAP_US);
        rc = fcntl(fd, F_OFD_SETLK, &l);
    }
    return 0;
}

int file_free(const struct folder *f, const char *name, struct err *e)
{
    AUTO_FD fd = open_file(f, name, O_RDWR, e);
    return fd < 0 ? fd : file_lock_all(fd, f, name, e);
}

static int fill_once(int fd, int64_t size, bool random, unsigned char *piece)
{
    memset(piece, 0, WIPE_PIECE);
    for (int64_t at = 0; at < size;) {
        size_t want = size - at < WIPE_PIECE ? (size_t)(size - at) : WIPE_PIECE;
        for (size_t k = 0; random && k < want; k += 256) { /* never short up to 256 bytes */
            if (getrandom(piece + k, 256, 0) < 0) {
                return -errno;
            }
        }
        ssize_t n = pwrite(fd, piece, want, at);
        if (n <= 0 && errno != EINTR) {
            return -errno;
        }
        at += n > 0 ? n : 0;
    }
    return fdatasync(fd) < 0 ? -errno : 0;
}

int file_fill(int fd, int64_t size, bool random)
{
    AUTO_FREE unsigned char *piece = xalloc(WIPE_PIECE);
    int rc = random ? fill_once(fd, size, true, piece) : 0;
    rc = rc < 0 ? rc : fill_once(fd, size, false, piece);
    errno = -rc;
    return rc < 0 ? -1 : 0;
}

int file_wipe(const struct folder *f, const char *name, bool random, struct err *e)
{
    struct stat st;
    AUTO_FD fd = open_file(f, name, O_RDWR, e);
    int rc = fd < 0 ? fd : file_lock_all(fd, f, name, e);
    if (rc < 0) {
        return rc;
    }
    return fstat(fd, &st) < 0 || file_fill(fd, st.st_size, random) < 0
               ? err_errno(e, errno, "cannot overwrite '%s/%s'", f->path, name)
               : 0;
}

int file_attributes(const struct folder *f, const char *name, int64_t mode, int64_t owner,
                    int64_t group, struct err *e)
{
    AUTO_FD fd = open_file(f, name, O_RDONLY, e);
    if (fd < 0) {
        return fd;
    }
    if ((owner >= 0 || group >= 0) && fchown(fd, (uid_t)owner, (gid_t)group) < 0) {
        return err_errno(e, errno, "cannot give '%s/%s' away", f->path, name);
    }
    if (mode >= 0 && fchmod(fd, (mode_t)mode & 0777) < 0) {
        return err_errno(e, errno, "cannot set the mode of '%s/%s'", f->path, name);
    }
    return 0;
}

int file_reserve(const struct folder *f, const char *name, int64_t bytes, struct err *e)
{
    AUTO_FD fd = open_file(f, name, O_RDWR, e);
    if (fd < 0 || bytes <= 0) {
        return fd < 0 ? fd : 0;
    }
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) < 0 && errno != EOPNOTSUPP) {
        return err_errno(e, errno, "cannot reserve room for '%s/%s'", f->path, name);
    }
    return 0;
}

int file_read(const struct folder *f, const char *name, int64_t at, void *data, size_t *n,
              int64_t *size, struct err *e)
{
    struct stat st;
    AUTO_FD fd = open_file(f, name, O_RDONLY, e);
    if (fd < 0) {
        return fd;
    }
    ssize_t got = fstat(fd, &st) < 0 ? -1 : pread(fd, data, *n, at);
    if (got < 0) {
        return err_errno(e, errno, "cannot read '%s/%s'", f->path, name);
    }
    *n = (size_t)got;
    *size = st.st_size;
    return 0;
}

int file_append(const struct folder *f, const char *name, int64_t at, const void *data,
                size_t n, struct err *e)
{
    struct stat st;
    AUTO_FD fd = open_file(f, name, O_RDWR | O_CREAT | (at == 0 ? O_TRUNC : 0), e);
    if (fd < 0) {
        return fd;
    }
    if (fstat(fd, &st) < 0 || st.st_size != at) {
        return err_set(e, -ESPIPE, "%lld bytes were written, not %lld", (long long)st.st_size,
                       (long long)at);
    }
    if (lseek(fd, at, SEEK_SET) < 0) {
        return err_errno(e, errno, "cannot write '%s/%s'", f->path, name);
    }
    return n ? fd_write_all(fd, data, n, name, e) : 0;
}

int file_extend(const struct folder *f, const char *name, int64_t size, struct err *e)
{
    struct stat st;
    AUTO_FD fd = open_file(f, name, O_RDWR, e);
    if (fd < 0) {
        return fd;
    }
    if (fstat(fd, &st) < 0 || (st.st_size < size && ftruncate(fd, size) < 0)) {
        return err_errno(e, errno, "cannot write '%s/%s'", f->path, name);
    }
    return 0;
}

/* ---- what is there ---- */

static int by_known(const void *name, const void *entry)
{
    return strcmp(name, ((const struct known *)entry)->name);
}

static const struct known *known_find(const struct known *list, size_t n, const char *name)
{
    return n ? bsearch(name, list, n, sizeof(*list), by_known) : NULL;
}

/* An unfinished file of another life of a daemon: one that was to be deleted, and was not, gets its name back. */
static void undo_file(const struct folder *f, const char *file, const struct known *known,
                      size_t n)
{
    bool gone = str_starts(file, GONE);
    const char *token = strchr(file + strlen(gone ? GONE : NEW), '.');
    const char *volume = token ? strchr(token + 1, '.') : NULL;
    if (!volume || strncmp(token + 1, f->token, strlen(f->token)) == 0) {
        return; /* not of that kind, or of this life */
    }
    if (gone && known_find(known, n, volume + 1) &&
        renameat2(f->fd, file, f->fd, volume + 1, RENAME_NOREPLACE) == 0) {
        return;
    }
    unlinkat(f->fd, file, 0);
}

static DIR *open_again(const struct folder *f, struct err *e)
{
    int copy = openat(f->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
    if (!d) {
        err_errno(e, errno, "cannot list folder '%s'", f->path);
        if (copy >= 0) {
            close(copy);
        }
    }
    return d;
}

static void undo_all(const struct folder *f, const struct known *known, size_t n)
{
    DIR *d = open_again(f, NULL);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
        if (str_starts(entry->d_name, NEW) || str_starts(entry->d_name, GONE)) {
            undo_file(f, entry->d_name, known, n);
        }
    }
    if (d) {
        closedir(d);
    }
    (void)fsync(f->fd);
}

/* False: it is no volume. */
static bool look(const struct folder *f, const char *name, const struct known *k, bool measure,
                 struct found *out)
{
    struct stat st;
    struct err e = ERR_INIT;
    *out = (struct found){ .known = k != NULL };
    str_copy(out->name, sizeof(out->name), name);
    if (!str_is_name(name) || fstatat(f->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISREG(st.st_mode)) {
        return false;
    }
    if (k && k->making) {
        out->undone = true;
        if ((int64_t)st.st_ino == k->making) {
            unlinkat(f->fd, name, 0);
        }
        return true;
    }
    if (k && !measure) {
        out->m.allocation = (int64_t)st.st_blocks * 512;
        return true;
    }
    if (file_measure(f, name, k ? k->format : NULL, &out->m, &e) < 0) {
        log_warn("daemon", "%s: not looked at: %s", name, e.msg);
        measure_done(&out->m);
        return k != NULL;
    }
    return true;
}

int folder_scan(const struct folder *f, const struct known *known, size_t n, bool measure,
                struct found **out, size_t *n_out, struct err *e)
{
    struct found one;
    struct dirent *entry;
    undo_all(f, known, n);
    DIR *d = open_again(f, e);
    if (!d) {
        return e->code;
    }
    while ((entry = readdir(d)) && *n_out < FOUND_MAX) {
        if (entry->d_name[0] != '.' &&
            look(f, entry->d_name, known_find(known, n, entry->d_name), measure, &one)) {
            *out = xrealloc_n(*out, *n_out + 1, sizeof(one));
            (*out)[(*n_out)++] = one;
        }
    }
    closedir(d);
    return 0;
}
