/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tape in a file: what is recorded goes there, what is replayed comes from there; and what a machine must be for that. Owns
 * struct emu_record. Main thread.
 */
#include "engine/emu/replay/replay.h"

#include "api-schema/gen/methods.h"
#include "devices/board/board.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/console.h"
#include "engine/emu/replay/log.h"
#include "storage/block.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLUSH_NS 200000000 /* how long a record may stay out of the file */

struct emu_record {
    struct emu *m;
    int fd;
    bool begun, over, failed, quits;
    struct reclog_writer *writer;
    struct reclog_reader *reader;
    struct reclog_facts facts;
    const struct replay_record *next;
    struct loop_timer *flush;
    struct record_chr *console;
    struct record_disk *disk[BOARD_MAX_DISKS];
    unsigned n_disks;
    uint64_t written; /* records */
    struct err why;
};

/* ---- the tape ---- */

/* Nothing more is recorded; the machine runs on. */
static void give_up(struct emu_record *r, const struct err *e)
{
    log_error("emu", "%s; the recording ends at instruction %" PRIu64 ", the VM runs on",
              e->msg, replay_place(r->m->vm).count);
    r->over = true;
    r->why = *e;
    control_record(r->m, "record-failed", replay_place(r->m->vm).count, e->msg);
}

static void tape_put(void *arg, const struct replay_record *rec)
{
    struct emu_record *r = arg;
    struct err e = ERR_INIT;

    if (r->over || !r->writer) {
        return;
    }
    if (!reclog_waiting(r->writer)) {
        loop_timer_arm(r->flush, FLUSH_NS);
    }
    r->written++;
    if (reclog_put(r->writer, rec, &e) != 0) {
        give_up(r, &e);
    }
}

static void on_flush(void *arg)
{
    struct emu_record *r = arg;
    struct err e = ERR_INIT;

    if (!r->over && r->writer && reclog_flush(r->writer, &e) != 0) {
        give_up(r, &e);
    }
}

static const struct replay_record *tape_peek(void *arg)
{
    struct emu_record *r = arg;
    struct err e = ERR_INIT;

    if (!r->next && r->reader && !r->over) {
        r->next = reclog_next(r->reader, &e);
        r->over = !r->next;
        if (e.code != 0) { /* it has changed since it was opened */
            log_error("emu", "%s", e.msg);
            r->failed = true;
        }
    }
    return r->next;
}

static void tape_take(void *arg)
{
    ((struct emu_record *)arg)->next = NULL;
}

static void fail(struct emu_record *r, const struct err *e)
{
    if (!r->failed) {
        r->failed = true;
        r->why = *e;
        log_error("emu", "the replay has diverged: %s", e->msg);
        control_record(r->m, "replay-diverged", replay_place(r->m->vm).count, e->msg);
    }
}

static void tape_diverged(void *arg, const struct err *e)
{
    fail(arg, e);
}

/* The recorded digests of the end, beside the machine's. */
static void compare_end(struct emu_record *r, const struct replay_record *end)
{
    struct replay_hashes h;
    struct err e = ERR_INIT;
    char hex[2 * REPLAY_HASH_LEN + 1];
    int rc = replay_hash(r->m, &h, &e);

    if (rc == 0 && end && end->n == 3 * REPLAY_HASH_LEN) {
        bool cpus = memcmp(end->p, h.cpus, REPLAY_HASH_LEN) == 0;
        bool devices = memcmp(end->p + REPLAY_HASH_LEN, h.devices, REPLAY_HASH_LEN) == 0;
        bool memory = memcmp(end->p + 2 * REPLAY_HASH_LEN, h.memory, REPLAY_HASH_LEN) == 0;

        if (!cpus || !devices || !memory) {
            rc = err_set(
                &e, -EILSEQ,
                "the machine's state at the end is another: vCPUs %s, devices %s, memory %s",
                cpus ? "equal" : "differ", devices ? "equal" : "differ",
                memory ? "equal" : "differs");
        }
    }
    if (rc != 0) {
        fail(r, &e);
        return;
    }
    replay_hex(h.all, hex);
    log_info("emu", "replayed to instruction %" PRIu64 "%s, state %s",
             replay_place(r->m->vm).count,
             end ? ", the recording's end" : ", where the recording is cut off", hex);
    control_record(r->m, "replay-end", replay_place(r->m->vm).count, hex);
}

static void tell_state(struct emu_record *r, const char *type)
{
    struct replay_hashes h;
    struct err e = ERR_INIT;
    char hex[2 * REPLAY_HASH_LEN + 1] = "";

    if (replay_hash(r->m, &h, &e) == 0) {
        replay_hex(h.all, hex);
    }
    log_info("emu", "replayed to instruction %" PRIu64 ", state %s",
             replay_place(r->m->vm).count, hex);
    control_record(r->m, type, replay_place(r->m->vm).count, hex);
}

