/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RISC-V registers for GDB, as the arch_ops of both widths name them.
 */
#ifndef VMD_ARCH_RISCV_GDB_H
#define VMD_ARCH_RISCV_GDB_H

#include "engine/core/gdb.h"

extern const struct gdb_arch riscv_gdb;

#endif
