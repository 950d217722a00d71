/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything an emulator is handed as a descriptor: its lock, sockets, logs, statistics page,
 * configuration, kernel and disks. Owns the descriptors of struct start until they are closed.
 * vmd-spawn's one thread.
 */
#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "daemon/host/filecheck.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NO_DEVICE INT64_C(0x6e6264) /* in the place of a device's number; no device has it */

static int make_folder(struct start *st, struct err *e)
{
    char id[32];
    snprintf(id, sizeof(id), "%lld", (long long)st->vm);
    if (snprintf(st->dir, sizeof(st->dir), "%s/%s", st->sp->run, id) >= (int)sizeof(st->dir)) {
        return err_set(e, -ENAMETOOLONG, "run folder '%s' has too long a name", st->sp->run);
    }
    if (mkdirat(st->sp->run_fd, id, 0750) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make run folder '%s'", st->dir);
    }
    st->dir_fd = openat(st->sp->run_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return st->dir_fd < 0 ? err_errno(e, errno, "cannot open run folder '%s'", st->dir) : 0;
}

/* Held by the open file description, which at the end only the emulator has. */
static int take_lock(struct start *st, struct err *e)
{
    AUTO_FD fd = openat(st->dir_fd, VM_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open '%s/%s'", st->dir, VM_LOCK);
    }
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        if (errno == EAGAIN || errno == EACCES) {
            return err_set(e, -EBUSY,
                           "VM '%s' already has an emulator: '%s/%s' is locked; stop it first, "
                           "or wait until "
                           "the kernel has ended it",
                           st->name, st->dir, VM_LOCK);
        }
        return err_errno(e, errno, "cannot lock '%s/%s'", st->dir, VM_LOCK);
    }
    st->lock_fd = take_fd(
        &fd); /* from here on the folder is ours, and undone when the start fails */
    return 0;
}

/* path NULL: left out. */
static void add_disk(struct json_object *list, int fd, const char *path, bool write)
{
    struct stat s;
    if (fstat(fd, &s) < 0) {
        return;
    }
    struct json_object *o = json_object_new_object();
    if (path) {
        api_json_set_str(o, "path", path);
    }
    api_json_set_int(o, "dev", (int64_t)(S_ISBLK(s.st_mode) ? s.st_rdev : s.st_dev));
    api_json_set_int(o, "ino", S_ISBLK(s.st_mode) ? 0 : (int64_t)s.st_ino);
    api_json_set_bool(o, "write", write);
    json_object_array_add(list, o);
}

/* An export has no number that others have too: its address stands for it, so that not two VMs of this host write to it. */
static void add_export(struct json_object *list, const char *address, bool paths, bool write)
{
    struct json_object *o = json_object_new_object();
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (const char *p = address; *p; p++) {
        hash = (hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    }
    if (paths) {
        api_json_set_str(o, "path", address);
    }
    api_json_set_int(o, "dev", NO_DEVICE);
    api_json_set_int(o, "ino", (int64_t)(hash >> 1));
    api_json_set_bool(o, "write", write);
    json_object_array_add(list, o);
}

struct json_object *files_disks(const struct start *st, bool paths)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < st->n_files; i++) {
        if (nbd_addr_is(st->files[i].path)) {
            add_export(list, st->files[i].path, paths, st->files[i].write);
        } else if (st->files[i].disk) {
            add_disk(list, st->files[i].fd, paths ? st->files[i].path : NULL,
                     st->files[i].write);
        }
    }
    for (unsigned i = 0; i < st->n_images; i++) {
        add_disk(list, st->images[i].fd, paths ? st->images[i].path : NULL,
                 st->images[i].write);
    }
    return list;
}

static int connect_export(const struct start *st, const struct spawn_file *f, struct err *e)
{
    struct nbd_addr address;
    int fd = nbd_addr_parse(f->path, &address, e);
    if (fd == 0) {
        fd = nbd_addr_connect(&address, e);
    }
    if (fd >= 0 && address.tls) {
        fd = tls_relay(st, &address, fd, e);
    }
    if (fd < 0) {
        err_prefix(e, "%s", f->what);
    }
    return fd;
}

int files_open(struct start *st, const char **bad, struct err *e)
{
    for (unsigned i = 0; i < st->n_files; i++) {
        struct spawn_file *f = &st->files[i];
        bool far = f->disk && nbd_addr_is(f->path);
        bool there = access(f->path, F_OK) == 0 || errno != ENOENT;
        if (f->tape == TAPE_RECORD && there) {
            *bad = f->path;
            return err_set(e, -EEXIST, "%s '%s' exists already; choose another name", f->what,
                           f->path);
        }
        if (st->check && (far || (f->made && !there))) {
            continue; /* nothing is connected, or made, for a question */
        }
        f->fd = far ? connect_export(st, f, e)
                    : file_open_checked(f->what, f->path,
                                        f->disk                  ? FILE_DISK
                                        : f->tape == TAPE_RECORD ? FILE_NEW
                                        : f->made                ? FILE_MADE
                                                                 : FILE_DATA,
                                        f->write, e);
        if (f->fd < 0) {
            *bad = f->path;
            return f->fd;
        }
        f->is_new = f->tape == TAPE_RECORD;
    }
    return chain_open(st, bad, e);
}

/* Bound here, listened to by the emulator: SO_PEERCRED then names it. We hold the VM's lock, so
 * a socket file that exists belongs to nobody. */
