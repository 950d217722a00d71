/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Defining a VM, whatever dialect the definition came in. Loop thread.
 */
#ifndef VMD_DAEMON_VMDEFINE_H
#define VMD_DAEMON_VMDEFINE_H

struct api_call;
struct api_vm_config;

/* Checks and stores a new definition, then answers the call with its VmInfo, or with why not. Takes from
 * *config; the caller still releases it. */
void vm_define(struct api_call *call, struct api_vm_config *config);

#endif
