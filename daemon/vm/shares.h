/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared folders of VMs: their checks, what vmd-spawn is asked for. Loop thread.
 */
#ifndef VMD_DAEMON_SHARES_H
#define VMD_DAEMON_SHARES_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"

struct json_object;

/* Each has a tag of its own, and what its driver needs. */
int shares_check(const struct api_vm_config *c, struct api_error *x);
/* As spawn/proto.h has them; the caller's. */
struct json_object *shares_request(const struct api_share *s, size_t n);

#endif
