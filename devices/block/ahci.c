/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AHCI controller (Serial ATA AHCI 1.3.1): a PCI function with six ports, each with a disk, a
 * CD-ROM drive or nothing; registers, interrupts, life. A vCPU that issues commands only notes
 * them; the rest is the main loop's. The function's device lock covers all.
 */
#include "devices/block/ahci.h"
#include "devices/registry.h"
#include "engine/base/mem.h"
#include "engine/core/replay.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

enum { BAR = 5, REGS = 0x1000, PORT_STEP = 0x80 };
enum { GHC_RESET = 1, GHC_IE = 2 };
#define GHC_AHCI (1u << 31)
/* 64 bits, NCQ, CLO, 6 Gb/s, AHCI only, slumber and partial states, 32 slots. */
#define CAPABILITIES                                                                           \
    (1u << 31 | 1u << 30 | 1u << 24 | 3u << 20 | 1u << 18 | 1u << 14 | 1u << 13 |              \
     (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1))
enum {
    CMD_START = 1,
    CMD_SUD = 2,
    CMD_POD = 4,
    CMD_CLO = 8,
    CMD_FRE = 1 << 4,
    CMD_FR = 1 << 14,
    CMD_WRITABLE = 0x07000000 | CMD_SUD | CMD_FRE | CMD_START /* ATAPI, DLAE, ALPE */
};
enum { IS_CONNECT = 1 << 6, IS_PHY = 1 << 22 };

static struct ahci *ahci_of(struct device *d)
{
    return (struct ahci *)d;
}

/* --- interrupts --- */

/* Two causes are copies of bits in PxSERR. */
static uint32_t port_is(const struct ahci_port *p)
{
    return p->is | (p->serr & 1u << 26 ? IS_CONNECT : 0) | (p->serr & 1u << 16 ? IS_PHY : 0);
}

void ahci_interrupt(struct ahci *h)
{
    bool level;

    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        if (port_is(&h->port[i]) & h->port[i].ie) {
            h->is |= 1u << i;
        }
    }
    level = h->is && (h->ghc & GHC_IE);
    if (level && pci_msi_on(&h->pci)) {
        (void)pci_message(&h->pci, 0);
    }
    pci_intx_set(&h->pci, level);
}

/* Main loop: what completed during a pause is shown, then each port goes on. */
static void service(void *arg)
{
    struct ahci *h = arg;

    bus_lock(&h->pci.dev.lock);
    h->wanted = false;
    for (unsigned i = 0; i < AHCI_PORTS && h->pci.dev.vm->state == VM_RUNNING; i++) {
        ahci_port_serve(&h->port[i]);
    }
    bus_unlock(&h->pci.dev.lock);
}

void ahci_service_soon(struct ahci *h)
{
    if (!h->wanted) {
        h->wanted = true;
        vm_post(h->pci.dev.vm, service, h);
    }
}

void ahci_request_free(struct ahci_req *r)
{
    list_remove(&r->node);
    scsi_cmd_done(&r->scsi);
    free(r->ranges);
    free(r->iov);
    free(r->gpa);
    free(r);
}

/* --- registers --- */

static void hba_reset(struct ahci *h)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *p = &h->port[i];

        ahci_port_stop(p);
        p->is = p->ie = p->sctl = p->serr = 0;
        p->cmd = CMD_SUD | CMD_POD;
        p->clb = p->fb = 0;
        ahci_port_reset(p);
    }
    h->is = 0;
    h->ghc = GHC_AHCI;
    pci_intx_set(&h->pci, false);
}

static uint64_t r_hba(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)i;
    return r->offset == 0x04 ? ahci_of(d)->ghc : ahci_of(d)->is;
}

static void w_hba(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                  uint64_t value)
{
    struct ahci *h = ahci_of(d);

    (void)i, (void)old;
    if (r->offset == 0x08) {
        h->is &= ~(uint32_t)value;
    } else if (value & GHC_RESET) {
        hba_reset(h);
        return;
    } else {
        h->ghc = GHC_AHCI | (value & GHC_IE);
    }
    ahci_interrupt(h);
}

static uint64_t r_port(struct device *d, const struct dev_reg *r, unsigned i)
{
    const struct ahci_port *p = &ahci_of(d)->port[i];
    const uint32_t regs[] = { (uint32_t)p->clb,
                              (uint32_t)(p->clb >> 32),
                              (uint32_t)p->fb,
                              (uint32_t)(p->fb >> 32),
                              port_is(p),
                              p->ie,
                              p->cmd,
                              0,
                              p->tfd,
                              p->sig,
                              p->ssts,
                              p->sctl,
                              p->serr,
                              p->sact,
                              p->ci };

    return regs[(r->offset & (PORT_STEP - 1)) / 4];
}

