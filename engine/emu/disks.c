/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks while the VM runs: what becomes of requests that fail, faults on purpose. Main thread.
 */
#include "api-schema/disk/limits.h"
#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "api-schema/rpc/call.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"
#include "storage/block.h"
#include "storage/disk.h"
#include "storage/faulty.h"
#include "storage/throttle.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define TOLD_PER_S                                                                             \
    10 /* errors of all disks that clients hear of, those that pause the VM apart */
#define NS_PER_S INT64_C(1000000000)

/* --- errors --- */

static const enum blk_on_error on_error[] = { [API_DISK_ON_ERROR_REPORT] = BLK_ON_REPORT,
                                              [API_DISK_ON_ERROR_IGNORE] = BLK_ON_IGNORE,
                                              [API_DISK_ON_ERROR_STOP] = BLK_ON_STOP,
                                              [API_DISK_ON_ERROR_ENOSPC] = BLK_ON_ENOSPC };

/* Not from within a completion: the device has not let go of its locks there. */
static void pause_now(void *arg)
{
    struct emu *m = arg;

    m->io_pausing = false;
    if (m->vm && m->vm->state == VM_RUNNING && nbd_is_over(m)) {
        disks_resumed(m); /* the connection is there again already */
    } else if (m->vm && m->vm->state == VM_RUNNING) {
        m->pausing_why = "io-error";
        vm_pause(m->vm);
        m->pausing_why = NULL;
    }
}

/* A guest that runs into an error again and again does not flood whoever listens. */
static bool may_tell(struct emu *m)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t now = t.tv_sec * NS_PER_S + t.tv_nsec;
    if (now - m->told_ns > NS_PER_S) {
        m->told_ns = now;
        m->told = 0;
    }
    return m->told++ < TOLD_PER_S;
}

const char *disks_error(int error)
{
    return error == -ENOTCONN ? "the connection to the NBD server is lost" : strerror(-error);
}

static void on_failed(void *arg, struct blk_node *n, enum blk_op op, int error,
                      enum blk_on_error did)
{
    static const char *const actions[] = {
        [BLK_ON_REPORT] = "report", [BLK_ON_IGNORE] = "ignore", [BLK_ON_STOP] = "stop"
    };
    struct emu *m = arg;
    bool pauses = did == BLK_ON_STOP && !m->io_pausing && m->vm->state == VM_RUNNING;

    m->io_stays |= did == BLK_ON_STOP && error != -ENOTCONN;

    if (pauses) {
        log_warn("emu", "disk '%s': %s; the VM is paused until it is resumed", blk_name(n),
                 disks_error(error));
    }
    if (pauses || may_tell(m)) {
        control_io_error(m, blk_name(n), op == BLK_READ ? "read" : "write", actions[did],
                         error);
    }
    if (pauses) {
        m->io_pausing = true;
        loop_post(m->loop, pause_now, m);
    }
}

void disks_set_policy(struct emu *m, unsigned i)
{
    const struct api_disk *d = &m->config.disks[i];
    enum blk_on_error absent = nbd_addr_is(d->file) ? BLK_ON_ENOSPC : BLK_ON_REPORT;
    const struct blk_policy p = { .read = d->has_rerror ? on_error[d->rerror] : absent,
                                  .write = d->has_werror ? on_error[d->werror] : BLK_ON_ENOSPC,
                                  .failed = on_failed,
                                  .arg = m };

    blk_set_policy(m->disk[i], &p);
}

void disks_resumed(struct emu *m)
{
    m->io_stays = false;
    for (unsigned i = 0; i < m->n_disks; i++) {
        blk_retry(m->disk[i]);
    }
}

/* --- faults --- */

static const struct {
    enum api_fault_error is;
    int error;
} errors[] = {
    { API_FAULT_ERROR_EIO, -EIO },       { API_FAULT_ERROR_ENOSPC, -ENOSPC },
    { API_FAULT_ERROR_EDQUOT, -EDQUOT }, { API_FAULT_ERROR_EACCES, -EACCES },
    { API_FAULT_ERROR_ENOMEM, -ENOMEM }, { API_FAULT_ERROR_ETIMEDOUT, -ETIMEDOUT },
    { API_FAULT_ERROR_EBADF, -EBADF },
};
static const enum blk_op ops[] = { [API_FAULT_OP_READ] = BLK_READ,
                                   [API_FAULT_OP_WRITE] = BLK_WRITE,
                                   [API_FAULT_OP_FLUSH] = BLK_FLUSH,
                                   [API_FAULT_OP_DISCARD] = BLK_DISCARD,
                                   [API_FAULT_OP_ZERO] = BLK_ZERO };
