/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ns16550a: a 16550A UART as on the boards' serial port (National PC16550D data sheet). Owns
 * its FIFOs; bytes go to and come from a chr. vCPU threads enter by MMIO, the main loop by chr
 * and timer callbacks; the device lock covers all.
 *
 * Output leaves the transmit FIFO in the access that wrote it when the back end takes it; else
 * THRE stays clear until it does. Input is offered only while the receive FIFO has room, so
 * nothing is lost either way.
 */
#include "devices/char/chr.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

#define FIFO_SIZE 16

enum { IER_RDI = 1, IER_THRI = 2, IER_RLSI = 4, IER_MSI = 8 };
enum {
    IIR_NONE = 1,
    IIR_MSI = 0,
    IIR_THRI = 2,
    IIR_RDI = 4,
    IIR_RLSI = 6,
    IIR_CTI = 12,
    IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10 };
enum { LSR_DR = 1, LSR_OE = 2, LSR_ERRORS = 0x1e, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_DELTAS = 0x0f, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

struct uart {
    struct device dev;
    struct chr *chr;
    uint64_t clock_hz;

    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
    uint8_t dll, dlm;
    bool thri_pending; /* latched: THR became empty and nobody was told yet */
    bool timeout;      /* bytes wait below the trigger level and the line has been quiet */
    uint8_t rx[FIFO_SIZE], tx[FIFO_SIZE];
    uint8_t rx_len, tx_len;
    struct vtimer *rx_timer;
};

static unsigned uart_rx_size(const struct uart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned uart_trigger(const struct uart *u)
{
    static const uint8_t level[4] = { 1, 4, 8, 14 };

    return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

static unsigned uart_iir(const struct uart *u)
{
    if ((u->ier & IER_RLSI) && (u->lsr & LSR_ERRORS)) {
        return IIR_RLSI;
    }
    if ((u->ier & IER_RDI) && u->rx_len >= uart_trigger(u)) {
        return IIR_RDI;
    }
    if ((u->ier & IER_RDI) && u->timeout && u->rx_len) {
        return IIR_CTI;
    }
    if ((u->ier & IER_THRI) && u->thri_pending) {
        return IIR_THRI;
    }
    if ((u->ier & IER_MSI) && (u->msr & MSR_DELTAS)) {
        return IIR_MSI;
    }
    return IIR_NONE;
}

static void uart_update_irq(struct uart *u)
{
    irq_set(&u->dev.irq[0], uart_iir(u) != IIR_NONE);
}

/* Four character times of 10 bits at the programmed speed (PC16550D, "FIFO interrupt mode
 * operation"). */
static void uart_restart_timeout(struct uart *u)
{
    uint64_t divisor = (uint64_t)u->dlm << 8 | u->dll;
    uint64_t ns;

    u->timeout = false;
    if (!(u->fcr & FCR_ENABLE) || u->rx_len == 0 || u->rx_len >= uart_trigger(u)) {
        vtimer_disarm(u->rx_timer);
        return;
    }
    ns = (divisor ? divisor : 1) * 16 * 40 * 1000000000ull / u->clock_hz;
    vtimer_arm(u->rx_timer, clock_now(u->dev.vm->clock) + ns);
}

static void uart_rx_timeout(void *arg)
{
    struct uart *u = arg;

    bus_lock(&u->dev.lock);
    u->timeout = u->rx_len > 0;
    uart_update_irq(u);
    bus_unlock(&u->dev.lock);
}

static void uart_rx_push(struct uart *u, uint8_t byte)
{
    if (u->rx_len >= uart_rx_size(u)) {
        u->lsr |= LSR_OE; /* only loopback can overrun */
        return;
    }
    u->rx[u->rx_len++] = byte;
    u->lsr |= LSR_DR;
}

static void uart_tx_drain(struct uart *u)
{
    size_t n;

    if (u->tx_len == 0) {
        return;
    }
    n = chr_write(u->chr, u->tx, u->tx_len);
    memmove(u->tx, u->tx + n, u->tx_len - n);
    u->tx_len -= n;
    if (u->tx_len == 0) {
        u->lsr |= LSR_THRE | LSR_TEMT;
        u->thri_pending = true;
    }
}

static void uart_write_thr(struct uart *u, uint8_t byte)
{
    if (u->mcr & MCR_LOOP) {
        uart_rx_push(u, byte);
        u->thri_pending = true;
        uart_restart_timeout(u);
        return;
    }
    if (u->tx_len >= uart_rx_size(u)) {
        log_trace('u', "%s: byte 0x%02x written to a full transmitter is lost", u->dev.id,
                  byte);
        return;
    }
    u->tx[u->tx_len++] = byte;
    u->lsr &= ~(LSR_THRE | LSR_TEMT);
    u->thri_pending = false;
    uart_tx_drain(u);
}

static uint8_t uart_read_rbr(struct uart *u)
{
    uint8_t byte;

    if (u->rx_len == 0) {
        return 0;
    }
    byte = u->rx[0];
    memmove(u->rx, u->rx + 1, --u->rx_len);
    if (u->rx_len == 0) {
        u->lsr &= ~LSR_DR;
    }
    uart_restart_timeout(u);
    if (!(u->mcr & MCR_LOOP) && u->rx_len <= uart_rx_size(u) / 2) {
        chr_accept(u->chr); /* not at each byte: half a FIFO at a time is worth a wake-up */
    }
    return byte;
}

static uint8_t uart_modem_lines(const struct uart *u)
{
    if (!(u->mcr & MCR_LOOP)) {
        return MSR_CTS | MSR_DSR | MSR_DCD;
    }
    return (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
           (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void uart_update_msr(struct uart *u)
{
    uint8_t lines = uart_modem_lines(u), was = u->msr & 0xf0;
    uint8_t changed = (lines ^ was) >> 4;

    /* The ring indicator's delta is its trailing edge only. */
    if (lines & MSR_RI) {
        changed &= ~(MSR_RI >> 4);
    }
    u->msr = lines | (u->msr & MSR_DELTAS) | changed;
}

/* --- register hooks
 * -------------------------------------------------------------------------- */

static uint64_t uart_read_data(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct uart *u = (struct uart *)d;
    uint8_t v;

    (void)r, (void)index;
    if (u->lcr & LCR_DLAB) {
        return u->dll;
    }
    v = uart_read_rbr(u);
    uart_update_irq(u);
    return v;
}

static void uart_written_data(struct device *d, const struct dev_reg *r, unsigned index,
                              uint64_t old, uint64_t value)
{
    struct uart *u = (struct uart *)d;

    (void)r, (void)index, (void)old;
    if (u->lcr & LCR_DLAB) {
        u->dll = value;
        return;
    }
    uart_write_thr(u, value);
    uart_update_irq(u);
}

static uint64_t uart_read_ier(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct uart *u = (struct uart *)d;

    (void)r, (void)index;
    return u->lcr & LCR_DLAB ? u->dlm : u->ier;
}

static void uart_written_ier(struct device *d, const struct dev_reg *r, unsigned index,
                             uint64_t old, uint64_t value)
{
    struct uart *u = (struct uart *)d;

    (void)r, (void)index, (void)old;
    if (u->lcr & LCR_DLAB) {
        u->dlm = value;
        return;
    }
    value &= 0x0f;
    /* Enabling the transmit interrupt with an empty THR raises it at once; drivers probe for
     * this. */
    if ((value & IER_THRI) && !(u->ier & IER_THRI)) {
        u->thri_pending = (u->lsr & LSR_THRE) != 0;
    }
    u->ier = value;
    uart_update_irq(u);
}

static uint64_t uart_read_iir(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct uart *u = (struct uart *)d;
    unsigned iir = uart_iir(u);

    (void)r, (void)index;
    if (iir == IIR_THRI) {
        u->thri_pending = false;
        uart_update_irq(u);
    }
    return iir | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static void uart_written_fcr(struct device *d, const struct dev_reg *r, unsigned index,
                             uint64_t old, uint64_t value)
{
    struct uart *u = (struct uart *)d;

    (void)r, (void)index, (void)old;
    if ((value ^ u->fcr) & FCR_ENABLE) {
        value |= FCR_CLEAR_RX | FCR_CLEAR_TX; /* changing modes empties both */
    }
    if (value & FCR_CLEAR_RX) {
        u->rx_len = 0;
        u->lsr &= ~LSR_DR;
        chr_accept(u->chr);
    }
    if (value & FCR_CLEAR_TX) {
        u->tx_len = 0;
        u->lsr |= LSR_THRE | LSR_TEMT;
        u->thri_pending = true;
    }
    u->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
    uart_restart_timeout(u);
    uart_update_irq(u);
}

static void uart_written_mcr(struct device *d, const struct dev_reg *r, unsigned index,
                             uint64_t old, uint64_t value)
{
    struct uart *u = (struct uart *)d;

    (void)r, (void)index, (void)value;
    uart_update_msr(u);
    if ((old & MCR_LOOP) && !(u->mcr & MCR_LOOP)) {
        chr_accept(u->chr);
    }
    uart_update_irq(u);
}

static uint64_t uart_read_lsr(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct uart *u = (struct uart *)d;
    uint8_t v = u->lsr;

    (void)r, (void)index;
    if (v & LSR_ERRORS) {
        u->lsr &= ~LSR_ERRORS;
        uart_update_irq(u);
    }
    return v;
}

static uint64_t uart_read_msr(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct uart *u = (struct uart *)d;
    uint8_t v = u->msr;

    (void)r, (void)index;
    u->msr &= ~MSR_DELTAS;
    uart_update_irq(u);
    return v;
}

/* --- character back end
 * ---------------------------------------------------------------------- */

static size_t uart_chr_room(void *arg)
{
    struct uart *u = arg;
    size_t room = 0;

    bus_lock(&u->dev.lock);
    if (!(u->mcr & MCR_LOOP) && u->rx_len < uart_rx_size(u)) {
        room = uart_rx_size(u) - u->rx_len;
    }
    bus_unlock(&u->dev.lock);
    return room;
}

static void uart_chr_receive(void *arg, const uint8_t *p, size_t n)
{
    struct uart *u = arg;

    bus_lock(&u->dev.lock);
    for (size_t i = 0; i < n; i++) {
        uart_rx_push(u, p[i]);
    }
    uart_restart_timeout(u);
    uart_update_irq(u);
    bus_unlock(&u->dev.lock);
}

static void uart_chr_writable(void *arg)
{
    struct uart *u = arg;

    bus_lock(&u->dev.lock);
    uart_tx_drain(u);
    uart_update_irq(u);
    bus_unlock(&u->dev.lock);
}

static const struct chr_front_ops uart_front = {
    .room = uart_chr_room,
    .receive = uart_chr_receive,
    .writable = uart_chr_writable,
};

/* --- class
 * ----------------------------------------------------------------------------------- */

static int uart_realize(struct device *d, struct err *e)
{
    struct uart *u = (struct uart *)d;

    (void)e;
    u->rx_timer = vtimer_new(d->vm->clock, uart_rx_timeout, u);
    chr_attach(u->chr, &uart_front, u);
    return 0;
}

static void uart_reset(struct device *d)
{
    struct uart *u = (struct uart *)d;

    u->ier = u->fcr = 0;
    u->dll = 12; /* 9600 baud at 1.8432 MHz; firmware sets its own */
    u->dlm = 0;
    u->lsr = LSR_THRE | LSR_TEMT;
    u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    u->thri_pending = u->timeout = false;
    u->rx_len = u->tx_len = 0;
    vtimer_disarm(u->rx_timer);
    uart_update_irq(u);
    chr_accept(u->chr);
}

static void uart_destroy(struct device *d)
{
    struct uart *u = (struct uart *)d;

    chr_attach(u->chr, NULL, NULL);
    vtimer_free(u->rx_timer);
}

static int uart_loaded(void *obj, struct err *e)
{
    struct uart *u = obj;

    if (u->rx_len > FIFO_SIZE || u->tx_len > FIFO_SIZE) {
        return err_set(e, -EINVAL, "ns16550a: FIFO length beyond %d bytes", FIFO_SIZE);
    }
    return 0;
}

static const struct st_field uart_fields[] = {
    ST_FIELD(struct uart, ier, ST_U8, 1, "interrupt enable"),
    ST_FIELD(struct uart, fcr, ST_U8, 1, "FIFO control, as last written"),
    ST_FIELD(struct uart, lcr, ST_U8, 1, "line control"),
    ST_FIELD(struct uart, mcr, ST_U8, 1, "modem control"),
    ST_FIELD(struct uart, lsr, ST_U8, 1, "line status"),
    ST_FIELD(struct uart, msr, ST_U8, 1, "modem status"),
    ST_FIELD(struct uart, scr, ST_U8, 1, "scratch"),
    ST_FIELD(struct uart, dll, ST_U8, 1, "divisor, low byte"),
    ST_FIELD(struct uart, dlm, ST_U8, 1, "divisor, high byte"),
    ST_FIELD(struct uart, thri_pending, ST_BOOL, 1, "transmitter-empty interrupt latched"),
    ST_FIELD(struct uart, timeout, ST_BOOL, 1, "character timeout reached"),
    ST_ARRAY(struct uart, rx, ST_U8, FIFO_SIZE, 1, "received bytes, oldest first"),
    ST_ARRAY(struct uart, tx, ST_U8, FIFO_SIZE, 1, "bytes not yet sent, oldest first"),
    ST_FIELD(struct uart, rx_len, ST_U8, 1, "bytes in rx"),
    ST_FIELD(struct uart, tx_len, ST_U8, 1, "bytes in tx"),
    ST_FIELD(struct uart, rx_timer, ST_TIMER, 1, "character timeout"),
    ST_END,
};

static const struct st_table uart_state = {
    .name = "ns16550a",
    .version = 1,
    .fields = uart_fields,
    .loaded = uart_loaded,
};

static const struct dev_reg uart_regs[] = {
    { .name = "RBR/THR/DLL",
      .doc = "receive and transmit data; divisor low while LCR.DLAB",
      .offset = 0,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = uart_read_data,
      .written = uart_written_data },
    { .name = "IER/DLM",
      .doc = "interrupt enable; divisor high while LCR.DLAB",
      .offset = 1,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = uart_read_ier,
      .written = uart_written_ier },
    { .name = "IIR/FCR",
      .doc = "interrupt identification (read), FIFO control (write)",
      .offset = 2,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = uart_read_iir,
      .written = uart_written_fcr },
    { .name = "LCR",
      .doc = "line control",
      .offset = 3,
      .size = 1,
      .writable = 0xff,
      .field = offsetof(struct uart, lcr) },
    { .name = "MCR",
      .doc = "modem control; bit 4 is loopback",
      .offset = 4,
      .size = 1,
      .writable = 0x1f,
      .field = offsetof(struct uart, mcr),
      .written = uart_written_mcr },
    { .name = "LSR",
      .doc = "line status; reading clears the error bits",
      .offset = 5,
      .size = 1,
      .field = DEV_NO_FIELD,
      .reset = LSR_THRE | LSR_TEMT,
      .read = uart_read_lsr },
    { .name = "MSR",
      .doc = "modem status; reading clears the deltas",
      .offset = 6,
      .size = 1,
      .field = DEV_NO_FIELD,
      .reset = MSR_CTS | MSR_DSR | MSR_DCD,
      .read = uart_read_msr },
    { .name = "SCR",
      .doc = "scratch",
      .offset = 7,
      .size = 1,
      .writable = 0xff,
      .field = offsetof(struct uart, scr) },
    { .name = NULL },
};

static const struct dev_reg_block uart_blocks[] = {
    { .name = "mmio", .size = 0x100, .regs = uart_regs, .min_size = 1, .max_size = 1 },
    { .name = NULL },
};

static const struct dev_prop uart_props[] = {
    { .name = "chr",
      .kind = PROP_PTR,
      .offset = offsetof(struct uart, chr),
      .doc = "character stream that carries the bytes" },
    { .name = "clock-hz",
      .kind = PROP_U64,
      .offset = offsetof(struct uart, clock_hz),
      .def = 3686400,
      .min = 1,
      .max = 1000000000,
      .doc = "input clock of the baud-rate generator, Hz" },
    { .name = NULL },
};

const struct device_class ns16550a_class = {
    .name = "ns16550a",
    .doc = "16550A UART with 16-byte FIFOs",
    .size = sizeof(struct uart),
    .props = uart_props,
    .blocks = uart_blocks,
    .n_irqs = 1,
    .state = &uart_state,
    .realize = uart_realize,
    .reset = uart_reset,
    .destroy = uart_destroy,
};
