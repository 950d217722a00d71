/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device classes: one const struct each; properties, a register table and a state table from
 * which decode, reset, tracing, fuzzing, the device reference, snapshot and introspection
 * come.
 *
 * A device belongs to one VM (struct vm), is realized and destroyed on the main thread, and
 * is protected by its own bus_lock: MMIO (vCPU threads), timers and backend completions
 * (main loop) all take it.
 */
#ifndef VMD_CORE_DEVICE_H
#define VMD_CORE_DEVICE_H

#include "engine/base/list.h"
#include "engine/core/bus.h"
#include "engine/core/irq.h"
#include "engine/core/state.h"

struct device;
struct device_class;
struct dma_port;
struct vm;

enum dev_prop_kind {
    PROP_U64,
    PROP_BOOL,
    PROP_STR,
    PROP_PTR /* a backend object given by the builder */
};
struct dev_prop {
    const char *name;
    enum dev_prop_kind kind;
    /* of uint64_t, bool, char * (owned by the device) or void * in the instance */
    uint32_t offset;
    uint64_t def;      /* default of PROP_U64 and PROP_BOOL */
    uint64_t min, max; /* PROP_U64; max 0: no bound */
    bool required;
    const char *doc;
};

/* One register. The generic decoder serves size/alignment, masks and tracing (-d m); hooks
 * see values already masked and run with the device's lock held. Without a read hook and a
 * field it is a constant: the reset value. An access to part of a register reads it whole
 * and merges on writes; bits that a write does not touch are neither set nor cleared. A
 * write that reaches no writable or w1c bit does nothing. Where offsets overlap the first
 * row wins. */
struct dev_reg {
    const char *name;
    const char *doc;
    uint32_t offset;   /* in bytes within the register block */
    uint8_t size;      /* 1, 2, 4 or 8 */
    uint16_t count;    /* array of registers, 0 and 1: single */
    uint16_t stride;   /* bytes between elements, 0: size */
    uint64_t writable; /* bits the guest may write */
    uint64_t w1c;      /* bits cleared by writing 1 */
    uint64_t reset;
    uint32_t field;     /* offset of the backing field in the instance, or DEV_NO_FIELD */
    uint8_t field_size; /* 0: same as size */
    uint64_t (*read)(struct device *d, const struct dev_reg *r, unsigned index);
    /* After the backing field (if any) has been updated; `old` is what it held, `value` what
     * was written (masked). */
    void (*written)(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                    uint64_t value);
};
#define DEV_NO_FIELD UINT32_MAX

struct dev_reg_block {
    const char *name;           /* "mmio" */
    uint64_t size;              /* bytes of address space */
    const struct dev_reg *regs; /* ended by name NULL; may be NULL for raw ops */
    /* opaque is the struct device; used instead of the table where a device is not a
     * register file (e.g. virtio config) */
    const struct mem_io_ops *ops;
    uint8_t min_size, max_size;
};

/* The tray of a drive whose medium comes out, and what is done with it. ASK: the guest is asked to open it. */
enum dev_tray_act { DEV_TRAY_LOOK, DEV_TRAY_ASK, DEV_TRAY_OPEN, DEV_TRAY_CLOSE };
struct dev_tray {
    bool open, locked; /* locked: by the guest */
};

struct device_class {
    const char *name;                   /* "ns16550a" */
    const char *doc;                    /* one line for the reference */
    size_t size;                        /* of the instance, which begins with struct device */
    const struct dev_prop *props;       /* ended by name NULL, or NULL */
    const struct dev_reg_block *blocks; /* ended by name NULL, or NULL */
    unsigned n_irqs;                    /* output lines */
    const struct st_table *state;       /* or NULL when it holds none */
    int (*realize)(struct device *d, struct err *e);
    /* after the table's reset values were set; the lock is not held */
    void (*reset)(struct device *d);
    /* Before a snapshot, the VM paused: true when nothing is in flight any more and its results are in the guest's
     * memory; false: to be asked again when the loop has turned. NULL: nothing ever is. */
    bool (*quiesce)(struct device *d);
    /* the VM runs again: take up what was put off while paused; or NULL */
    void (*resumed)(struct device *d);
    /* a backend object, perhaps one of its own, is not what it was (a disk has another size);
     * the lock is not held; or NULL */
    void (*changed)(struct device *d, const void *backend);
    /* Does that with the drive that has this backend object, if it is one of the device's whose medium comes out: true, and
     * *now is how its tray is after it. Main thread; the lock is not held; or NULL */
    bool (*tray)(struct device *d, const void *backend, enum dev_tray_act act,
                 struct dev_tray *now);
    /* Maps and unmaps regions of the VM as the registers say now: after vm_request(VM_REQ_REMAP), a reset, a load. Main thread, at the barrier; the lock is not
     * held; the caller commits. Or NULL. */
    void (*remap)(struct device *d);
    void (*destroy)(struct device *d); /* accepts half-realized instances */
};

/* Core's own: what the decoder gets as opaque. */
struct dev_port {
    struct device *device;
    const struct dev_reg_block *block;
    struct mem_io_ops ops;
};

#define DEV_MAX_BLOCKS 8
#define DEV_MAX_IRQS 8
struct device {
    struct list node; /* vm->devices */
    const struct device_class *cls;
    struct vm *vm;
    char *id; /* unique in the VM */
    struct bus_lock lock;
    struct mem_region *mmio[DEV_MAX_BLOCKS]; /* one a block, made at realize */
    struct irq_line irq[DEV_MAX_IRQS];       /* outputs, connected by the board */
    const struct dma_port *dma;              /* between it and guest memory, see dma.h; or NULL */
    bool realized;
    uint64_t props_set; /* bit N: property N was given */
    struct dev_port port[DEV_MAX_BLOCKS];
};

/* Makes an instance with default properties; not yet visible to the guest. Main thread, as
 * all below. */
int dev_new(struct vm *vm, const struct device_class *cls, const char *id, struct device **out,
            struct err *e);
int dev_set_u64(struct device *d, const char *prop, uint64_t v, struct err *e);
int dev_set_bool(struct device *d, const char *prop, bool v, struct err *e);
int dev_set_str(struct device *d, const char *prop, const char *v, struct err *e);
int dev_set_ptr(struct device *d, const char *prop, void *v, struct err *e);
/* Checks required properties, makes the regions, calls realize, resets. The board maps and
 * wires afterwards. On failure the device still has to be freed by dev_free(). */
int dev_realize(struct device *d, struct err *e);
void dev_reset(struct device *d);
void dev_free(struct device *d);
struct device *dev_find(struct vm *vm, const char *id);
/* Tells all devices of the VM that a backend object has changed. */
void dev_backend_changed(struct vm *vm, const void *backend);

/* Core's own (device_regs.c): generic decoder, and the reset values of a block's fields. */
extern const struct mem_io_ops dev_reg_ops;
void dev_regs_reset(struct device *d, const struct dev_reg_block *b);

/* Writes the Markdown reference of a class from its tables (docs/reference/devices.md). */
void dev_describe(const struct device_class *cls, struct buf *b);

#endif
