/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console hub: carries the bytes between the guest's console device (a chr) and its
 * readers: any number of unix socket clients, standard input and output, a log file.
 *
 * A client gets the last 64 KiB of output when it connects, then live bytes both ways. A client
 * that reads too slowly is dropped; it never holds up the guest. Standard output does hold it
 * up: there every byte arrives. Input is taken from its sources only while the device has room,
 * so none is lost.
 *
 * Main thread, except for the chr operations, which any thread calls (`lock` in console.c).
 */
#ifndef VMD_EMU_CONSOLE_H
#define VMD_EMU_CONSOLE_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct chr;
struct console;
struct loop;

struct console *console_new(struct loop *loop);
void console_free(struct console *c); /* after the device that uses it; NULL is fine */
struct chr *console_chr(struct console *c);

/* Listens on a bound unix socket and accepts readers. Takes the descriptor. */
int console_listen(struct console *c, int take_fd, struct err *e);
/* Appends all output to a file. Takes the descriptor. */
void console_log_to(struct console *c, int take_fd);
/* Standard input and output, raw. On a terminal Ctrl-] calls `quit`. */
int console_stdio(struct console *c, void (*quit)(void *arg), void *arg, struct err *e);

/* The guest runs (input flows) or not. */
void console_set_running(struct console *c, bool running);
/* The VM has ended: brings all output out. Standard output is waited for, clients for two
 * seconds in all. */
void console_flush(struct console *c);
/* Bytes given to the device and taken from it since the start. */
void console_counts(struct console *c, uint64_t *in, uint64_t *out);

#endif
