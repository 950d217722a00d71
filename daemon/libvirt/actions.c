/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to a domain beside its life: words about it, keys, an NMI, a dump of its memory, its saved state. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/session.h"
#include "daemon/registry.h"
#include "daemon/xml/tree.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* --- words ---------------------------------------------------------------------------------------------- */

enum { DESCRIPTION, TITLE, ELEMENT };

/* The definition's elements of other programs below one root; NULL: none, or they cannot be read. */
static struct xml_node *elements_of(const struct vm *vm)
{
    AUTO_BUF text = BUF_INIT;

    if (!vm || !vm->config.metadata) {
        return NULL;
    }
    buf_printf(&text, "<metadata>%s</metadata>", vm->config.metadata);
    return xml_read(text.data, text.len, NULL);
}

static const struct xml_node *element(const struct xml_node *root, const char *uri)
{
    for (size_t i = 0; root && uri && i < root->n_kids; i++) {
        if (root->kids[i]->uri && strcmp(root->kids[i]->uri, uri) == 0) {
            return root->kids[i];
        }
    }
    return NULL;
}

static void on_metadata(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = lv_the_vm(c);
    int64_t type = lv_int(c, "type");
    const char *text = NULL;
    AUTO_BUF out = BUF_INIT;
    const struct xml_node *found;

    (void)info;
    if (vm && type == ELEMENT) {
        struct xml_node *root = elements_of(vm);
        found = element(root, lv_str(c, "uri"));
        if (found) {
            xml_write(&out, found, 0);
            text = out.data;
        }
        xml_node_free(root);
    } else if (vm) {
        text = type == TITLE ? vm->config.title : vm->config.description;
    }
    if (text) {
        lv_reply_str(c, "metadata", text);
    } else {
        lv_fail(c, LV_E_NO_METADATA, "requested metadata element is not present");
    }
}

void lv_do_domain_metadata(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_metadata);
}

/* The root of the text, in the namespace by the prefix as the call says; what stood for that namespace goes. */
static bool put_element(struct lv_call *c, const struct xml_node *old, struct buf *out)
{
    const char *uri = lv_str(c, "uri"), *key = lv_str(c, "key"), *text = lv_str(c, "metadata");
    struct xml_node *new = NULL;
    struct err e = ERR_INIT;

    for (size_t i = 0; old && i < old->n_kids; i++) {
        if (old->kids[i]->name && !(old->kids[i]->uri && strcmp(old->kids[i]->uri, uri) == 0)) {
            xml_write(out, old->kids[i], 0);
        }
    }
    if (!text) {
        return true;
    }
    new = xml_read(text, strlen(text), &e);
    if (!new || !key || !xml_can_say(uri) || strpbrk(uri, "'<&") || strpbrk(key, ":'<>& /")) {
        xml_node_free(new);
        lv_fail(c, LV_E_XML, "no element of a namespace: %s",
                e.code ? e.msg : "its key or URI");
        return false;
    }
    if (!new->uri) { /* as libvirt has it: in the namespace, by the prefix of the call */
        AUTO_FREE char *bare = new->name;
        new->name = xasprintf("%s:%s", key, bare);
        new->uri = xstrdup(uri);
    }
    if (strcmp(new->uri, uri) != 0) {
        xml_node_free(new);
        lv_fail(c, LV_E_XML, "the element is not of namespace '%s'", uri);
        return false;
    }
    xml_write(out, new, 0);
    xml_node_free(new);
    return true;
}

static void set_element(struct lv_call *c)
{
    struct xml_node *old;
    AUTO_BUF out = BUF_INIT;
    bool ok;

    if (!lv_str(c, "uri") || !lv_str(c, "uri")[0]) {
        lv_fail(c, LV_E_INVALID_ARG, "an element has a namespace");
        return;
    }
    old = elements_of(lv_the_vm(c));
    ok = put_element(c, old, &out);
    xml_node_free(old);
    if (ok) {
        lv_change(c, "metadata", out.len ? json_object_new_string(out.data) : NULL);
    }
}

void lv_do_domain_set_metadata(struct lv_call *c)
{
    const char *text = lv_str(c, "metadata");

    switch (lv_int(c, "type")) {
    case DESCRIPTION:
    case TITLE:
        lv_change(c, lv_int(c, "type") == TITLE ? "title" : "description",
                  text && text[0] ? json_object_new_string(text) : NULL);
        break;
    case ELEMENT:
        set_element(c);
        break;
    default:
        lv_fail(c, LV_E_INVALID_ARG, "no kind of metadata: %lld", (long long)lv_int(c, "type"));
    }
}

/* --- keys ----------------------------------------------------------------------------------------------------- */

/* Codes of a PC's keyboard, with 128 added behind 0xe0, of Linux's numbers of keys (input-event-codes.h). Up to 88 they are the same. */
static int scan_code(int64_t key)
{
    static const struct {
        int key, code;
    } rows[] = { { 96, 156 },  { 97, 157 },  { 98, 181 },  { 99, 183 },  { 100, 184 },
                 { 102, 199 }, { 103, 200 }, { 104, 201 }, { 105, 203 }, { 106, 205 },
                 { 107, 207 }, { 108, 208 }, { 109, 209 }, { 110, 210 }, { 111, 211 },
                 { 113, 160 }, { 114, 174 }, { 115, 176 }, { 116, 222 }, { 117, 89 },
                 { 125, 219 }, { 126, 220 }, { 127, 221 }, { 142, 223 } };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].key == key) {
            return rows[i].code;
        }
    }
    return key > 0 && key <= 88 ? (int)key : -1;
}

