/* SPDX-License-Identifier: Apache-2.0 */
/* Runs every module. */
#include "project.h"

static const struct {
    const char *name;
    void (*run)(void);
} modules[] = {
    { "bigint", report_bigint }, { "bits", report_bits },   { "expr", report_expr },
    { "fft", report_fft },       { "hash", report_hash },   { "lzss", report_lzss },
    { "matrix", report_matrix }, { "regex", report_regex }, { "sha256", report_sha256 },
    { "sort", report_sort },     { "text", report_text },
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
        if (argc < 2 || strcmp(argv[1], modules[i].name) == 0) {
            printf("== %s\n", modules[i].name);
            modules[i].run();
        }
    }
    return 0;
}
