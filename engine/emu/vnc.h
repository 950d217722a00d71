/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VNC server (RFC 6143, RFB 3.8) on a unix socket, whose permissions are who may come in: passwords and TLS are the daemon's, which
 * passes on who has shown them. Belongs to the main thread.
 */
#ifndef VMD_EMU_VNC_H
#define VMD_EMU_VNC_H

#include "engine/base/err.h"

struct emu_screen;
struct loop;
struct vnc;

/* Takes the bound socket. `name` must outlive it. */
int vnc_new(struct loop *l, struct emu_screen *s, const char *name, int take_fd,
            struct vnc **out, struct err *e);
void vnc_free(struct vnc *v); /* NULL is fine */
unsigned vnc_clients(const struct vnc *v); /* NULL: none */

#endif
