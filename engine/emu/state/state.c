/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What saving and loading share: the list of memory, handing out its pieces, ends, progress. Main thread, but for
 * run_hand().
 */
#include "engine/emu/state/state.h"
#include "engine/emu/state/view.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>

#define FILL_NS 2000000 /* between two looks whether memory is filled */

static void on_turn(void *arg);

struct emu_state *state_of_vm(struct emu *m)
{
    if (!m->state) {
        m->state = xnew(struct emu_state);
        *m->state = (struct emu_state){
            .m = m, .fd = -1, .memory_fd = -1, .in = { .fd = -1 }, .out = { .fd = -1 }
        };
        m->state->timer = loop_timer_new(m->loop, on_turn, m->state);
    }
    return m->state;
}

bool state_at_work(const struct emu *m)
{
    return m->state && m->state->active && !m->state->behind;
}

bool state_behind(const struct emu *m)
{
    return (m->state && m->state->active && m->state->behind) || pager_filling(m->pager);
}

/* ---- memory ---- */

static void add_region(void *arg, struct mem_region *r)
{
    struct emu_state *s = arg;
    uint64_t pages = (mem_region_size(r) + MEM_PAGE_SIZE - 1) / MEM_PAGE_SIZE;

    s->region = xrealloc_n(s->region, s->n_regions + 1, sizeof(*s->region));
    s->region[s->n_regions++] = (struct pager_region){ r, pages };
    s->total += mem_region_size(r);
}

void state_list_memory(struct emu_state *s)
{
    s->n_regions = 0;
    s->total = s->completed = 0;
    mem_each_ram(s->m->vm->mem, add_region, s);
}

static void run_hand(struct work *w)
{
    struct state_hand *h = (struct state_hand *)w;

    h->e = (struct err)ERR_INIT;
    h->rc = h->s->loading ? load_piece(h) : save_piece(h);
}

static void done_hand(struct work *w)
{
    struct state_hand *h = (struct state_hand *)w;
    struct emu_state *s = h->s;
    uint64_t left = s->region[h->region].pages - h->page;

    h->busy = false;
    s->busy--;
    s->completed += (left < CHUNK_PAGES ? left : CHUNK_PAGES) * MEM_PAGE_SIZE;
    if (h->rc != 0 && s->e.code == 0) {
        s->e = h->e;
    }
    loop_timer_arm(s->timer, 0);
}

/* The next piece for a hand; false: there is none. */
static bool next_piece(struct emu_state *s, struct state_hand *h)
{
    while (s->at_region < s->n_regions && s->at_page >= s->region[s->at_region].pages) {
        s->at_region++;
        s->at_page = 0;
    }
    if (s->at_region == s->n_regions || s->e.code != 0) {
        return false;
    }
    h->s = s;
    h->region = s->at_region;
    h->page = s->at_page;
    h->work.run = run_hand;
    h->work.done = done_hand;
    s->at_page += CHUNK_PAGES;
    return true;
}

/* Every hand that is free takes a piece. */
static void on_turn(void *arg)
{
    struct emu_state *s = arg;

    if (!s->active) {
        return;
    }
    if (s->waiting) {
        s->waiting = pager_filling(s->m->pager);
        if (s->waiting && s->e.code == 0) {
            loop_timer_arm(s->timer, FILL_NS);
        } else {
            save_begin(s);
        }
        return;
    }
    if (s->settling) {
        save_settle(s);
        return;
    }
    if (s->behind) {
        return;
    }
    for (unsigned i = 0; i < STATE_HANDS; i++) {
        struct state_hand *h = &s->hand[i];

        if (h->busy || !next_piece(s, h)) {
            continue;
        }
        h->busy = true;
        s->busy++;
        workers_queue(s->m->workers, &h->work);
    }
    if (s->busy == 0) {
        if (s->loading) {
            load_end(s);
        } else {
            save_end(s);
        }
    }
}

void state_pieces(struct emu_state *s)
{
    s->at_region = 0;
    s->at_page = 0;
    loop_timer_arm(s->timer, 0);
}

/* ---- calls ---- */

static void on_gone(void *arg, struct api_call *call)
{
    struct emu *m = arg; /* outlives the calls, which the state does not */

    if (m->state && m->state->call == call) {
        m->state->call = NULL; /* it goes on; emu.state_status tells of it */
    }
}

