/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strings to numbers and back, bounded copies, names. Pure functions, any thread.
 */
#ifndef VMD_BASE_STR_H
#define VMD_BASE_STR_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Copies and always terminates; returns false when the source was cut. */
bool str_copy(char *dst, size_t size, const char *src);
bool str_starts(const char *s, const char *prefix);
/* Whole string, base 10 or 0x; -EINVAL (names `what` and the text) or -ERANGE outside [min,max]. */
int str_to_u64(const char *s, uint64_t min, uint64_t max, const char *what, uint64_t *out,
               struct err *e);
/* "512M", "2G", "4096", "1.5G": K M G T in powers of 1024, optional iB suffix. Bytes. */
int str_to_size(const char *s, const char *what, uint64_t *out, struct err *e);
/* "512 MiB", exact where it can be. */
void str_size(uint64_t bytes, char *out, size_t n);
/* VM, disk and net names: [A-Za-z0-9][A-Za-z0-9._+-]{0,62}. */
bool str_is_name(const char *s);
/* 36-character lower-case UUID (version 4, from getrandom); out holds 37. */
void uuid_make(char out[37]);
bool uuid_ok(const char *s);

#endif
