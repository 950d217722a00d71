/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal at a VM's console. Raw mode is undone on every way out, signals included. One
 * thread; while console_run() runs it owns the terminal's modes and the handlers of HUP, INT,
 * QUIT, TERM, TSTP, CONT and of fatal signals, and puts the former ones back.
 */
#ifndef VMD_CLI_CONSOLE_H
#define VMD_CLI_CONSOLE_H

#include "engine/base/err.h"

#include <stdbool.h>

enum console_end {
    CONSOLE_DETACHED, /* the escape key */
    CONSOLE_CLOSED,   /* the emulator closed it: the VM ended, or we read too slowly */
    CONSOLE_SIGNAL,   /* *signo says which */
};

struct console_options {
    int escape;     /* byte that detaches when standard input is a terminal; -1: none */
    bool backlog;   /* what arrives first is output from before */
    bool send_size; /* type the terminal's size into the guest's shell */
};

struct cli;
struct json_object;
struct tls_link;

/* Opens the console that vm.console's result `where` names, over whatever the daemon is reached by; the
 * descriptor is the caller's, to be closed before *link (NULL: none). */
int console_open(struct cli *c, struct json_object *where, struct tls_link **link,
                 struct err *e);
/* "^]", "^A", a single character, "none". -EINVAL otherwise. NULL: ^]. */
int console_escape(const char *text, int *escape, struct err *e);
/* Says on a terminal where one is and how to get out. `key` as given to console_escape(). */
void console_greet(const char *vm, const char *key, const struct console_options *o);

/* Copies standard input to the socket and the socket to standard output, untouched, until one of
 * the ends. Standard input may end earlier. `sock` stays the caller's. */
enum console_end console_run(int sock, const struct console_options *o, int *signo);

#endif
