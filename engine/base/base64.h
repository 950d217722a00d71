/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base64 (RFC 4648 section 4, padded). Pure functions, any thread.
 */
#ifndef VMD_BASE_BASE64_H
#define VMD_BASE_BASE64_H

#include "engine/base/buf.h"

/* Appends n bytes as text. */
void base64_add(struct buf *out, const void *p, size_t n);
/* Appends the bytes of a text. False when it is no base64; what came before the mistake was appended. */
bool base64_take(struct buf *out, const char *text);

#endif
