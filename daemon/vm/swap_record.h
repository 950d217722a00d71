/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an emulator leaves in writing when a job gives a disk another image: in a file of the job's, with the guest's requests
 * held, before any of them reaches that image. Whatever dies then, the definition can follow. Any thread.
 */
#ifndef VMD_DAEMON_SWAP_RECORD_H
#define VMD_DAEMON_SWAP_RECORD_H

#include "api-schema/gen/types.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct vmd;

/* Its path, to be freed. */
char *swap_record_path(const struct vmd *d, int64_t job);
/* A new one, empty and durable: a descriptor, or a negative code. */
int swap_record_open(const struct vmd *d, int64_t job, struct err *e);
/* False: the disk kept its image, or there is no record. */
bool swap_record_read(const struct vmd *d, int64_t job, enum api_disk_format *format);
void swap_record_drop(const struct vmd *d, int64_t job);
/* Drops those of jobs that keep() does not want. */
void swap_records_tidy(struct vmd *d, bool (*keep)(struct vmd *d, int64_t job));

#endif
