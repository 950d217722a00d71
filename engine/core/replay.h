/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What enters a machine from outside does so between two instructions, at a place that can be found again: under an
 * instruction clock a machine can be recorded and replayed (docs/guide/replay.md, ADR 0035).
 *
 * The vCPU that has the turn asks at the ends of its runs (replay_boundary()). Where something is due it waits there, and the main
 * thread does it: work that devices put off (vm_post(), vm_task()), and inputs of sources, which come from outside and go
 * to the tape, or come from the tape. So devices work on the main thread as ever, but the guest stands still meanwhile, and where it
 * stands is part of the tape.
 *
 * Machines without a tape have no struct replay; for them vm_post() is loop_post().
 */
#ifndef VMD_CORE_REPLAY_H
#define VMD_CORE_REPLAY_H

#include "engine/base/err.h"
#include "engine/base/loop.h"
#include "engine/core/vm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct replay;

/* A place between two instructions. Equal places are the same state of the machine; they come in ascending order. */
struct replay_place {
    uint64_t count; /* instructions executed by all vCPUs */
    uint64_t now;   /* virtual time: it is skipped while all wait */
    uint32_t turn;  /* the vCPU that is next */
    uint32_t traps; /* exceptions and interrupts taken so far: one takes no instruction */
};

enum replay_kind {
    REPLAY_INPUT = 1, /* for a source */
    REPLAY_DATA,   /* the answer to a question of a source (randomness), where it was asked */
    REPLAY_OUTPUT, /* what a source sent: its digest */
    REPLAY_MARK,   /* the state's digest, every now and then */
    REPLAY_SAVED,  /* a state was saved here */
    REPLAY_END,    /* of the recording */
    REPLAY_KINDS
};

struct replay_record {
    enum replay_kind kind;
    uint32_t source;
    struct replay_place at;
    uint64_t check; /* digest of the vCPUs' state and of all output before */
    const uint8_t *p;
    size_t n;
};

/* The tape: a file's reader or writer. Main thread. */
struct replay_tape {
    void (*put)(void *arg, const struct replay_record *r);
    /* The next record, until take(); NULL: there is none. */
    const struct replay_record *(*peek)(void *arg);
    void (*take)(void *arg);
    /* The replay cannot go on as it was recorded; arrived() follows. */
    void (*diverged)(void *arg, const struct err *e);
    /* The machine is at the place that was asked for, or at the tape's end: is to be paused, or stopped. */
    void (*arrived)(void *arg, bool end);
};

/* Makes the VM a recorded (play false) or a replayed one. Before its devices are made; main thread, as all below unless said. */
void replay_new(struct vm *vm, bool play, const struct replay_tape *tape, void *arg);
void replay_ready(struct vm *vm);         /* the tape stands where the machine will go on */
void replay_free(struct vm *vm);          /* after the devices */
bool replay_plays(const struct vm *vm);   /* false without a tape, too */
bool replay_records(const struct vm *vm); /* ... and after replay_stop() */

/* A source of inputs by its name, in the order of the tape's numbers. apply() takes an input: 0; -EAGAIN: not yet, replay_poke()
 * will tell; else the tape does not fit the machine and *e says why. It is called with the guest between two instructions. */
typedef int (*replay_apply)(void *arg, const uint8_t *p, size_t n, struct err *e);
uint32_t replay_source(struct vm *vm, const char *name, replay_apply apply, void *arg);
unsigned replay_sources(const struct vm *vm);
const char *replay_source_name(const struct vm *vm, uint32_t source);

/* Something comes from outside; only while recording. Copied. The source bounds how much of it waits. */
void replay_input(struct vm *vm, uint32_t source, const void *p, size_t n);
void replay_poke(struct vm *vm);
/* While the guest is between two instructions: what the source sends. Compared when it is played. */
void replay_output(struct vm *vm, uint32_t source, const void *p, size_t n);
/* What the source sends piece by piece (a console): it counts in the digest of the next record. Any thread. */
void replay_stream(struct vm *vm, const void *p, size_t n);
/* n random bytes: the host's, or the tape's. With a tape, only while the guest is between two instructions. */
void vm_random(struct vm *vm, uint32_t source, void *p, size_t n);

/* fn(arg) on the main thread soon; with a tape, between two instructions. Any thread. */
void vm_post(struct vm *vm, void (*fn)(void *arg), void *arg);
/* The same for a task of the end of a turn. Main thread. */
void vm_task(struct vm *vm, struct loop_task *t);

/* While held the guest does not pass the next place where it looks. Any thread; counted. */
void replay_hold(struct vm *vm, bool on);
/* Pauses the machine at that count of instructions and calls arrived(); UINT64_MAX: only at the end. */
void replay_until(struct vm *vm, uint64_t count);
/* Where it is; the machine is paused or the call is made between two instructions. */
struct replay_place replay_place(const struct vm *vm);
uint64_t replay_count(struct vm *vm); /* as the vCPUs last told; any thread */
uint64_t replay_check(struct vm *vm); /* digest as in the records */
/* A state is saved here, or was loaded: devices look after what may wait for them, in a replay as well. */
void replay_saved(struct vm *vm);
/* The recording ends here, with these bytes about it. */
void replay_stop(struct vm *vm, const void *p, size_t n);

/* --- for engines with an instruction clock: the thread of the vCPU that has the turn --- */
enum replay_next {
    REPLAY_GO,    /* at most *limit instructions */
    REPLAY_AGAIN, /* things have changed */
    REPLAY_OUT    /* somebody wants the vCPU out, or to look */
};
/* Where the machine is when somebody wants the vCPU out. */
void replay_at(struct vm *vm, const struct replay_place *at);
/* wanted_out(arg): as REPLAY_OUT. No timer is due. */
enum replay_next replay_boundary(struct vm *vm, const struct replay_place *at, uint64_t *limit,
                                 bool (*wanted_out)(void *arg), void *arg);
/* All vCPUs wait at `at`, and the next timer is due at `deadline` (UINT64_MAX: none). Returns the time to which the clock is to
 * be moved; the place's own: something may be due there. */
uint64_t replay_wait(struct vm *vm, const struct replay_place *at, uint64_t deadline,
                     bool (*wanted_out)(void *arg), void *arg);
/* There is nothing to run before what the tape has next, and that is not here. */
void replay_lost(struct vm *vm);
void replay_wake(struct vm *vm); /* wanted_out() may have changed. Any thread */

#endif
