/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building device trees with libfdt's sequential writer. Owns the growing blob; one thread.
 */
#include "engine/core/fdt.h"
#include "engine/base/buf.h"

#include <errno.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FDT_FIRST_SIZE 16384
#define FDT_MAX_SIZE (4u << 20)

struct fdt {
    void *blob;
    int size;
    unsigned depth;
    uint32_t phandle;
    char *node;       /* last node begun, for errors */
    struct err error; /* first failure; code 0: none */
};

/* Room for more: libfdt writes properties and strings from both ends, so it moves them
 * itself. */
static int grow(struct fdt *f)
{
    int size = f->size ? f->size * 2 : FDT_FIRST_SIZE;
    if (size > (int)FDT_MAX_SIZE) {
        return -FDT_ERR_NOSPACE;
    }
    void *blob = xalloc((size_t)size);
    int ret = f->blob ? fdt_resize(f->blob, blob, size) : fdt_create(blob, size);
    if (ret < 0) {
        free(blob);
        return ret;
    }
    free(f->blob);
    f->blob = blob;
    f->size = size;
    return 0;
}

static void latch(struct fdt *f, int ret, const char *what, const char *name)
{
    if (ret < 0 && !f->error.code) {
        err_set(&f->error, -EINVAL, "device tree: cannot write %s '%s' (near node '%s'): %s",
                what, name, f->node ? f->node : "/", fdt_strerror(ret));
    }
}

/* Evaluates `call` until it fits; nothing more is written after a failure. */
#define WRITE(f, what, name, call)                                                             \
    do {                                                                                       \
        int ret_ = (f)->error.code ? 0 : (call);                                               \
        while (ret_ == -FDT_ERR_NOSPACE && (ret_ = grow(f)) == 0) {                            \
            ret_ = (call);                                                                     \
        }                                                                                      \
        latch((f), ret_, (what), (name));                                                      \
    } while (0)

struct fdt *fdt_new(void)
{
    struct fdt *f = xnew(struct fdt);
    latch(f, grow(f), "blob", "");
    WRITE(f, "table", "reservations", fdt_finish_reservemap(f->blob));
    return f;
}

void fdt_free(struct fdt *f)
{
    if (f) {
        free(f->blob);
        free(f->node);
        free(f);
    }
}

void fdt_node_begin(struct fdt *f, const char *fmt, ...)
{
    char name[64];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(name)) {
        latch(f, -FDT_ERR_BADVALUE, "node", name);
    }
    free(f->node);
    f->node = xstrdup(name);
    f->depth++;
    WRITE(f, "node", name, fdt_begin_node(f->blob, name));
}

void fdt_node_end(struct fdt *f)
{
    if (f->depth == 0) {
        latch(f, -FDT_ERR_BADSTATE, "end of node", "");
        return;
    }
    f->depth--;
    WRITE(f, "end of node", "", fdt_end_node(f->blob));
}

void fdt_bytes(struct fdt *f, const char *name, const void *p, size_t n)
{
    if (n > FDT_MAX_SIZE) {
        latch(f, -FDT_ERR_NOSPACE, "property", name);
        return;
    }
    WRITE(f, "property", name, fdt_property(f->blob, name, p, (int)n));
}

void fdt_empty(struct fdt *f, const char *name)
{
    fdt_bytes(f, name, "", 0);
}

void fdt_u32(struct fdt *f, const char *name, uint32_t v)
{
    fdt32_t be = cpu_to_fdt32(v);
    fdt_bytes(f, name, &be, sizeof(be));
}

void fdt_u64(struct fdt *f, const char *name, uint64_t v)
{
    fdt64_t be = cpu_to_fdt64(v);
    fdt_bytes(f, name, &be, sizeof(be));
}

void fdt_cells(struct fdt *f, const char *name, const uint32_t *cells, unsigned n)
{
    AUTO_FREE fdt32_t *be = xalloc_n(n ? n : 1, sizeof(*be));
    for (unsigned i = 0; i < n; i++) {
        be[i] = cpu_to_fdt32(cells[i]);
    }
    fdt_bytes(f, name, be, (size_t)n * sizeof(*be));
}

void fdt_reg64(struct fdt *f, uint64_t base, uint64_t size)
{
    const uint32_t cells[4] = { (uint32_t)(base >> 32), (uint32_t)base, (uint32_t)(size >> 32),
                                (uint32_t)size };
    fdt_cells(f, "reg", cells, 4);
}

void fdt_str(struct fdt *f, const char *name, const char *v)
{
    fdt_bytes(f, name, v, strlen(v) + 1);
}

void fdt_strs(struct fdt *f, const char *name, const char *const *v, unsigned n)
{
    AUTO_BUF b = BUF_INIT;
    for (unsigned i = 0; i < n; i++) {
        buf_add(&b, v[i], strlen(v[i]) + 1);
    }
    fdt_bytes(f, name, b.data ? b.data : "", b.len);
}

uint32_t fdt_phandle_new(struct fdt *f)
{
    return ++f->phandle;
}

int fdt_take(struct fdt *f, void **blob, size_t *size, struct err *e)
{
    if (!f->error.code && f->depth) {
        latch(f, -FDT_ERR_BADSTATE, "end of node", f->node);
    }
    WRITE(f, "end", "", fdt_finish(f->blob));
    if (f->error.code) {
        return err_set(e, f->error.code, "%s", f->error.msg);
    }
    *size = fdt_totalsize(f->blob);
    *blob = xmemdup(f->blob, *size);
    return 0;
}
