/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files "swaps/job-NUMBER" of the daemon's folder: empty, or the format of the image that the disk stands on since. Written
 * once by an emulator, so read with care. Owns nothing; any thread.
 */
#include "daemon/vm/swap_record.h"

#include "api-schema/json/codec.h"
#include "daemon/daemon.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder_of(const struct vmd *d)
{
    return xasprintf("%s/swaps", d->opt.lib);
}

char *swap_record_path(const struct vmd *d, int64_t job)
{
    return xasprintf("%s/swaps/job-%lld", d->opt.lib, (long long)job);
}

static int sync_folder(const char *path)
{
    AUTO_FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -1 : fsync(fd);
}

int swap_record_open(const struct vmd *d, int64_t job, struct err *e)
{
    AUTO_FREE char *folder = folder_of(d);
    AUTO_FREE char *path = swap_record_path(d, job);
    AUTO_FD fd = -1;

    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make the folder '%s'", folder);
    }
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || fsync(fd) != 0 || sync_folder(folder) != 0 || sync_folder(d->opt.lib) != 0) {
        return err_errno(e, errno, "cannot make '%s'", path);
    }
    return take_fd(&fd);
}

bool swap_record_read(const struct vmd *d, int64_t job, enum api_disk_format *format)
{
    AUTO_FREE char *path = swap_record_path(d, job);
    AUTO_FD fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    char word[16] = "";
    ssize_t n = fd < 0 ? -1 : read(fd, word, sizeof(word) - 1);
    int value = n > 0 ? api_enum_value(&api_type_disk_format, word) : -1;

    if (value >= 0) {
        *format = (enum api_disk_format)value;
    }
    return value >= 0;
}

void swap_record_drop(const struct vmd *d, int64_t job)
{
    AUTO_FREE char *path = swap_record_path(d, job);

    unlink(path);
}

void swap_records_tidy(struct vmd *d, bool (*keep)(struct vmd *d, int64_t job))
{
    AUTO_FREE char *folder = folder_of(d);
    DIR *dir = opendir(folder);

    for (const struct dirent *f = dir ? readdir(dir) : NULL; f; f = readdir(dir)) {
        long long job;

        if (sscanf(f->d_name, "job-%lld", &job) == 1 && !keep(d, job)) {
            swap_record_drop(d, job);
        }
    }
    if (dir) {
        closedir(dir);
    }
}
