/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine has written to a disk whose image is to stay as it is: blocks in memory, by their number. One thread.
 */
#ifndef VMD_EMU_REPLAY_SCRATCH_H
#define VMD_EMU_REPLAY_SCRATCH_H

#include <stdbool.h>
#include <stdint.h>

struct scratch;

struct scratch *scratch_new(uint64_t max); /* bytes of memory that it may take */
void scratch_free(struct scratch *s);      /* NULL is fine */
/* 0, or -ENOSPC with nothing written. p NULL: zeroes, which take next to no memory when they are whole blocks.
 * Whole sectors of 512 bytes. */
int scratch_write(struct scratch *s, uint64_t at, const uint8_t *p, uint64_t n);
/* Puts over p what was written of that range. */
void scratch_over(const struct scratch *s, uint64_t at, uint8_t *p, uint64_t n);
/* One that has what this has of the blocks of the range. */
struct scratch *scratch_copy(const struct scratch *s, uint64_t at, uint64_t n);
bool scratch_has(const struct scratch *s, uint64_t at, uint64_t n); /* any of it */

#endif