static void tape_arrived(void *arg, bool end)
{
    struct emu_record *r = arg;
    struct emu *m = r->m;

    m->pausing_why = r->failed ? "replay-diverged" : end ? "replay-end" : "replay-point";
    vm_pause(m->vm);
    m->pausing_why = NULL;
    if (end && !r->failed) {
        compare_end(r, tape_peek(r));
    } else if (!r->failed) {
        tell_state(r, "replay-point");
    }
    if (r->quits && (end || r->failed || !(m->gdb || m->opt.paused))) {
        emu_quit(m, r->failed ? "replay-diverged" : "replay-end");
    }
}

static const struct replay_tape tape = {
    .put = tape_put,
    .peek = tape_peek,
    .take = tape_take,
    .diverged = tape_diverged,
    .arrived = tape_arrived,
};

/* ---- what can be recorded ---- */

static int refuse_parts(const struct emu *m, struct err *e)
{
    const struct api_vm_config *c = &m->config;
    const struct {
        bool has;
        const char *what;
    } parts[] = {
        { c->engine != API_ENGINE_TCG, "engine kvm" },
        { c->n_shares > 0, "shared folders" },
        { c->vsock != NULL, "a vsock device" },
        { c->display != NULL, "a screen" },
        { c->n_channels > 0 || c->agent, "channels" },
        { c->n_usb > 0, "USB devices" },
        { c->balloon != NULL, "a balloon" },
        { c->n_memory_devices > 0, "memory devices" },
        { c->audio != NULL, "a sound card" },
        { c->guest_watchdog != NULL, "a watchdog" },
        { m->opt.record && (m->opt.gdb_fd >= 0 || m->opt.gdb_path), "a debugger's socket" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].has) {
            return err_set(
                e, -ENOTSUP,
                "VM '%s' has %s, which cannot be recorded; take it out, or run it without "
                "a recording",
                c->name, parts[i].what);
        }
    }
    return 0;
}

static int open_file(struct emu *m, struct err *e)
{
    const char *path = m->opt.record_path;
    int fd = take_fd(&m->opt.record_fd);

    if (fd < 0) {
        fd = m->opt.record ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)
                           : open(path, O_RDONLY | O_CLOEXEC);
    }
    return fd >= 0 ? fd : err_errno(e, errno, "recording %s", path);
}

int record_new(struct emu *m, struct err *e)
{
    struct emu_record *r;
    int rc, fd;

    if (!m->opt.record && !m->opt.replay) {
        return 0;
    }
    rc = refuse_parts(m, e);
    fd = rc == 0 ? open_file(m, e) : -1;
    if (fd < 0) {
        return rc != 0 ? rc : fd;
    }
    r = m->record = xnew(struct emu_record);
    r->m = m;
    r->fd = fd;
    r->quits = m->opt.control_fd < 0;
    r->flush = loop_timer_new(m->loop, on_flush, r);
    if (m->opt.replay) {
        rc = reclog_open(fd, &r->reader, &r->facts, e);
    }
    replay_new(m->vm, m->opt.replay, &tape, r);
    return rc;
}

bool record_active(const struct emu *m)
{
    return m->record != NULL;
}

bool record_failed(const struct emu *m)
{
    return m->record && m->record->failed;
}

void record_status(struct emu *m, struct api_emu_replay_status_out *out)
{
    struct emu_record *r = m->record;

    if (!r) {
        return;
    }
    out->mode = m->opt.replay ? API_REPLAY_MODE_REPLAY : API_REPLAY_MODE_RECORD;
    out->has_count = out->has_records = true;
    out->count = (int64_t)replay_count(m->vm);
    out->records = (int64_t)(m->opt.replay ? r->facts.records : r->written);
    out->has_end = out->has_whole = m->opt.replay;
    out->end = (int64_t)r->facts.last.count;
    out->whole = r->facts.whole;
    out->error = r->why.code != 0 ? r->why.msg : NULL;
}

/* ---- between devices and the world ---- */

struct chr *record_console(struct emu *m)
{
    struct emu_record *r = m->record;

    if (!r) {
        return console_chr(m->console);
    }
    r->console = record_chr_new(m->vm, "console", console_chr(m->console));
    return record_chr_front(r->console);
}

void record_add_disk(struct emu *m, struct blk_node *n)
{
    if (m->record && m->record->n_disks < BOARD_MAX_DISKS) {
        m->record->disk[m->record->n_disks++] = record_disk_new(
            m->vm, n, m->opt.replay || m->opt.record_scratch);
    }
}

