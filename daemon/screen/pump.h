/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies bytes between two stream sockets, both ways, until either ends; what it has by then is passed on. 16 KiB are buffered each
 * way, and nothing is read that cannot be passed on, so a slow side slows the other. Belongs to one loop, used on its thread.
 */
#ifndef VMD_DAEMON_SCREEN_PUMP_H
#define VMD_DAEMON_SCREEN_PUMP_H

#include <stddef.h>

struct loop;
struct pump;

/* The descriptors stay the caller's and are not used by it until the pump is freed. `first` (at most 16 KiB) goes to b before what
 * a sends. over(arg) is called once, from the loop; free it there or later. */
struct pump *pump_new(struct loop *l, int a, int b, const void *first, size_t n_first,
                      void (*over)(void *arg), void *arg);
void pump_free(struct pump *p); /* NULL is fine */

#endif
