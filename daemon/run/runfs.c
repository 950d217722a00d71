/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and removing what monitors and emulators leave in run folders. The emulator is less
 * trusted than the daemon: files are bounded, links are not followed, text is cleaned.
 */
#include "daemon/run/runfs.h"

#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/spawn/proto.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_TAIL 2048

char *runfs_path(const struct vmd_options *o, int64_t vm, const char *name)
{
    return xasprintf("%s/%s/%lld/%s", o->run, SPAWN_VM_DIR, (long long)vm, name);
}

char *runfs_lib(const struct vmd_options *o, int64_t vm, const char *name)
{
    return xasprintf("%s/%s/%lld/%s", o->lib, SPAWN_VM_DIR, (long long)vm, name);
}

char *runfs_log(const struct vmd_options *o, int64_t vm)
{
    return xasprintf("%s/%s/%lld/console.log", o->lib, SPAWN_VM_DIR, (long long)vm);
}

int runfs_make_lib(const struct vmd_options *o, int64_t vm, struct err *e)
{
    AUTO_FREE char *dir = xasprintf("%s/%s/%lld", o->lib, SPAWN_VM_DIR, (long long)vm);
    if (mkdir(dir, 0750) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make folder '%s'", dir);
    }
    return 0;
}

static bool clean(const char *dir, const char *const *names, size_t n)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT;
    }
    for (size_t i = 0; i < n; i++) {
        unlinkat(fd, names[i], 0);
    }
    close(fd);
    return rmdir(dir) == 0 || errno == ENOENT;
}