static void describe(struct emu *m, struct buf *b)
{
    const struct api_vm_config *c = &m->config;

    buf_printf(b, "arch=%s\nmachine=%s\ncpu=%s\ncpus=%" PRId64 "\nmemory=%" PRId64 "\n",
               api_enum_name(&api_type_arch, (int)c->arch),
               api_enum_name(&api_type_machine, (int)c->machine), c->cpu ? c->cpu : "", c->cpus,
               c->memory);
    buf_printf(b, "icount=%u\nsources=%u\n", m->tcg.icount_shift, replay_sources(m->vm));
    for (unsigned i = 0; i < replay_sources(m->vm); i++) {
        buf_printf(b, "source.%u=%s\n", i, replay_source_name(m->vm, i));
    }
    for (unsigned i = 0; i < m->n_disks; i++) {
        buf_printf(b, "disk.%s=%" PRIu64 " bytes%s\n", blk_name(m->disk[i]),
                   blk_size(m->disk[i]), blk_readonly(m->disk[i]) ? ", read-only" : "");
    }
    for (size_t i = 0; i < c->n_nics; i++) {
        buf_printf(b, "nic.%s=%s\n", c->nics[i].name, m->mac[i]);
    }
}

static int may_run(void *arg, struct err *e)
{
    return record_begin(arg, e);
}

void record_built(struct emu *m)
{
    if (m->record) {
        if (m->record->console) {
            record_chr_start(m->record->console);
        }
        m->vm->may_run = may_run;
    }
}

/* ---- the beginning ---- */

/* The first line that differs. */
static int compare_text(const char *was, const char *is, struct err *e)
{
    while (*was || *is) {
        size_t a = strcspn(was, "\n"), b = strcspn(is, "\n");

        if (a != b || memcmp(was, is, a) != 0) {
            return err_set(
                e, -EINVAL,
                "this is not the machine that was recorded: there it says '%.*s', here "
                "'%.*s'",
                (int)(a < 200 ? a : 200), was, (int)(b < 200 ? b : 200), is);
        }
        was += a + (was[a] != 0);
        is += b + (is[b] != 0);
    }
    return 0;
}

int record_begin(struct emu *m, struct err *e)
{
    struct emu_record *r = m->record;
    AUTO_BUF text = BUF_INIT;
    struct replay_hashes h;
    char hex[2 * REPLAY_HASH_LEN + 1];
    int rc;

    if (!r || r->begun) {
        return 0;
    }
    rc = replay_hash(m, &h, e);
    if (rc != 0) {
        return rc;
    }
    describe(m, &text);
    replay_hex(h.all, hex);
    buf_printf(&text, "start=%s\n", hex);
    rc = m->opt.record ? reclog_create(r->fd, text.data, &r->writer, e)
                       : compare_text(reclog_text(r->reader), text.data, e);
    if (rc != 0) {
        r->failed = true;
        r->why = *e;
        return rc;
    }
    r->begun = true;
    replay_ready(m->vm);
    if (m->opt.has_replay_to) {
        replay_until(m->vm, m->opt.replay_to);
    }
    return 0;
}

/* ---- the end ---- */

static void end_recording(struct emu_record *r)
{
    struct vm *vm = r->m->vm;
    struct replay_hashes h;
    struct err e = ERR_INIT;
    uint8_t digests[3 * REPLAY_HASH_LEN];
    char hex[2 * REPLAY_HASH_LEN + 1];

    if (r->over || replay_hash(r->m, &h, &e) != 0) {
        return;
    }
    memcpy(digests, h.cpus, REPLAY_HASH_LEN);
    memcpy(digests + REPLAY_HASH_LEN, h.devices, REPLAY_HASH_LEN);
    memcpy(digests + 2 * REPLAY_HASH_LEN, h.memory, REPLAY_HASH_LEN);
    replay_stop(vm, digests, sizeof(digests));
    if (!r->over && reclog_flush(r->writer, &e) != 0) {
        give_up(r, &e);
    }
    if (!r->over) {
        replay_hex(h.all, hex);
        log_info("emu", "recorded %" PRIu64 " instructions, state %s", replay_place(vm).count,
                 hex);
    }
    r->over = true;
}

void record_end(struct emu *m)
{
    struct emu_record *r = m->record;
    const struct replay_record *next;
    struct replay_place at;
    struct err e = ERR_INIT;

    if (!r || !r->begun || strcmp(m->reason, "replay-end") == 0) {
        return;
    }
    if (m->opt.record) {
        end_recording(r);
        return;
    }
    next = tape_peek(r);
    at = replay_place(m->vm);
    if (r->failed || strcmp(m->reason, "quit") == 0) {
        return;
    }
    if (next && next->kind == REPLAY_END && next->at.count == at.count &&
        next->at.now == at.now) {
        compare_end(r, next);
    } else {
        err_set(&e, -EILSEQ,
                "the machine ended (%s) at instruction %" PRIu64 "; the recording goes on",
                m->reason, at.count);
        fail(r, &e);
    }
}

void record_free(struct emu *m)
{
    struct emu_record *r = m->record;

    if (!r) {
        return;
    }
    record_chr_free(r->console);
    for (unsigned i = 0; i < r->n_disks; i++) {
        record_disk_free(r->disk[i]);
    }
    loop_timer_free(r->flush);
    reclog_close(r->writer);
    reclog_free(r->reader);
    fd_autoclose(&r->fd);
    free(r);
    m->record = NULL;
}
