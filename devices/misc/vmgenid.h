/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generation id of a machine: what the emulator does with it.
 */
#ifndef VMD_DEVICES_VMGENID_H
#define VMD_DEVICES_VMGENID_H

struct device;

/* The machine goes on from a moment that another one may go on from, too: another id, and the guest is told as soon as it runs. Main thread, the
 * VM paused. */
void vmgenid_renew(struct device *d);

#endif
