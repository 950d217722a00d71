/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ich9-lpc: function 1f.0 of an ICH9 (Intel ICH9 Family data sheet, chapter 13): routing of PCI interrupts, power management of ACPI (fixed registers, PM timer, general-purpose event 0, SCI),
 * the watchdog TCO, and the port by which ACPI is switched on. irq[0] is the SCI. There is no system management mode: what that would do about switching ACPI on, the device does.
 *
 * Registers: device lock, vCPU threads and the timer. Wires of PCI come in with other locks held, so that their routes have a lock of their own, which is an irqchip lock. Where I/O registers
 * are follows on the main thread, before the guest's next instruction.
 */
#include "devices/bus/ich9_lpc.h"

#include "devices/bus/pci.h"
#include "devices/misc/i6300esb.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <stdatomic.h>

#define PM_HZ 3579545u
#define TCO_TICK_NS 600000000ull
enum {
    PMBASE = 0x40,
    ACPI_CNTL = 0x44,
    PIRQA = 0x60,
    PIRQE = 0x68,
    GEN_PMCON = 0xa0,
    RCBA = 0xf0
};
enum { ACPI_ON = 0x80, PIRQ_OFF = 0x80, RCBA_ON = 1 };
enum {
    PM_TIMER = 1,
    PM_GLOBAL = 1 << 5,
    PM_POWER_BUTTON = 1 << 8,
    PM_RTC = 1 << 10,
    PM_WAKE = 1 << 15
};
enum { SCI_ON = 1, SLEEP_TYPE = 7 << 10, SLEEP_ENABLE = 1 << 13 };
enum { SLEEP_OFF = 0, SLEEP_RAM = 1 };      /* types, as the DSDT says */
enum { APM_ACPI_ON = 2, APM_ACPI_OFF = 3 }; /* as the FADT says */
enum { SMI_APMC = 1 << 5 };
enum { TCO_TIMEOUT = 1 << 3, TCO_SECOND = 1 << 1, TCO_HALT = 1 << 11, GCS_NO_REBOOT = 1 << 5 };
enum { BLOCK_PM, BLOCK_APM, BLOCK_RCBA };

struct lpc {
    struct pci_fn pci;
    struct bus_lock routes; /* of the four below */
    bool pirq[ICH9_PIRQS];
    uint8_t route[ICH9_PIRQS];
    struct irq_line apic[ICH9_PIRQS], pic[16];
    bool pic_level[16];

    bool sleeps;             /* property: the firmware knows how to go on after S3 */
    bool asleep;             /* in S3 */
    uint16_t woken_by;       /* bits of PM1_STS that the next wake shows */
    _Atomic bool clock_asks; /* its interrupt has come */
    uint16_t pm1_status, pm1_enable, pm1_control;
    uint64_t gpe_status, gpe_enable;
    _Atomic uint64_t raised; /* events that are to be set */
    uint32_t smi_enable, smi_status;
    uint8_t apm_control, apm_status;
    uint64_t pm_wraps; /* wraps of the PM timer that the guest has seen */
    struct vtimer *pm_timer;

    uint16_t tco_status1, tco_status2, tco_control1, tco_control2, tco_ticks, tco_message;
    uint32_t gcs;
    bool tco_second; /* it counts for the second time */
    struct vtimer *tco_timer;
    struct watchdog_host *host; /* property */

    uint64_t pm_at, rcba_at; /* where they are mapped, 0: nowhere */
};

static struct lpc *lpc_of(struct device *d)
{
    return (struct lpc *)d;
}

/* --- interrupts of PCI
 * --------------------------------------------------------------------------- */

