/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the texts of somebody else's exported VMs. The first byte says what the rest is: an OVF descriptor, or a list of checksums
 * (of an OVA, or of our own archives). What is accepted keeps to the bounds of ovf.h and means the same when it is
 * read again; what is refused says why and leaves nothing.
 */
#include "cli/image_ova.h"
#include "cli/image_sums.h"
#include "engine/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <libxml/parser.h>
#include <stdlib.h>
#include <string.h>

const char fuzz_name[] = "fuzz_ovf";

enum { DESCRIPTOR, MANIFEST, SUMS, KINDS };
enum { MAX_CPUS = 4096 };
static uint64_t n_read, n_disks, n_sums;

void fuzz_setup(void)
{
    xmlInitParser();
}

void fuzz_finish(void)
{
    printf("# %llu descriptors read with %llu disks, %llu sums found\n",
           (unsigned long long)n_read, (unsigned long long)n_disks, (unsigned long long)n_sums);
    xmlCleanupParser();
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void compare(const struct ovf *a, const struct ovf *b)
{
    bool ok = same(a->name, b->name) && same(a->left_out, b->left_out) && a->cpus == b->cpus &&
              a->memory == b->memory && a->n_disks == b->n_disks && a->n_nics == b->n_nics &&
              a->n_cdroms == b->n_cdroms;

    for (size_t i = 0; ok && i < a->n_disks; i++) {
        ok = same(a->disk[i].file, b->disk[i].file) && a->disk[i].bus == b->disk[i].bus &&
             a->disk[i].capacity == b->disk[i].capacity;
    }
    if (!ok) {
        FUZZ_FAIL("read again, it means something else");
    }
}

static void descriptor(const char *text, size_t n)
{
    struct ovf o, again;
    struct err e = ERR_INIT;

    if (ovf_read(text, n, &o, &e) != 0) {
        static const struct ovf nothing;

        if (!e.msg[0] || memcmp(&o, &nothing, sizeof(o)) != 0) {
            FUZZ_FAIL("refused without a word, or something is left");
        }
        return;
    }
    n_read++;
    n_disks += o.n_disks;
    if (o.n_disks > OVF_DISKS || o.n_nics > OVF_NICS || o.cpus > MAX_CPUS ||
        o.memory >> 62 > 0) {
        FUZZ_FAIL("%zu disks, %zu cards, %llu processors, %llu bytes", o.n_disks, o.n_nics,
                  (unsigned long long)o.cpus, (unsigned long long)o.memory);
    }
    for (size_t i = 0; i < o.n_disks; i++) {
        if (o.disk[i].capacity >> 62) {
            FUZZ_FAIL("a disk beyond all bounds");
        }
    }
    if (ovf_read(text, n, &again, &e) != 0) {
        FUZZ_FAIL("read again, it is refused: %s", e.msg);
    }
    compare(&o, &again);
    ovf_done(&again);
    ovf_done(&o);
}

static void sums(const char *text, size_t n, bool manifest)
{
    static const char *const names[] = { "disk.vmdk", "web.ovf", "a (b).vmdk", "x" };
    AUTO_FREE char *list = xstrndup(text, n);

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char kind[SUMS_KIND], hex[TAR_HEX];

        if (sums_find(list, manifest, names[i], kind, hex)) {
            n_sums++;
            if (strlen(kind) >= SUMS_KIND || strlen(hex) >= TAR_HEX ||
                !strstr(list, names[i])) {
                FUZZ_FAIL("'%s' of '%s' is no digest", kind, names[i]);
            }
        }
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    unsigned kind = size ? data[0] % KINDS : 0;

    if (size) {
        kind == DESCRIPTOR ? descriptor((const char *)data + 1, size - 1)
                           : sums((const char *)data + 1, size - 1, kind == MANIFEST);
    }
}