void lv_do_domain_send_key(struct lv_call *c)
{
    enum { LINUX = 0, XT = 1, QNUM = 9 };
    struct json_object *codes = api_json_get(c->args, "keycodes"), *keys, *params;
    int64_t set = lv_int(c, "codeset"), hold = lv_int(c, "holdtime");
    char text[16];

    if (set != LINUX && set != XT && set != QNUM) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "keys are told by the codesets linux, xt and qnum");
        return;
    }
    keys = json_object_new_array();
    for (size_t i = 0; codes && i < json_object_array_length(codes); i++) {
        int64_t key = json_object_get_int64(json_object_array_get_idx(codes, i));
        int code = set == LINUX ? scan_code(key) : key < 256 ? (int)key : -1;
        if (code < 0) {
            json_object_put(keys);
            lv_fail(c, LV_E_INVALID_ARG, "no keyboard of a guest has the key %lld",
                    (long long)key);
            return;
        }
        snprintf(text, sizeof(text), "#%d", code);
        json_object_array_add(keys, json_object_new_string(text));
    }
    params = lv_vm(c);
    api_json_set(params, "keys", keys);
    if (hold > 0) {
        api_json_set_int(params, "hold_ms", hold);
    }
    lv_ask(c, "domain", "vm.send_key", params, lv_done);
}

static void on_qmp(struct lv_call *c, struct json_object *result)
{
    const char *why = api_json_get_str(api_json_get(result, "error"), "desc");

    if (why) {
        lv_fail(c, LV_E_OPERATION_FAILED, "%s", why);
    } else {
        lv_reply(c, NULL);
    }
}

void lv_do_domain_nmi(struct lv_call *c)
{
    struct json_object *params = lv_vm(c);

    api_json_set_str(params, "execute", "inject-nmi");
    lv_ask(c, "domain", "vm.qmp", params, on_qmp);
}

/* --- its memory in a file ---------------------------------------------------------------------------------------- */

static void on_dumped(struct lv_call *c, struct json_object *job)
{
    enum { CRASH = 1, RESET = 8 };
    struct json_object *params = lv_vm(c);

    (void)job;
    if (lv_int(c, "flags") & CRASH) {
        api_json_set_bool(params, "force", true);
        lv_ask(c, "domain", "vm.stop", params, lv_done);
    } else if (lv_int(c, "flags") & RESET) {
        lv_ask(c, "domain", "vm.reset", params, lv_done);
    } else {
        json_object_put(params);
        lv_reply(c, NULL);
    }
}

static void on_dump(struct lv_call *c, struct json_object *result)
{
    lv_wait(c, result, on_dumped);
}

void lv_do_domain_dump(struct lv_call *c)
{
    enum { CRASH = 1, RESET = 8, MEMORY_ONLY = 16 };
    struct json_object *params;

    if ((lv_int(c, "flags") & ~(CRASH | RESET | MEMORY_ONLY)) || lv_int(c, "dumpformat")) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "a dump is an ELF core, and the guest stands still meanwhile");
        return;
    }
    params = lv_vm(c);
    api_json_set_str(params, "file", lv_str(c, "to"));
    lv_ask(c, "domain", "vm.dump", params, on_dump);
}

/* --- its saved state ------------------------------------------------------------------------------------------------ */

void lv_do_domain_managed_save_remove(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.forget", lv_vm(c), lv_done);
}

static void on_saved(struct lv_call *c, struct json_object *info)
{
    if (api_json_get_bool(info, "saved", false)) {
        lv_ask(c, "domain", "xml.get", lv_vm(c), lv_reply_xml);
    } else {
        lv_fail(c, LV_E_OPERATION_INVALID, "domain '%s' has no managed save image",
                api_json_get_str(info, "name"));
    }
}

void lv_do_domain_managed_save_xml(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_saved);
}

/* --- its screen, as a connection ------------------------------------------------------------------------ */

static void on_graphics(struct lv_call *c, struct json_object *result)
{
    struct err e = ERR_INIT;
    int fd = unix_connect_now(api_json_get_str(result, "path"), &e);

    if (fd < 0) {
        lv_fail(c, LV_E_OPERATION_FAILED, "%s", e.msg);
    } else {
        fcntl(fd, F_SETFL, 0); /* as clients expect it of a new connection */
        lv_reply_fd(c, fd);
    }
}

void lv_do_domain_open_graphics(struct lv_call *c)
{
    enum { SKIP_AUTH = 1 };

    if (lv_int(c, "idx") || (lv_int(c, "flags") & ~(int64_t)SKIP_AUTH)) {
        lv_fail(c, LV_E_INVALID_ARG, "a domain has one screen: number 0");
    } else if (!c->q || !lv_passes_fds(c->q)) {
        lv_fail(c, LV_E_OPERATION_UNSUPPORTED, "descriptors are passed on this host alone");
    } else {
        lv_ask(c, "domain", "vm.vnc", lv_vm(c), on_graphics);
    }
}
