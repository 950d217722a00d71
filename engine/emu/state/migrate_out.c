/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sending side: rounds over memory while the guest runs, then what is left and the machine's state. Pieces of memory are
 * dealt out to the streams by their number, so that what is sent of a page twice travels in order. Main thread.
 */
#include "engine/emu/state/migrate.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vmstate.h"
#include "storage/block.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define SETTLE_NS 200000              /* between two looks whether all is quiet */
#define SETTLE_TURNS 5000             /* of them: a second */
#define DOWNTIME_NS INT64_C(30000000) /* of the pages alone, where nobody says */
#define READY_NS INT64_C(5000000)     /* between rounds while the daemons make up their minds */
#define BRAKE_NS INT64_C(20000000)    /* of which the vCPUs stand still for a part */
#define BRAKE_FIRST 20u
#define BRAKE_MORE 15u
#define BRAKE_MOST 98u
#define SLOWER_NS INT64_C(300000000) /* what the last step does is seen first */
#define EMPTY_PIECES 8               /* that are looked at before the loop turns */
#define WINDOW_NS INT64_C(20000000)
#define CALM_NS INT64_C(100000000)       /* for so long the best moment is waited for */
#define CALM_MOST_NS INT64_C(1000000000) /* and for so long a good one */
#define ALIVE_NS INT64_C(20000000000) /* without anything taken, while the guest stands still */

enum fill { FILLED, AGAIN, NOTHING };

static void pause_for_good(struct emu_migrate *g);

/* ---- what is to be sent ---- */

static uint64_t region_bits(const struct migrate_region *r, uint64_t first_word[PAGES_WORDS],
                            uint64_t page)
{
    uint64_t any = 0, words = (r->pages + 63) / 64;

    for (unsigned i = 0; i < PAGES_WORDS; i++) {
        uint64_t w = page / 64 + i;

        first_word[i] = w < words ? r->unsent[w] : 0;
        any |= first_word[i];
    }
    return any;
}

static unsigned count_bits(const uint64_t *w, size_t n)
{
    unsigned bits = 0;

    for (size_t i = 0; i < n; i++) {
        bits += (unsigned)__builtin_popcountll(w[i]);
    }
    return bits;
}

static void count_left(struct emu_migrate *g)
{
    g->left = 0;
    for (unsigned i = 0; i < g->n_regions; i++) {
        g->left += count_bits(g->region[i].unsent, (g->region[i].pages + 63) / 64);
    }
}

static void all_unsent(struct emu_migrate *g)
{
    for (unsigned i = 0; i < g->n_regions; i++) {
        struct migrate_region *r = &g->region[i];
        uint64_t words = (r->pages + 63) / 64;

        r->unsent = xnew_n(uint64_t, words + 1);
        memset(r->unsent, 0xff, words * 8);
        if (r->pages % 64) {
            r->unsent[words - 1] = (UINT64_C(1) << r->pages % 64) - 1;
        }
    }
    count_left(g);
}

/* What was written since the last time joins what is still to be sent. */
static void take_dirty(struct emu_migrate *g)
{
    struct mem_space *mem = g->m->vm->mem;
    uint64_t pages = mem_ram_pages(mem), first;

    g->dirty = xrealloc_n(g->dirty, pages / 64 + 1, sizeof(*g->dirty));
    mem_dirty_take(mem, g->dirty);
    for (unsigned i = 0; i < g->n_regions; i++) {
        struct migrate_region *r = &g->region[i];

        if (!mem_region_numbered(r->r, &first)) {
            continue;
        }
        for (uint64_t p = 0; p < r->pages;) {
            uint64_t at = first + p, word = g->dirty[at / 64] >> at % 64;

            if (word == 0) {
                p += 64 - at % 64;
            } else if (word & 1) {
                r->unsent[p / 64] |= UINT64_C(1) << p % 64;
                p++;
            } else {
                p += (unsigned)__builtin_ctzll(word);
            }
        }
    }
    count_left(g);
}

static struct migrate_region *region_of_piece(struct emu_migrate *g, uint64_t piece,
                                              uint32_t *number)
{
    unsigned i = g->n_regions - 1;

    while (g->region[i].piece > piece) {
        i--;
    }
    *number = i;
    return &g->region[i];
}

