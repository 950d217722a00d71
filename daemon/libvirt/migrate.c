/* SPDX-License-Identifier: Apache-2.0 */
/* Domains that move to another daemon of vmd: peer to peer, so that the two daemons do all of it. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "engine/base/str.h"

#include <string.h>

enum {
    /* virDomainMigrateFlags */
    LIVE = 1,
    PEER_TO_PEER = 2,
    TUNNELLED = 4,
    PERSIST_DEST = 8,
    UNDEFINE_SOURCE = 16,
    NON_SHARED_DISK = 64,
    NON_SHARED_INC = 128,
    CHANGE_PROTECTION = 256,
    COMPRESSED = 2048,
    ABORT_ON_ERROR = 4096,
    AUTO_CONVERGE = 8192,
    TLS = 65536,
    /* What vmd does whether it is asked or not: memory goes by TLS, only what differs goes again, vCPUs are slowed down. */
    ALWAYS = TUNNELLED | CHANGE_PROTECTION | COMPRESSED | ABORT_ON_ERROR | AUTO_CONVERGE | TLS,
};

/* The daemon behind a URI of libvirt's: vmd+tls://HOST[:PORT] as it is; of qemu+tls://HOST/system the host, where vmd is at its own
 * port. False: it is neither. */
static bool daemon_of(const char *uri, struct buf *out)
{
    static const char theirs[] = "qemu+tls://", ours[] = "vmd+tls://";
    const char *host;
    size_t n;

    if (str_starts(uri, ours)) {
        host = uri + strlen(ours);
        n = strcspn(host, "/?");
    } else if (str_starts(uri, theirs)) {
        host = uri + strlen(theirs);
        n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?");
    } else {
        return false;
    }
    buf_printf(out, "%s%.*s", ours, (int)n, host);
    return n > 0;
}

static void on_moved(struct lv_call *c, struct json_object *job)
{
    (void)job;
    lv_reply(c, NULL);
}

static void on_begun(struct lv_call *c, struct json_object *result)
{
    lv_wait(c, result, on_moved);
}

/* As libvirt does it, images that are there already are written over. */
static void copy_disks(struct lv_call *c, int64_t flags, struct json_object *params)
{
    struct json_object *given = api_json_get(c->args, "params"),
                       *names = json_object_new_array();

    for (size_t i = 0; given && i < json_object_array_length(given); i++) {
        struct json_object *o = json_object_array_get_idx(given, i);

        if (strcmp(api_json_get_str(o, "field"), "migrate_disks") == 0) {
            json_object_array_add(names, json_object_get(api_json_get(o, "value")));
        }
    }
    api_json_set_bool(params, "copy_storage_all", flags & NON_SHARED_DISK);
    api_json_set_bool(params, "copy_storage_inc", flags & NON_SHARED_INC);
    api_json_set_bool(params, "reuse_images", flags & (NON_SHARED_DISK | NON_SHARED_INC));
    api_json_set(params, "migrate_disks", names);
}

void lv_do_domain_migrate(struct lv_call *c)
{
    static const char *const known[] = { "bandwidth", "migrate_disks", NULL };
    int64_t flags = lv_int(c, "flags"), mib = json_object_get_int64(lv_given(c, "bandwidth")),
            kept = PERSIST_DEST | UNDEFINE_SOURCE;
    const struct vm *vm = lv_the_vm(c);
    struct json_object *params;
    AUTO_BUF to = BUF_INIT;

    if (!lv_only(c, known)) {
        return;
    }
    if ((flags & ~(ALWAYS | kept | NON_SHARED_DISK | NON_SHARED_INC)) !=
        (LIVE | PEER_TO_PEER)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "a domain moves while it runs, from daemon to daemon: --live --p2p");
    } else if (vm && !vm->transient && (flags & kept) != kept) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "the definition moves with the domain: --persistent --undefinesource");
    } else if (!lv_str(c, "dconnuri") || !daemon_of(lv_str(c, "dconnuri"), &to)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "another daemon of vmd is vmd+tls://HOST[:PORT] or qemu+tls://HOST/system");
    } else {
        params = lv_vm(c);
        api_json_set_str(params, "to", to.data);
        copy_disks(c, flags, params);
        if (mib > 0) {
            api_json_set_int(params, "bandwidth",
                             mib < INT64_MAX >> 20 ? mib << 20 : INT64_MAX);
        }
        lv_ask(c, "domain", "migrate.start", params, on_begun);
    }
}
