/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking into translated code, for engine/emu: traces, coverage, plugins, a map for perf. Everything here changes the code of blocks translated
 * while it is on, and nothing else: off, it costs nothing. Main thread, unless said.
 */
#ifndef VMD_TCG_OBSERVE_H
#define VMD_TCG_OBSERVE_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct vm;

/* ---- traces: records in a ring for each vCPU; a full ring drops and counts ---- */

enum {
    TRACE_BLOCK = 1,
    TRACE_EXCEPTION = 2,
    TRACE_INTERRUPT = 3,
    TRACE_READ = 4,
    TRACE_WRITE = 5
};

/* One record, 40 bytes, little-endian, as it goes through the API (docs/guide/observability.md). */
struct trace_record {
    uint64_t time; /* virtual, ns */
    uint64_t pc;   /* guest virtual */
    uint64_t
        a; /* block: physical address; exception: tval; interrupt: handler; device: physical address */
    uint64_t b;   /* block: mode; device: value */
    uint8_t kind; /* TRACE_* */
    uint8_t size; /* device: bytes */
    uint16_t vcpu;
    uint32_t code; /* exception: cause; block: instructions */
};

struct trace_filter {
    bool blocks, exceptions, interrupts, mmio;
    uint64_t from, to; /* of pc, both included */
    int vcpu;          /* -1: all */
};

/* On, with a new filter; what was recorded is forgotten. Stops all vCPUs for a moment. */
void tcg_trace_start(struct vm *vm, const struct trace_filter *f);
void tcg_trace_stop(struct vm *vm);
bool tcg_trace_on(const struct vm *vm);
/* Takes at most `max` records out, in order of each vCPU; returns how many. *dropped: since tcg_trace_start(). */
size_t tcg_trace_read(struct vm *vm, struct trace_record *out, size_t max, uint64_t *dropped);

/* ---- coverage ---- */

#define COVERAGE_EDGES 65536u
#define COVERAGE_MAGIC 0x31564f43444d56ull /* "VMDCOV1" */
/* What the shared file begins with; then COVERAGE_EDGES bytes at `edges`, then one bit for every two bytes of RAM at
 * `bitmap`, in order of guest physical address from ram_base. */
struct coverage_header {
    uint64_t magic, edges, bitmap, ram_base, ram_size;
};
/* Before the VM runs. fd: the shared file (taken; made as large as needed), or -1 for one of our own. ram: what the bitmap is of. */
int tcg_coverage_start(struct vm *vm, int fd, uint64_t ram_base, uint64_t ram_size,
                       struct err *e);
/* The whole of it, as in the file; NULL when it is off. */
const struct coverage_header *tcg_coverage(const struct vm *vm);

/* ---- plugins (include/vmd/plugin.h) ---- */

/* Loads a shared object with "arg,arg..." (may be NULL). Before the VM runs and before the sandbox closes. */
int tcg_plugin_load(struct vm *vm, const char *path, const char *args, struct err *e);
/* The VM has stopped: plugins say what they have to say. */
void tcg_plugins_exit(struct vm *vm);

/* ---- perf ---- */

/* From now on a line for each block goes to fd (kept), in the format of /tmp/perf-PID.map. Before the VM runs. */
void tcg_perf_map(struct vm *vm, int fd);
void tcg_perf_flush(struct vm *vm);

#endif
