/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dumps of guest memory: jobs of the kind vm.dump. The emulator writes, into a file that a thread of ours made and
 * later syncs, so that a slow disk holds up nobody. Loop thread, but for those threads.
 */
#ifndef VMD_DAEMON_DUMP_H
#define VMD_DAEMON_DUMP_H

#include "api-schema/gen/types.h"

struct job;
struct vm;
struct vmd;

/* The VM's last dump, for QMP's query-dump. */
struct dump_seen {
    enum api_emu_dump_state state;
    int64_t completed, total;
};

/* A job that another daemon began: followed to its end. False: it has none to follow. */
bool dump_follow(struct vmd *d, struct job *job);
/* The daemon ends: waits for the threads; the loop runs no more. */
void dumps_end(struct vmd *d);

#endif
