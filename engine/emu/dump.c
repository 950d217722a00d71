/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control methods that write the guest's memory to a file: an ELF core (core_image.h), into a descriptor that came with the call.
 * The guest stands still meanwhile, and the loop turns on: each turn writes a piece. Owns struct emu_dump. Main thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/core_image.h"
#include "engine/emu/emu.h"
#include "engine/emu/state/pager.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (64u << 10) /* what is looked at for zeroes, which become a hole */
#define TURN (4u << 20)   /* bytes written before the loop turns */
#define TURN_PARTS 4096   /* and pieces looked at */

struct emu_dump {
    struct emu *m;
    struct api_call *call; /* NULL once answered, or its client gone */
    struct loop_timer *timer;
    struct core_image core;
    int fd;   /* -1: over */
    bool ran; /* resumes when it is done */
    unsigned part;
    uint64_t in_part;
    enum api_emu_dump_state state;
    uint64_t completed, total, size;
    char error[256];
};

bool dump_at_work(const struct emu *m)
{
    return m->dump && m->dump->fd >= 0;
}

static void on_gone(void *arg, struct api_call *call)
{
    (void)arg, (void)call; /* the dump goes on; emu.dump_status tells of it */
}

/* why NULL: it is whole. */
static void finish(struct emu_dump *p, int code, const char *why)
{
    struct vm *vm = p->m->vm;
    struct api_call *call = take_ptr(p->call);

    close(take_fd(&p->fd));
    loop_timer_disarm(p->timer);
    core_image_done(&p->core);
    p->state = why ? API_EMU_DUMP_STATE_FAILED : API_EMU_DUMP_STATE_COMPLETED;
    if (why) {
        str_copy(p->error, sizeof(p->error), why);
    }
    if (p->ran && vm->state == VM_PAUSED) {
        vm_resume(vm);
    }
    if (call && why) {
        api_fail(call, code, vm->name, NULL, "%s", p->error);
    } else if (call) {
        api_reply_emu_dump(call, &(struct api_emu_dump_out){ .bytes = (int64_t)p->size,
                                                             .memory = (int64_t)p->total });
    }
}

/* All of it, at an offset; 0 or an errno. */
static int write_at(int fd, const void *from, size_t n, uint64_t at)
{
    const char *p = from;

    while (n > 0) {
        ssize_t some = fd_pwrite(fd, p, n, at);

        if (some < 0 && errno == EINTR) {
            continue;
        }
        if (some <= 0) {
            return some < 0 ? errno : ENOSPC;
        }
        p += some;
        n -= (size_t)some;
        at += (uint64_t)some;
    }
    return 0;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* The next piece of the part at work; how many bytes were written, or -1 and errno. */
static ssize_t write_piece(struct emu_dump *p)
{
    const struct core_part *s = &p->core.part[p->part];
    uint64_t left = s->size - p->in_part, gpa = s->gpa + p->in_part, n;
    const uint8_t *from = s->range.host + (gpa - s->range.base);
    bool holds = mem_range_holds(&s->range, gpa, &n);
    int failed;

    n = n < left ? n : left;
    if (holds && n > PIECE - gpa % PIECE) {
        n = PIECE - gpa % PIECE;
    }
    bool writes = holds && !is_zero(from, (size_t)n);
    if (writes && (failed = write_at(p->fd, from, (size_t)n, s->at + p->in_part)) != 0) {
        errno = failed;
        return -1;
    }
    p->in_part += n;
    p->completed += n;
    if (p->in_part == s->size) {
        p->part++;
        p->in_part = 0;
    }
    return writes ? (ssize_t)n : 0;
}

static void on_turn(void *arg)
{
    struct emu_dump *p = arg;
    size_t done = 0;

    for (unsigned i = 0; i < TURN_PARTS && done < TURN && p->part < p->core.n_parts; i++) {
        ssize_t n = write_piece(p);

        if (n < 0) {
            char why[200];
            snprintf(why, sizeof(why), "the dump cannot be written: %s", strerror(errno));
            finish(p, API_E_FILE_ERROR, why);
            return;
        }
        done += (size_t)n;
    }
    if (p->part < p->core.n_parts) {
        loop_timer_arm(p->timer, 0);
    } else {
        finish(p, 0, NULL);
    }
}

struct make {
    struct emu_dump *p;
    uint64_t begin, length;
    int rc;
    struct err e;
};

static void make_image(void *arg)
{
    struct make *k = arg;

    k->rc = core_image_make(k->p->m->vm, k->begin, k->length, &k->p->core, &k->e);
}

/* Headers, and the file's length: what is not written later is zero. */
static int begin_file(struct emu_dump *p)
{
    if (ftruncate(p->fd, 0) != 0 || ftruncate(p->fd, (off_t)p->core.size) != 0) {
        return errno;
    }
    return write_at(p->fd, p->core.head.data, p->core.head.len, 0);
}

static struct emu_dump *dump_of(struct emu *m)
{
    if (!m->dump) {
        m->dump = xnew(struct emu_dump);
        *m->dump = (struct emu_dump){ .m = m, .fd = -1, .core = { .head = BUF_INIT } };
        m->dump->timer = loop_timer_new(m->loop, on_turn, m->dump);
    }
    return m->dump;
}

/* Answers the call when it cannot be. */
static bool may_begin(struct api_call *call, const struct emu *m, int fd)
{
    struct stat st;

    if (m->vm->state == VM_STOPPED) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "the guest has ended");
    } else if (dump_at_work(m)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "wait for it, or cancel it",
                 "its memory is being dumped already");
    } else if (pager_filling(m->pager)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "try again in a moment",
                 "its memory still comes from its saved state");
    } else if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        api_fail(call, API_E_INVALID_PARAMS, "fd", "pass the descriptor of a regular file",
                 "no regular file came with the call");
    } else {
        return true;
    }
    return false;
}

