/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wires that end at a vCPU. Owns nothing; any thread.
 */
#include "engine/core/irq.h"
#include "engine/core/vcpu.h"

static void set_vcpu_input(void *opaque, unsigned n, bool level)
{
    vcpu_irq_set(opaque, n, level);
}

struct irq_line irq_to_vcpu(struct vcpu *c, unsigned n)
{
    return (struct irq_line){ .set = set_vcpu_input, .opaque = c, .n = n };
}
