/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups, version 2: a group for each VM that has limits, below the group that vmd was given
 * (systemd: Delegate=yes). vmd makes the group and writes the limits before it asks for the emulator;
 * vmd-spawn puts the emulator's process into it before its first instruction. Any thread; no state but
 * struct cgroup.
 */
#ifndef VMD_DAEMON_CGROUP_H
#define VMD_DAEMON_CGROUP_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct api_limits;

struct cgroup {
    bool usable;
    bool ready;     /* controllers were switched on, vmd is in a group of its own */
    char root[512]; /* folder */
    char why[256];  /* not usable: the reason */
};

/* "auto" (or NULL): vmd's own group; "off"; or a folder. */
void cgroup_probe(struct cgroup *g, const char *setting);
/* The folder, or the reason why there is none. */
const char *cgroup_text(const struct cgroup *g);
/* The VM's group with these limits; *dir (the caller's) is its folder. Only the limits that are set are
 * written; one that the kernel refuses is an error that names it. */
int cgroup_make(struct cgroup *g, int64_t vm, const struct api_limits *l, char **dir,
                struct err *e);
/* New limits for a VM that may run. No group: nothing. */
int cgroup_limit(const struct cgroup *g, int64_t vm, const struct api_limits *l, struct err *e);
/* Ends every process in the VM's group; false when there is none. */
bool cgroup_kill(const struct cgroup *g, int64_t vm);
/* Removes the group and ends what is in it. False: what is in it has not ended yet, call again later. */
bool cgroup_remove(const struct cgroup *g, int64_t vm);
/* vmd-spawn: puts a process into a group. */
int cgroup_join(const char *dir, pid_t pid, struct err *e);

#endif
