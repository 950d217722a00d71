/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of ACPI and their byte code (ACPI 6.4 §5.2, §20.2), as boards write them into a buffer. Numbers are little-endian. Main thread, or whoever owns the buffer.
 */
#ifndef VMD_DEVICES_BOARD_AML_H
#define VMD_DEVICES_BOARD_AML_H

#include "engine/base/buf.h"

#include <stdint.h>

enum {
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_WORD = 0x0b,
    AML_DWORD = 0x0c,
    AML_STRING = 0x0d,
    AML_QWORD = 0x0e,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_METHOD = 0x14,
    AML_EXT = 0x5b,
    AML_EXT_DEVICE = 0x82
};

/* n bytes of v. */
void aml_add(struct buf *b, uint64_t v, unsigned n);
void aml_put(struct buf *b, size_t at, uint64_t v, unsigned n);
/* The byte at `at` becomes what makes [from, from + n) add up to 0. */
void aml_set_sum(struct buf *b, size_t from, size_t n, size_t at);
/* A table's header, on a multiple of 16; its place. Then what is in it, then its end. `name` has 8 characters. */
size_t aml_begin(struct buf *b, const char *signature, unsigned revision, const char *name);
void aml_end(struct buf *b, size_t at);

/* What is in `body`, behind its length. */
void aml_package(struct buf *b, const struct buf *body);
/* Name (`name`, ...): the value follows. Names have four characters. */
void aml_name(struct buf *b, const char *name);
void aml_integer(struct buf *b, uint64_t v);
void aml_string(struct buf *b, const char *text);
/* Name (_HID, EisaId ("PNP0A08")) or, where the id is none of those, a string. */
void aml_hid(struct buf *b, const char *name, const char *id);
void aml_scope(struct buf *b, const char *path, const struct buf *inside);
void aml_device(struct buf *b, const char *name, const struct buf *inside);
/* Method (`name`, args): without access by several at once. */
void aml_method(struct buf *b, const char *name, unsigned args, const struct buf *inside);
/* Package () { ... } of n elements that are in `elements`. */
void aml_list(struct buf *b, unsigned n, const struct buf *elements);
/* Buffer () { ... } */
void aml_bytes(struct buf *b, const struct buf *bytes);

/* Resources (§6.4), into a buffer that aml_crs() makes Name (_CRS, ...) of, with the end behind them. */
void aml_res_ports(struct buf *r, unsigned at, unsigned n);
void aml_res_irq(struct buf *r, unsigned irq);
void aml_res_memory(struct buf *r, uint64_t at, uint64_t n);
/* What a bridge passes on: kind 0 memory, 1 ports, 2 bus numbers; `size` 2, 4 or 8 bytes a number. */
void aml_res_window(struct buf *r, unsigned size, unsigned kind, uint64_t first, uint64_t last);
void aml_crs(struct buf *b, struct buf *resources);

#endif