/* The next piece of this stream that has pages to send becomes a frame. */
static enum fill fill_pages(struct emu_migrate *g, struct lane *l)
{
    for (unsigned empty = 0; l->piece < g->pieces; l->piece += g->lanes) {
        uint32_t number;
        struct migrate_region *r = region_of_piece(g, l->piece, &number);
        uint64_t page = (l->piece - r->piece) * PAGES_CHUNK, named[PAGES_WORDS];
        unsigned n;

        if (region_bits(r, named, page) == 0) {
            continue;
        }
        n = count_bits(named, PAGES_WORDS);
        for (unsigned i = 0; i < PAGES_WORDS && named[i]; i++) {
            r->unsent[page / 64 + i] = 0;
        }
        for (unsigned i = 0; i < PAGES_WORDS; i++) {
            if (page / 64 + i < (r->pages + 63) / 64) {
                r->unsent[page / 64 + i] = 0;
            }
        }
        g->left -= n;
        g->round_pages += n;
        if (pages_pack(&g->codec, &g->cache, r->r, number, page, named, g->rounds == 0)) {
            const struct stream_frame f = { .type = STREAM_PAGES,
                                            .region = number,
                                            .length = (uint32_t)g->codec.bytes.len,
                                            .page = page };

            stream_put_frame(&l->out, &f, g->codec.bytes.data);
            l->frames++;
            l->piece += g->lanes;
            return FILLED;
        }
        if (++empty == EMPTY_PIECES) {
            l->piece += g->lanes;
            return AGAIN;
        }
    }
    l->round_done = true;
    return NOTHING;
}

static void add_frame(struct lane *l, enum stream_type type, uint64_t page, const struct buf *b)
{
    const struct stream_frame f = { .type = type,
                                    .length = b ? (uint32_t)b->len : 0,
                                    .page = page };

    stream_put_frame(&l->out, &f, b ? b->data : "");
    l->frames++;
}

/* ---- streams ---- */

/* Bytes may go now; else the timer says when. */
static bool may_send(struct emu_migrate *g)
{
    int64_t now;

    if (g->bandwidth == 0 || g->last) { /* the guest stands still: no limit then */
        return true;
    }
    now = migrate_now_ns();
    g->allowed += (int64_t)((double)(now - g->window_ns) * (double)g->bandwidth / 1e9);
    g->window_ns = now;
    if (g->allowed > g->bandwidth / 20) {
        g->allowed = g->bandwidth / 20;
    }
    if (g->allowed > 0) {
        return true;
    }
    loop_timer_arm(g->timer, WINDOW_NS / 4);
    return false;
}

static enum fill fill(struct emu_migrate *g, struct lane *l)
{
    enum fill what = NOTHING;

    if (!may_send(g)) {
        return NOTHING;
    }
    if (!l->round_done) {
        what = fill_pages(g, l);
    }
    if (what != NOTHING || !g->last || l->ended) {
        return what;
    }
    if (l->index == 0 && !g->machine_sent) {
        g->machine_sent = true;
        add_frame(l, STREAM_MACHINE, 0, &g->machine);
        buf_done(&g->machine);
        return FILLED;
    }
    if (!migrate_disks_ended(g)) { /* who has all streams has all of the disks, too */
        return NOTHING;
    }
    l->ended = true;
    add_frame(l, STREAM_END, l->frames, NULL);
    return FILLED;
}

static bool all_idle(const struct emu_migrate *g)
{
    for (unsigned i = 0; i < g->lanes; i++) {
        const struct lane *l = &g->lane[i];

        if (!l->round_done || l->out.len > 0 || (g->last && !l->ended)) {
            return false;
        }
    }
    return true;
}

