/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What VMs are made from and what there is for them: profiles, quotas of projects, the host's
 * capacity. Loop thread.
 */
#ifndef VMD_DAEMON_SUPPLY_H
#define VMD_DAEMON_SUPPLY_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"

#include <stddef.h>

struct api_call;
struct json_object;
struct store_object;
struct supply;
struct vm;
struct vmd;

struct supply *supply_new(struct vmd *d);
void supply_free(struct supply *s);
/* Rows of kinds "profile" and "quota". */
void supply_load_profile(struct vmd *d, const struct store_object *row);
void supply_load_quota(struct vmd *d, const struct store_object *row);

/* *config becomes what the profiles say, the first first, and over it what the caller gave (`given`, the
 * definition as JSON). 0, or -1 and *x; config is valid in any case. */
int supply_apply(struct vmd *d, char **names, size_t n, const struct json_object *given,
                 struct api_vm_config *config, struct api_error *x);
/* May the project have a VM like this, in the place of `instead` (NULL: one more)? 0, or -1 and *x
 * with every reason. */
int supply_quota(struct vmd *d, const struct api_vm_config *config, const struct vm *instead,
                 struct api_error *x);
/* Are all layers of confinement there, where that is required? After vmd-spawn has tried them. */
int supply_sandbox(struct vmd *d, const struct api_vm_config *config, struct api_error *x);
/* Has the host room for one more such VM at work? */
int supply_place(struct vmd *d, const struct api_vm_config *config, struct api_error *x);

/* vCPUs and memory of the VMs that have an emulator. */
void supply_used(struct vmd *d, int64_t *cpus, int64_t *memory);

#endif