static void write_cmd(struct ahci_port *p, uint32_t value)
{
    uint32_t old = p->cmd;

    p->cmd = (old & ~(uint32_t)CMD_WRITABLE) | (value & CMD_WRITABLE);
    if (value & CMD_CLO) {
        p->tfd &= ~(uint32_t)(ATA_BUSY | ATA_DRQ);
    }
    if (!(value & CMD_START) && (old & CMD_START)) {
        ahci_port_stop(p);
    }
    p->cmd = (p->cmd & ~(uint32_t)CMD_FR) | (p->cmd & CMD_FRE ? CMD_FR : 0);
    ahci_port_signature(p);
    if ((value & CMD_START) && !(old & CMD_START)) {
        ahci_port_start(p);
    }
}

static void write_sctl(struct ahci_port *p, uint32_t value)
{
    uint32_t before = p->sctl & 15, now = value & 15;

    p->sctl = value & 0xfff;
    if (now == 1 && before != 1) { /* COMRESET, for as long as it is 1 */
        ahci_port_stop(p);
        p->ssts = 0;
    } else if (now == 0 && before == 1) {
        ahci_port_reset(p);
    } else if (now == 4) { /* off */
        p->ssts = 4;
    } else if (now == 0 && before == 4) {
        ahci_port_reset(p);
    }
}

/* Bits of PxCI count only while the port runs; those of commands under way stay. */
static void issue(struct ahci_port *p, uint32_t value)
{
    if (p->cmd & CMD_START) {
        p->ci |= value;
        ahci_service_soon(p->hba);
    }
}

static void set_half(uint64_t *at, unsigned half, uint64_t value)
{
    *at = (*at & ~((uint64_t)UINT32_MAX << (32 * half))) | value << (32 * half);
}

static void w_port(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                   uint64_t value)
{
    struct ahci_port *p = &ahci_of(d)->port[i];
    unsigned at = r->offset & (PORT_STEP - 1);

    (void)old;
    switch (at) {
    case 0x00:
    case 0x04:
        set_half(&p->clb, at / 4, value);
        break;
    case 0x08:
    case 0x0c:
        set_half(&p->fb, at / 4 & 1, value);
        break;
    case 0x10:
        p->is &= ~(uint32_t)value;
        break;
    case 0x14:
        p->ie = (uint32_t)value;
        break;
    case 0x18:
        write_cmd(p, (uint32_t)value);
        break;
    case 0x2c:
        write_sctl(p, (uint32_t)value);
        break;
    case 0x30:
        p->serr &= ~(uint32_t)value;
        break;
    case 0x34:
        p->sact |= p->cmd & CMD_START ? (uint32_t)value : 0;
        break;
    default:
        issue(p, (uint32_t)value);
    }
    ahci_interrupt(p->hba);
}

#define HBA_RO(name_, at, doc_, value_)                                                        \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = 4, .reset = (value_),          \
        .field = DEV_NO_FIELD                                                                  \
    }
#define PORT(name_, at, doc_, mask_)                                                           \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = 0x100 + (at), .size = 4,                     \
        .count = AHCI_PORTS, .stride = PORT_STEP, .writable = (mask_), .field = DEV_NO_FIELD,  \
        .read = r_port, .written = w_port                                                      \
    }

static const struct dev_reg regs[] = {
    HBA_RO("CAP", 0x00, "capabilities", CAPABILITIES),
    { .name = "GHC",
      .doc = "reset, interrupts on; AHCI is always on",
      .offset = 0x04,
      .size = 4,
      .writable = GHC_RESET | GHC_IE,
      .field = DEV_NO_FIELD,
      .read = r_hba,
      .written = w_hba },
    { .name = "IS",
      .doc = "ports with an interrupt",
      .offset = 0x08,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = r_hba,
      .written = w_hba },
    HBA_RO("PI", 0x0c, "ports that there are", (1u << AHCI_PORTS) - 1),
    HBA_RO("VS", 0x10, "1.3.1", 0x00010301),
    HBA_RO("CAP2", 0x24, "no further capabilities", 0),
    HBA_RO("BOHC", 0x28, "no firmware holds the controller", 0),
    PORT("PxCLB", 0x00, "address of the command list, low half", 0xfffffc00),
    PORT("PxCLBU", 0x04, "high half", UINT32_MAX),
    PORT("PxFB", 0x08, "address of received FISes, low half", 0xffffff00),
    PORT("PxFBU", 0x0c, "high half", UINT32_MAX),
    PORT("PxIS", 0x10, "causes of interrupts", 0xfdc000af),
    PORT("PxIE", 0x14, "which of them interrupt", 0xfdc000ff),
    PORT("PxCMD", 0x18, "start, FIS reception, state", CMD_WRITABLE | CMD_CLO),
    PORT("PxTFD", 0x20, "status and error register of the drive", 0),
    PORT("PxSIG", 0x24, "signature of the drive", 0),
    PORT("PxSSTS", 0x28, "state of the link", 0),
    PORT("PxSCTL", 0x2c, "COMRESET, link off", 0xfff),
    PORT("PxSERR", 0x30, "errors of the link", UINT32_MAX),
    PORT("PxSACT", 0x34, "queued commands under way", UINT32_MAX),
    PORT("PxCI", 0x38, "commands issued", UINT32_MAX),
    { .name = NULL },
};

