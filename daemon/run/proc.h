/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which process is it: boot id, start time, pidfd, random cookies, small atomic files. A process is
 * named by (boot id, pid, start time), which is never used twice. Shared by vmd and vmd-spawn.
 * No state; any thread.
 */
#ifndef VMD_DAEMON_PROC_H
#define VMD_DAEMON_PROC_H

#include "engine/base/err.h"

#include <stdint.h>
#include <sys/types.h>

#define COOKIE_LEN 32 /* hex digits: 128 bits */

/* Start time of a process in clock ticks since boot, from /proc. -ESRCH when it is gone or dead
 * (a zombie counts as dead). */
int proc_start_time(pid_t pid, uint64_t *ticks, struct err *e);
/* How long a process with that start time has been there, by the clock since boot. */
int64_t proc_uptime_ns(uint64_t start_ticks);
/* Resident memory of a process in bytes, 0 when it cannot be told. */
int64_t proc_memory_rss(pid_t pid);
/* 36 characters and \0. */
int proc_boot_id(char out[37], struct err *e);
/* A pidfd for exactly that process; -ESRCH when that process is gone. */
int proc_pidfd(pid_t pid, uint64_t start_time, struct err *e);
/* Sends a signal to exactly that process, by the pidfd that proc_pidfd() or vmd-spawn gave. Where the
 * kernel (or valgrind) does not know the call: by its number, after a look at its start time. */
int proc_signal(int pidfd, pid_t pid, uint64_t start_time, int signo, struct err *e);
void cookie_make(char out[COOKIE_LEN + 1]);
int64_t time_real_ns(void);
int64_t time_mono_ns(void);

#endif
