/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network cards of definitions. Loop thread.
 */
#ifndef VMD_DAEMON_NICS_H
#define VMD_DAEMON_NICS_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"

struct json_object;
struct vm;
struct vmd;

/* Gives each card a name and checks its members. 0 or -1 with x. */
int nics_check(struct api_vm_config *c, struct api_error *x);
/* Has another VM an address that a card of this definition would get from its UUID? */
bool nics_mac_taken(struct vmd *d, const struct api_vm_config *c);
/* What vmd-spawn is asked for (spawn/proto.h); the caller's. */
struct json_object *nics_request(const struct vm *vm);
/* The same for one card, which has an address. */
struct json_object *nics_request_one(struct vmd *d, const struct vm *vm,
                                     const struct api_nic *n);

#endif