static const enum blk_fault_action actions_of[] = {
    [API_FAULT_ACTION_FAIL] = BLK_FAULT_FAIL,
    [API_FAULT_ACTION_DELAY] = BLK_FAULT_DELAY,
    [API_FAULT_ACTION_TEAR] = BLK_FAULT_TEAR,
    [API_FAULT_ACTION_SHORTEN] = BLK_FAULT_SHORTEN
};
/* Numbers of rules: of a VM, from those of a node. */
#define RULE_ID(disk, layer, id) ((int64_t)(id)*256 + (int64_t)(disk)*2 + (layer) + 1)

static struct blk_node *layer_node(struct emu *m, unsigned disk, enum api_fault_layer layer)
{
    struct blk_node *n = blk_disk_image(m->disk[disk]), *file = blk_child(n, BLK_FILE);

    return layer == API_FAULT_LAYER_FILE && file ? file : n;
}

/* An image that is its own file has one layer. */
static enum api_fault_layer last_layer(struct emu *m, unsigned disk)
{
    return blk_child(blk_disk_image(m->disk[disk]), BLK_FILE) ? API_FAULT_LAYER_FORMAT
                                                              : API_FAULT_LAYER_FILE;
}

static int find_disk(const struct emu *m, const char *name)
{
    for (unsigned i = 0; i < m->n_disks; i++) {
        if (strcmp(blk_name(m->disk[i]), name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

struct blk_node *disks_find(const struct emu *m, const char *name)
{
    int i = find_disk(m, name);

    return i < 0 ? NULL : m->disk[i];
}

/* --- limits --- */

static int set_limits(struct emu *m, unsigned i, const struct api_disk_throttle *t,
                      struct err *e)
{
    struct limits l;

    disk_limits(t, &l);
    return blk_throttle_set(m->disk[i], t ? t->group_name : NULL, &l, e);
}

int disks_set_limits(struct emu *m, unsigned i, struct err *e)
{
    const struct api_disk_throttle *t = m->config.disks[i].throttle;

    return t ? set_limits(m, i, t, e) : 0;
}

bool disks_get_limits(const struct emu *m, unsigned i, struct api_disk_throttle *out)
{
    struct limits l;
    const char *group;

    if (!blk_throttle_get(m->disk[i], &l, &group)) {
        return false;
    }
    *out = (struct api_disk_throttle){ .size_iops_sec = (int64_t)l.op_size,
                                       .group_name = (char *)group };
    for (unsigned k = 0; k < LIMIT_KINDS; k++) {
        disk_limit_put(out, k, &l.at[k]);
    }
    return true;
}

void api_handle_emu_disk_throttle(struct api_call *call, struct api_emu_disk_throttle_in *in)
{
    struct emu *m = control_emu(call);
    int disk = find_disk(m, in->disk);
    struct err e = ERR_INIT;

    if (disk < 0) {
        api_fail(call, API_E_NOT_FOUND, in->disk, "see 'vmctl show' for the names of disks",
                 "VM '%s' has no disk '%s'", m->vm->name, in->disk);
    } else if (set_limits(m, (unsigned)disk, in->throttle, &e) != 0) {
        api_fail_err(call, API_E_INVALID_PARAMS, in->disk, NULL, &e);
    } else {
        api_reply_emu_disk_throttle(call);
    }
}

/* --- */

void api_handle_emu_fault_add(struct api_call *call, struct api_emu_fault_add_in *in)
{
    struct emu *m = control_emu(call);
    int disk = find_disk(m, in->disk);
    struct blk_fault f = { .ops = in->has_op ? 1u << ops[in->op] : 0,
                           .action = actions_of[in->action],
                           .offset = (uint64_t)in->offset,
                           .length = (uint64_t)in->length,
                           .skip = (uint64_t)in->skip,
                           .count = (uint64_t)in->count,
                           .delay_ns = (uint64_t)in->delay_ms * 1000000,
                           .bytes = (uint64_t)in->bytes };
    struct err e = ERR_INIT;
    unsigned id = 0;

    if (disk < 0) {
        api_fail(call, API_E_NOT_FOUND, in->disk, "see 'vmctl show' for the names of disks",
                 "VM '%s' has no disk '%s'", m->vm->name, in->disk);
        return;
    }
    if (in->layer > last_layer(m, (unsigned)disk)) {
        in->layer = last_layer(m, (unsigned)disk);
    }
    for (unsigned i = 0; i < ARRAY_LEN(errors); i++) {
        f.error = errors[i].is == in->error ? errors[i].error : f.error;
    }
    int rc = blk_fault_add(layer_node(m, (unsigned)disk, in->layer), &f, &id, &e);
    if (rc != 0) {
        api_fail_err(call, rc == -EOVERFLOW ? API_E_HOST_LIMIT : API_E_INVALID_PARAMS, in->disk,
                     NULL, &e);
        return;
    }
    api_reply_emu_fault_add(
        call, &(struct api_emu_fault_add_out){ .id = RULE_ID(disk, in->layer, id) });
}

static void list_rule(struct json_object *list, struct emu *m, unsigned disk,
                      enum api_fault_layer layer, const struct blk_fault *f)
{
    struct api_fault out = { .id = RULE_ID(disk, layer, f->id),
                             .disk = (char *)blk_name(m->disk[disk]),
                             .layer = layer,
                             .offset = (int64_t)f->offset,
                             .length = (int64_t)f->length,
                             .skip = (int64_t)f->skip,
                             .count = (int64_t)f->count,
                             .delay_ms = (int64_t)(f->delay_ns / 1000000),
                             .bytes = (int64_t)f->bytes,
                             .seen = (int64_t)f->seen,
                             .has_seen = true,
                             .hits = (int64_t)f->hits,
                             .has_hits = true,
                             .has_op = f->ops != 0 };

    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        out.op = f->ops == 1u << ops[i] ? (enum api_fault_op)i : out.op;
    }
    for (unsigned i = 0; i < ARRAY_LEN(actions_of); i++) {
        out.action = actions_of[i] == f->action ? (enum api_fault_action)i : out.action;
    }
    for (unsigned i = 0; i < ARRAY_LEN(errors); i++) {
        out.error = errors[i].error == f->error ? errors[i].is : out.error;
    }
    json_object_array_add(list, api_encode(&api_type_fault, &out));
}

void api_handle_emu_fault_list(struct api_call *call, struct api_emu_fault_list_in *in)
{
    struct emu *m = control_emu(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    AUTO_FREE struct blk_fault *rules = xnew_n(struct blk_fault, BLK_FAULTS_MAX);

    (void)in;
    for (unsigned i = 0; i < m->n_disks; i++) {
        for (enum api_fault_layer l = API_FAULT_LAYER_FILE; l <= last_layer(m, i); l++) {
            size_t n = blk_fault_list(layer_node(m, i, l), rules, BLK_FAULTS_MAX);

            for (size_t k = 0; k < n; k++) {
                list_rule(list, m, i, l, &rules[k]);
            }
        }
    }
    api_json_set(o, "faults", list);
    api_reply_json(call, o);
}

void api_handle_emu_fault_remove(struct api_call *call, struct api_emu_fault_remove_in *in)
{
    struct emu *m = control_emu(call);
    bool found = !in->has_id;

    for (unsigned i = 0; i < m->n_disks; i++) {
        for (enum api_fault_layer l = API_FAULT_LAYER_FILE; l <= last_layer(m, i); l++) {
            unsigned id = in->has_id ? (unsigned)((in->id - 1) / 256) : 0;

            if (!in->has_id) {
                blk_fault_remove(layer_node(m, i, l), 0, NULL);
            } else if (in->id == RULE_ID(i, l, id) && id > 0) {
                found |= blk_fault_remove(layer_node(m, i, l), id, NULL) == 0;
            }
        }
    }
    if (!found) {
        api_fail(call, API_E_NOT_FOUND, m->vm->name, "'vmctl fault list' shows them",
                 "VM '%s' has no fault %lld", m->vm->name, (long long)in->id);
        return;
    }
    api_reply_emu_fault_remove(call);
}