bool state_take_args(struct emu_state *s, struct api_call *call, const char *key)
{
    AUTO_FD fd = control_passed_fd(call);
    struct emu *m = s->m;
    AUTO_BUF bytes = BUF_INIT;

    if (s->active) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "wait for it, or cancel it",
                 "its state is being %s already", s->loading ? "loaded" : "saved");
    } else if (dump_at_work(m)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "wait for it, or cancel it",
                 "its memory is being dumped");
    } else if (fd < 0) {
        api_fail(call, API_E_INVALID_PARAMS, "fd", "pass the descriptor of a regular file",
                 "no file came with the call");
    } else if (!base64_take(&bytes, key) || bytes.len != STATE_KEY_LEN) {
        api_fail(call, API_E_INVALID_PARAMS, "key", "pass 32 bytes as base64",
                 "the key is not one");
    } else {
        memcpy(s->key, bytes.data, STATE_KEY_LEN);
        explicit_bzero(bytes.data, bytes.len);
        fd_autoclose(&s->fd);
        s->fd = take_fd(&fd);
        s->call = call;
        s->e = (struct err)ERR_INIT;
        api_call_on_gone(call, on_gone, m);
        return true;
    }
    return false;
}

/* ---- memory in a file of its own ---- */

static void drop_memory(struct emu_state *s)
{
    s->apart = NULL;
    if (s->memory_fd >= 0) {
        close(take_fd(&s->memory_fd));
    }
}

bool state_is_apart(const struct emu_state *s, unsigned region)
{
    return s->apart && s->region[region].r == s->apart;
}

int state_put_apart(const struct emu_state *s, uint64_t page, const uint8_t *bytes, size_t n,
                    struct err *e)
{
    for (size_t at = 0, end; at < n; at = end) {
        size_t some = n - at < MEM_PAGE_SIZE ? n - at : MEM_PAGE_SIZE;

        end = at + some;
        if (bytes[at] == 0 && memcmp(bytes + at, bytes + at + 1, some - 1) == 0) {
            continue;
        }
        while (end < n && bytes[end] != 0) { /* a guess: a page of zeroes in it does no harm */
            end += n - end < MEM_PAGE_SIZE ? n - end : MEM_PAGE_SIZE;
        }
        while (at < end) {
            ssize_t done = fd_pwrite(s->memory_fd, bytes + at, end - at,
                                     page * MEM_PAGE_SIZE + at);

            if (done == 0 || (done < 0 && errno != EINTR)) {
                return err_errno(e, done < 0 ? errno : ENOSPC,
                                 "the memory of a fork cannot be written");
            }
            at += done > 0 ? (size_t)done : 0;
        }
    }
    return 0;
}

bool state_choose_apart(struct emu_state *s, struct api_call *call, bool apart)
{
    if (!apart) { /* of a call that never came */
        drop_memory(s);
    } else if (!s->apart) {
        api_fail(call, API_E_INVALID_PARAMS, "memory_apart", "call emu.fork_memory before",
                 "no file of memory was given");
        return false;
    }
    return true;
}

static void find_apart(void *arg, struct mem_region *r)
{
    struct emu_state *s = arg;
    off_t size = lseek(s->memory_fd, 0, SEEK_END);

    if (mem_region_kind(r) == MEM_RAM && !s->apart && size > 0 &&
        mem_region_size(r) == (uint64_t)size) {
        s->apart = r;
    }
}

void api_handle_emu_fork_memory(struct api_call *call, struct api_emu_fork_memory_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_state *s = state_of_vm(m);
    AUTO_FD fd = control_passed_fd(call);

    (void)in;
    if (s->active) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "wait for it, or cancel it",
                 "its state is being %s already", s->loading ? "loaded" : "saved");
        return;
    }
    drop_memory(s);
    s->memory_fd = take_fd(&fd);
    mem_each_ram(m->vm->mem, find_apart, s);
    if (!s->apart) {
        drop_memory(s);
        api_fail(call, API_E_INVALID_PARAMS, "fd", "pass a file as large as the VM's memory",
                 "no file of memory came with the call, or none that is as large as a region");
        return;
    }
    api_reply_emu_fork_memory(call);
}

