/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving a machine to a state file and loading it from one: what both share. The pieces of memory are handed to threads, a few
 * at a time; everything else is done on the main thread, which owns this.
 */
#ifndef VMD_EMU_STATE_H
#define VMD_EMU_STATE_H

#include "engine/emu/emu.h"
#include "engine/emu/state/chunk.h"
#include "engine/emu/state/file.h"
#include "engine/emu/state/pager.h"
#include "storage/work.h"

#define STATE_HANDS 8 /* pieces at work at a time */

struct emu_state;

struct state_hand {
    struct work work; /* first */
    struct emu_state *s;
    struct chunk_codec codec;
    unsigned region;
    uint64_t page;
    bool busy;
    int rc;
    struct err e;
};

struct emu_state {
    struct emu *m;
    struct api_call *call; /* NULL once answered, or its client gone */
    struct loop_timer *timer;
    bool active, loading;
    bool behind;             /* the pager is at it, behind a guest that may run */
    bool live, lazy;         /* wanted so; and then: is so */
    struct state_fill *fill; /* memory that comes behind a load; load.c */
    bool waiting;            /* a save waits for memory that is being filled */
    int64_t paused_at, pause_ns;
    bool settling;  /* a save waits for what is in flight */
    unsigned turns; /* looks at it */
    bool ran;       /* it ran before a save: it runs on when that fails */
    bool resume;    /* it runs when all is well */
    char *snapshot; /* of the disks, of the same instant; NULL: none */
    bool disks_taken;
    struct api_disk_action *action; /* done to the disks at the same instant */
    size_t n_actions;
    bool acted;               /* they were, and stay done */
    struct mem_region *apart; /* its bytes are in memory_fd, not in the state; NULL: there is none */
    int memory_fd;
    int fd;
    uint8_t key[STATE_KEY_LEN];
    struct state_out out;
    struct state_in in;
    struct pager_region *region;
    unsigned n_regions;
    unsigned at_region; /* the next piece */
    uint64_t at_page;
    unsigned busy;
    struct state_hand hand[STATE_HANDS];
    uint64_t completed, total, size; /* bytes of memory; of the file */
    struct err e;                    /* the first failure */
};

/* ---- state.c ---- */

/* The VM's state object, made at first use. */
struct emu_state *state_of_vm(struct emu *m);
/* Lists the regions of memory. */
void state_list_memory(struct emu_state *s);
/* Goes through all of memory with `run` on threads, then calls state_pieces_done() on the main thread. */
void state_pieces(struct emu_state *s);
/* Answers the call, if there is one, with the failure in s->e, or not. */
void state_answer(struct emu_state *s);
/* The same, and the end of it. */
void state_over(struct emu_state *s);
/* As a call says; fails it when no file was given. */
bool state_choose_apart(struct emu_state *s, struct api_call *call, bool apart);
/* Memory that stays apart has no sections. */
bool state_is_apart(const struct emu_state *s, unsigned region);
/* n bytes of that memory, at `page`, go to their file; zeroes are left out. Any thread. */
int state_put_apart(const struct emu_state *s, uint64_t page, const uint8_t *bytes, size_t n,
                    struct err *e);
/* The JSON that says whose state it is. Text, appended. */
void state_info(const struct emu_state *s, struct buf *out);
/* Takes fd and key of a call; answers it when they are wrong. */
bool state_take_args(struct emu_state *s, struct api_call *call, const char *key);

/* ---- save.c, load.c ---- */
int save_piece(struct state_hand *h);      /* on a thread */
void save_begin(struct emu_state *s);      /* memory is all there */
void save_settle(struct emu_state *s);     /* the loop has turned */
void save_end(struct emu_state *s);        /* all pieces are done, or one has failed */
void save_drop_disks(struct emu_state *s); /* the snapshots that go with a state that failed */
int load_piece(struct state_hand *h);
void load_end(struct emu_state *s);
void load_fill_done(struct emu_state *s);

#endif
