/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vmstate_save() wrote, as names and values for people: without the machine, its devices or their tables, since the stream
 * names its fields and kinds itself. Reading is bounded; nothing in the stream is trusted. Any thread.
 */
#ifndef VMD_CORE_VMSTATE_VIEW_H
#define VMD_CORE_VMSTATE_VIEW_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct vmstate_field {
    const char *part;  /* "machine", "cpu0", "device:serial0" */
    const char *field; /* "lsr", "queue[2].used", printable */
    const char *
        value; /* 0x1f, true, off (a timer), bytes in hexadecimal: the first 64, and a sum of all */
};

/* Calls fn for each field, in the order of the stream, until it returns false. Of arrays longer than 32 only elements that are
 * not zero. -EBADMSG: it is no such stream; names what is wrong. */
int vmstate_view(const void *p, size_t n,
                 bool (*fn)(void *arg, const struct vmstate_field *field), void *arg,
                 struct err *e);

#endif