/* The routes' lock is held. */
static void update_pic(struct lpc *l)
{
    bool level[16] = { false };

    for (unsigned i = 0; i < ICH9_PIRQS; i++) {
        if (l->pirq[i] && !(l->route[i] & PIRQ_OFF)) {
            level[l->route[i] & 15] = true;
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        if (level[i] != l->pic_level[i]) {
            l->pic_level[i] = level[i];
            irq_set(&l->pic[i], level[i]);
        }
    }
}

static void pirq_set(void *opaque, unsigned n, bool level)
{
    struct lpc *l = opaque;

    bus_lock(&l->routes);
    l->pirq[n] = level;
    irq_set(&l->apic[n], level);
    update_pic(l);
    bus_unlock(&l->routes);
}

struct irq_line ich9_pirq(struct device *d, unsigned n)
{
    return (struct irq_line){ .set = pirq_set, .opaque = d, .n = n % ICH9_PIRQS };
}

void ich9_set_apic(struct device *d, unsigned n, struct irq_line line)
{
    lpc_of(d)->apic[n % ICH9_PIRQS] = line;
}

void ich9_set_pic(struct device *d, unsigned pin, struct irq_line line)
{
    lpc_of(d)->pic[pin & 15] = line;
}

static void take_routes(struct lpc *l)
{
    bus_lock(&l->routes);
    for (unsigned i = 0; i < ICH9_PIRQS; i++) {
        l->route[i] = l->pci.config[i < 4 ? PIRQA + i : PIRQE + i - 4];
    }
    update_pic(l);
    bus_unlock(&l->routes);
}

/* --- power management
 * ---------------------------------------------------------------------------- */

static uint64_t pm_ticks(const struct lpc *l)
{
    return (uint64_t)((unsigned __int128)clock_now(l->pci.dev.vm->clock) * PM_HZ / 1000000000u);
}

/* What has come: the timer has 24 bits, and the top one's change is an event. */
static void look_at_timer(struct lpc *l)
{
    uint64_t wraps = pm_ticks(l) >> 23;

    l->gpe_status |= atomic_exchange(&l->raised, 0);
    if (wraps != l->pm_wraps) {
        l->pm_wraps = wraps;
        l->pm1_status |= PM_TIMER;
    }
}

static void update_sci(struct lpc *l)
{
    bool asks = (l->pm1_status & l->pm1_enable &
                 (PM_TIMER | PM_GLOBAL | PM_POWER_BUTTON | PM_RTC)) ||
                (l->gpe_status & l->gpe_enable);

    irq_set(&l->pci.dev.irq[0], asks && l->pm1_control & SCI_ON);
    if (l->pm1_enable & PM_TIMER && !(l->pm1_status & PM_TIMER)) {
        uint64_t next = ((pm_ticks(l) >> 23) + 1) << 23;

        vtimer_arm(l->pm_timer,
                   (uint64_t)(((unsigned __int128)next * 1000000000u + PM_HZ - 1) / PM_HZ));
    } else {
        vtimer_disarm(l->pm_timer);
    }
}

/* Device lock held. True: it sleeps, and wakes by that bit of PM1_STS. */
static bool wakes_by(struct lpc *l, uint16_t bit)
{
    if (!l->asleep) {
        return false;
    }
    l->woken_by |= bit;
    vm_request(l->pci.dev.vm, VM_REQ_WAKE, "wakeup");
    return true;
}

static void on_pm_timer(void *arg)
{
    struct lpc *l = arg;

    bus_lock(&l->pci.dev.lock);
    if (atomic_exchange(&l->clock_asks, false) && l->pm1_enable & PM_RTC) {
        (void)wakes_by(l, PM_RTC);
    }
    look_at_timer(l);
    update_sci(l);
    bus_unlock(&l->pci.dev.lock);
}

void ich9_clock(struct device *d)
{
    struct lpc *l = lpc_of(d);

    atomic_store(&l->clock_asks, true);
    vtimer_arm(l->pm_timer, 0);
}

int ich9_power_button(struct device *d, struct err *e)
{
    struct lpc *l = lpc_of(d);
    bool listens;

    bus_lock(&d->lock);
    listens = l->pm1_control & SCI_ON && l->pm1_enable & PM_POWER_BUTTON;
    if (wakes_by(l, PM_POWER_BUTTON)) {
        listens = true;
    } else if (listens) {
        l->pm1_status |= PM_POWER_BUTTON;
        update_sci(l);
    }
    bus_unlock(&d->lock);
    return listens ? 0
                   : err_set(e, -ENODEV,
                             "the guest does not listen to its power button: no system with "
                             "ACPI runs in it yet");
}

void ich9_event(struct device *d, unsigned n)
{
    struct lpc *l = lpc_of(d);

    atomic_fetch_or(&l->raised, 1ull << (n & 63));
    vtimer_arm(l->pm_timer, 0); /* who calls may hold a lock */
}

static void w_sci(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                  uint64_t value)
{
    (void)r, (void)index, (void)old, (void)value;
    look_at_timer(lpc_of(d));
    update_sci(lpc_of(d));
}

static uint64_t r_pm1_status(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    look_at_timer(lpc_of(d));
    return lpc_of(d)->pm1_status;
}

static void w_pm1_control(struct device *d, const struct dev_reg *r, unsigned index,
                          uint64_t old, uint64_t value)
{
    struct lpc *l = lpc_of(d);
    unsigned type = (value & SLEEP_TYPE) >> 10;

    (void)r, (void)index, (void)old;
    l->pm1_control &= (uint16_t)~SLEEP_ENABLE; /* reads as zero */
    if (value & SLEEP_ENABLE && type == SLEEP_OFF) {
        vm_request(d->vm, VM_REQ_POWEROFF, "guest-poweroff");
    } else if (value & SLEEP_ENABLE && type == SLEEP_RAM && l->sleeps) {
        l->asleep = true;
        l->woken_by = 0;
        atomic_store(&l->clock_asks, false);
        vtimer_disarm(l->tco_timer);
        vm_request(d->vm, VM_REQ_SLEEP, "suspended");
    } else if (value & SLEEP_ENABLE) {
        log_trace('u', "%s: sleep of type %u, which there is none of", d->id, type);
    }
    update_sci(l);
}

static uint64_t r_pm_timer(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return pm_ticks(lpc_of(d)) & 0xffffff;
}

static void w_apm(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                  uint64_t value)
{
    struct lpc *l = lpc_of(d);

    (void)r, (void)index, (void)old;
    if (value == APM_ACPI_ON) {
        l->pm1_control |= SCI_ON;
    } else if (value == APM_ACPI_OFF) {
        l->pm1_control &= (uint16_t)~SCI_ON;
    }
    update_sci(l);
}

/* --- watchdog (§13.9)
 * ---------------------------------------------------------------------------- */

static void tco_begin(struct lpc *l)
{
    uint64_t ticks = l->tco_ticks & 0x3ff;

    if (l->tco_control1 & TCO_HALT) {
        vtimer_disarm(l->tco_timer);
    } else {
        vtimer_arm(l->tco_timer,
                   clock_now(l->pci.dev.vm->clock) + (ticks < 2 ? 2 : ticks) * TCO_TICK_NS);
    }
}

static void on_tco(void *arg)
{
    struct lpc *l = arg;
    bool expired = false;

    bus_lock(&l->pci.dev.lock);
    if (!l->tco_second) {
        l->tco_status1 |= TCO_TIMEOUT;
        l->tco_second = true;
        tco_begin(l);
    } else {
        l->tco_status2 |= TCO_SECOND;
        l->tco_second = false;
        expired = !(l->gcs & GCS_NO_REBOOT);
        tco_begin(l);
    }
    bus_unlock(&l->pci.dev.lock);
    if (expired) {
        log_info("devices", "%s: the guest has not fed its watchdog in time", l->pci.dev.id);
        if (l->host) {
            l->host->expired(l->host->arg);
        } else {
            vm_request(l->pci.dev.vm, VM_REQ_RESET, "guest-reset");
        }
    }
}

static uint64_t r_tco_reload(struct device *d, const struct dev_reg *r, unsigned index)
{
    const struct lpc *l = lpc_of(d);
    uint64_t now = clock_now(d->vm->clock), due = vtimer_deadline(l->tco_timer);

    (void)r, (void)index;
    return due == UINT64_MAX ? l->tco_ticks & 0x3ff : due > now ? (due - now) / TCO_TICK_NS : 0;
}

static void w_tco_reload(struct device *d, const struct dev_reg *r, unsigned index,
                         uint64_t old, uint64_t value)
{
    (void)r, (void)index, (void)old, (void)value;
    lpc_of(d)->tco_second = false;
    tco_begin(lpc_of(d));
}

static void w_tco_control(struct device *d, const struct dev_reg *r, unsigned index,
                          uint64_t old, uint64_t value)
{
    (void)r, (void)index;
    if ((old ^ value) & TCO_HALT) {
        tco_begin(lpc_of(d));
    }
}

/* --- registers
 * ------------------------------------------------------------------------------- */

#define REG(name_, at, size_, doc_, ...)                                                       \
    {                                                                                          \
        .name = name_, .doc = doc_, .offset = (at), .size = (size_), __VA_ARGS__               \
    }
#define FIELD(member) .field = offsetof(struct lpc, member)

static const struct dev_reg pm_regs[] = {
    REG("PM1_STS", 0x00, 2, "bits 0 timer, 5 global, 8 power button, 10 clock, 15 awake",
        FIELD(pm1_status), .w1c = 0x8d31, .read = r_pm1_status, .written = w_sci),
    REG("PM1_EN", 0x02, 2, "which of them interrupt", FIELD(pm1_enable), .writable = 0x0521,
        .written = w_sci),
    REG("PM1_CNT", 0x04, 2,
        "bit 0 ACPI is on, 10 to 12 sleep type, 13 sleeps: type 0 switches off, 1 is S3",
        FIELD(pm1_control), .writable = 0x3c07, .written = w_pm1_control),
    REG("PM1_TMR", 0x08, 4, "timer of 24 bits, 3.579545 MHz", .field = DEV_NO_FIELD,
        .read = r_pm_timer),
    REG("GPE0_STS", 0x20, 8, "general-purpose events", FIELD(gpe_status), .w1c = UINT64_MAX,
        .written = w_sci),
    REG("GPE0_EN", 0x28, 8, "which of them interrupt", FIELD(gpe_enable),
        .writable = UINT64_MAX, .written = w_sci),
    REG("SMI_EN", 0x30, 4,
        "kept; bit 5 is set, so that firmware takes system management for set up",
        FIELD(smi_enable), .writable = 0xffffffdf, .reset = SMI_APMC),
    REG("SMI_STS", 0x34, 4, "never set", FIELD(smi_status), .w1c = UINT32_MAX),
    REG("TCO_RLD", 0x60, 2, "a write starts the watchdog anew; what is left",
        .writable = 0xffff, .field = DEV_NO_FIELD, .read = r_tco_reload,
        .written = w_tco_reload),
    REG("TCO1_STS", 0x64, 2, "bit 3 it ran out once", FIELD(tco_status1), .w1c = 0x3f8),
    REG("TCO2_STS", 0x66, 2, "bit 1 it ran out twice", FIELD(tco_status2), .w1c = 0x17),
    REG("TCO1_CNT", 0x68, 2, "bit 11 it stands", FIELD(tco_control1), .writable = 0x1b00,
        .written = w_tco_control),
    REG("TCO2_CNT", 0x6a, 2, "kept", FIELD(tco_control2), .writable = 0x003f, .reset = 8),
    REG("TCO_MESSAGE", 0x6c, 2, "kept", FIELD(tco_message), .writable = 0xffff),
    REG("TCO_TMR", 0x72, 2, "ticks of 0.6 s that it has", FIELD(tco_ticks), .writable = 0x3ff,
        .reset = 4),
    { .name = NULL },
};
static const struct dev_reg apm_regs[] = {
    REG("APM_CNT", 0, 1, "2 switches ACPI on, 3 off", FIELD(apm_control), .writable = 0xff,
        .written = w_apm),
    REG("APM_STS", 1, 1, "kept", FIELD(apm_status), .writable = 0xff),
    { .name = NULL },
};
static const struct dev_reg rcba_regs[] = {
    REG("GCS", 0x3410, 4, "bit 5: the watchdog resets nothing", FIELD(gcs), .writable = 0xffc,
        .reset = GCS_NO_REBOOT),
    { .name = NULL },
};
static const struct dev_reg_block lpc_blocks[] = {
    [BLOCK_PM] = { .name = "pm", .size = 0x80, .regs = pm_regs, .min_size = 1, .max_size = 8 },
    [BLOCK_APM] = { .name = "apm", .size = 2, .regs = apm_regs, .min_size = 1, .max_size = 1 },
    [BLOCK_RCBA] = { .name = "rcba",
                     .size = 0x4000,
                     .regs = rcba_regs,
                     .min_size = 1,
                     .max_size = 4 },
    { .name = NULL },
};

/* --- where they are
 * -------------------------------------------------------------------------- */

static void move(struct mem_region *parent, struct mem_region *r, uint64_t *at, uint64_t to)
{
    if (*at == to) {
        return;
    }
    if (*at) {
        mem_unmap(r);
    }
    *at = to && mem_map(parent, to, 1, r, NULL) == 0 ? to : 0;
}

static void lpc_remap(struct device *d)
{
    struct lpc *l = lpc_of(d);
    const uint8_t *c = l->pci.config;
    uint64_t rcba = pci_get(c + RCBA, 4);

    move(d->vm->port_root, d->mmio[BLOCK_PM], &l->pm_at,
         c[ACPI_CNTL] & ACPI_ON ? pci_get(c + PMBASE, 2) & 0xff80 : 0);
    move(d->vm->root, d->mmio[BLOCK_RCBA], &l->rcba_at, rcba & RCBA_ON ? rcba & 0xffffc000 : 0);
}

static void lpc_written(struct pci_fn *f, unsigned offset, unsigned size)
{
    struct lpc *l = (struct lpc *)f;

    if (offset + size > PIRQA && offset < PIRQE + 4) {
        take_routes(l);
    }
    if ((offset + size > PMBASE && offset <= ACPI_CNTL) || offset + size > RCBA) {
        vm_request(f->dev.vm, VM_REQ_REMAP, "remap");
    }
}

/* --- class
 * ----------------------------------------------------------------------------------- */

static void set_up_config(struct pci_fn *f)
{
    pci_put(f->config + PMBASE, 1, 4);
    pci_put(f->writable + PMBASE, 0xff80, 4);
    f->writable[ACPI_CNTL] = ACPI_ON | 7;
    for (unsigned i = 0; i < 4; i++) {
        f->config[PIRQA + i] = f->config[PIRQE + i] = PIRQ_OFF;
        f->writable[PIRQA + i] = f->writable[PIRQE + i] = PIRQ_OFF | 15;
    }
    pci_put(f->writable + 0x80, 0xffff,
            2); /* decoding of serial ports and the like, which are where they are */
    for (unsigned i = 0x84; i < 0x94; i++) {
        f->writable[i] = 0xff;
    }
    pci_put(f->writable + GEN_PMCON, 0x0fff, 2);
    f->writable[0xdc] = 3;
    pci_put(f->writable + RCBA, 0xffffc001, 4);
}

static int lpc_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = 0x8086,
                                         .device = 0x2918,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x060100,
                                         .revision = 2 };
    struct lpc *l = lpc_of(d);
    int rc;

    bus_lock_init(&l->routes);
    l->pm_timer = vtimer_new(d->vm->clock, on_pm_timer, d);
    l->tco_timer = vtimer_new(d->vm->clock, on_tco, d);
    rc = pci_fn_init(&l->pci, &id, e);
    if (rc == 0) {
        set_up_config(&l->pci);
        l->pci.config_written = lpc_written;
        pci_fn_ready(&l->pci);
    }
    return rc;
}

