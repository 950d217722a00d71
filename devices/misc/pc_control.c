/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pc-control: what a PC without a chip set is reset and switched off by: the command port of a keyboard controller (Intel 8042) that has no keyboard, and the
 * registers that ACPI switches machines off by (6.4 §4.8.3.2, §4.8.3.7). vCPU threads enter by ports; requests are served by the main thread.
 */
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

enum { OUT_FULL = 1, SELF_TESTED = 4, WAS_COMMAND = 8, UNLOCKED = 16 }; /* status */
enum { SLEEP_ENABLE = 1 << 13 };

struct pc_control {
    struct device dev;
    uint8_t status, out, mode; /* mode: the command byte */
    uint8_t command;           /* takes the next byte of data, or 0 */
    uint16_t pm1;
};

static void answer(struct pc_control *p, uint8_t value)
{
    p->out = value;
    p->status |= OUT_FULL;
}

static uint64_t kbc_read_data(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct pc_control *p = (struct pc_control *)d;

    (void)r, (void)index;
    p->status &= (uint8_t)~OUT_FULL;
    return p->out;
}

/* Without a command before it, a byte is for the keyboard. */
static void kbc_written_data(struct device *d, const struct dev_reg *r, unsigned index,
                             uint64_t old, uint64_t value)
{
    struct pc_control *p = (struct pc_control *)d;

    (void)r, (void)index, (void)old;
    p->status &= (uint8_t)~WAS_COMMAND;
    if (p->command == 0x60) {
        p->mode = (uint8_t)value;
    } else if (p->command == 0xd2 || p->command == 0xd3) { /* loops */
        answer(p, p->command == 0xd2 ? (uint8_t)value : 0);
    }
    p->command = 0;
}

static uint64_t kbc_read_status(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return ((const struct pc_control *)d)->status | UNLOCKED;
}

static void kbc_written_command(struct device *d, const struct dev_reg *r, unsigned index,
                                uint64_t old, uint64_t value)
{
    struct pc_control *p = (struct pc_control *)d;

    (void)r, (void)index, (void)old;
    p->status |= WAS_COMMAND;
    p->command = 0;
    switch (value) {
    case 0x20:
        answer(p, p->mode);
        break;
    case 0x60:
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        p->command = (uint8_t)value;
        break;
    case 0xa9: /* no second port: its clock hangs low */
        answer(p, 1);
        break;
    case 0xaa:
        p->status |= SELF_TESTED;
        answer(p, 0x55);
        break;
    case 0xab:
        answer(p, 0);
        break;
    case 0xfe: /* pulls the processors' reset line */
        vm_request(d->vm, VM_REQ_RESET, "guest-reset");
        break;
    default:
        log_trace('u', "%s: keyboard controller command 0x%02x", d->id, (unsigned)value);
    }
}

static void pm_written_control(struct device *d, const struct dev_reg *r, unsigned index,
                               uint64_t old, uint64_t value)
{
    struct pc_control *p = (struct pc_control *)d;

    (void)r, (void)index, (void)old;
    p->pm1 &= (uint16_t)~SLEEP_ENABLE; /* reads as zero */
    if (value & SLEEP_ENABLE) {
        vm_request(d->vm, VM_REQ_POWEROFF, "guest-poweroff"); /* there is no other state */
    }
}

static void pm_written_sleep(struct device *d, const struct dev_reg *r, unsigned index,
                             uint64_t old, uint64_t value)
{
    (void)r, (void)index, (void)old;
    if (value & 1 << 5) {
        vm_request(d->vm, VM_REQ_POWEROFF, "guest-poweroff");
    }
}

static const struct dev_reg kbc_regs[] = {
    { .name = "DATA",
      .doc =
          "answers of the controller, bytes for it and for the keyboard that it does not have",
      .offset = 0,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = kbc_read_data,
      .written = kbc_written_data },
    { .name = "STATUS/COMMAND",
      .doc = "read: bit 0 an answer waits; write: a command, 0xfe resets the machine",
      .offset = 4,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = kbc_read_status,
      .written = kbc_written_command },
    { .name = NULL },
};

static const struct dev_reg pm_regs[] = {
    { .name = "PM1_CNT",
      .doc = "bit 13 switches the machine off",
      .offset = 0,
      .size = 2,
      .writable = 0x3c07,
      .field = offsetof(struct pc_control, pm1),
      .written = pm_written_control },
    { .name = "SLEEP_CONTROL",
      .doc = "bit 5 switches the machine off (ACPI, hardware-reduced)",
      .offset = 2,
      .size = 1,
      .writable = 0x3c,
      .field = DEV_NO_FIELD,
      .written = pm_written_sleep },
    { .name = "SLEEP_STATUS",
      .doc = "bit 7: awake after a sleep, which there is none of",
      .offset = 3,
      .size = 1,
      .field = DEV_NO_FIELD },
    { .name = NULL },
};

static const struct dev_reg_block pc_blocks[] = {
    { .name = "keyboard", .size = 5, .regs = kbc_regs, .min_size = 1, .max_size = 1 },
    { .name = "power", .size = 4, .regs = pm_regs, .min_size = 1, .max_size = 2 },
    { .name = NULL },
};

static void pc_reset(struct device *d)
{
    struct pc_control *p = (struct pc_control *)d;

    p->status = p->out = p->mode = p->command = 0;
}

static const struct st_field pc_fields[] = {
    ST_FIELD(struct pc_control, status, ST_U8, 1, "status of the keyboard controller"),
    ST_FIELD(struct pc_control, out, ST_U8, 1, "its last answer"),
    ST_FIELD(struct pc_control, mode, ST_U8, 1, "its command byte"),
    ST_FIELD(struct pc_control, command, ST_U8, 1, "command that takes the next byte, 0: none"),
    ST_FIELD(struct pc_control, pm1, ST_U16, 1, "PM1 control register"),
    ST_END,
};
static const struct st_table pc_state = { .name = "pc-control",
                                          .version = 1,
                                          .fields = pc_fields };

const struct device_class pc_control_class = {
    .name = "pc-control",
    .doc = "reset by a keyboard controller's command port, power-off by a PM1 control register",
    .size = sizeof(struct pc_control),
    .blocks = pc_blocks,
    .state = &pc_state,
    .reset = pc_reset,
};
