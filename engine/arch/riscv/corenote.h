/* SPDX-License-Identifier: Apache-2.0 */
/* What an ELF core says of a hart: arch_ops.core_notes. */
#ifndef VMD_ARCH_RISCV_CORENOTE_H
#define VMD_ARCH_RISCV_CORENOTE_H

struct buf;
struct vcpu;

void riscv_core_notes(struct vcpu *v, struct buf *out);

#endif
