/* SPDX-License-Identifier: Apache-2.0 */
/* The table of procedures.h. */
#include "daemon/libvirt/procedures.h"

#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/session.h"
#include "engine/base/mem.h"

#include <stdlib.h>

#define ROW(number, name, fn, args, ret) { number, #name, args, ret, lv_do_##fn, NULL },
#define PLAIN_ROW(number, name, method, args) { number, #name, args, "", lv_plain, method },

static const struct lv_procedure remote[] = { LV_PROCEDURES(ROW, PLAIN_ROW) };
static const struct lv_procedure qemu[] = { LV_QEMU_PROCEDURES(ROW) };

static const struct lv_procedure *find(const struct lv_procedure *list, size_t n,
                                       uint32_t number)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].number == number) {
            return &list[i];
        }
    }
    return NULL;
}

const struct lv_procedure *lv_find(uint32_t program, uint32_t number)
{
    return program == LV_QEMU ? find(qemu, ARRAY_LEN(qemu), number)
                              : find(remote, ARRAY_LEN(remote), number);
}