static int bind_socket(struct start *st, const char *name, int *out, struct err *e)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    if (snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s", st->dir, name) >=
        (int)sizeof(at.sun_path)) {
        return err_set(
            e, -ENAMETOOLONG,
            "socket '%s/%s' has too long a name (107 bytes at most); choose a shorter "
            "--dir",
            st->dir, name);
    }
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return err_errno(e, errno, "cannot make a socket");
    }
    if (unlinkat(st->dir_fd, name, 0) < 0 && errno != ENOENT) {
        return err_errno(e, errno, "cannot remove stale '%s'", at.sun_path);
    }
    mode_t old = umask(0117);
    int rc = bind(fd, (struct sockaddr *)&at, sizeof(at));
    umask(old);
    if (rc < 0) {
        return err_errno(e, errno, "cannot bind '%s'", at.sun_path);
    }
    *out = take_fd(&fd);
    return 0;
}

static int sealed_memfd(const char *name, const void *bytes, size_t n, int seals, int *out,
                        struct err *e)
{
    AUTO_FD fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)n) < 0) {
        return err_errno(e, errno, "cannot make memory file '%s'", name);
    }
    if (bytes && pwrite(fd, bytes, n, 0) != (ssize_t)n) {
        return err_set(e, -ENOMEM, "cannot fill memory file '%s'", name);
    }
    if (fcntl(fd, F_ADD_SEALS, seals) < 0) {
        return err_errno(e, errno, "cannot seal memory file '%s'", name);
    }
    *out = take_fd(&fd);
    return 0;
}

static int open_log(int dir_fd, const char *path, int *out, struct err *e)
{
    int fd = openat(dir_fd, path,
                    O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) {
        return err_errno(e, errno, "cannot make log '%s'", path);
    }
    *out = fd;
    return 0;
}

/* For VMs of that engine and no others. */
static int open_kvm(int *out, struct err *e)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return err_errno(e, errno, "engine kvm: cannot open /dev/kvm");
    }
    *out = fd;
    return 0;
}

int start_prepare(struct start *st, struct err *e)
{
    const char *bad = NULL;
    const int fixed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    int rc = make_folder(st, e);
    if (rc == 0) {
        rc = take_lock(st, e);
    }
    if (rc == 0) {
        unlinkat(st->dir_fd, VM_PROCESS, 0);
        unlinkat(st->dir_fd, VM_EXIT, 0);
        unlinkat(st->dir_fd, VM_ENDING, 0);
        rc = files_open(st, &bad, e);
    }
    if (rc == 0) {
        rc = open_log(st->dir_fd, VM_EMU_LOG, &st->emu_log_fd, e);
    }
    if (rc == 0 && st->log) {
        AUTO_FREE char *former = xasprintf("%s.1", st->log);
        rename(st->log, former); /* of the run before; there may be none */
        rc = open_log(AT_FDCWD, st->log, &st->console_log_fd, e);
    }
    if (rc == 0) {
        rc = bind_socket(st, VM_CONTROL, &st->control_fd, e);
    }
    if (rc == 0) {
        rc = bind_socket(st, VM_CONSOLE, &st->console_fd, e);
    }
    if (rc == 0 && st->screen) {
        rc = bind_socket(st, VM_VNC, &st->vnc_fd, e);
    }
    if (rc == 0 && st->vsock) {
        rc = bind_socket(st, VM_VSOCK, &st->vsock_fd, e);
    }
    if (rc == 0) { /* a host without it saves less well; the emulator says so */
        st->uffd_fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    }
    if (rc == 0 && st->kvm) {
        rc = open_kvm(&st->kvm_fd, e);
    }
    for (unsigned i = 0; i < st->n_channels && rc == 0; i++) {
        rc = bind_socket(st, st->channels[i].socket, &st->channels[i].fd, e);
    }
    if (rc == 0) {
        rc = sealed_memfd("vmd-stats", NULL, STATS_SIZE, fixed, &st->stats_fd, e);
    }
    if (rc == 0) {
        rc = sealed_memfd("vmd-config", st->config, strlen(st->config), fixed | F_SEAL_WRITE,
                          &st->config_fd, e);
    }
    return rc;
}

void start_done(struct start *st, bool undo)
{
    bool ours = st->lock_fd >= 0 && undo;
    if (ours && st->dir_fd >= 0) {
        static const char *const made[] = { VM_CONTROL, VM_CONSOLE, VM_VNC,    VM_VSOCK,
                                            VM_PROCESS, VM_EXIT,    VM_EMU_LOG };
        for (unsigned i = 0; i < ARRAY_LEN(made); i++) {
            unlinkat(st->dir_fd, made[i], 0);
        }
        for (unsigned i = 0; i < st->n_channels; i++) {
            unlinkat(st->dir_fd, st->channels[i].socket, 0);
        }
    }
    int *fds[] = { &st->dir_fd,         &st->lock_fd,  &st->control_fd,   &st->console_fd,
                   &st->console_log_fd, &st->stats_fd, &st->config_fd,    &st->emu_log_fd,
                   &st->vnc_fd,         &st->uffd_fd,  &st->vsock_fd,     &st->vsock_call_fd,
                   &st->kvm_fd,         &st->sound_fd, &st->sound_ring_fd };
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        fd_autoclose(fds[i]);
        *fds[i] = -1;
    }
    for (unsigned i = 0; i < st->n_files; i++) {
        if (undo && st->files[i].is_new) {
            unlink(st->files[i].path); /* nothing was recorded */
        }
        fd_autoclose(&st->files[i].fd);
        st->files[i].fd = -1;
    }
    for (unsigned i = 0; i < st->n_images; i++) {
        fd_autoclose(&st->images[i].fd);
        free(st->images[i].path);
    }
    for (unsigned i = 0; i < st->n_channels; i++) {
        fd_autoclose(&st->channels[i].fd);
    }
    st->n_channels = 0;
    for (unsigned i = 0; i < st->n_nics; i++) {
        free(st->nics[i].args);
    }
    st->n_nics = 0;
    free(st->images);
    st->images = NULL;
    st->n_images = 0;
}
