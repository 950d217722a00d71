/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system (iso9660.h). Layout, in sectors: 16 and 17 the two volume descriptors, 18 their end, 19 to 22 the path tables
 * (primary and Joliet, little and big endian), then a sector for each folder, once with ISO names and Rock Ridge and once with
 * Joliet names, then the files, which both share. Nothing here comes from a guest. Any thread.
 */
#include "daemon/vm/iso9660.h"

#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <assert.h>
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SECTOR 2048u
#define FIRST_VOLUME 16u
#define PATH_TABLES 19u
#define FIRST_FOLDER 23u

/* A folder or a file; entry 0 is the root. */
struct entry {
    char name[ISO_NAME_MAX + 1];
    unsigned parent, number;     /* number: of a folder in the path table, from 1 */
    const struct iso_file *file; /* NULL: a folder */
    uint32_t at[2], len;         /* sector: primary, Joliet */
};
struct image {
    struct entry entry[ISO_FILES_MAX + ISO_FOLDERS_MAX];
    unsigned n, folders;
    uint8_t *bytes;
};

static uint8_t *le(uint8_t *p, uint32_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        *p++ = (uint8_t)(v >> (8 * i));
    }
    return p;
}

static uint8_t *be(uint8_t *p, uint32_t v, unsigned n)
{
    for (unsigned i = n; i-- > 0;) {
        *p++ = (uint8_t)(v >> (8 * i));
    }
    return p;
}

/* Both orders, one behind the other (7.2.3, 7.3.3). */
static uint8_t *both(uint8_t *p, uint32_t v, unsigned n)
{
    return be(le(p, v, n), v, n);
}

/* ---- the tree ---- */

static unsigned find(const struct image *m, unsigned parent, const char *name, size_t len)
{
    for (unsigned i = 1; i < m->n; i++) {
        const struct entry *k = &m->entry[i];

        if (k->parent == parent && strlen(k->name) == len && memcmp(k->name, name, len) == 0) {
            return i;
        }
    }
    return 0;
}

static unsigned add(struct image *m, unsigned parent, const char *name, size_t len,
                    const struct iso_file *file)
{
    struct entry *k = &m->entry[m->n];

    assert(m->n < ARRAY_LEN(m->entry) && len > 0 && len <= ISO_NAME_MAX);
    memcpy(k->name, name, len);
    k->name[len] = 0;
    k->parent = parent;
    k->file = file;
    if (!file) {
        k->number = ++m->folders;
        assert(m->folders <= ISO_FOLDERS_MAX);
    }
    return m->n++;
}

/* Folders level by level, which is the order of the path table (9.4). */
static void make_tree(struct image *m, const struct iso_file *files, size_t n)
{
    m->n = 1;
    m->folders = m->entry[0].number = 1;
    for (unsigned level = 0, more = 1; more; level++) {
        more = 0;
        for (size_t i = 0; i < n; i++) {
            const char *name = files[i].path, *slash;
            unsigned parent = 0;

            for (unsigned at = 0; at < level && parent < m->n; at++) {
                slash = strchr(name, '/');
                if (!slash) {
                    break;
                }
                parent = find(m, parent, name, (size_t)(slash - name));
                name = slash + 1;
            }
            slash = strchr(name, '/');
            if (slash) {
                more = 1;
                if (!find(m, parent, name, (size_t)(slash - name))) {
                    add(m, parent, name, (size_t)(slash - name), NULL);
                }
            } else if (!find(m, parent, name, strlen(name))) {
                add(m, parent, name, strlen(name), &files[i]);
            }
        }
    }
}

static uint32_t place(struct image *m)
{
    uint32_t at = FIRST_FOLDER;

    for (unsigned i = 0; i < m->n; i++) {
        struct entry *k = &m->entry[i];

        if (!k->file) {
            k->at[0] = at + k->number - 1;
            k->at[1] = at + m->folders + k->number - 1;
            k->len = SECTOR;
        }
    }
    at += 2 * m->folders;
    for (unsigned i = 0; i < m->n; i++) {
        struct entry *k = &m->entry[i];

        if (k->file) {
            k->at[0] = k->at[1] = at;
            k->len = (uint32_t)k->file->len;
            at += (k->len + SECTOR - 1) / SECTOR;
        }
    }
    return at;
}

