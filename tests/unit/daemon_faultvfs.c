/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The failing VFS: each file is the system's file behind a thin layer that counts. Counters are
 * atomic: the store writes on its own thread.
 */
#include "tests/unit/daemon_faultvfs.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>

struct file {
    sqlite3_file base;
    sqlite3_file *real; /* behind this struct in the same block */
};

static sqlite3_vfs *system_vfs;
static sqlite3_vfs fault_vfs;
static atomic_int kind_now = -1, left, forever_now, fired;

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct file *)f)->real;
}

/* Is this operation the one that fails? */
static bool hit(bool sync)
{
    int kind = atomic_load(&kind_now);
    if (kind < 0 || (kind == FAULT_SYNC) != sync) {
        return false;
    }
    int before = atomic_fetch_sub(&left, 1);
    if (before == 1 || (before < 1 && atomic_load(&forever_now))) {
        atomic_store(&fired, 1);
        return true;
    }
    return false;
}

static int f_close(sqlite3_file *f)
{
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int f_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    return real_of(f)->pMethods->xRead(real_of(f), p, n, at);
}

static int f_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    if (!hit(false)) {
        return real_of(f)->pMethods->xWrite(real_of(f), p, n, at);
    }
    int kind = atomic_load(&kind_now);
    if (kind == FAULT_TORN) {
        real_of(f)->pMethods->xWrite(real_of(f), p, n / 2, at);
    }
    return kind == FAULT_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    if (hit(false)) {
        return atomic_load(&kind_now) == FAULT_FULL ? SQLITE_FULL : SQLITE_IOERR_TRUNCATE;
    }
    return real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int f_sync(sqlite3_file *f, int flags)
{
    return hit(true) ? SQLITE_IOERR_FSYNC : real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int f_size(sqlite3_file *f, sqlite3_int64 *out)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), out);
}

static int f_lock(sqlite3_file *f, int how)
{
    return real_of(f)->pMethods->xLock(real_of(f), how);
}

static int f_unlock(sqlite3_file *f, int how)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), how);
}

static int f_reserved(sqlite3_file *f, int *out)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}

static int f_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int f_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int f_device(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int f_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}

static int f_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void f_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int f_shm_unmap(sqlite3_file *f, int del)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), del);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = f_close,
    .xRead = f_read,
    .xWrite = f_write,
    .xTruncate = f_truncate,
    .xSync = f_sync,
    .xFileSize = f_size,
    .xLock = f_lock,
    .xUnlock = f_unlock,
    .xCheckReservedLock = f_reserved,
    .xFileControl = f_control,
    .xSectorSize = f_sector,
    .xDeviceCharacteristics = f_device,
    .xShmMap = f_shm_map,
    .xShmLock = f_shm_lock,
    .xShmBarrier = f_shm_barrier,
    .xShmUnmap = f_shm_unmap,
};

static int v_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
    struct file *file = (struct file *)f;
    (void)v;
    memset(file, 0, sizeof(*file));
    file->real = (sqlite3_file *)(file + 1);
    int rc = system_vfs->xOpen(system_vfs, name, file->real, flags, out);
    file->base.pMethods = rc == SQLITE_OK ? &methods : NULL;
    return rc;
}

void fault_register(void)
{
    system_vfs = sqlite3_vfs_find(NULL);
    fault_vfs = *system_vfs;
    fault_vfs.zName = "fault";
    fault_vfs.pNext = NULL;
    fault_vfs.szOsFile = (int)sizeof(struct file) + system_vfs->szOsFile;
    fault_vfs.xOpen = v_open;
    sqlite3_vfs_register(&fault_vfs, 0);
}

void fault_arm(enum fault kind, int n, bool forever)
{
    atomic_store(&fired, 0);
    atomic_store(&left, n);
    atomic_store(&forever_now, forever);
    atomic_store(&kind_now, kind);
}

void fault_disarm(void)
{
    atomic_store(&kind_now, -1);
}

bool fault_fired(void)
{
    return atomic_load(&fired);
}