static void clean_channels(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *de;
    while (dir && (de = readdir(dir))) {
        bool channel = de->d_name[0] == 'c' && strlen(de->d_name) == VM_CHANNEL_LEN &&
                       strspn(de->d_name + 1, "0123456789abcdef") == VM_CHANNEL_LEN - 1;
        if (channel || str_starts(de->d_name, VM_VSOCK "_")) {
            unlinkat(dirfd(dir), de->d_name, 0);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

char *runfs_channel(const struct vmd_options *o, int64_t vm, const char *name)
{
    char file[VM_CHANNEL_LEN + 1];
    vm_channel_socket(file, name);
    return runfs_path(o, vm, file);
}

bool runfs_clean(const struct vmd_options *o, int64_t vm)
{
    static const char *const names[] = { VM_CONTROL,         VM_CONSOLE, VM_VNC,
                                         VM_VSOCK,           VM_QMP,     VM_NBD,
                                         VM_EMU_LOG,         VM_PROCESS, VM_EXIT,
                                         VM_ENDING,          VM_DISKS,   "." VM_PROCESS ".tmp",
                                         "." VM_EXIT ".tmp", VM_LOCK };
    AUTO_FREE char *dir = xasprintf("%s/%s/%lld", o->run, SPAWN_VM_DIR, (long long)vm);
    clean_channels(dir);
    return clean(dir, names, ARRAY_LEN(names));
}

void runfs_clean_lib(const struct vmd_options *o, int64_t vm)
{
    static const char *const names[] = { "console.log", "console.log.1", VM_STATE,
                                         VM_STATE_NEW,  VM_SEED,         VM_SEED_NEW };
    AUTO_FREE char *dir = xasprintf("%s/%s/%lld", o->lib, SPAWN_VM_DIR, (long long)vm);
    clean(dir, names, ARRAY_LEN(names));
}

static int read_json(const struct vmd_options *o, int64_t vm, const char *name,
                     const char *cookie, struct json_object **out, struct err *e)
{
    AUTO_FREE char *path = runfs_path(o, vm, name);
    AUTO_BUF text = BUF_INIT;
    int rc = file_slurp(path, &text, 128 << 10, e);
    if (rc < 0) {
        return rc;
    }
    AUTO_JSON json = NULL;
    rc = api_json_parse(text.data ? text.data : "", text.len, &json, e);
    if (rc < 0) {
        return rc;
    }
    const char *has = api_json_get_str(json, "cookie");
    if (!has || strcmp(has, cookie) != 0) {
        return err_set(e, -ENOENT, "'%s' is about another start", path);
    }
    *out = take_ptr(json);
    return 0;
}

int runfs_process(const struct vmd_options *o, int64_t vm, const char *cookie,
                  struct run_process *out, struct err *e)
{
    AUTO_JSON j = NULL;
    int rc = read_json(o, vm, VM_PROCESS, cookie, &j, e);
    if (rc == 0) {
        *out = (struct run_process){
            .pid = (pid_t)api_json_get_int(j, "pid", 0),
            .mon_pid = (pid_t)api_json_get_int(j, "mon_pid", 0),
            .start_time = (uint64_t)api_json_get_int(j, "start_time", 0),
            .mon_start = (uint64_t)api_json_get_int(j, "mon_start", 0),
        };
        AUTO_JSON later = NULL;
        bool others = read_json(o, vm, VM_DISKS, cookie, &later, NULL) == 0;

        run_disks_read(api_json_get(others ? later : j, "disks"), &out->disks);
    }
    return rc;
}

int runfs_exit(const struct vmd_options *o, int64_t vm, const char *cookie,
               struct run_exit *out, struct err *e)
{
    AUTO_JSON j = NULL;
    int rc = read_json(o, vm, VM_EXIT, cookie, &j, e);
    if (rc == 0) {
        *out = (struct run_exit){ .status = (int)api_json_get_int(j, "status", -1),
                                  .signal = (int)api_json_get_int(j, "signal", 0),
                                  .ended_ns = api_json_get_int(j, "ended_ns", 0) };
    }
    return rc;
}

void runfs_set_ending(const struct vmd_options *o, int64_t vm, const char *cookie,
                      const char *reason)
{
    AUTO_FREE char *path = runfs_path(o, vm, VM_ENDING);
    AUTO_FREE char *text = xasprintf("{\"cookie\":\"%s\",\"reason\":\"%s\"}\n", cookie, reason);
    AUTO_FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd >= 0) {
        fd_write_all(fd, text, strlen(text), path, NULL);
    }
}

void runfs_set_disks(const struct vmd_options *o, int64_t vm, const char *cookie,
                     const struct run_disks *disks)
{
    AUTO_FREE char *path = runfs_path(o, vm, VM_DISKS);
    AUTO_JSON all = json_object_new_object();
    struct json_object *list = json_object_new_array();
    AUTO_FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);

    for (unsigned i = 0; i < disks->n; i++) {
        struct json_object *one = json_object_new_object();

        api_json_set_int(one, "dev", (int64_t)disks->disk[i].dev);
        api_json_set_int(one, "ino", (int64_t)disks->disk[i].ino);
        api_json_set_bool(one, "write", disks->disk[i].write);
        json_object_array_add(list, one);
    }
    api_json_set_str(all, "cookie", cookie);
    api_json_set(all, "disks", list);
    if (fd >= 0) {
        const char *text = api_json_text(all);

        fd_write_all(fd, text, strlen(text), path, NULL);
    }
}

bool runfs_ending(const struct vmd_options *o, int64_t vm, const char *cookie, char *out,
                  size_t size)
{
    AUTO_JSON j = NULL;
    if (read_json(o, vm, VM_ENDING, cookie, &j, NULL) < 0) {
        return false;
    }
    const char *reason = api_json_get_str(j, "reason");
    return reason && str_copy(out, size, reason);
}

void runfs_last_words(const struct vmd_options *o, int64_t vm, char *out, size_t size)
{
    char tail[LOG_TAIL + 1];
    AUTO_FREE char *path = runfs_path(o, vm, VM_EMU_LOG);
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    out[0] = 0;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return;
    }
    off_t from = st.st_size > LOG_TAIL ? st.st_size - LOG_TAIL : 0;
    ssize_t n = pread(fd, tail, LOG_TAIL, from);
    while (n > 0 && (tail[n - 1] == '\n' || tail[n - 1] == ' ')) {
        n--;
    }
    if (n <= 0) {
        return;
    }
    tail[n] = 0;
    /* Processes beside it (vmd-net, virtiofsd) end with it, and may speak last. */
    char *line = tail;
    bool own = false;
    for (char *p = tail; p; p = strchr(p, '\n'), p += p ? 1 : 0) {
        bool its = str_starts(p, "vmd-emu: ");
        line = its || !own ? p : line;
        own = own || its;
    }
    line[strcspn(line, "\n")] = 0;
    for (char *p = line; *p; p++) {
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e) {
            *p = '?';
        }
    }
    str_copy(out, size, line);
}

bool runfs_locked(const struct vmd_options *o, int64_t vm)
{
    AUTO_FREE char *path = runfs_path(o, vm, VM_LOCK);
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void runfs_each(const struct vmd_options *o, bool run, void (*fn)(void *arg, int64_t vm),
                void *arg)
{
    AUTO_FREE char *path = xasprintf("%s/%s", run ? o->run : o->lib, SPAWN_VM_DIR);
    DIR *dir = opendir(path);
    if (!dir) {
        return;
    }
    struct dirent *de;
    while ((de = readdir(dir))) {
        uint64_t id;
        if (de->d_name[0] != '.' &&
            str_to_u64(de->d_name, 1, INT64_MAX, "id", &id, NULL) == 0) {
            fn(arg, (int64_t)id);
        }
    }
    closedir(dir);
}
