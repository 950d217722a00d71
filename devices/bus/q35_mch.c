/* SPDX-License-Identifier: Apache-2.0 */
/*
 * q35-mch: function 00.0 of a Q35 (Intel 3 Series Express Chipset Family data sheet §5.1): where config space is mapped (PCIEXBAR), and what is seen from 0xa0000 to 0xfffff: RAM, RAM that
 * is read-only, or firmware and screen (PAM, SMRAM). Owns those views of the board's RAM. Registers: device lock; the views follow on the main thread, before the guest's next instruction.
 */
#include "devices/bus/q35_mch.h"

#include "devices/bus/pci_host.h"
#include "devices/registry.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <stdatomic.h>
#include <stdio.h>

enum { PCIEXBAR = 0x60, PAM0 = 0x90, PAMS = 7, SMRAM = 0x9d, ESMRAMC = 0x9e };
enum {
    ECAM_ON = 1,
    ECAM_LENGTH = 6,
    PAM_READ = 1,
    PAM_WRITE = 2,
    SMRAM_ON = 8,
    SMRAM_LOCK = 0x10,
    SMRAM_OPEN = 0x40
};
#define ECAM_DEFAULT 0xb0000000ull
#define ECAM_ADDRESS 0xff0000000ull
#define SEGMENTS 13
#define LEGACY_SCREEN 0xa0000
#define LEGACY_SCREEN_SIZE 0x20000
#define ABOVE_DEVICES 2 /* priorities of views */

struct mch {
    struct pci_fn pci;
    struct mem_region *ram; /* property */
    struct device *host;    /* property */
    struct mem_region *segment[SEGMENTS], *locked[SEGMENTS], *smram;
    struct mem_region *ecam; /* the host's, as it is seen: an alias, since its size changes */
    uint64_t ecam_at, ecam_size;
    _Atomic uint64_t
        ecam_told; /* address and, in the low bits, the length; for other threads */
};

static struct mch *mch_of(struct device *d)
{
    return (struct mch *)d;
}

static uint64_t ecam_of(uint64_t reg, uint64_t *size)
{
    unsigned length = reg >> 1 & 3;

    *size = 256ull << 20 >> length;
    return reg & ECAM_ON && length < 3 ? reg & ECAM_ADDRESS & ~(*size - 1) : 0;
}

uint64_t q35_mch_ecam(struct device *d, uint64_t *size)
{
    return ecam_of(atomic_load(&mch_of(d)->ecam_told), size);
}

/* Segment i: its address, and its two bits. The first register has the last 64 KiB. */
static uint64_t segment_at(unsigned i)
{
    return i == 0 ? 0xf0000 : 0xc0000 + (i - 1) * 0x4000ull;
}

static unsigned segment_mode(const struct mch *m, unsigned i)
{
    return (i == 0 ? m->pci.config[PAM0] >> 4
                   : m->pci.config[PAM0 + (i + 1) / 2] >> (i % 2 ? 0 : 4)) &
           3;
}

static void move_ecam(struct mch *m)
{
    uint64_t size, at = ecam_of(pci_get(m->pci.config + PCIEXBAR, 8), &size);

    if (at == m->ecam_at && size == m->ecam_size) {
        return;
    }
    if (m->ecam) {
        mem_free(m->ecam);
        m->ecam = NULL;
    }
    m->ecam_at = at;
    m->ecam_size = size;
    if (at) {
        m->ecam = mem_new_alias("ecam", pci_host_region(m->host, PCI_REGION_ECAM), 0, size);
        if (mem_map(m->pci.dev.vm->root, at, ABOVE_DEVICES - 1, m->ecam, NULL) != 0) {
            mem_free(m->ecam); /* beyond what there is: nowhere */
            m->ecam = NULL;
        }
    }
}

static void mch_remap(struct device *d)
{
    struct mch *m = mch_of(d);
    uint8_t smram = m->pci.config[SMRAM];

    for (unsigned i = 0; i < SEGMENTS; i++) {
        unsigned mode = segment_mode(m, i);

        mem_set_enabled(m->segment[i], mode == (PAM_READ | PAM_WRITE));
        mem_set_enabled(m->locked[i], mode == PAM_READ);
    }
    mem_set_enabled(m->smram, (smram & SMRAM_ON) && (smram & SMRAM_OPEN));
    move_ecam(m);
}