/* Writes until the socket takes no more, or this stream has nothing. False: the migration has failed. */
static bool lane_write(struct lane *l)
{
    struct emu_migrate *g = l->g;

    for (unsigned turns = 0; turns < 4; turns++) {
        if (l->out.len == 0) {
            enum fill what = fill(g, l);

            if (what != FILLED) {
                loop_fd_set(l->watch, what == AGAIN ? LOOP_WRITE : 0);
                if (what == NOTHING && all_idle(g)) {
                    loop_timer_arm(g->timer, 0);
                }
                return true;
            }
        }
        ssize_t n = send(l->fd, l->out.data + l->at, l->out.len - l->at,
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            err_errno(&g->e, errno, "stream %u broke", l->index);
            migrate_out_fail(g);
            return false;
        }
        if (n > 0) {
            l->at += (size_t)n;
            g->sent += (uint64_t)n;
            g->round_sent += (uint64_t)n;
            g->allowed -= n;
            g->alive_ns = g->last ? migrate_now_ns() : g->alive_ns;
        }
        if (l->at == l->out.len) {
            l->at = l->out.len = 0;
        } else if (n < 0) {
            break;
        }
    }
    loop_fd_set(l->watch, LOOP_WRITE);
    return true;
}

static void on_writable(void *arg, int fd, unsigned events)
{
    (void)fd, (void)events;
    lane_write(arg);
}

void migrate_out_kick(struct emu_migrate *g)
{
    for (unsigned i = 0; i < g->lanes; i++) {
        loop_fd_set(g->lane[i].watch, LOOP_WRITE);
    }
}

static void begin_round(struct emu_migrate *g)
{
    for (unsigned i = 0; i < g->lanes; i++) {
        g->lane[i].round_done = false;
        g->lane[i].piece = i;
    }
    g->resting = false;
    g->round_sent = g->round_pages = 0;
    g->round_ns = migrate_now_ns();
    migrate_out_kick(g);
}

/* ---- slowing the guest ---- */

static void send_meanwhile(void *arg)
{
    struct emu_migrate *g = arg;
    int64_t until = migrate_now_ns() + BRAKE_NS * g->throttle / 100;
    struct pollfd p[STREAM_LANES];

    while (g->state == API_EMU_MIGRATE_STATE_SENDING && migrate_now_ns() < until) {
        unsigned n = 0;

        for (unsigned i = 0; i < g->lanes; i++) {
            struct lane *l = &g->lane[i];

            if (l->out.len > 0 || !l->round_done) {
                p[n++] = (struct pollfd){ .fd = l->fd, .events = POLLOUT };
            }
        }
        poll(p, n, 1);
        for (unsigned i = 0; i < g->lanes; i++) {
            struct lane *l = &g->lane[i];

            if ((l->out.len > 0 || !l->round_done) && !lane_write(l)) {
                return;
            }
        }
    }
}

/* A guest does not stand still for a host that takes nothing any more. */
static void look_alive(struct emu_migrate *g)
{
    if (migrate_now_ns() - g->alive_ns > ALIVE_NS) {
        err_set(&g->e, -ETIMEDOUT, "the other host has taken nothing for %d s",
                (int)(ALIVE_NS / 1000000000));
        migrate_out_fail(g);
        return;
    }
    loop_timer_arm(g->brake, ALIVE_NS / 10);
}

void migrate_out_brake(struct emu_migrate *g)
{
    if (g->state != API_EMU_MIGRATE_STATE_SENDING) {
        return;
    }
    if (g->settling || g->last) {
        look_alive(g);
        return;
    }
    if (g->throttle == 0) {
        return;
    }
    if (g->m->vm->state == VM_RUNNING) {
        g->braked = true;
        vm_at_barrier(g->m->vm, send_meanwhile, g);
        g->braked = false;
    }
    loop_timer_arm(g->brake, BRAKE_NS - BRAKE_NS * g->throttle / 100);
}

/* The rounds do not become shorter: the guest writes as fast as the streams carry. */
static void converge(struct emu_migrate *g)
{
    if (migrate_now_ns() - g->slowed_ns < SLOWER_NS) {
        return;
    }
    g->slow = g->rounds > 1 && g->left * 10 >= g->before * 7 ? g->slow + 1 : 0;
    if (g->slow < 2 || !g->converge || g->throttle == BRAKE_MOST) {
        return;
    }
    g->slow = 0;
    g->slowed_ns = migrate_now_ns();
    g->throttle = g->throttle ? g->throttle + BRAKE_MORE : BRAKE_FIRST;
    g->throttle = g->throttle > BRAKE_MOST ? BRAKE_MOST : g->throttle;
    loop_timer_arm(g->brake, 0);
}

