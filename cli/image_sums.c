/* SPDX-License-Identifier: Apache-2.0 */
/* Looks up checksums. Owns nothing; any thread. */
#include "cli/image_sums.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* "HEX  NAME" of sha256sum. */
static bool sum_line(const char *line, size_t n, const char *name, char kind[SUMS_KIND],
                     char hex[TAR_HEX])
{
    if (n < 67 || strncmp(line + 64, "  ", 2) != 0 || strlen(name) != n - 66 ||
        strncmp(line + 66, name, n - 66) != 0) {
        return false;
    }
    snprintf(kind, SUMS_KIND, "SHA256");
    snprintf(hex, TAR_HEX, "%.64s", line);
    return true;
}

/* "SHA256(NAME)= HEX" of an OVA. */
static bool mf_line(const char *line, size_t n, const char *name, char kind[SUMS_KIND],
                    char hex[TAR_HEX])
{
    const char *open = memchr(line, '(', n), *end = line + n, *at;
    size_t len = strlen(name), k = open ? (size_t)(open - line) : 0;

    if (!open || k == 0 || k >= SUMS_KIND || (size_t)(end - open) < len + 4 ||
        strncmp(open + 1, name, len) != 0 || open[1 + len] != ')') {
        return false;
    }
    at = open + 2 + len;
    at += at < end && *at == '=';
    while (at < end && *at == ' ') {
        at++;
    }
    while (end > at && isspace((unsigned char)end[-1])) {
        end--;
    }
    snprintf(kind, SUMS_KIND, "%.*s", (int)k, line);
    snprintf(hex, TAR_HEX, "%.*s", (int)(end - at < TAR_HEX ? end - at : TAR_HEX - 1), at);
    return true;
}

bool sums_find(const char *list, bool manifest, const char *name, char kind[SUMS_KIND],
               char hex[TAR_HEX])
{
    for (const char *line = list; line && *line; line += *line == '\n') {
        size_t n = strcspn(line, "\n");

        if ((manifest ? mf_line : sum_line)(line, n, name, kind, hex)) {
            return true;
        }
        line += n;
    }
    return false;
}