static void mch_written(struct pci_fn *f, unsigned offset, unsigned size)
{
    struct mch *m = (struct mch *)f;

    if (offset + size > PCIEXBAR && offset <= ESMRAMC) {
        atomic_store(&m->ecam_told, pci_get(f->config + PCIEXBAR, 8));
        vm_request(f->dev.vm, VM_REQ_REMAP, "remap");
    }
}

static int add_views(struct mch *m, struct err *e)
{
    struct mem_region *root = m->pci.dev.vm->root;
    int rc;

    m->smram = mem_new_alias("smram", m->ram, LEGACY_SCREEN, LEGACY_SCREEN_SIZE);
    mem_set_enabled(m->smram, false);
    rc = mem_map(root, LEGACY_SCREEN, ABOVE_DEVICES, m->smram, e);
    for (unsigned i = 0; i < SEGMENTS && rc == 0; i++) {
        uint64_t at = segment_at(i), size = i == 0 ? 0x10000 : 0x4000;

        m->segment[i] = mem_new_alias("pam", m->ram, at, size);
        m->locked[i] = mem_new_ro_alias("pam-read-only", m->ram, at, size);
        mem_set_enabled(m->segment[i], false);
        mem_set_enabled(m->locked[i], false);
        rc = mem_map(root, at, ABOVE_DEVICES, m->segment[i], e);
        rc = rc == 0 ? mem_map(root, at, ABOVE_DEVICES, m->locked[i], e) : rc;
    }
    return rc;
}

static int mch_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = 0x8086,
                                         .device = 0x29c0,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x060000,
                                         .revision = 2 };
    struct mch *m = mch_of(d);
    struct pci_fn *f = &m->pci;
    int rc = pci_fn_init(f, &id, e);

    if (rc != 0) {
        return rc;
    }
    pci_put(f->config + PCIEXBAR, ECAM_DEFAULT, 8);
    pci_put(f->writable + PCIEXBAR, ECAM_ADDRESS | ECAM_LENGTH | ECAM_ON, 8);
    f->writable[PAM0] = 0x30;
    for (unsigned i = 1; i < PAMS; i++) {
        f->writable[PAM0 + i] = 0x33;
    }
    f->config[SMRAM] = 2;
    f->writable[SMRAM] = SMRAM_ON | SMRAM_OPEN | 0x20;
    f->writable[ESMRAMC] = 0x86;
    f->config_written = mch_written;
    pci_fn_ready(f);
    return add_views(m, e);
}

/* Firmware that wakes finds itself in its shadow RAM. */
static void mch_reset(struct device *d)
{
    if (d->vm->waking) {
        return;
    }
    pci_fn_reset(&mch_of(d)->pci);
    atomic_store(&mch_of(d)->ecam_told, ECAM_DEFAULT);
}

static void mch_destroy(struct device *d)
{
    struct mch *m = mch_of(d);

    pci_fn_done(&m->pci);
    for (unsigned i = 0; i < SEGMENTS; i++) {
        mem_free(m->segment[i]);
        mem_free(m->locked[i]);
    }
    mem_free(m->smram);
    mem_free(m->ecam);
}

static int mch_loaded(void *obj, struct err *e)
{
    struct mch *m = obj;

    (void)e;
    atomic_store(&m->ecam_told, pci_get(m->pci.config + PCIEXBAR, 8));
    return 0;
}

static const struct st_field mch_fields[] = { PCI_ST_FIELD, ST_END };
static const struct st_table mch_state = {
    .name = "q35-mch",
    .version = 1,
    .fields = mch_fields,
    .loaded = mch_loaded,
};
static const struct dev_prop mch_props[] = {
    PCI_PROPS,
    { .name = "ram",
      .kind = PROP_PTR,
      .offset = offsetof(struct mch, ram),
      .required = true,
      .doc = "RAM whose first MiB it shows from 0xa0000 on" },
    { .name = "host",
      .kind = PROP_PTR,
      .offset = offsetof(struct mch, host),
      .required = true,
      .doc = "PCI Express host bridge whose config space it maps" },
    { .name = NULL },
};

const struct device_class q35_mch_class = {
    .name = "q35-mch",
    .doc = "host bridge of a Q35: place of config space, shadow RAM below 1 MiB",
    .size = sizeof(struct mch),
    .props = mch_props,
    .state = &mch_state,
    .realize = mch_realize,
    .reset = mch_reset,
    .remap = mch_remap,
    .destroy = mch_destroy,
};
