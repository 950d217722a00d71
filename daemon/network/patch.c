/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cards of running VMs whose network was started anew: each gets a new port (the spawner connects it, the emulator takes it). Owns struct
 * patch, one for each card under way. Loop thread.
 */
#include "api-schema/json/json.h"
#include "api-schema/net/nicargs.h"
#include "daemon/daemon.h"
#include "daemon/network/networks.h"
#include "daemon/registry.h"
#include "daemon/run/spawner.h"
#include "daemon/run/supervise.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ASK_NS INT64_C(10000000000)

struct patch {
    struct list link;
    struct network
        *n; /* NULL: the network has gone meanwhile; what is under way ends by itself */
    struct vmd *d;
    int64_t vm;
    char *nic;
};

static void patch_free(struct patch *k)
{
    if (k->n) {
        list_remove(&k->link);
    }
    free(k->nic);
    free(k);
}

void network_unpatch(struct network *n)
{
    while (!list_empty(&n->patches)) {
        struct patch *k = list_entry(n->patches.next, struct patch, link);

        list_remove(&k->link);
        k->n = NULL;
    }
}

static void on_connected(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    if (x) {
        log_warn("daemon", "a card was not connected to its network again: %s", x->message);
    }
}

static void on_socket(void *arg, struct json_object *images, int *take_fds, unsigned n,
                      const char *path, const struct err *e)
{
    struct patch *k = arg;
    struct vm *vm = vm_by_id(k->d, k->vm);
    unsigned from = 0;

    (void)images;
    (void)path;
    if (e && k->n) {
        log_warn("daemon", "network '%s': card '%s' is not connected again: %s",
                 k->n->config.name, k->nic, e->msg);
    }
    if (!e && n > 0 && k->n && vm && vm->run) {
        struct json_object *in = json_object_new_object();

        from = 1;
        api_json_set_str(in, "nic", k->nic);
        /* A VM that is just starting has its port from the start. */
        run_call_fd(vm->run, "emu.nic_connect", in, take_fds[0], ASK_NS, on_connected, NULL);
    }
    for (unsigned i = from; i < n; i++) {
        close(take_fds[i]);
    }
    patch_free(k);
}

static void patch_card(struct network *n, const struct vm *vm, size_t at)
{
    struct patch *k = xnew(struct patch);
    struct json_object *list = json_object_new_array();
    char mac[18];

    nic_mac(&vm->config, at, mac);
    *k = (struct patch){
        .n = n, .d = n->d, .vm = vm->id, .nic = xstrdup(vm->config.nics[at].name)
    };
    list_append(&n->patches, &k->link);
    json_object_array_add(list, network_request(n->d, vm, &vm->config.nics[at], mac));
    spawner_open_ends(n->d->spawner, vm->id, vm->config.name, "nics", list, on_socket, k);
}

static bool has_port(struct json_object *ports, const struct vm *vm, const char *nic)
{
    size_t count = json_object_is_type(ports, json_type_array) ? json_object_array_length(ports)
                                                               : 0;
    char name[96];

    snprintf(name, sizeof(name), "%lld/%s", (long long)vm->id, nic);
    for (size_t i = 0; i < count; i++) {
        const char *port = api_json_get_str(json_object_array_get_idx(ports, i), "port");

        if (port && strcmp(port, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool runs(const struct vm *vm)
{
    return vm->run && run_pid(vm->run) > 0 &&
           (vm->state == API_VM_STATE_RUNNING || vm->state == API_VM_STATE_PAUSED);
}

static void on_status(void *arg, struct json_object *result, const struct api_error *x)
{
    struct network *n = arg; /* lives as long as its connection */
    size_t count;
    struct vm **list;

    if (x) {
        log_warn("daemon", "network '%s' does not answer: %s", n->config.name, x->message);
        return;
    }
    list = vm_list(n->d, &count);
    for (size_t i = 0; i < count; i++) {
        for (size_t at = 0; runs(list[i]) && network_card(n, list[i], &at); at++) {
            if (!has_port(api_json_get(result, "ports"), list[i],
                          list[i]->config.nics[at].name)) {
                patch_card(n, list[i], at);
            }
        }
    }
    free(list);
}

void network_patch(struct network *n)
{
    network_ask(n, "status", NULL, -1, on_status, n);
}
