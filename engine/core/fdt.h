/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device-tree building over libfdt: growing blob, errors latched and reported once at the end.
 */
#ifndef VMD_CORE_FDT_H
#define VMD_CORE_FDT_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct fdt;

/* The root is a node with the name "". One thread. */
struct fdt *fdt_new(void);
void fdt_free(struct fdt *f);
void fdt_node_begin(struct fdt *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fdt_node_end(struct fdt *f);
void fdt_empty(struct fdt *f, const char *name);
void fdt_u32(struct fdt *f, const char *name, uint32_t v);
void fdt_u64(struct fdt *f, const char *name, uint64_t v); /* two cells */
void fdt_cells(struct fdt *f, const char *name, const uint32_t *cells, unsigned n);
void fdt_reg64(struct fdt *f, uint64_t base, uint64_t size); /* "reg" with 2+2 cells */
void fdt_str(struct fdt *f, const char *name, const char *v);
/* stringlist */
void fdt_strs(struct fdt *f, const char *name, const char *const *v, unsigned n);
void fdt_bytes(struct fdt *f, const char *name, const void *p, size_t n);
uint32_t fdt_phandle_new(struct fdt *f); /* number for a "phandle" property */
/* Finishes the tree (the name fdt_finish is libfdt's own); *blob is owned by the caller
 * (free). Error names the first call that failed. */
int fdt_take(struct fdt *f, void **blob, size_t *size, struct err *e);

#endif
