/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named networks: what is known of them, their processes, and the ports of VMs' cards. A network that is wanted (the store says so,
 * until the host boots) has a process vmd-net, which the spawner starts; it outlives the daemon and is taken up again by the next one. When it
 * dies, another is started, and cards of running VMs that have lost their ports get new ones. Rows are objects of the kind
 * "network".
 * Loop thread.
 */
#ifndef VMD_DAEMON_NETWORK_NETWORKS_H
#define VMD_DAEMON_NETWORK_NETWORKS_H

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/client.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct api_call;
struct api_error;
struct api_vm_config;
struct change;
struct json_object;
struct loop_fd;
struct loop_timer;
struct store_object;
struct vm;
struct vmd;

enum { NETWORKS_MAX = 1000 };

typedef void network_done_fn(void *arg, const struct err *e);

struct network {
    struct list link; /* networks.all, by name */
    struct vmd *d;
    struct api_net_config config; /* name and uuid are set, addresses have prefixes */
    char *project;
    char key[17];                           /* of its run folder */
    bool autostart, wanted, pending, stale; /* stale: the process has another definition */
    enum api_network_state state;
    const char *busy; /* what is being done with it: "started"...; NULL: nothing */
    /* The process. */
    char cookie[33];
    pid_t pid;
    uint64_t start_time;
    int pidfd;
    struct loop_fd *watch;
    struct rpc_client *client;
    struct loop_timer *again;
    unsigned failures; /* in a row */
    int64_t deaths, born_ns;
    network_done_fn *done; /* of the start under way */
    void *done_arg;
    struct list patches; /* cards that are being connected anew */
    struct list asks;    /* questions under way */
};
struct networks {
    struct vmd *d;
    struct list all;
    size_t n;
    bool ending;
};

struct networks *networks_new(struct vmd *d);
/* The daemon ends: nothing more is started, calls under way are answered; then networks_free. Processes run on. */
void networks_end(struct vmd *d);
void networks_free(struct networks *s);
void networks_load(struct vmd *d, const struct store_object *row);
/* Everything is loaded: processes that live are taken up, those that are wanted and do not are started. */
void networks_begin(struct vmd *d);

/* ---- for VMs ---- */

/* The networks that cards name are there, for that project, with the port groups. 0, or -1 and x. */
int networks_check(struct vmd *d, const struct api_vm_config *c, struct api_error *x);
/* Before a start: they are active. */
int networks_ready(struct vmd *d, const struct api_vm_config *c, struct api_error *x);
/* Makes cards of networks that are bridges of the host cards of those, for the emulator. */
void networks_resolve(struct vmd *d, struct json_object *config);
/* What vmd-spawn is asked for such a card of a VM (spawn/proto.h); the caller's. */
struct json_object *network_request(struct vmd *d, const struct vm *vm,
                                    const struct api_nic *nic, const char *mac);

/* ---- between the files of this folder ---- */

struct network *network_find(struct vmd *d, const char *ref);
struct network *network_new(struct vmd *d, struct api_net_config *take_config,
                            const char *project);
void network_drop(struct network *n);
void network_put(const struct network *n, bool wanted, struct change *c);
void network_event(const struct network *n, const char *reason, struct change *c);
struct json_object *network_info(struct network *n, bool config);
char *network_path(const struct network *n, const char *name); /* in its run folder */
/* The network of a call whose caller has the role there; NULL after the call was answered. active: it must be. */
struct network *call_network(struct api_call *call, const char *ref, enum api_role role,
                             bool active);
/* The next card of a VM that is defined to be on the network, from *at on; false: no more. */
bool network_card(const struct network *n, const struct vm *vm, size_t *at);
const struct api_net_port_group *network_group(const struct network *n, const char *name);

/* check.c: whether it can be. Fills in prefixes and what `subnet` (may be NULL) stands for. */
int network_check(struct api_net_config *c, const char *subnet, struct api_error *x);
/* What its process is told (network/server/lan.h); the caller's. */
struct json_object *network_process_config(const struct network *n);
struct json_object *network_hosts(const struct api_net_config *c);
const struct api_net_ip *network_ip(const struct api_net_config *c, bool v6); /* NULL: none */

/* process.c. One start or stop at a time (busy). done(arg, e) once, also when the daemon ends. */
void network_start_process(struct network *n, network_done_fn *done, void *arg);
void network_adopt(struct network *n);
void network_end_process(struct network *n);
/* Asks the process; false: there is none. fn(arg, ..) once, as in rpc_client_call; also when the process or the daemon ends. */
bool network_ask(struct network *n, const char *method, struct json_object *take_params,
                 int owned_fd, rpc_done_fn *fn, void *arg);

void network_fail_asks(struct network *n); /* they get no answer any more */

/* patch.c: cards of running VMs that have no port at the process get one. */
void network_patch(struct network *n);
void network_unpatch(struct network *n);

#endif
