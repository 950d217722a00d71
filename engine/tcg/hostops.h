/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions of the host that helpers may use, each with an answer for hosts that have none. The CPU is asked at run
 * time. Pure functions but for the memory they are given; any thread.
 */
#ifndef VMD_TCG_HOSTOPS_H
#define VMD_TCG_HOSTOPS_H

#include <stdbool.h>
#include <stdint.h>

/* Carry-less product of a and b into *high and *low. False: this host has no instruction for it. */
bool host_clmul(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low);

/* One round of AES on the state (FIPS 197; byte 0 is the lowest of s[0]) without a round key. LAST rounds do not mix the columns;
 * MIX_BACK only mixes them, backwards. False: no instruction, s is untouched. */
enum host_aes {
    HOST_AES_ENC,
    HOST_AES_ENC_LAST,
    HOST_AES_DEC,
    HOST_AES_DEC_LAST,
    HOST_AES_MIX_BACK
};
bool host_aes(enum host_aes kind, uint64_t s[2]);

/* Compare-and-swap of 16 bytes of RAM at p (aligned), sequentially consistent. old gets what was there; true if that was
 * `expect` and `value` is there now. */
bool host_cas16(void *p, const uint64_t expect[2], const uint64_t value[2], uint64_t old[2]);

#endif
