/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device reference: Markdown from a class's tables. Pure function, any thread.
 */
#include "engine/core/device.h"

#include <inttypes.h>

static const char *const kinds[] = { [PROP_U64] = "number",
                                     [PROP_BOOL] = "yes or no",
                                     [PROP_STR] = "text",
                                     [PROP_PTR] = "backend" };

static void describe_props(const struct device_class *cls, struct buf *b)
{
    if (!cls->props || !cls->props->name) {
        return;
    }
    buf_add_str(b, "\n### Properties\n\n| name | kind | default | range | meaning "
                   "|\n|---|---|---|---|---|\n");
    for (const struct dev_prop *p = cls->props; p->name; p++) {
        buf_printf(b, "| `%s` | %s | ", p->name, kinds[p->kind]);
        if (p->required) {
            buf_add_str(b, "required");
        } else if (p->kind == PROP_U64) {
            buf_printf(b, "%" PRIu64, p->def);
        } else if (p->kind == PROP_BOOL) {
            buf_add_str(b, p->def ? "yes" : "no");
        } else {
            buf_add_str(b, "none");
        }
        buf_add_str(b, " | ");
        if (p->kind == PROP_U64 && (p->min || p->max)) {
            buf_printf(b, "%" PRIu64 " to ", p->min);
            if (p->max) {
                buf_printf(b, "%" PRIu64, p->max);
            } else {
                buf_add_str(b, "any");
            }
        }
        buf_printf(b, " | %s |\n", p->doc ? p->doc : "");
    }
}

static void describe_reg(const struct dev_reg *r, struct buf *b)
{
    buf_printf(b, "| 0x%" PRIx32, r->offset);
    if (r->count > 1) {
        buf_printf(b, " + %u n, n < %u", r->stride ? r->stride : r->size, r->count);
    }
    buf_printf(b, " | %u | `%s` | ", r->size, r->name);
    if (r->writable) {
        buf_printf(b, "0x%" PRIx64, r->writable);
    } else {
        buf_add_str(b, "-");
    }
    if (r->w1c) {
        buf_printf(b, ", write 1 to clear 0x%" PRIx64, r->w1c);
    }
    buf_printf(b, " | 0x%" PRIx64 " | %s |\n", r->reset, r->doc ? r->doc : "");
}

static void describe_block(const struct dev_reg_block *k, struct buf *b)
{
    buf_printf(b, "\n### Block `%s`, 0x%" PRIx64 " bytes\n\n", k->name, k->size);
    if (!k->regs || !k->regs->name) {
        buf_add_str(b, "Not a register file; see the specification the device follows.\n");
        return;
    }
    buf_add_str(b, "| offset | bytes | name | writable bits | reset | meaning "
                   "|\n|---|---|---|---|---|---|\n");
    for (const struct dev_reg *r = k->regs; r->name; r++) {
        describe_reg(r, b);
    }
}

static void describe_state(const struct st_table *t, struct buf *b)
{
    buf_printf(
        b, "\n### Saved state `%s`, version %u\n\n| field | since | meaning |\n|---|---|---|\n",
        t->name, t->version);
    for (const struct st_field *f = t->fields; f->name; f++) {
        buf_printf(b, "| `%s` | %u | %s |\n", f->name, f->since, f->doc ? f->doc : "");
    }
}

void dev_describe(const struct device_class *cls, struct buf *b)
{
    buf_printf(b, "## %s\n\n%s\n", cls->name, cls->doc ? cls->doc : "");
    if (cls->n_irqs) {
        buf_printf(b, "\nInterrupt lines: %u.\n", cls->n_irqs);
    }
    describe_props(cls, b);
    for (const struct dev_reg_block *k = cls->blocks; k && k->name; k++) {
        describe_block(k, b);
    }
    if (cls->state) {
        describe_state(cls->state, b);
    }
}
