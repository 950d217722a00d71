/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing ACPI tables (aml.h).
 */
#include "devices/board/aml.h"

#include <string.h>

void aml_add(struct buf *b, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        buf_add_char(b, (char)(v >> 8 * i));
    }
}

void aml_put(struct buf *b, size_t at, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        b->data[at + i] = (char)(v >> 8 * i);
    }
}

void aml_set_sum(struct buf *b, size_t from, size_t n, size_t at)
{
    uint8_t sum = 0;

    b->data[at] = 0;
    for (size_t i = 0; i < n; i++) {
        sum = (uint8_t)(sum + (uint8_t)b->data[from + i]);
    }
    b->data[at] = (char)(uint8_t)-sum;
}

/* §5.2.6 */
size_t aml_begin(struct buf *b, const char *signature, unsigned revision, const char *name)
{
    while (b->len % 16) {
        buf_add_char(b, 0);
    }
    size_t at = b->len;
    buf_add(b, signature, 4);
    aml_add(b, 0, 4); /* length */
    aml_add(b, revision, 2);
    buf_add(b, "VMD   ", 6);
    buf_add(b, name, 8);
    aml_add(b, 1, 4);
    buf_add(b, "VMD ", 4);
    aml_add(b, 1, 4);
    return at;
}

void aml_end(struct buf *b, size_t at)
{
    aml_put(b, at + 4, b->len - at, 4);
    aml_set_sum(b, at, b->len - at, at + 9);
}

/* --- terms
 * ----------------------------------------------------------------------------------- */

/* PkgLength, §20.2.4: counts itself. */
static void add_length(struct buf *b, size_t n)
{
    if (n + 1 < 0x40) {
        aml_add(b, n + 1, 1);
    } else if (n + 2 < 0x1000) {
        n += 2;
        aml_add(b, 0x40 | (n & 15), 1);
        aml_add(b, n >> 4, 1);
    } else {
        n += 3;
        aml_add(b, 0x80 | (n & 15), 1);
        aml_add(b, n >> 4, 2);
    }
}

void aml_package(struct buf *b, const struct buf *body)
{
    add_length(b, body->len);
    buf_add(b, body->data, body->len);
}

void aml_name(struct buf *b, const char *name)
{
    aml_add(b, AML_NAME, 1);
    buf_add(b, name, 4);
}

void aml_integer(struct buf *b, uint64_t v)
{
    if (v < 2) {
        aml_add(b, v, 1);
    } else if (v <= UINT8_MAX) {
        aml_add(b, AML_BYTE, 1);
        aml_add(b, v, 1);
    } else if (v <= UINT16_MAX) {
        aml_add(b, AML_WORD, 1);
        aml_add(b, v, 2);
    } else if (v <= UINT32_MAX) {
        aml_add(b, AML_DWORD, 1);
        aml_add(b, v, 4);
    } else {
        aml_add(b, AML_QWORD, 1);
        aml_add(b, v, 8);
    }
}

void aml_string(struct buf *b, const char *text)
{
    aml_add(b, AML_STRING, 1);
    buf_add(b, text, strlen(text) + 1);
}

static unsigned hex(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* §19.3.4: three letters of five bits and four digits, the bytes of each half swapped. */
void aml_hid(struct buf *b, const char *name, const char *id)
{
    aml_name(b, name);
    if (strlen(id) != 7 || strncmp(id, "PNP", 3) != 0) {
        aml_string(b, id);
        return;
    }
    uint32_t v = (uint32_t)(id[0] - 0x40) << 26 | (uint32_t)(id[1] - 0x40) << 21 |
                 (uint32_t)(id[2] - 0x40) << 16 | hex(id[3]) << 12 | hex(id[4]) << 8 |
                 hex(id[5]) << 4 | hex(id[6]);
    aml_add(b, AML_DWORD, 1);
    aml_add(b, __builtin_bswap32(v), 4);
}

void aml_scope(struct buf *b, const char *path, const struct buf *inside)
{
    AUTO_BUF body = BUF_INIT;

    buf_add(&body, path, strlen(path));
    buf_add(&body, inside->data, inside->len);
    aml_add(b, AML_SCOPE, 1);
    aml_package(b, &body);
}

void aml_device(struct buf *b, const char *name, const struct buf *inside)
{
    AUTO_BUF body = BUF_INIT;

    buf_add(&body, name, 4);
    buf_add(&body, inside->data, inside->len);
    aml_add(b, AML_EXT, 1);
    aml_add(b, AML_EXT_DEVICE, 1);
    aml_package(b, &body);
}

void aml_method(struct buf *b, const char *name, unsigned args, const struct buf *inside)
{
    AUTO_BUF body = BUF_INIT;

    buf_add(&body, name, 4);
    aml_add(&body, 8 | args, 1); /* serialized */
    buf_add(&body, inside->data, inside->len);
    aml_add(b, AML_METHOD, 1);
    aml_package(b, &body);
}

void aml_list(struct buf *b, unsigned n, const struct buf *elements)
{
    AUTO_BUF body = BUF_INIT;

    aml_add(&body, n, 1);
    buf_add(&body, elements->data, elements->len);
    aml_add(b, AML_PACKAGE, 1);
    aml_package(b, &body);
}

void aml_bytes(struct buf *b, const struct buf *bytes)
{
    AUTO_BUF body = BUF_INIT;

    aml_integer(&body, bytes->len);
    buf_add(&body, bytes->data, bytes->len);
    aml_add(b, AML_BUFFER, 1);
    aml_package(b, &body);
}

/* --- resources
 * ------------------------------------------------------------------------------- */

void aml_res_ports(struct buf *r, unsigned at, unsigned n)
{
    aml_add(r, 0x47, 1);
    aml_add(r, 1, 1); /* all 16 bits are decoded */
    aml_add(r, at, 2);
    aml_add(r, at, 2);
    aml_add(r, 1, 1);
    aml_add(r, n, 1);
}

void aml_res_irq(struct buf *r, unsigned irq)
{
    aml_add(r, 0x22, 1);
    aml_add(r, 1u << irq, 2);
}

void aml_res_memory(struct buf *r, uint64_t at, uint64_t n)
{
    aml_add(r, 0x86, 1);
    aml_add(r, 9, 2);
    aml_add(r, 1, 1);
    aml_add(r, at, 4);
    aml_add(r, n, 4);
}

void aml_res_window(struct buf *r, unsigned size, unsigned kind, uint64_t first, uint64_t last)
{
    aml_add(r, size == 2 ? 0x88 : size == 4 ? 0x87 : 0x8a, 1);
    aml_add(r, 3 + 5 * size, 2);
    aml_add(r, kind, 1);
    aml_add(r, 0x0c, 1); /* both ends are fixed */
    aml_add(r,
            kind == 0   ? 1
            : kind == 1 ? 3
                        : 0,
            1); /* memory: writable, not cached; ports: all of them */
    aml_add(r, 0, size);
    aml_add(r, first, size);
    aml_add(r, last, size);
    aml_add(r, 0, size);
    aml_add(r, last - first + 1, size);
}

void aml_crs(struct buf *b, struct buf *resources)
{
    buf_add(resources, "\x79\0", 2); /* the end, without a sum */
    aml_name(b, "_CRS");
    aml_bytes(b, resources);
}
