/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of boards. Constant data, any thread.
 */
#include "devices/board/board.h"

#include <stddef.h>
#include <string.h>

static const struct board_class *const boards[] = { &rv_virt_board, &microvm_board, &q35_board,
                                                    NULL };

bool board_runs(const struct board_class *c, const char *arch)
{
    for (unsigned i = 0; c->archs[i]; i++) {
        if (strcmp(c->archs[i], arch) == 0) {
            return true;
        }
    }
    return false;
}

const struct board_class *board_find(const char *name)
{
    for (unsigned i = 0; boards[i]; i++) {
        if (strcmp(boards[i]->name, name) == 0) {
            return boards[i];
        }
    }
    return NULL;
}
