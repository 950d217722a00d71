/* SPDX-License-Identifier: Apache-2.0 */
/*
 * debug-port: where firmware of virtual machines says what it does, byte by byte (port 0x402 of SeaBIOS and OVMF; reading says that it is there). Lines go to the log of `-d f`. vCPU threads.
 */
#include "devices/registry.h"
#include "engine/base/log.h"

#define LINE 200

struct debug_port {
    struct device dev;
    char line[LINE + 1];
    unsigned n;
};

static void port_written(struct device *d, const struct dev_reg *r, unsigned index,
                         uint64_t old, uint64_t value)
{
    struct debug_port *p = (struct debug_port *)d;

    (void)r, (void)index, (void)old;
    if (value >= 0x20 && value < 0x7f) {
        p->line[p->n++] = (char)value;
    }
    if ((value == '\n' || p->n == LINE) && p->n) {
        p->line[p->n] = 0;
        p->n = 0;
        log_trace('f', "%s", p->line);
    }
}

static void port_reset(struct device *d)
{
    ((struct debug_port *)d)->n = 0;
}

static const struct dev_reg port_regs[] = {
    { .name = "OUT",
      .doc = "a character; reads as 0xe9",
      .offset = 0,
      .size = 1,
      .writable = 0xff,
      .reset = 0xe9,
      .field = DEV_NO_FIELD,
      .written = port_written },
    { .name = NULL },
};
static const struct dev_reg_block port_blocks[] = {
    { .name = "ports", .size = 1, .regs = port_regs, .min_size = 1, .max_size = 1 },
    { .name = NULL },
};

const struct device_class debug_port_class = {
    .name = "debug-port",
    .doc = "port by which firmware says what it does",
    .size = sizeof(struct debug_port),
    .blocks = port_blocks,
    .reset = port_reset,
};
