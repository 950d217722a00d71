/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlays that disks of a running VM are about to get: a durable job says so before the emulator is asked, and ends together
 * with the definition's change. When the daemon dies between, the next one learns here what came of it. Loop thread.
 */
#ifndef VMD_DAEMON_DISK_INTENT_H
#define VMD_DAEMON_DISK_INTENT_H

#include <stdbool.h>
#include <stdint.h>

struct api_disk;
struct api_disk_action;
struct api_error;
struct change;
struct job;
struct json_object;
struct vm;
struct vmd;

/* An overlay, as the job holds it; the caller's. */
struct json_object *disk_intent_of(const struct api_disk_action *a);
/* Number of the job, whose row goes into c. */
int64_t disk_intent_begin(struct vm *vm, struct change *c, struct json_object *take_overlays,
                          int64_t owner);
/* In c, which the caller commits. x NULL: done. */
void disk_intent_end(struct vmd *d, int64_t number, struct change *c,
                     const struct api_error *x);
/* A job that the last daemon left: true when it is one of these. */
bool disk_intent_follow(struct vmd *d, struct job *job);
/* The daemon ends. */
void disk_intents_end(struct vmd *d);

#endif
