/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The explicit list of guest architectures: the one file outside guest_X/ that names them.
 */
#include "engine/tcg/guest.h"
#include "engine/tcg/guest_riscv/guest.h"

#include "engine/base/mem.h"

#include <string.h>

static const struct tcg_guest *const guests[] = {
    &riscv64_guest,
    &riscv32_guest,
};

const struct tcg_guest *tcg_guest_find(const char *arch)
{
    for (unsigned i = 0; i < ARRAY_LEN(guests); i++) {
        if (strcmp(guests[i]->name, arch) == 0) {
            return guests[i];
        }
    }
    return NULL;
}
