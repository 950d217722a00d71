/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MMIO dispatch: finds the device of a flat range, takes its lock, splits and widens
 * accesses. Lock order: device, irqchip, vCPU. A device callback may take irqchip locks
 * (irq_set), never another device's.
 */
#ifndef VMD_CORE_BUS_H
#define VMD_CORE_BUS_H

#include "engine/core/mem.h"

#include <pthread.h>

/* One a device (or one shared by the functions of a device). */
struct bus_lock {
    pthread_mutex_t mutex;
};
void bus_lock_init(struct bus_lock *l);
void bus_lock_done(struct bus_lock *l);
void bus_lock(struct bus_lock *l);
void bus_unlock(struct bus_lock *l);

enum bus_result {
    BUS_OK,
    BUS_NONE /* nothing mapped, or a hole */,
    BUS_DENIED /* write to ROM */
};

/* An access that a device does not take as it is becomes several: naturally aligned pieces
 * of at most max_size, low address first. A piece below min_size is widened to the aligned
 * unit around it; on a write the other bytes are zero (reading them first could have
 * effects). BUS_NONE when a piece would leave the region. Any thread (vCPUs mostly). size 1,
 * 2, 4 or 8; the access may be misaligned but not leave the range. `r` is a range of the
 * current flat view with kind MEM_IO (RAM and ROM are served too, for slow paths and
 * debuggers). */
enum bus_result bus_read(const struct mem_range *r, uint64_t gpa, unsigned size,
                         uint64_t *value);
enum bus_result bus_write(struct mem_space *s, const struct mem_range *r, uint64_t gpa,
                          unsigned size, uint64_t value);

/* The port I/O space of vm->ports: an access to what is not there reads all ones and writes nothing. size 1, 2 or 4. vCPU
 * threads, main thread. */
uint32_t bus_port_read(const struct mem_space *ports, uint16_t port, unsigned size);
void bus_port_write(struct mem_space *ports, uint16_t port, unsigned size, uint32_t value);

#endif
