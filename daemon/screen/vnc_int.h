/* SPDX-License-Identifier: Apache-2.0 */
/* What the listener (vnc.c) and its connections (vnc_guest.c) share. Loop thread. */
#ifndef VMD_DAEMON_SCREEN_VNC_INT_H
#define VMD_DAEMON_SCREEN_VNC_INT_H

#include "daemon/screen/guard.h"
#include "daemon/screen/rfb.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct loop_fd;
struct loop_timer;
struct vm;
struct vmd;
struct vnc_guest;

#define VNC_ASKED_MAX 8

struct vnc_door {
    struct vmd *d;
    struct vm *vm;
    int fd; /* -1: closed */
    struct loop_fd *watch;
    struct loop_timer *again; /* after descriptors ran out */
    enum rfb_security security;
    char listen[128]; /* as the definition says */
    char address[80];
    char problem[256];
    char password[RFB_PASSWORD_MAX + 1]; /* "": none */
    int64_t until_ns;
    struct guard guard;
    struct list guests;
    unsigned n_guests;
};

/* Takes a connected, non-blocking descriptor; `address` with its port and `host` without are copied. */
void vnc_guest_new(struct vnc_door *o, int owned_fd, const char *host, const char *address);
void vnc_guest_free(struct vnc_guest *g);
struct vnc_guest *vnc_guest_of(struct list *link);

/* NULL when the proof is good, else what the viewer is told (static). */
const char *vnc_judge(struct vnc_door *o, const struct rfb *r);

#endif
