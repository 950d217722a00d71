/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeds of cloud-init (config.cloud_init): a disk for reading that is made anew at each start, from the definition alone, so that
 * the same definition gives the same bytes. Loop thread.
 */
#ifndef VMD_DAEMON_CLOUDINIT_H
#define VMD_DAEMON_CLOUDINIT_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"
#include "engine/base/err.h"

struct buf;
struct json_object;
struct vm;

/* Name of the disk. */
#define CLOUDINIT_DISK "cloud-init"

/* 0, or -1 and *x. */
int cloudinit_check(const struct api_vm_config *c, struct api_error *x);
/* The image of a definition that has one and a UUID. Pure. */
void cloudinit_image(const struct api_vm_config *c, struct buf *out);
/* Before a start: writes LIB/vm/ID/VM_SEED, which is there, or removes one that is not wanted any more. */
int cloudinit_write(const struct vm *vm, struct err *e);
/* What the emulator gets: the disk in the place of the words. */
void cloudinit_give(const struct vm *vm, struct json_object *config, struct json_object *files);

#endif