void state_info(const struct emu_state *s, struct buf *out)
{
    const struct emu *m = s->m;
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    api_json_set_str(o, "program", "vmd " PACKAGE_VERSION);
    api_json_set_str(o, "name", m->vm->name);
    api_json_set_str(o, "uuid", m->vm->uuid);
    api_json_set_str(o, "arch", m->vm->arch->name);
    api_json_set_str(o, "machine", m->board_class->name);
    for (unsigned i = 0; i < s->n_regions; i++) {
        struct json_object *r = json_object_new_object();

        api_json_set_str(r, "name", mem_region_name(s->region[i].r));
        api_json_set_int(r, "size", (int64_t)mem_region_size(s->region[i].r));
        if (state_is_apart(s, i)) {
            api_json_set_bool(r, "apart", true);
        }
        json_object_array_add(list, r);
    }
    json_object_object_add(o, "memory", list);
    json_object_object_add(o, "map", view_map(m->vm));
    buf_add_str(out, json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
    json_object_put(o);
}

void state_answer(struct emu_state *s)
{
    struct api_call *call = take_ptr(s->call);
    struct emu *m = s->m;

    if (!call) {
        return;
    }
    if (s->e.code != 0 && !s->acted) {
        int code = s->e.code == -ECANCELED                         ? API_E_CANCELLED
                   : s->e.code == -EBUSY                           ? API_E_BAD_STATE
                   : s->e.code == -EBADMSG || s->e.code == -EINVAL ? API_E_INVALID_PARAMS
                   : s->e.code == -EEXIST                          ? API_E_EXISTS
                   : s->e.code == -ENOTSUP                         ? API_E_UNSUPPORTED
                                                                   : API_E_FILE_ERROR;
        api_fail(call, code, m->vm->name, NULL, "%s", s->e.msg);
    } else if (s->loading) {
        api_reply_emu_load(call, &(struct api_emu_load_out){ .lazy = s->lazy });
    } else {
        struct api_emu_save_out out = { .bytes = (int64_t)s->size,
                                        .memory = (int64_t)s->total,
                                        .live = s->live,
                                        .pause_us = s->pause_ns / 1000 };

        out.failed = s->e.code != 0 ? s->e.msg : NULL;
        out.why_not_live = !s->live && m->no_pager[0] ? m->no_pager : NULL;
        api_reply_emu_save(call, &out);
    }
}

static void drop_actions(struct emu_state *s)
{
    for (size_t i = 0; i < s->n_actions; i++) {
        api_release(&api_type_disk_action, &s->action[i]);
    }
    free(take_ptr(s->action));
    s->n_actions = 0;
    s->acted = false;
}

void state_over(struct emu_state *s)
{
    s->active = s->settling = s->behind = s->waiting = false;
    loop_timer_disarm(s->timer);
    state_in_done(&s->in);
    if (s->out.fd >= 0) {
        state_out_done(&s->out);
    }
    if (s->fd >= 0) {
        close(take_fd(&s->fd));
    }
    explicit_bzero(s->key, sizeof(s->key));
    for (unsigned i = 0; i < STATE_HANDS; i++) {
        chunk_done(&s->hand[i].codec);
    }
    free(take_ptr(s->region));
    free(take_ptr(s->snapshot));
    s->disks_taken = false;
    s->n_regions = 0;
    drop_memory(s);
    state_answer(s);
    drop_actions(s);
    malloc_trim(0); /* nobody has anything of this any more */
}

void api_handle_emu_state_status(struct api_call *call, struct api_emu_state_status_in *in)
{
    const struct emu_state *s = control_emu(call)->state;
    struct api_emu_state_status_out out = { .active = s && s->active };

    (void)in;
    if (s) {
        uint64_t done = s->behind ? pager_completed(control_emu(call)->pager) : s->completed;

        out.completed = (int64_t)(done < s->total ? done : s->total);
        out.total = (int64_t)s->total;
    }
    api_reply_emu_state_status(call, &out);
}

void api_handle_emu_state_cancel(struct api_call *call, struct api_emu_state_cancel_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    if (m->state && m->state->active && m->state->e.code == 0) {
        if (m->state->behind && !m->state->waiting) {
            pager_cancel(m->pager);
        } else {
            err_set(&m->state->e, -ECANCELED, "it was cancelled");
            loop_timer_arm(m->state->timer, 0);
        }
    }
    api_reply_emu_state_cancel(call);
}

/* The loop runs no more and the threads are gone. */
void state_free(struct emu *m)
{
    struct emu_state *s = take_ptr(m->state);

    if (s) {
        err_set(&s->e, -EBUSY, "the VM ended meanwhile");
        save_drop_disks(s);
        state_over(s); /* who still waits is answered */
        load_fill_done(s);
        loop_timer_free(s->timer);
        free(s);
    }
}
