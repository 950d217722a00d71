/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a network card's definition its process vmd-net is told, and what a card is when the definition leaves it open.
 * Pure functions, any thread.
 */
#ifndef VMD_API_NET_NICARGS_H
#define VMD_API_NET_NICARGS_H

#include "api-schema/gen/types.h"
#include "api-schema/net/tapdev.h"
#include "engine/base/err.h"

/* The arguments of vmd-net behind the program's name, ended by NULL; each and the list to be freed (nic_args_free). */
char **nic_args(const struct api_nic *n);
void nic_args_free(char **args);
/* The MTU that the guest's driver is told; 0: none. */
unsigned nic_mtu(const struct api_nic *n);
/* The address of the i-th card of a VM: the definition's, or one made from the UUID (or name). out holds 18. */
void nic_mac(const struct api_vm_config *c, size_t i, char out[18]);
/* The last three bytes of one that is made, the first of them lowest; they may be another VM's (daemon/vm/nics.h). */
uint32_t nic_mac_made(const struct api_vm_config *c, size_t i);
/* What a card of type tap or bridge asks of the host; the texts stay the card's. */
struct tap_wish nic_tap(const struct api_nic *n);
/* Whether the members fit the type. `e` names the member and the remedy. */
int nic_check(const struct api_nic *n, struct err *e);

#endif