void api_handle_emu_dump(struct api_call *call, struct api_emu_dump_in *in)
{
    AUTO_FD fd = control_passed_fd(call);
    struct emu *m = control_emu(call);

    if (!may_begin(call, m, fd)) {
        return;
    }
    struct emu_dump *p = dump_of(m);
    struct make k = { .p = p,
                      .begin = (uint64_t)in->begin,
                      .length = in->has_length ? (uint64_t)in->length : UINT64_MAX };
    bool ran = m->vm->state == VM_RUNNING;
    vm_pause(m->vm);
    vm_at_barrier(m->vm, make_image, &k);
    if (k.rc != 0) {
        if (ran) {
            vm_resume(m->vm);
        }
        api_fail(call, API_E_INVALID_PARAMS, "begin", "leave begin and length away", "%s",
                 k.e.msg);
        return;
    }
    p->call = call;
    p->ran = ran;
    p->fd = take_fd(&fd);
    p->part = 0;
    p->in_part = p->completed = 0;
    p->total = p->core.memory;
    p->size = p->core.size;
    p->error[0] = 0;
    p->state = API_EMU_DUMP_STATE_ACTIVE;
    api_call_on_gone(call, on_gone, p);
    int failed = begin_file(p);
    if (failed) {
        char why[200];
        snprintf(why, sizeof(why), "the dump cannot be written: %s", strerror(failed));
        finish(p, API_E_FILE_ERROR, why);
        return;
    }
    loop_timer_arm(p->timer, 0);
}

void api_handle_emu_dump_status(struct api_call *call, struct api_emu_dump_status_in *in)
{
    const struct emu_dump *p = control_emu(call)->dump;
    struct api_emu_dump_status_out out = { .state = API_EMU_DUMP_STATE_NONE };

    (void)in;
    if (p) {
        out = (struct api_emu_dump_status_out){ .state = p->state,
                                                .completed = (int64_t)p->completed,
                                                .total = (int64_t)p->total,
                                                .bytes = (int64_t)p->size,
                                                .error = p->error[0] ? (char *)p->error
                                                                     : NULL };
    }
    api_reply_emu_dump_status(call, &out);
}

void api_handle_emu_dump_cancel(struct api_call *call, struct api_emu_dump_cancel_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    if (dump_at_work(m)) {
        finish(m->dump, API_E_CANCELLED, "the dump was cancelled");
    }
    api_reply_emu_dump_cancel(call);
}

void dump_state_changed(struct emu *m)
{
    if (dump_at_work(m) && m->vm->state != VM_PAUSED) {
        m->dump->ran = false;
        finish(m->dump, API_E_BAD_STATE,
               m->vm->state == VM_STOPPED ? "the VM ended before its dump was whole"
                                          : "the guest ran before its dump was whole");
    }
}

void dump_free(struct emu *m)
{
    struct emu_dump *p = take_ptr(m->dump);

    if (p) {
        fd_autoclose(&p->fd);
        core_image_done(&p->core);
        loop_timer_free(p->timer);
        free(p);
    }
}
