/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emu.load: a machine that was started paused and has not run takes over a saved one's state and memory. Seal, kind of machine
 * and every section are checked; when one is wrong the machine stays as unfit to run as it was, and says so.
 */
#include "engine/emu/state/state.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/json/text.h"
#include "api-schema/rpc/call.h"
#include "devices/misc/vmgenid.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/device.h"
#include "engine/core/vmstate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int load_piece(struct state_hand *h)
{
    struct emu_state *s = h->s;
    const struct pager_region *r = &s->region[h->region];
    const struct state_entry *en = state_in_find(&s->in, STATE_MEMORY, h->region, h->page);
    uint64_t from = h->page * MEM_PAGE_SIZE, end = from + CHUNK_BYTES, length;
    int rc;

    if (state_is_apart(s, h->region)) {
        return 0; /* it is there */
    }
    if (en) {
        rc = state_in_get(&s->in, en, &h->codec.bytes, &h->e);
        return rc == 0 ? chunk_unpack(&h->codec, r->r, h->page, &h->e) : rc;
    }
    end = end < mem_region_size(r->r) ? end : mem_region_size(r->r);
    for (; from < end; from += length) {
        bool holds = mem_region_holds(r->r, from, &length);

        length = length < end - from ? length : end - from;
        if (holds) {
            mem_region_clear(r->r, from, length);
        }
    }
    return 0;
}

/* What is saved must be what is here. */
static int check_info(struct emu_state *s, const struct buf *text)
{
    struct json_object *o = json_tokener_parse(text->data ? text->data : ""), *list = NULL;
    const char *arch = o ? api_json_get_str(o, "arch") : NULL,
               *machine = o ? api_json_get_str(o, "machine") : NULL;
    int rc = 0;

    if (!arch || !machine || !json_object_object_get_ex(o, "memory", &list) ||
        !json_object_is_type(list, json_type_array)) {
        rc = err_set(&s->e, -EBADMSG, "the state does not say whose it is");
    } else if (strcmp(arch, s->m->vm->arch->name) != 0 ||
               strcmp(machine, s->m->board_class->name) != 0) {
        rc = err_set(&s->e, -EINVAL, "the state is of a %s (%s), this VM is a %s (%s)", machine,
                     arch, s->m->board_class->name, s->m->vm->arch->name);
    } else if (json_object_array_length(list) != s->n_regions) {
        rc = err_set(&s->e, -EINVAL, "the saved VM has %zu regions of memory, this one has %u",
                     json_object_array_length(list), s->n_regions);
    }
    for (unsigned i = 0; i < s->n_regions && rc == 0; i++) {
        struct json_object *r = json_object_array_get_idx(list, i);
        const char *name = api_json_get_str(r, "name");
        int64_t size = api_json_get_int(r, "size", -1);

        if (!name || strcmp(name, mem_region_name(s->region[i].r)) != 0 ||
            (uint64_t)size != mem_region_size(s->region[i].r)) {
            rc = err_set(&s->e, -EINVAL,
                         "memory '%s' has %" PRIi64 " bytes in the saved VM, '%s' has %" PRIu64
                         " here",
                         name ? name : "?", size, mem_region_name(s->region[i].r),
                         mem_region_size(s->region[i].r));
        } else if (api_json_get_bool(r, "apart", false) != state_is_apart(s, i)) {
            rc = err_set(&s->e, -EINVAL,
                         state_is_apart(s, i)
                             ? "the state holds memory '%s', for which a file was given"
                             : "the state has its memory '%s' in a file that was not given",
                         name);
        }
    }
    json_object_put(o);
    return rc;
}

/* Every section of memory must have a place. */
static int check_places(struct emu_state *s)
{
    for (size_t i = 0; i < s->in.n; i++) {
        const struct state_entry *en = &s->in.entry[i];

        if (en->type > STATE_MEMORY || en->type < STATE_INFO) {
            return err_set(
                &s->e, -EBADMSG,
                "the state has a section of type %u, which this program does not know",
                en->type);
        }
        if (en->type == STATE_MEMORY && (en->region >= s->n_regions || en->page % CHUNK_PAGES ||
                                         en->page >= s->region[en->region].pages)) {
            return err_set(
                &s->e, -EBADMSG,
                "the state has memory where this VM has none: region %u, page 0x%" PRIx64,
                en->region, en->page);
        }
    }
    return 0;
}

static const struct state_entry *state_find_memory(const struct state_in *in, unsigned region,
                                                   uint64_t page)
{
    return state_in_find(in, STATE_MEMORY, region, page);
}

static int get_section(struct emu_state *s, enum state_section type, struct buf *out)
{
    const struct state_entry *en = state_in_find(&s->in, type, 0, 0);

    return en ? state_in_get(&s->in, en, out, &s->e)
              : err_set(&s->e, -EBADMSG, "the state lacks its section %d", (int)type);
}

/* The guest's memory is the file's from here on. */
static int borrow(struct emu_state *s)
{
    struct vm *vm = s->m->vm;
    int rc;

    if (vm->engine->mem_unshow) {
        vm->engine->mem_unshow(vm);
    }
    s->lazy = false; /* it is there */
    rc = mem_region_borrow(s->apart, s->memory_fd, &s->e);
    s->m->unfit = rc != 0;
    return rc;
}

