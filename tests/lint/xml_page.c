/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints docs/reference/xml.md: what the tables of daemon/xml say about themselves. `make docs` writes the page,
 * tests/lint/reference.py compares. With "rows": each row as path, kind and whether it is written, for tests.
 */
#include "daemon/xml/xml.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    static const char *const kinds[] = { "group", "list", "value", "flag",     "same",
                                         "says",  "part", "any",   "left-out", "no" };

    if (argc > 1 && strcmp(argv[1], "rows") == 0) {
        for (size_t i = 0; i < xml_n_kinds; i++) {
            for (size_t k = 0; k < xml_kinds[i]->n_rows; k++) {
                const struct xml_row *r = &xml_kinds[i]->rows[k];
                printf("%s\t%s\t%s\n", xml_kinds[i]->root, r->path, kinds[r->kind]);
            }
        }
    } else {
        xml_print_reference(stdout);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
