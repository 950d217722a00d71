/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's side of vmd-spawn: starts it, hands it requests, and starts another when it dies.
 * Loop thread, except spawner_launch(), which main() calls before anything else exists.
 */
#ifndef VMD_DAEMON_SPAWNER_H
#define VMD_DAEMON_SPAWNER_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct json_object;
struct spawner_client;
struct vmd;
struct vmd_options;

/* Starts the helper; *sock gets our end of the socket pair. */
int spawner_launch(const struct vmd_options *o, pid_t *pid, int *sock, struct err *e);

/* What a start gave; the descriptors (emulator, monitor, statistics) are the receiver's. */
struct spawned {
    pid_t pid, mon_pid;
    uint64_t start_time, mon_start;
    int fds[3];
};

struct spawner_client *spawner_new(struct vmd *d, pid_t pid, int take_sock);
void spawner_free(struct spawner_client *s);
/* True once the helper alone speaks for the run folder. */
bool spawner_ready(const struct spawner_client *s);
/* fn runs when it is ready, at once when it is. */
void spawner_when_ready(struct spawner_client *s, void (*fn)(void *arg), void *arg);
/* fn(arg, what, e): what on success (take the descriptors); else e. -ECONNRESET: the helper died, whether it
 * had started the VM is not known; look when another is ready. */
typedef void spawned_fn(void *arg, struct spawned *what, const struct err *e);
void spawner_start(struct spawner_client *s, struct json_object *take_request, spawned_fn *fn,
                   void *arg);
/* fn(arg, disks, path, e): [{path, dev, ino, write}] of the disks (borrowed), or e and the path that
 * failed ("" when it is not about one). */
typedef void checked_fn(void *arg, struct json_object *disks, const char *path,
                        const struct err *e);
void spawner_check(struct spawner_client *s, struct json_object *take_files, checked_fn *fn,
                   void *arg);
/* Opens files, as list in proto.h, for an emulator that runs. fn(arg, images, fds, n, path, e): the list and its
 * descriptors (taken by fn, all of them), or e and the path that failed. `name`: of the VM. */
typedef void opened_fn(void *arg, struct json_object *images, int *take_fds, unsigned n,
                       const char *path, const struct err *e);
void spawner_open(struct spawner_client *s, const char *name, struct json_object *take_files,
                  opened_fn *fn, void *arg);
/* The same for the other ends of network cards ("nics", nics_request()) or shared folders ("shares", shares_request()) of
 * the VM with that number. */
void spawner_open_ends(struct spawner_client *s, int64_t vm, const char *name, const char *what,
                       struct json_object *take_list, opened_fn *fn, void *arg);
/* Starts the process of a network, as proto.h has it: fn(arg, pid, start time, pidfd (taken by fn), NULL), or e. */
typedef void netted_fn(void *arg, pid_t pid, uint64_t start_time, int take_pidfd,
                       const struct err *e);
void spawner_network(struct spawner_client *s, struct json_object *take_request, netted_fn *fn,
                     void *arg);
/* The daemon ends: checks that were not answered fail. */
void spawner_fail_checks(struct spawner_client *s);
/* fn runs when the layers of confinement were tried and told, at once when they were. */
void spawner_when_told(struct spawner_client *s, void (*fn)(void *arg), void *arg);
/* [{name, active, reason}], borrowed; NULL before it was told. */
struct json_object *spawner_layers(const struct spawner_client *s);

#endif