static const struct dev_reg_block blocks[] = {
    { .name = "bar5", .size = REGS, .regs = regs, .min_size = 4, .max_size = 4 },
    { .name = NULL },
};

/* --- class --- */

static int take_units(struct ahci *h, struct err *e)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *p = &h->port[i];

        p->hba = h;
        p->n = i;
        p->bus = (struct scsi_bus){ &p->unit, 1 };
        list_init(&p->in_flight);
        list_init(&p->finished);
    }
    for (unsigned i = 0; i < h->units->n; i++) {
        struct scsi_unit *u = &h->units->unit[i];
        struct ahci_port *p = u->target < AHCI_PORTS ? &h->port[u->target] : NULL;
        int rc;

        if (!p || p->present || (!u->node && !u->cdrom)) {
            return err_set(e, -EINVAL, "%s: there is no place for a drive at port %u",
                           h->pci.dev.id, u->target);
        }
        p->unit = *u;
        u->node = NULL;
        p->unit.target = 0;
        p->unit.atapi = p->unit.cdrom;
        p->present = true;
        rc = scsi_unit_init(&p->unit, e);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int ahci_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = 0x1af4,
                                         .device = 0x10f1, /* free for use */
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x010601,
                                         .revision = 1 };
    struct ahci *h = ahci_of(d);
    int rc = take_units(h, e);

    if (rc == 0) {
        rc = pci_fn_init(&h->pci, &id, e);
    }
    if (rc != 0) {
        return rc;
    }
    pci_bar_set(&h->pci, BAR, PCI_BAR_MEM32, d->mmio[0]);
    pci_cap_msi(&h->pci);
    pci_cap_pm(&h->pci);
    pci_cap_express(&h->pci);
    pci_use_intx(&h->pci);
    pci_fn_ready(&h->pci);
    return 0;
}

static void ahci_reset(struct device *d)
{
    bus_lock(&d->lock);
    hba_reset(ahci_of(d));
    bus_unlock(&d->lock);
    pci_fn_reset((struct pci_fn *)d);
}

static bool busy(const struct ahci *h)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        if (!list_empty(&h->port[i].in_flight)) {
            return true;
        }
    }
    return false;
}

static bool ahci_quiesce(struct device *d)
{
    struct ahci *h = ahci_of(d);
    bool quiet;

    bus_lock(&d->lock);
    quiet = !busy(h);
    for (unsigned i = 0; i < AHCI_PORTS && quiet; i++) {
        while (!list_empty(&h->port[i].finished)) {
            ahci_request_end(list_entry(h->port[i].finished.next, struct ahci_req, node));
        }
    }
    bus_unlock(&d->lock);
    return quiet;
}

static void ahci_resumed(struct device *d)
{
    bus_lock(&d->lock);
    ahci_service_soon(ahci_of(d));
    bus_unlock(&d->lock);
}

static bool ahci_tray(struct device *d, const void *node, enum dev_tray_act act,
                      struct dev_tray *now)
{
    struct ahci *h = ahci_of(d);
    bool ours = false;

    bus_lock(&d->lock);
    for (unsigned i = 0; i < AHCI_PORTS && !ours; i++) {
        struct ahci_port *p = &h->port[i];

        ours = node && p->unit.node == node && scsi_unit_tray(&p->unit, act, now);
    }
    bus_unlock(&d->lock);
    return ours;
}

static void free_requests(struct list *l)
{
    while (l->next && !list_empty(l)) {
        ahci_request_free(list_entry(l->next, struct ahci_req, node));
    }
}

