/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog of the 6300ESB, towards its host. Main thread. */
#ifndef VMD_DEVICES_MISC_I6300ESB_H
#define VMD_DEVICES_MISC_I6300ESB_H

/* Is told, on the main loop and without the device's lock, when the guest has not fed it in time. */
struct watchdog_host {
    void (*expired)(void *arg);
    void *arg;
};

#endif