/* ---- names ---- */

/* As the volume spells it; its length in bytes. */
static unsigned spell(const struct entry *k, bool joliet, uint8_t *out)
{
    unsigned n = 0;

    for (const char *p = k->name; *p; p++) {
        if (joliet) {
            out[n++] = 0;
            out[n++] = (uint8_t)*p;
        } else {
            int c = toupper((unsigned char)*p);
            bool dot = c == '.' && k->file && !strchr(p + 1, '.');
            out[n++] = (uint8_t)(isalnum(c) || dot ? c : '_');
        }
    }
    if (!joliet && k->file) { /* 7.5.1: both separators stand in a file's name */
        if (!strchr(k->name, '.')) {
            out[n++] = '.';
        }
        out[n++] = ';';
        out[n++] = '1';
    }
    return n;
}

static int order(const struct entry *a, const struct entry *b, bool joliet)
{
    uint8_t x[2 * ISO_NAME_MAX + 4] = { 0 }, y[2 * ISO_NAME_MAX + 4] = { 0 };

    spell(a, joliet, x);
    spell(b, joliet, y);
    return memcmp(x, y, sizeof(x));
}

/* ---- folders ---- */

static uint8_t *px(uint8_t *p, bool folder, unsigned links)
{
    memcpy(p, "PX\x24\1", 4); /* RRIP 4.1.1 */
    p = both(p + 4, folder ? S_IFDIR | 0555 : S_IFREG | 0444, 4);
    p = both(p, links, 4);
    p = both(p, 0, 4);
    return both(p, 0, 4);
}

/* One record (9.1). name NULL: the folder itself or (`up`) its parent. */
static uint8_t *record(uint8_t *p, const struct entry *k, bool joliet, const char *name,
                       bool up, bool root)
{
    uint8_t *start = p;

    memset(p, 0, 34);
    both(p + 2, k->at[joliet], 4);
    both(p + 10, k->len, 4);
    memcpy(p + 18, (const uint8_t[]){ 80, 1, 1, 0, 0, 0, 0 }, 7); /* always the same day */
    p[25] = k->file ? 0 : 2;
    both(p + 28, 1, 2);
    p[32] = (uint8_t)(name ? spell(k, joliet, p + 33) : 1);
    if (!name) {
        p[33] = up;
    }
    p += 33 + p[32];
    if ((p - start) % 2) {
        *p++ = 0;
    }
    if (!joliet && root) { /* SUSP 5.3: the root says that there is more */
        memcpy(p, "SP\x07\x01\xbe\xef\x00", 7);
        p += 7;
    }
    if (!joliet) {
        p = px(p, !k->file, k->file ? 1 : 2);
    }
    if (!joliet && root) {
        memcpy(p, "ER\x12\x01\x0a\x00\x00\x01RRIP_1991A", 18); /* RRIP 4.3 */
        p += 18;
    }
    if (!joliet && name) {
        size_t n = strlen(name);
        memcpy(p, "NM", 2);
        p[2] = (uint8_t)(5 + n);
        p[3] = 1;
        p[4] = 0;
        memcpy(p + 5, name, n);
        p += 5 + n;
    }
    if ((p - start) % 2) {
        *p++ = 0;
    }
    start[0] = (uint8_t)(p - start);
    return p;
}

static void write_folder(struct image *m, unsigned at, bool joliet)
{
    const struct entry *k = &m->entry[at], *kid[ISO_FILES_MAX + ISO_FOLDERS_MAX];
    uint8_t *start = m->bytes + (size_t)k->at[joliet] * SECTOR, *p = start;
    unsigned n = 0;

    for (unsigned i = 1; i < m->n; i++) {
        if (m->entry[i].parent == at) {
            unsigned to = n++;
            for (; to > 0 && order(&m->entry[i], kid[to - 1], joliet) < 0; to--) {
                kid[to] = kid[to - 1];
            }
            kid[to] = &m->entry[i];
        }
    }
    p = record(p, k, joliet, NULL, false, at == 0);
    p = record(p, &m->entry[k->parent], joliet, NULL, true, false);
    for (unsigned i = 0; i < n; i++) {
        p = record(p, kid[i], joliet, kid[i]->name, false, false);
    }
    assert(p <= start + SECTOR);
}

