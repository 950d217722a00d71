/* SPDX-License-Identifier: Apache-2.0 */
/* What clients asked to be told, told. Inside of daemon/libvirt. Loop thread. */
#ifndef VMD_DAEMON_LIBVIRT_EVENTS_H
#define VMD_DAEMON_LIBVIRT_EVENTS_H

struct api_event;

/* Hears the journal; `arg` is struct libvirt. */
void lv_on_event(void *arg, const struct api_event *event);

#endif