static void lpc_reset(struct device *d)
{
    struct lpc *l = lpc_of(d);

    pci_fn_reset(&l->pci);
    bus_lock(&d->lock);
    take_routes(l);
    l->pm_wraps = pm_ticks(l) >> 23;
    l->tco_second = false;
    vtimer_disarm(l->tco_timer);
    l->asleep = false;
    l->pm1_status = d->vm->waking ? (uint16_t)(PM_WAKE | l->woken_by) : 0;
    l->woken_by = 0;
    update_sci(l);
    bus_unlock(&d->lock);
}

static void lpc_destroy(struct device *d)
{
    struct lpc *l = lpc_of(d);

    if (l->pm_timer) {
        vtimer_free(l->pm_timer);
        vtimer_free(l->tco_timer);
        bus_lock_done(&l->routes);
    }
    pci_fn_done(&l->pci);
}

static int lpc_loaded(void *obj, struct err *e)
{
    struct lpc *l = obj;

    (void)e;
    take_routes(l);
    vm_set_asleep(l->pci.dev.vm, l->asleep);
    return 0;
}

#define N(member, kind, doc) ST_FIELD(struct lpc, member, kind, 1, doc)
static const struct st_field lpc_fields[] = {
    PCI_ST_FIELD,
    N(pm1_status, ST_U16, "PM1 status"),
    N(pm1_enable, ST_U16, "PM1 enable"),
    N(pm1_control, ST_U16, "PM1 control"),
    N(gpe_status, ST_U64, "general-purpose events"),
    N(gpe_enable, ST_U64, "those that interrupt"),
    N(smi_enable, ST_U32, "SMI enable"),
    N(smi_status, ST_U32, "SMI status"),
    N(apm_control, ST_U8, "APM control"),
    N(apm_status, ST_U8, "APM status"),
    N(pm_wraps, ST_U64, "half turns of the PM timer that were seen"),
    N(pm_timer, ST_TIMER, "next half turn"),
    N(tco_status1, ST_U16, "watchdog: status 1"),
    N(tco_status2, ST_U16, "watchdog: status 2"),
    N(tco_control1, ST_U16, "watchdog: control 1"),
    N(tco_control2, ST_U16, "watchdog: control 2"),
    N(tco_message, ST_U16, "watchdog: message"),
    N(tco_ticks, ST_U16, "watchdog: ticks it has"),
    N(tco_second, ST_BOOL, "watchdog: counts for the second time"),
    N(tco_timer, ST_TIMER, "watchdog: when it runs out"),
    N(gcs, ST_U32, "general control and status"),
    { .name = "asleep",
      .kind = ST_BOOL,
      .offset = offsetof(struct lpc, asleep),
      .count = 1,
      .since = 2,
      .flags = ST_OPTIONAL,
      .doc = "the guest sleeps in RAM" },
    ST_END,
};
static const struct st_table lpc_state = {
    .name = "ich9-lpc",
    .version = 2,
    .fields = lpc_fields,
    .loaded = lpc_loaded,
};
static const struct dev_prop lpc_props[] = {
    PCI_PROPS,
    { .name = "sleeps",
      .kind = PROP_BOOL,
      .offset = offsetof(struct lpc, sleeps),
      .doc = "the guest may sleep in RAM (S3), from which its firmware brings it back" },
    { .name = "host",
      .kind = PROP_PTR,
      .offset = offsetof(struct lpc, host),
      .doc = "who acts when the watchdog has run out; none: the machine is reset" },
    { .name = NULL },
};

const struct device_class ich9_lpc_class = {
    .name = "ich9-lpc",
    .doc = "LPC bridge of an ICH9: interrupt routes, ACPI power management, watchdog TCO",
    .size = sizeof(struct lpc),
    .props = lpc_props,
    .blocks = lpc_blocks,
    .n_irqs = 1,
    .state = &lpc_state,
    .realize = lpc_realize,
    .reset = lpc_reset,
    .remap = lpc_remap,
    .destroy = lpc_destroy,
};