static void ahci_destroy(struct device *d)
{
    struct ahci *h = ahci_of(d);

    for (unsigned i = 0; h->units && i < h->units->n; i++) {
        blk_close(h->units->unit[i].node); /* those that no port has taken */
    }
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        blk_close(h->port[i].unit.node);
        free_requests(&h->port[i].in_flight);
        free_requests(&h->port[i].finished);
    }
    free(h->units);
    pci_fn_done(&h->pci);
}

/* --- state: nothing is under way in it --- */

static int ahci_loaded(void *obj, struct err *e)
{
    struct ahci *h = obj;

    (void)e;
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        h->port[i].begun = 0;
        h->port[i].cmd &= CMD_WRITABLE | CMD_POD | CMD_FR | 1 << 15 | 0x1f << 8;
        h->port[i].clb &= ~1023ull;
        h->port[i].fb &= ~255ull;
    }
    return 0;
}

#define P(member, kind, doc) ST_FIELD(struct ahci_port, member, kind, 1, doc)
static const struct st_field port_fields[] = {
    P(clb, ST_U64, "command list"),
    P(fb, ST_U64, "received FISes"),
    P(is, ST_U32, "PxIS"),
    P(ie, ST_U32, "PxIE"),
    P(cmd, ST_U32, "PxCMD"),
    P(tfd, ST_U32, "PxTFD"),
    P(sig, ST_U32, "PxSIG"),
    P(ssts, ST_U32, "PxSSTS"),
    P(sctl, ST_U32, "PxSCTL"),
    P(serr, ST_U32, "PxSERR"),
    P(sact, ST_U32, "PxSACT"),
    P(ci, ST_U32, "PxCI"),
    P(stalled, ST_BOOL, "a command failed: nothing more until the port is started anew"),
    P(in_reset, ST_BOOL, "the drive is held in reset"),
    P(signature_due, ST_BOOL, "the signature waits for a place"),
    P(smart_off, ST_BOOL, "SMART is turned off"),
    P(standby, ST_BOOL, "the drive is in standby"),
    P(multiple, ST_U8, "sectors of READ MULTIPLE"),
    P(transfer_mode, ST_U8, "transfer mode"),
    ST_ARRAY(struct ahci_port, sense, ST_BYTES, SCSI_SENSE_SIZE, 1, "of the last packet"),
    ST_ARRAY(struct ahci_port, ncq_error, ST_BYTES, 16, 1, "of the failed queued command"),
    P(self_tests, ST_U32, "self-tests that there were"),
    ST_ARRAY(struct ahci_port, self_test, ST_BYTES, AHCI_SELF_TESTS, 1, "their kinds"),
    { .name = "unit",
      .kind = ST_STRUCT,
      .offset = offsetof(struct ahci_port, unit),
      .count = 1,
      .stride = sizeof(struct scsi_unit),
      .since = 1,
      .table = &scsi_unit_state,
      .doc = "unit behind packets; write cache" },
    ST_END,
};
static const struct st_table port_state = { .name = "ahci-port",
                                            .version = 1,
                                            .fields = port_fields };

static const struct st_field ahci_fields[] = {
    PCI_ST_FIELD,
    ST_FIELD(struct ahci, ghc, ST_U32, 1, "GHC"),
    ST_FIELD(struct ahci, is, ST_U32, 1, "IS"),
    { .name = "port",
      .kind = ST_STRUCT,
      .offset = offsetof(struct ahci, port),
      .count = AHCI_PORTS,
      .stride = sizeof(struct ahci_port),
      .since = 1,
      .table = &port_state,
      .doc = "ports" },
    ST_END,
};
static const struct st_table ahci_state = {
    .name = "ahci",
    .version = 1,
    .fields = ahci_fields,
    .loaded = ahci_loaded,
};

static const struct dev_prop ahci_props[] = {
    PCI_PROPS,
    { .name = "units",
      .kind = PROP_PTR,
      .offset = offsetof(struct ahci, units),
      .required = true,
      .doc = "disks and CD-ROM drives, by port; the device closes their nodes" },
    { .name = NULL },
};

const struct device_class ahci_class = {
    .name = "ahci",
    .doc = "AHCI 1.3.1 controller with six ports for SATA disks and CD-ROM drives",
    .size = sizeof(struct ahci),
    .props = ahci_props,
    .blocks = blocks,
    .state = &ahci_state,
    .realize = ahci_realize,
    .reset = ahci_reset,
    .quiesce = ahci_quiesce,
    .resumed = ahci_resumed,
    .tray = ahci_tray,
    .destroy = ahci_destroy,
};
