/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plain definition of the cipher and hash operations of ir_vec.def. Pure functions, any thread.
 */
#ifndef VMD_TESTS_ISA_VEC_HINTS_CRYPTO_H
#define VMD_TESTS_ISA_VEC_HINTS_CRYPTO_H

#include <stdint.h>

/* d = op(d, a, b) on one group of four words; op is an enum ir_vec_op of kind A. */
void vec_hints_group(unsigned op, uint32_t *d, const uint32_t *a, const uint32_t *b);

#endif
