/* SPDX-License-Identifier: Apache-2.0 */
/* x86-64 registers for GDB, and what an ELF core says of a vCPU. */
#ifndef VMD_ARCH_X86_GDB_H
#define VMD_ARCH_X86_GDB_H

#include "engine/core/gdb.h"

extern const struct gdb_arch x86_64_gdb;

void x86_64_core_notes(struct vcpu *v, struct buf *out); /* arch_ops.core_notes */

#endif
