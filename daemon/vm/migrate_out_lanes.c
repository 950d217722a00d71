/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that carry memory and disks from the source of a migration: once made, each is lent to the emulator. Part of struct
 * migrate_out. Loop thread.
 */
#include "daemon/vm/migrate_out.h"

#include "api-schema/json/json.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/peer.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>

#define ASK_NS INT64_C(10000000000)
#define OPEN_NS INT64_C(60000000000) /* of a disk, over there */

static void lend(struct migrate_out *k);

static void on_lent(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    (void)result;
    if (!migrate_out_answered(k) || k->step != LEND) {
        return;
    }
    if (x) {
        migrate_out_emulator(k, x);
    } else if (++k->lent == (unsigned)k->in.streams + k->n_disks) {
        migrate_out_follow(k);
    } else {
        lend(k);
    }
}

/* One descriptor at a time is what a connection to an emulator takes. */
static void lend(struct migrate_out *k)
{
    struct vm *vm = migrate_out_vm(k);
    const struct migrate_out_disk *disk = migrate_out_disk_of(k, k->lent);
    struct json_object *o = json_object_new_object();
    if (disk) {
        api_json_set_str(o, "disk", disk->name);
        api_json_set_bool(o, "top", disk->backing != NULL);
        api_json_set_int(o, "speed", k->in.bandwidth);
    } else {
        api_json_set_int(o, "index", k->lent);
    }
    if (!vm || !vm->run ||
        !migrate_out_asked(k, run_call_fd(vm->run,
                                          disk ? "emu.migrate_disk_out" : "emu.migrate_stream",
                                          o, take_fd(&k->lane_fd[k->lent]),
                                          disk ? OPEN_NS : ASK_NS, on_lent, k))) {
        migrate_out_emulator(k, NULL);
    }
}

void migrate_out_lanes(void *arg, struct peer_dial *dial)
{
    struct migrate_out *k = arg;
    k->dial = NULL;
    if (dial->e.code) {
        migrate_out_why(k, dial->e.code == -EACCES ? API_E_DENIED : API_E_UNRESPONSIVE,
                        "migrate it again", "%s: %s", k->url, dial->e.msg);
        migrate_out_fail(k);
        return;
    }
    for (unsigned i = 0; i < PEER_LANES; i++) {
        k->lane[i] = take_ptr(dial->tls[i]);
        k->lane_fd[i] = take_fd(&dial->fd[i]);
    }
    k->step = LEND;
    k->engaged = true;
    lend(k);
}
