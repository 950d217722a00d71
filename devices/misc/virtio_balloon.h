/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory balloon from the host's side: what the guest is asked to get by with, what it has given, its own figures. Main thread.
 */
#ifndef VMD_DEVICES_MISC_VIRTIO_BALLOON_H
#define VMD_DEVICES_MISC_VIRTIO_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

struct device;

/* Figures that a driver reports (virtio 1.2 §5.5.6.3), by their tag. */
enum balloon_stat {
    BALLOON_SWAP_IN,
    BALLOON_SWAP_OUT,
    BALLOON_MAJOR_FAULTS,
    BALLOON_MINOR_FAULTS,
    BALLOON_FREE,
    BALLOON_TOTAL,
    BALLOON_AVAILABLE,
    BALLOON_CACHES,
    BALLOON_HUGE_TAKEN,
    BALLOON_HUGE_FAILED,
    BALLOON_N_STATS
};
#define BALLOON_UNKNOWN UINT64_MAX

struct balloon_view {
    bool driver;                    /* a driver of the guest is at work */
    uint64_t target;                /* bytes that the guest is asked to get by with */
    uint64_t actual;                /* bytes that it has now */
    uint64_t given_back;            /* bytes given back to the host by the balloon, ever */
    uint64_t reported;              /* the same, of pages that the guest reported as free */
    uint64_t stat[BALLOON_N_STATS]; /* or BALLOON_UNKNOWN */
    uint64_t updated_ns; /* CLOCK_BOOTTIME, when the driver sent them last; 0: never */
};

/* Is told, on the main loop and with the device's lock held, when the guest has another size. */
struct balloon_watch {
    void (*changed)(void *arg);
    void *arg;
};

void virtio_balloon_view(struct device *d, struct balloon_view *out);
/* Asks the guest to get by with so many bytes; more than there are: all. */
void virtio_balloon_set_target(struct device *d, uint64_t bytes);
/* How often the driver is asked for figures, in seconds; 0: never again. */
void virtio_balloon_set_period(struct device *d, unsigned seconds);

#endif
