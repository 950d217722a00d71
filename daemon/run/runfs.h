/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run folders as the daemon sees them: RUN/vm/ID while a VM runs (spawn/proto.h), LIB/vm/ID
 * (console log) while it is defined. Functions on files; no state, any thread.
 */
#ifndef VMD_DAEMON_RUNFS_H
#define VMD_DAEMON_RUNFS_H

#include "daemon/run/supervise.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct vmd_options;

/* QMP socket, the daemon's own, beside those of spawn/proto.h. */
#define VM_QMP "qmp.sock"
/* In RUN/vm/ID, by the daemon: files of its disks, which are others than at its start. */
#define VM_DISKS "disks"
/* In LIB/vm/ID: the state of a saved VM, and one that is not whole yet. */
#define VM_STATE "state"
#define VM_STATE_NEW VM_STATE ".new"
/* In LIB/vm/ID: the seed of cloud-init, and one that is not whole yet. */
#define VM_SEED "seed.iso"
#define VM_SEED_NEW VM_SEED ".new"
char *runfs_path(const struct vmd_options *o, int64_t vm, const char *name); /* the caller's */
char *runfs_channel(const struct vmd_options *o, int64_t vm, const char *name); /* the same */
char *runfs_log(const struct vmd_options *o, int64_t vm);                    /* the caller's */
char *runfs_lib(const struct vmd_options *o, int64_t vm, const char *name);  /* the caller's */
/* Makes LIB/vm/ID. */
int runfs_make_lib(const struct vmd_options *o, int64_t vm, struct err *e);
/* Removes all that is known in RUN/vm/ID, and the folder; false: it is still there, as a monitor writes into it just now. */
bool runfs_clean(const struct vmd_options *o, int64_t vm);
void runfs_clean_lib(const struct vmd_options *o, int64_t vm);

struct run_process {
    pid_t pid, mon_pid;
    uint64_t start_time, mon_start;
    struct run_disks disks;
};
/* What the monitor wrote, if it is about this cookie; -ENOENT otherwise. */
int runfs_process(const struct vmd_options *o, int64_t vm, const char *cookie,
                  struct run_process *out, struct err *e);
struct run_exit {
    int status, signal; /* status -1 when it did not exit */
    int64_t ended_ns;
};
int runfs_exit(const struct vmd_options *o, int64_t vm, const char *cookie,
               struct run_exit *out, struct err *e);
/* Writes down that the daemon ends the VM, and why ("quit", "killed"); a word. Not synced: it matters
 * only while this boot lasts. */
void runfs_set_ending(const struct vmd_options *o, int64_t vm, const char *cookie,
                      const char *reason);
/* That reason, or false. */
bool runfs_ending(const struct vmd_options *o, int64_t vm, const char *cookie, char *out,
                  size_t size);
/* Writes down which files its disks are by now, in place of what the monitor wrote. As runfs_set_ending(). */
void runfs_set_disks(const struct vmd_options *o, int64_t vm, const char *cookie,
                     const struct run_disks *disks);
/* Last line of the emulator's standard error, without control characters; "" when there is none. */
void runfs_last_words(const struct vmd_options *o, int64_t vm, char *out, size_t size);
/* True when an emulator (or a start under way) holds the VM's lock. */
bool runfs_locked(const struct vmd_options *o, int64_t vm);
/* Calls fn for every numbered folder in RUN/vm (run) or LIB/vm. */
void runfs_each(const struct vmd_options *o, bool run, void (*fn)(void *arg, int64_t vm),
                void *arg);

#endif
