/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of struct policy, shared by policy.c and policy_shutdown.c. Loop thread.
 */
#ifndef VMD_DAEMON_POLICY_IN_H
#define VMD_DAEMON_POLICY_IN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop_timer;
struct shutdown;
struct vm;
struct vmd;

struct policy {
    struct vmd *d;
    bool begun;
    struct loop_timer *watch; /* looks at the emulators' heartbeats */
    struct loop_timer *delay; /* before the next autostart */
    int64_t *boot;            /* numbers of the VMs to start, in order */
    size_t boot_n, boot_at;
    struct shutdown *shutdown; /* an orderly shutdown under way; NULL: none */
};

/* Is `vm` told to come after `other`? */
bool policy_comes_after(const struct vm *vm, const struct vm *other);
/* Numbers of the VMs that are started by themselves, in that order; the caller's. */
size_t policy_order(struct vmd *d, int64_t **ids);

#endif
