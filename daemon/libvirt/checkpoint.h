/* SPDX-License-Identifier: Apache-2.0 */
/* Documents of checkpoints, for backups that make one. Inside of daemon/libvirt. Loop thread. */
#ifndef VMD_DAEMON_LIBVIRT_CHECKPOINT_H
#define VMD_DAEMON_LIBVIRT_CHECKPOINT_H

struct json_object;
struct lv_call;

/* Parameters of checkpoint.create that a <domaincheckpoint> means, the caller's. NULL: it is refused, and the call has failed. */
struct json_object *lv_read_checkpoint(struct lv_call *c, const char *text);

#endif
