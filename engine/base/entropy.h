/* SPDX-License-Identifier: Apache-2.0 */
/* Whether it is worth the time to look for something in bytes that makes them shorter. Any thread. */
#ifndef VMD_BASE_ENTROPY_H
#define VMD_BASE_ENTROPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Do all values occur about equally often, so that Huffman codes gain less than one percent? Some 16,384 of the n bytes tell.
 * False for fewer than 16,384. Repetitions of a piece that is random itself are not seen. */
bool looks_random(const uint8_t *p, size_t n);

#endif
