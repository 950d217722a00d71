/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that QMP plugged, and what they stand on: which names a VM's QMP clients gave. A daemon that is started anew knows
 * none of them; the devices stay, by their own names. Inside of daemon/qmp. Loop thread.
 */
#ifndef VMD_DAEMON_QMP_PLUG_H
#define VMD_DAEMON_QMP_PLUG_H

#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct json_object;
struct qmp_cmd;
struct qmp_vm;
struct vm;

enum qmp_back_kind { QMP_BACK_NETDEV, QMP_BACK_CHARDEV, QMP_BACK_OBJECT };

#define QMP_CLIENT "client" /* type of a chardev at a socket where somebody else listens */
struct qmp_back {
    struct list link; /* qmp_vm.backs */
    enum qmp_back_kind kind;
    char *id, *type;
    struct json_object *nic; /* netdev: the card, as vm.attach takes it */
    char *
        path; /* chardev: where clients connect, or (client) somebody listens; NULL: nowhere. tls-creds-x509, fsdev-local: its folder */
    const char *security; /* fsdev-local: the share's; NULL: by default */
    bool readonly;        /* fsdev-local */
    int64_t size;         /* memory-backend-*: bytes */
    unsigned users;       /* devices */
};

/* A device of device_add. */
struct qmp_plugged {
    struct list link;      /* qmp_vm.plugged */
    const char *kind;      /* a word of DeviceKind */
    char *id, *name;       /* QMP's, vmd's */
    char *node;            /* disk: of blockdev-add; else NULL */
    char *back, *iothread; /* names of its back ends; NULL: none */
    enum qmp_back_kind stands_on;
    bool leaving;    /* the guest was asked for it */
    char *link_path; /* chardev: the link that leads to the channel's socket */
};

/* The address of the export that an object of driver nbd describes (far_node.c): the caller's. NULL after the command was answered;
 * `where` stands before the names of its members. */
char *qmp_far_file(struct qmp_cmd *c, struct json_object *o, const char *where);

/* NULL: there is none of that name. */
struct qmp_back *qmp_back_find(const struct vm *vm, enum qmp_back_kind kind, const char *id);
void qmp_backs_free(struct qmp_vm *v);

/* By kind and vmd's name, by QMP's name, by the node or netdev that it stands on; NULL: none. */
struct qmp_plugged *qmp_plugged_named(const struct vm *vm, const char *kind, const char *name);
struct qmp_plugged *qmp_plugged_find(const struct vm *vm, const char *id);
struct qmp_plugged *qmp_plugged_on(const struct vm *vm, const char *node_or_netdev);
/* It has gone. */
void qmp_plugged_gone(struct vm *vm, struct qmp_plugged *p);
void qmp_plugged_free(struct qmp_vm *v);

#endif
