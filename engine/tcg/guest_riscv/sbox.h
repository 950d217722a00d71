/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The substitution tables of AES (FIPS 197) and SM4 (GB/T 32907), for scalar and vector cryptography. Constant, any thread.
 */
#ifndef VMD_TCG_GUEST_RISCV_SBOX_H
#define VMD_TCG_GUEST_RISCV_SBOX_H

#include <stdint.h>

extern const uint8_t riscv_aes_sbox[256], riscv_aes_inv_sbox[256], riscv_sm4_sbox[256];

#endif