/* ---- ends ---- */

static int code_of(const struct err *e)
{
    return e->code == -ECANCELED ? API_E_CANCELLED
           : e->code == -EBUSY   ? API_E_BAD_STATE
                                 : API_E_FILE_ERROR;
}

static void dirty_stop(void *arg)
{
    struct emu_migrate *g = arg;

    if (mem_dirty_logging(g->m->vm->mem)) {
        mem_dirty_stop(g->m->vm->mem);
    }
}

void migrate_out_fail(struct emu_migrate *g)
{
    struct vm *vm = g->m->vm;
    struct api_call *calls[] = { take_ptr(g->call), take_ptr(g->switching) };
    bool held = g->settling || g->last || g->state == API_EMU_MIGRATE_STATE_SENT;

    g->state = API_EMU_MIGRATE_STATE_FAILED;
    g->throttle = 0;
    migrate_close(g);
    migrate_disks_drop(g);
    if (g->braked) {
        dirty_stop(g);
    } else {
        vm_at_barrier(vm, dirty_stop, g);
    }
    if (held && g->ran && vm->state == VM_PAUSED) {
        vm_resume(vm);
        g->resumed_ns = migrate_now_ns();
    }
    for (unsigned i = 0; i < ARRAY_LEN(calls); i++) {
        if (calls[i]) {
            api_fail(calls[i], code_of(&g->e), vm->name, NULL, "%s", g->e.msg);
        }
    }
}

static void all_sent(struct emu_migrate *g)
{
    struct api_call *call = take_ptr(g->switching);

    g->state = API_EMU_MIGRATE_STATE_SENT;
    g->left = 0;
    dirty_stop(g); /* it stands still */
    if (call) {
        api_reply_emu_migrate_switch(
            call, &(struct api_emu_migrate_switch_out){
                      .running = g->ran,
                      .sent = (int64_t)g->sent,
                      .paused_ns = g->ran ? migrate_now_ns() - g->paused_ns : 0 });
    }
}

/* A request of the guest that takes long, or the other side's writing back, would have to be waited for in the pause. */
static bool calm(struct emu_migrate *g)
{
    const struct emu *m = g->m;
    struct migrate_disks d;
    uint64_t ended = 0;
    bool busy = false, stuck;

    for (unsigned i = 0; i < m->n_disks; i++) {
        struct blk_counters c;

        blk_count(m->disk[i], &c);
        ended += c.reads + c.writes + c.flushes;
        busy |= blk_busy(m->disk[i]);
    }
    stuck = busy && ended == g->requests;
    g->requests = ended;
    migrate_disks_get(g, &d);
    return !stuck && !d.flushing;
}

static bool may_pause(struct emu_migrate *g, uint64_t target)
{
    int64_t waited = migrate_now_ns() - g->asked_ns;
    bool quiet = calm(g);

    return waited > CALM_MOST_NS ||
           (quiet && g->expected_ns <= (waited > CALM_NS ? target : target / 2));
}

