/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners for VNC viewers on the network, one for each VM whose definition has `vnc`, open while it runs (docs/adr/0037). The daemon
 * asks who comes, by password, by TLS, or by a user's ticket inside TLS; who is let in is passed on to the unix socket of the
 * VM's screen. The password is in memory alone: neither in the definition nor in the store nor in the log. Loop thread.
 */
#ifndef VMD_DAEMON_SCREEN_VNC_H
#define VMD_DAEMON_SCREEN_VNC_H

#include "daemon/registry.h"

#include <stdbool.h>
#include <stdint.h>

struct api_error;
struct api_vm_config;

#define VNC_FOREVER INT64_MAX
#define VNC_PASSWORD_MAX 128

/* Is the member `vnc` of the definition possible? 0, or -1 and *x. */
int vnc_check(const struct api_vm_config *c, struct api_error *x);
/* The state of the VM or its definition changed: opens or closes the door. */
void vnc_changed(struct vm *vm);
void vnc_free(struct vm *vm);

/* "" takes it away. */
void vnc_set_password(struct vm *vm, const char *password);
bool vnc_has_password(const struct vm *vm);
/* The password is good until then, on CLOCK_MONOTONIC; VNC_FOREVER. */
void vnc_set_expiry(struct vm *vm, int64_t until_ns);
/* Ends all connections; how many there were. */
unsigned vnc_disconnect(struct vm *vm);
unsigned vnc_viewers(const struct vm *vm);

/* "127.0.0.1:5900" where the VM's viewers are waited for; NULL: nowhere, and vnc_problem() tells why, if it was not wanted so. */
const char *vnc_address(const struct vm *vm);
const char *vnc_problem(const struct vm *vm);

#endif
