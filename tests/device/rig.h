/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM for device tests: an engine that runs nothing, RAM, devices placed by hand, interrupt
 * lines that are looked at. Accesses go through the bus as a vCPU's do. One thread.
 */
#ifndef VMD_TESTS_DEVICE_RIG_H
#define VMD_TESTS_DEVICE_RIG_H

#include "devices/char/chr.h"
#include "engine/core/device.h"
#include "engine/core/vm.h"

#define RIG_RAM 0x80000000ull
#define RIG_RAM_SIZE (1 << 20)

extern const struct engine_ops rig_engine;

struct rig {
    struct loop *loop;
    struct vm *vm;
    struct mem_region *ram;
};

/* Ends the test when something fails. */
struct rig *rig_new(unsigned vcpus);
void rig_free(struct rig *r);
/* Memory is committed, the threads started (and halted), the clock runs. */
void rig_start(struct rig *r);
/* Makes a device; the caller sets properties and then places it. */
struct device *rig_device(struct rig *r, const struct device_class *cls);
/* Realizes it and maps its blocks one behind the other from `at`. */
void rig_place(struct rig *r, struct device *d, uint64_t at);

/* Access at a guest physical address; what hits nothing reads as zero. */
uint64_t rig_read(struct rig *r, uint64_t gpa, unsigned size);
void rig_write(struct rig *r, uint64_t gpa, uint64_t value, unsigned size);
static inline uint32_t rd32(struct rig *r, uint64_t gpa)
{
    return (uint32_t)rig_read(r, gpa, 4);
}
static inline void wr32(struct rig *r, uint64_t gpa, uint32_t v)
{
    rig_write(r, gpa, v, 4);
}
/* Host address of guest RAM. */
void *rig_ram(struct rig *r, uint64_t gpa);
/* Turns the loop until `done` says so; a thousand turns without end the test. */
void rig_until(struct rig *r, bool (*done)(void *arg), void *arg);
/* Lets what is posted run. */
void rig_turn(struct rig *r);

/* An interrupt line's end. */
struct rig_line {
    bool level;
    unsigned rises;
};
struct irq_line rig_line(struct rig_line *l);

/* A character back end in memory: takes `room` bytes, holds what came. */
struct rig_chr {
    struct chr chr;
    size_t room;
    uint8_t out[4096];
    size_t n_out;
    unsigned accepts;
};
void rig_chr_init(struct rig_chr *c, size_t room);

/* Saves the device, loads it into itself and checks that saving again gives the same bytes. */
void rig_state_round_trip(struct device *d);

#endif