static void round_over(struct emu_migrate *g)
{
    int64_t took = migrate_now_ns() - g->round_ns;
    uint64_t target = (uint64_t)(g->downtime_ns ? g->downtime_ns : DOWNTIME_NS), each, lag;
    bool close_by;

    if (g->last) {
        all_sent(g);
        return;
    }
    if (g->settling) {
        return;
    }
    if (g->round_sent > 65536 || g->rate == 0) {
        g->rate = (uint64_t)((double)g->round_sent * 1e9 / (double)(took > 0 ? took : 1)) + 1;
    }
    each = g->round_pages ? g->round_sent / g->round_pages + 1 : MEM_PAGE_SIZE;
    g->rounds++;
    take_dirty(g);
    close_by = migrate_disks_close_by(g, &lag);
    g->expected_ns = (uint64_t)((double)(g->left * each) * 1e9 / (double)g->rate) + lag;
    if ((g->expected_ns <= target || g->left + lag == 0) && close_by) {
        struct api_call *call = take_ptr(g->call);

        g->ready = true;
        if (call) {
            api_reply_emu_migrate_out(
                call, &(struct api_emu_migrate_out_out){ .rounds = (int64_t)g->rounds,
                                                         .sent = (int64_t)g->sent });
        }
    } else {
        converge(g);
    }
    g->before = g->left;
    if (g->asked && may_pause(g, target)) {
        pause_for_good(g);
        return;
    }
    if ((double)(g->left * each) * 1e9 / (double)g->rate <= (double)target &&
        (g->ready || g->left == 0)) { /* nothing is gained by another one at once */
        g->resting = true;
        for (unsigned i = 0; i < g->lanes; i++) {
            g->lane[i].round_done = false; /* begun by the timer */
        }
        loop_timer_arm(g->timer, READY_NS);
        return;
    }
    begin_round(g);
}

/* ---- the switch ---- */

static void settled(struct emu_migrate *g)
{
    g->settling = false;
    g->last = true;
    vmstate_save(g->m->vm, &g->machine);
    if (g->machine.len > STREAM_MACHINE_MAX) {
        err_set(&g->e, -E2BIG, "its state has %zu bytes, more than a stream holds",
                g->machine.len);
        migrate_out_fail(g);
        return;
    }
    take_dirty(g);
    begin_round(g);
}

static void settle(struct emu_migrate *g)
{
    struct emu *m = g->m;

    for (unsigned i = 0; i < m->n_disks && g->e.code == 0; i++) {
        if (blk_kept(m->disk[i]) > 0) {
            err_set(&g->e, -EBUSY,
                    "disk '%s' has a request that failed and waits; mend the cause",
                    blk_name(m->disk[i]));
        }
    }
    if (g->e.code != 0 || migrate_fits(m, &g->e) != 0) {
        migrate_out_fail(g);
    } else if (vmstate_quiet(m->vm)) {
        (void)migrate_disks_ended(g); /* they end while memory goes */
        settled(g);
    } else {
        if (++g->turns == SETTLE_TURNS) { /* what limits hold back need not wait for its turn */
            for (unsigned i = 0; i < m->n_disks; i++) {
                blk_settle(m->disk[i]);
            }
        }
        loop_timer_arm(g->timer, SETTLE_NS);
    }
}

/* The guest stands still from here on. */
static void pause_for_good(struct emu_migrate *g)
{
    struct emu *m = g->m;

    g->asked = false;
    g->ran = m->vm->state == VM_RUNNING;
    g->settling = true;
    g->turns = 0;
    g->throttle = 0;
    g->paused_ns = g->alive_ns = migrate_now_ns();
    loop_timer_arm(g->brake, ALIVE_NS / 10);
    if (m->vm->state == VM_STOPPED || m->vm->ended) {
        err_set(&g->e, -EBUSY, "the guest has ended");
        migrate_out_fail(g);
        return;
    }
    m->pausing_why = "migrating";
    vm_pause(m->vm);
    m->pausing_why = NULL;
    settle(g);
}

void migrate_out_timer(struct emu_migrate *g)
{
    if (g->state != API_EMU_MIGRATE_STATE_SENDING) {
        return;
    }
    if (g->settling) {
        settle(g);
    } else if (all_idle(g)) {
        round_over(g);
    } else if (g->resting && !g->last) {
        begin_round(g);
    } else {
        migrate_out_kick(g);
    }
}

void api_handle_emu_migrate_switch(struct api_call *call, struct api_emu_migrate_switch_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_migrate *g = migrate_of_vm(m);

    (void)in;
    if (g->state != API_EMU_MIGRATE_STATE_SENDING || g->asked || g->settling || g->last ||
        m->vm->state == VM_STOPPED || m->vm->ended) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "it is not being migrated%s%s",
                 g->e.code ? ": " : "", g->e.code ? g->e.msg : "");
        return;
    }
    migrate_hold_call(g, &g->switching, call);
    g->asked = true;
    g->asked_ns = migrate_now_ns();
    if (m->vm->state != VM_RUNNING) {
        pause_for_good(g);
    }
}

