/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QEMU guest agent of a VM, which the daemon talks to by the channel org.qemu.guest_agent.0: one command at a time, each in
 * its turn, with a deadline. What it answers is a guest's word. Loop thread.
 */
#ifndef VMD_DAEMON_AGENT_H
#define VMD_DAEMON_AGENT_H

#include "api-schema/json/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct vm;

/* fn(arg, result, x) once, perhaps before this returns: what the command returned (borrowed), or why not. Arguments (may be NULL)
 * are taken. `silent`: a command that succeeds without an answer. */
typedef void agent_fn(void *arg, struct json_object *result, const struct api_error *x);
void agent_ask(struct vm *vm, const char *execute, struct json_object *take_arguments,
               int64_t timeout_ms, bool silent, agent_fn *fn, void *arg);
bool agent_listens(const struct vm *vm);
/* What is known of the guest's addresses; borrowed. */
char **agent_addresses(const struct vm *vm, size_t *n);

/* The emulator answers, for the first time or again; a channel was opened or closed; the emulator is gone, or about to be forgotten. */
void agent_up(struct vm *vm);
void agent_channel(struct vm *vm, const char *name, bool open);
void agent_gone(struct vm *vm, const char *why);

#endif
