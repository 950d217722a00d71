/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QMP dialect of the daemon: a socket for each VM that runs (RUN/vm/ID/qmp.sock), and clients of vmd.sock
 * that go over to it. A command is the call vm.qmp of its session; what it changes, it changes through the same
 * methods as every other client, so that roles, audit, events and their order are one. Events come from the
 * journal as it is published.
 * Loop thread.
 */
#ifndef VMD_DAEMON_QMP_QMP_H
#define VMD_DAEMON_QMP_QMP_H

#include "api-schema/rpc/server.h"

#include <stdarg.h>

struct qmp;
struct vm;
struct vmd;

/* After the journal exists. */
struct qmp *qmp_new(struct vmd *d);
/* After the server. NULL is fine. */
void qmp_free(struct qmp *q);
/* Closes the VMs' sockets to new clients, before the server drains; more than once is fine. */
void qmp_drain(struct vmd *d);

/* For clients of the daemon's own sockets; its argument is struct vmd. */
extern const struct rpc_dialect qmp_dialect;
/* {"class", "desc"} of an error; the caller's. */
struct json_object *qmp_error_object(const char *class, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
/* JSON of the greeting's member QMP; capabilities as JSON text, NULL: none. The caller's. */
char *qmp_greeting(const char *capabilities);

/* The VM's emulator answers: its socket is made. */
void qmp_vm_up(struct vm *vm);
/* The same of one that was taken up again: made once clients of the daemon are let in, a few at a time, so that
 * a crowd is listed before its sockets are made. */
void qmp_vm_up_later(struct vm *vm);
/* Makes it now if it is still to be made. */
void qmp_vm_up_now(struct vm *vm);
/* Clients are let in. */
void qmp_begin(struct qmp *q);
/* Its run is over: clients are sent away, but while it goes back to a snapshot as they told it to. */
void qmp_vm_gone(struct vm *vm);
/* Path of its socket, NULL while there is none. */
char *qmp_vm_path(const struct vm *vm);

#endif
