/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Managed save: a VM's whole state goes to a file of the daemon's, the VM ends, and its next start goes on from there.
 *
 * The file LIB/vm/ID/state counts only while the VM does not run: it is put in place before the emulator is told to
 * quit, and taken away before the guest runs again, so that whatever dies in between there is one machine and never two. A daemon
 * that finds both an emulator and a file keeps the emulator, unless that had not taken the file over yet. Loop thread, but for what works on files.
 */
#ifndef VMD_DAEMON_SAVE_H
#define VMD_DAEMON_SAVE_H

#include "daemon/run/supervise.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct vm;
struct vmd;

#define STATE_KEY_BYTES 32
/* The key that seals states of the VM of this UUID, from the host's secret in the file, which is made when first wanted. Any
 * thread. 0 or negative. */
int save_key(const char *key_file, const char *uuid, uint8_t out[STATE_KEY_BYTES],
             struct err *e);
/* Looks which VMs have a state; before emulators are taken up. */
void saves_load(struct vmd *d);
/* Saves a VM that runs, for the host's shutdown: it ends, or failed(vm) is called while it is as it was before. */
void save_quietly(struct vm *vm, void (*failed)(struct vm *vm));
/* A start has an emulator that stands still before its first instruction: it takes over the VM's state, and runs unless
 * `paused`. fn(arg, x) once; when x is given the emulator has ended and the state is kept. */
void save_restore(struct vm *vm, bool paused, run_started_fn *fn, void *arg);
/* An emulator was taken up: does the state or the emulator count? `reason` as it says itself. */
void save_adopted(struct vm *vm, bool paused, const char *reason);
/* The state is not wanted any more. 0 or negative. */
int save_drop(struct vm *vm, struct err *e);
/* The daemon ends: waits for the threads; the loop runs no more. */
void saves_end(struct vmd *d);

#endif