/* ---- what stands before them ---- */

/* Path table (9.4); its length. */
static uint32_t path_table(const struct image *m, bool joliet, bool big, uint8_t *start)
{
    uint8_t *p = start;

    for (unsigned i = 0; i < m->n; i++) {
        const struct entry *k = &m->entry[i];

        if (k->file) {
            continue;
        }
        p[0] = (uint8_t)(i ? spell(k, joliet, p + 8) : 1);
        p[1] = 0;
        (big ? be : le)(p + 2, k->at[joliet], 4);
        (big ? be : le)(p + 6, m->entry[k->parent].number, 2);
        p[8] = i ? p[8] : 0;
        unsigned n = 8u + p[0];
        if (n % 2) {
            p[n++] = 0;
        }
        p += n;
    }
    assert(p <= start + SECTOR);
    return (uint32_t)(p - start);
}

/* Text filled up with blanks; in UCS-2 for Joliet. */
static void text(uint8_t *p, size_t size, const char *s, bool joliet)
{
    size_t n = strlen(s);

    for (size_t i = 0; i < size / (joliet ? 2 : 1); i++) {
        uint8_t c = (uint8_t)(i < n ? s[i] : ' ');
        if (joliet) {
            p[2 * i] = 0;
            p[2 * i + 1] = c;
        } else {
            p[i] = c;
        }
    }
}

/* Primary (8.4) or supplementary (8.5) volume descriptor. */
static void volume(struct image *m, const char *label, bool joliet, uint32_t sectors)
{
    uint8_t *p = m->bytes + (size_t)(FIRST_VOLUME + joliet) * SECTOR;
    uint32_t table = PATH_TABLES + 2u * joliet;

    p[0] = joliet ? 2 : 1;
    memcpy(p + 1, "CD001\1", 6);
    text(p + 8, 32, joliet ? "" : "LINUX", joliet);
    text(p + 40, 32, label, joliet);
    both(p + 80, sectors, 4);
    if (joliet) {
        memcpy(p + 88, "%/E", 3); /* UCS-2, level 3 */
    }
    both(p + 120, 1, 2);
    both(p + 124, 1, 2);
    both(p + 128, SECTOR, 2);
    both(p + 132, path_table(m, joliet, false, m->bytes + (size_t)table * SECTOR), 4);
    path_table(m, joliet, true, m->bytes + (size_t)(table + 1) * SECTOR);
    le(p + 140, table, 4);
    be(p + 148, table + 1, 4);
    record(p + 156, &m->entry[0], true, NULL, false, false); /* 34 bytes in both */
    both(p + 158, m->entry[0].at[joliet], 4);
    text(p + 190, 128, "", joliet);
    text(p + 318, 128, "", joliet);
    text(p + 446, 128, "", joliet);
    text(p + 574, 128, "VMD", joliet);
    text(p + 702, 37, "", false);
    text(p + 739, 37, "", false);
    text(p + 776, 37, "", false);
    for (unsigned i = 0; i < 4; i++) { /* made, changed, expires, effective */
        memcpy(p + 813 + 17u * i, i < 2 ? "1980010100000000" : "0000000000000000", 16);
    }
    p[881] = 1;
}

void iso_write(const char *label, const struct iso_file *files, size_t n, struct buf *out)
{
    struct image *m = xnew(struct image);

    assert(n <= ISO_FILES_MAX && strlen(label) <= ISO_LABEL_MAX);
    make_tree(m, files, n);
    uint32_t sectors = place(m);
    size_t was = out->len, size = (size_t)sectors * SECTOR;
    buf_reserve(out, size);
    m->bytes = (uint8_t *)out->data + was;
    memset(m->bytes, 0, size);
    out->len += size;

    volume(m, label, false, sectors);
    volume(m, label, true, sectors);
    memcpy(m->bytes + 18 * SECTOR,
           "\xff"
           "CD001\1",
           7);
    for (unsigned i = 0; i < m->n; i++) {
        const struct entry *k = &m->entry[i];

        if (!k->file) {
            write_folder(m, i, false);
            write_folder(m, i, true);
        } else if (k->len) {
            memcpy(m->bytes + (size_t)k->at[0] * SECTOR, k->file->data, k->len);
        }
    }
    free(m);
}
