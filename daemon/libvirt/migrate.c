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

void lv_do_domain_migrate(struct lv_call *c)
{
    static const char *const known[] = { "bandwidth", NULL };
    int64_t flags = lv_int(c, "flags"), mib = json_object_get_int64(lv_given(c, "bandwidth")),
            kept = PERSIST_DEST | UNDEFINE_SOURCE;
    const struct vm *vm = lv_the_vm(c);
    struct json_object *params;
    AUTO_BUF to = BUF_INIT;

    if (!lv_only(c, known)) {
        return;
    }
    if ((flags & ~(ALWAYS | kept)) != (LIVE | PEER_TO_PEER)) {
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
        if (mib > 0) {
            api_json_set_int(params, "bandwidth",
                             mib < INT64_MAX >> 20 ? mib << 20 : INT64_MAX);
        }
        lv_ask(c, "domain", "migrate.start", params, on_begun);
    }
}
