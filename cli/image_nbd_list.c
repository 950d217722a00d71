/* SPDX-License-Identifier: Apache-2.0 */
/* `vmctl image nbd-list`: the exports of an NBD server. One thread. */
#include "cli/image.h"

#include "api-schema/json/json.h"
#include "storage/nbd_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_S = 20 };

/* The protocol wants UTF-8; whoever sends anything else is not repeated. */
static bool is_text(const char *s)
{
    size_t n = strlen(s);

    while (n > 0) {
        size_t k = (unsigned char)*s < 0x80 ? 1 : api_utf8_len(s, n);

        if (k == 0) {
            return false;
        }
        s += k;
        n -= k;
    }
    return true;
}

/* brief: names and sizes alone. */
static void print_json(const struct nbd_list *l, bool brief)
{
    AUTO_JSON o = json_object_new_object();
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < l->n; i++) {
        struct json_object *one = json_object_new_object();

        api_json_set_str(one, "name",
                         is_text(l->item[i].name) ? l->item[i].name : "\xef\xbf\xbd");
        if (!brief && l->item[i].description[0] && is_text(l->item[i].description)) {
            api_json_set_str(one, "description", l->item[i].description);
        }
        if (l->item[i].size >= 0) {
            api_json_set_int(one, "size", l->item[i].size);
        }
        if (!brief) {
            api_json_set_bool(one, "read-only", l->item[i].readonly);
        }
        json_object_array_add(list, one);
    }
    api_json_set(o, "exports", list);
    api_json_set_bool(o, "more", l->more);
    cli_print_json(o);
}

static void print_text(const struct nbd_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        AUTO_BUF name = BUF_INIT;
        AUTO_BUF words = BUF_INIT;

        cli_clean(&name, l->item[i].name);
        cli_clean(&words, l->item[i].description);
        printf("'%s'", name.data ? (char *)name.data : "");
        if (l->item[i].size >= 0) {
            printf(": %lld bytes%s", (long long)l->item[i].size,
                   l->item[i].readonly ? ", read-only" : "");
        }
        printf("%s%s\n", words.len ? ": " : "", words.data ? (char *)words.data : "");
    }
}

int cli_verb_image_nbd_list(struct cli *c, struct cli_input *in)
{
    const char *uri = cli_own(in, "URI"), *fd = cli_own(in, "fd");
    struct nbd_list l;
    struct err e = ERR_INIT;

    if (!uri == !fd) {
        return cli_fail(c, CLI_USAGE, NULL, "give the address of a server, or --fd");
    }
    alarm(PATIENCE_S);
    if (nbd_list(uri, fd ? atoi(fd) : -1, &l, &e) != 0) {
        return img_error(c, &e);
    }
    alarm(0);
    if (c->json) {
        print_json(&l, fd != NULL);
    } else {
        print_text(&l);
        if (l.more) {
            fprintf(stderr, "vmctl: the server has more than %d exports\n", NBD_LIST_MAX);
        }
    }
    nbd_list_done(&l);
    return CLI_OK;
}
