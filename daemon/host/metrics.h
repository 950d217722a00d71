/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics for Prometheus (text format 0.0.4) over HTTP on a unix socket or a port of 127.0.0.1, when
 * configured. Reading only; what it answers is what `vmctl list --stats` may see, so the socket has the
 * mode of the read-only one. Loop thread.
 */
#ifndef VMD_DAEMON_METRICS_H
#define VMD_DAEMON_METRICS_H

#include "engine/base/err.h"

struct buf;
struct metrics;
struct vmd;

/* `where`: an absolute path, or a port. NULL on failure. */
struct metrics *metrics_new(struct vmd *d, const char *where, struct err *e);
void metrics_free(struct metrics *m);
/* The text itself. */
void metrics_write(struct vmd *d, struct buf *to);

#endif
