/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the statistics page an emulator publishes (engine/base/statspage.h). The page's writer is
 * not trusted: the memory is sealed so that it cannot shrink under the reader, retries are bounded,
 * the last good copy is given when the writer is in the middle of something. Loop thread.
 */
#ifndef VMD_DAEMON_STATS_H
#define VMD_DAEMON_STATS_H

#include "api-schema/gen/types.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <sys/types.h>

struct stats_view;

/* Takes the descriptor (closed in any case). NULL when it is not a sealed page. */
struct stats_view *stats_open(int take_fd, struct err *e);
void stats_close(struct stats_view *s); /* NULL is fine */
/* False when nothing was ever published. *out is to be released. */
bool stats_read(struct stats_view *s, struct api_vm_stats *out);
/* Age of the last published figures, by the boot clock; -1: none were. */
int64_t stats_age_ms(struct stats_view *s);
/* The page that a monitor keeps for daemons that come later. Descriptor or a negative code. */
int stats_of_monitor(pid_t monitor, struct err *e);

#endif
