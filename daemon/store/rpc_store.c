/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handler of host.backup: a thread for each backup, one at a time, with a connection of its own.
 * Owns struct backup. Loop thread, but for backup_main.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/store/backup.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

struct backup {
    struct vmd *d;
    struct api_call *call;
    char *to;
    bool overwrite;
    pthread_t thread;
    struct store_copy copy;
    struct err e;
    int rc;
};

static void backup_free(struct backup *b)
{
    b->d->backup = NULL;
    free(b->to);
    free(b);
}

static void backup_done(void *arg)
{
    struct backup *b = arg;
    pthread_join(b->thread, NULL);
    if (b->rc < 0) {
        int code = b->rc == -EEXIST                                         ? API_E_EXISTS
                   : b->rc == -EIO || b->rc == -EUCLEAN || b->rc == -ENOSPC ? API_E_STORE_ERROR
                                                                            : API_E_FILE_ERROR;
        api_fail(b->call, code, b->to,
                 b->rc == -EEXIST ? "choose another name, or use overwrite"
                                  : "choose a folder that vmd may write to, with room in it",
                 "no backup was made: %s", b->e.msg);
    } else {
        struct api_host_backup_out out = {
            .path = b->to, .bytes = b->copy.bytes, .vms = b->copy.vms, .schema = b->copy.schema
        };
        call_finish(b->d, b->call, b->to, api_encode(&api_type_host_backup_out, &out));
    }
    backup_free(b);
}

static void *backup_main(void *arg)
{
    struct backup *b = arg;
    b->rc = store_backup(b->d->opt.store, NULL, b->to, b->overwrite, &b->copy, &b->e);
    loop_post(b->d->loop, backup_done, b);
    return NULL;
}

void api_handle_host_backup(struct api_call *call, struct api_host_backup_in *in)
{
    struct vmd *d = call_daemon(call);
    if (d->backup) {
        api_fail(call, API_E_BUSY, in->path, "wait until it has ended",
                 "a backup to '%s' is being made", d->backup->to);
        return;
    }
    struct backup *b = xnew(struct backup);
    *b = (struct backup){
        .d = d, .call = call, .to = xstrdup(in->path), .overwrite = in->overwrite
    };
    d->backup = b;
    int rc = pthread_create(&b->thread, NULL, backup_main, b);
    if (rc != 0) {
        api_fail(call, API_E_HOST_LIMIT, in->path, NULL, "cannot start a thread: %s",
                 strerror(rc));
        backup_free(b);
    }
}

void backup_end(struct vmd *d)
{
    if (d->backup) {
        pthread_join(d->backup->thread, NULL);
        api_fail(d->backup->call, API_E_CANCELLED, d->backup->to, "call again once vmd is back",
                 "vmd ended before the backup was acknowledged");
        backup_free(d->backup);
    }
}