/* ---- beginning ---- */

int migrate_fits(struct emu *m, struct err *e)
{
    int rc = shares_idle(m, e);

    return rc == 0 ? hotplug_none(m, e) : rc;
}

static void put_info(const struct emu_migrate *g, struct buf *out)
{
    const struct emu *m = g->m;
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    api_json_set_str(o, "program", "vmd " PACKAGE_VERSION);
    api_json_set_str(o, "name", m->vm->name);
    api_json_set_str(o, "uuid", m->vm->uuid);
    api_json_set_str(o, "arch", m->vm->arch->name);
    api_json_set_str(o, "machine", m->board_class->name);
    for (unsigned i = 0; i < g->n_regions; i++) {
        struct json_object *r = json_object_new_object();

        api_json_set_str(r, "name", mem_region_name(g->region[i].r));
        api_json_set_int(r, "size", (int64_t)mem_region_size(g->region[i].r));
        json_object_array_add(list, r);
    }
    json_object_object_add(o, "memory", list);
    buf_add_str(out, json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
    json_object_put(o);
}

static void dirty_start(void *arg)
{
    struct emu_migrate *g = arg;

    mem_dirty_start(g->m->vm->mem);
}

static void begin(struct emu_migrate *g, const struct api_emu_migrate_out_in *in)
{
    AUTO_BUF info = BUF_INIT;

    migrate_list_memory(g);
    all_unsent(g);
    pages_cache_init(&g->cache, (uint64_t)in->cache);
    g->e = (struct err)ERR_INIT;
    g->state = API_EMU_MIGRATE_STATE_SENDING;
    g->bandwidth = in->bandwidth;
    g->downtime_ns = in->downtime_ms * 1000000;
    g->converge = in->auto_converge;
    g->sent = g->rounds = g->rate = g->before = g->expected_ns = 0;
    g->throttle = g->slow = 0;
    g->slowed_ns = 0;
    g->paused_ns = g->resumed_ns = 0;
    g->allowed = 0;
    g->began_ns = g->window_ns = migrate_now_ns();
    vm_at_barrier(g->m->vm, dirty_start, g);
    put_info(g, &info);
    for (unsigned i = 0; i < g->lanes; i++) {
        struct lane *l = &g->lane[i];
        struct stream_hello h = { .index = i, .streams = g->lanes };

        str_copy(h.uuid, sizeof(h.uuid), g->m->vm->uuid);
        stream_put_hello(&l->out, &h);
        if (i == 0) {
            add_frame(l, STREAM_INFO, 0, &info);
        }
        l->watch = loop_fd_new(g->m->loop, l->fd, LOOP_WRITE, on_writable, l);
    }
    begin_round(g);
}

void api_handle_emu_migrate_out(struct api_call *call, struct api_emu_migrate_out_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_migrate *g = migrate_of_vm(m);
    struct err e = ERR_INIT;

    if (m->vm->state == VM_STOPPED || m->vm->ended || m->unfit) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "the guest has ended");
    } else if (migrate_at_work(m) || g->state == API_EMU_MIGRATE_STATE_SENT) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "it is being migrated already");
    } else if (dump_at_work(m) || state_at_work(m) || state_behind(m)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "wait for it, or cancel it: 'vmctl jobs'",
                 "its memory is being dumped or saved, or not all there yet");
    } else if (mem_dirty_logging(m->vm->mem)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "wait for it, or cancel it: 'vmctl jobs'",
                 "something else looks at what its guest writes");
    } else if (migrate_fits(m, &e) != 0) {
        api_fail_err(call, API_E_BAD_STATE, m->vm->name, HOTPLUG_REMEDY, &e);
    } else if (!migrate_disks_go(g, (unsigned)in->disks)) {
        api_fail(call, API_E_FILE_ERROR, m->vm->name, "migrate it again", "%s",
                 g->e.code ? g->e.msg : "not all of its disks are being copied");
    } else if (migrate_has_lanes(g, call, in->streams)) {
        migrate_hold_call(g, &g->call, call);
        begin(g, in);
    }
}
