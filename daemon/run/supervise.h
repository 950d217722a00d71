/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Emulators: starting, taking up again, watching, ending. A struct run is one emulator's life from
 * the durable intent to the durable record of its end; vm->run points to it.
 * Loop thread.
 */
#ifndef VMD_DAEMON_SUPERVISE_H
#define VMD_DAEMON_SUPERVISE_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"
#include "api-schema/rpc/client.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct run;
struct vm;
struct vmd;

/* Which files the disks of a VM and the images below them are, whatever their paths. Those beyond the first are
 * guarded by their locks alone. */
#define RUN_DISKS 64
struct run_disk {
    uint64_t dev, ino;
    bool write;
};
struct run_disks {
    struct run_disk disk[RUN_DISKS];
    unsigned n;
};

/* Starts a VM that has no run: intent, spawn, first contact. fn(arg, x) once, when it runs (x
 * NULL, told and durable) or when it failed and everything is cleaned up. */
typedef void run_started_fn(void *arg, const struct api_error *x);
void run_start(struct vm *vm, bool paused, const struct run_disks *disks, run_started_fn *fn,
               void *arg);
/* The same, recorded or replayed as tape says (NULL: neither). */
struct api_vm_start_in;
void run_start_tape(struct vm *vm, bool paused, const struct run_disks *disks,
                    const struct api_vm_start_in *tape, run_started_fn *fn, void *arg);
/* Whether it is recorded or replayed. */
enum api_replay_mode run_replay_mode(const struct run *run);
/* The recording that it replays; NULL: none, or the daemon that started it is gone. */
const char *run_replay_file(const struct run *run);
const struct run_disks *run_disks_of(struct run *run);
struct stat;
/* As vmd-spawn lists it. */
struct run_disk run_disk_of(const struct stat *st, bool write);
/* A disk goes on with another image: one on top of what it had, a copy, or one below that took it in. What it had is only read
 * from now on, as by who stands on it. */
void run_disk_covered(struct run *run, const struct run_disk *was, const struct run_disk *now);
/* The same by paths, where nobody has looked at them yet; nothing when one of them cannot be looked at. May wait for storage. */
void run_disk_covered_at(struct run *run, const char *was, const char *now);
/* From vmd-spawn's list; entries that make no sense are left out. */
void run_disks_read(const struct json_object *list, struct run_disks *out);
/* SIGKILL now, or as soon as there is a process. */
void run_kill(struct run *run);
/* That the VM was asked to quit; its end is then no crash. */
void run_expect_end(struct run *run, const char *reason);
/* That a person asked the guest to power off: its end is then followed by no restart. */
void run_asked(struct run *run);
/* Such a state: the guest has powered off and its VM is kept, paused, until a reset (emu.set_action). */
bool run_is_kept(enum api_vm_state state, const char *reason);
/* Calls the emulator; fn as in rpc_client_call. False when there is no connection. */
bool run_call(struct run *run, const char *method, int64_t deadline_ns, rpc_done_fn *fn,
              void *arg);
/* The same with parameters, which are taken in any case; NULL: none. */
bool run_call_with(struct run *run, const char *method, struct json_object *take_params,
                   int64_t deadline_ns, rpc_done_fn *fn, void *arg);
/* The same with a descriptor, which is taken in any case. */
bool run_call_fd(struct run *run, const char *method, struct json_object *take_params,
                 int owned_fd, int64_t deadline_ns, rpc_done_fn *fn, void *arg);
/* fn(arg, x) when the VM has ended and that is durable; `gone`: the definition went with it, the
 * struct vm is freed after the calls. */
void run_on_end(struct run *run, void (*fn)(void *arg, struct vm *vm, bool gone), void *arg);
void run_on_end_cancel(struct run *run, void *arg);
/* Forgets it without touching the emulator: the daemon ends. */
void run_forget(struct run *run);

pid_t run_pid(const struct run *run);    /* 0 before there is one */
bool run_is_mute(const struct run *run); /* it was asked, and did not answer in time */
/* Its end was seen; the record is on its way to the disk. */
bool run_has_ended(const struct run *run);
/* Latest statistics; false when none were published. To be released. */
bool run_stats(struct run *run, struct api_vm_stats *out);
/* "killed", "crashed" and so on: is it a crash? */
bool exit_is_crash(const char *reason);

/* Takes up what runs, clears away what does not. fn(arg) once: when every emulator has answered or
 * was found dead, or when the time for that has passed; the rest goes on in the background. */
void runs_adopt(struct vmd *d, void (*fn)(void *arg), void *arg);

#endif