static int open_state(struct emu_state *s)
{
    AUTO_BUF info = BUF_INIT;
    int rc = state_in_open(&s->in, s->fd, s->key, &s->e);

    if (rc == 0) {
        state_list_memory(s);
        rc = get_section(s, STATE_INFO, &info);
    }
    if (rc == 0) {
        rc = check_info(s, &info);
    }
    rc = rc == 0 ? check_places(s) : rc;
    if (rc == 0 && s->apart) {
        rc = borrow(s);
    }
    return rc;
}

/* ---- memory behind a guest that runs ---- */

struct state_fill {
    struct state_in in; /* of the load, as is fd */
    int fd;
};

static bool fill_wanted(void *arg, unsigned region, uint64_t page)
{
    struct emu_state *s = arg;

    return state_find_memory(&s->fill->in, region, page) != NULL;
}

static int fill_piece(void *arg, struct chunk_codec *c, unsigned region, uint64_t page,
                      uint8_t *bytes, size_t n, struct err *e)
{
    struct emu_state *s = arg;
    const struct state_entry *en = state_find_memory(&s->fill->in, region, page);
    int rc = state_in_get(&s->fill->in, en, &c->bytes, e);

    return rc == 0 ? chunk_unpack_copy(c, bytes, n, e) : rc;
}

void load_fill_done(struct emu_state *s)
{
    struct state_fill *f = take_ptr(s->fill);

    if (f) {
        state_in_done(&f->in);
        close(f->fd);
        free(f);
    }
}

static void fill_over(void *arg, const struct err *e)
{
    (void)e; /* one that failed has ended the process */
    load_fill_done(arg);
}

/* Memory comes behind from here on. Negative: this host, or this memory, cannot; nothing has begun, or s->e is set. */
static int begin_lazy(struct emu_state *s)
{
    const struct pager_op op = { .region = s->region,
                                 .n_regions = s->n_regions,
                                 .fill = true,
                                 .wanted = fill_wanted,
                                 .piece = fill_piece,
                                 .over = fill_over,
                                 .arg = s };
    struct err e = ERR_INIT;

    if (!s->m->pager) {
        return -ENOTSUP;
    }
    s->fill = xnew(struct state_fill);
    s->fill->in = s->in;
    s->fill->fd = s->fd;
    int rc = pager_begin(s->m->pager, &op, &e);

    if (rc == 0) {
        s->in = (struct state_in){ .fd = -1 };
        s->fd = -1;
        return 0;
    }
    free(take_ptr(s->fill));
    if (rc == -EBADMSG) {
        s->e = e; /* the state is damaged */
        s->m->unfit = true;
    }
    return rc;
}

/* Memory is there, or comes; the machine's own state was read. */
static void load_machine(struct emu_state *s, const struct buf *machine)
{
    struct emu *m = s->m;

    if (s->e.code == 0 && m->vm->state != VM_PAUSED) {
        err_set(&s->e, -EBUSY, "the VM ended before its state was loaded");
    }
    if (s->e.code == 0) {
        vmstate_load(m->vm, machine->data, machine->len, &s->e);
    }
    s->active = false;
    if (s->e.code == 0) {
        struct device *genid = dev_find(m->vm, "genid");

        if (genid) { /* others may go on from this moment, too */
            vmgenid_renew(genid);
        }
        str_copy(m->reason, sizeof(m->reason), "restored");
        control_event(m, "state", "restored");
        if (s->resume) {
            vm_resume(m->vm);
        }
    } else {
        m->unfit = true;
    }
    state_over(s);
}

void load_end(struct emu_state *s)
{
    AUTO_BUF machine = BUF_INIT;

    if (s->e.code == 0) {
        get_section(s, STATE_MACHINE, &machine);
    }
    load_machine(s, &machine);
}

/* False: all of memory has to come first. */
static bool load_lazily(struct emu_state *s)
{
    AUTO_BUF machine = BUF_INIT;

    if (!s->lazy || get_section(s, STATE_MACHINE, &machine) != 0) {
        return s->e.code != 0 ? (load_machine(s, &machine), true) : false;
    }
    s->lazy = begin_lazy(s) == 0;
    if (!s->lazy && s->e.code == 0) {
        return false;
    }
    load_machine(s, &machine);
    return true;
}

void api_handle_emu_load(struct api_call *call, struct api_emu_load_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_state *s = state_of_vm(m);

    if (m->vm->state != VM_PAUSED || strcmp(m->reason, "start") != 0 || m->unfit) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL,
                 "only a VM that was started paused can take over a state");
        return;
    }
    if (!state_choose_apart(s, call, in->memory_apart) || !state_take_args(s, call, in->key)) {
        return;
    }
    s->loading = true;
    s->ran = false;
    s->resume = in->resume;
    s->lazy = in->lazy;
    s->active = true;
    if (open_state(s) != 0) {
        s->active = false;
        state_over(s); /* nothing has changed */
    } else if (!load_lazily(s)) {
        state_pieces(s);
    }
}
