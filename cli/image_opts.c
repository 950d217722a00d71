/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --image-opts: names of images that are options. They become a path (or a URI of NBD) and a format before the verb sees its
 * arguments. One thread.
 */
#include "cli/image.h"

#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"

#include <string.h>

struct named {
    const char *driver, *protocol, *path;
    struct nbd_addr far;
};

static bool is_protocol(const char *driver)
{
    return strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0 ||
           strcmp(driver, "nbd") == 0;
}

/* "file.server.path" is "path", which only the outermost of two drivers may say without "file.". */
static const char *plain_key(const char *key)
{
    key = strncmp(key, "file.", 5) == 0 ? key + 5 : key;
    return strncmp(key, "server.", 7) == 0 ? key + 7 : key;
}

static int take(struct cli *c, struct named *n, const char *key, const char *value)
{
    const char *plain = plain_key(key);
    bool fits = true;

    if (strcmp(key, "driver") == 0) {
        *(is_protocol(value) ? &n->protocol : &n->driver) = value;
    } else if (strcmp(key, "file.driver") == 0) {
        n->protocol = value;
    } else if (strcmp(plain, "filename") == 0) {
        n->path = value;
    } else if (strcmp(plain, "host") == 0) {
        fits = strlen(value) < sizeof(n->far.host);
        snprintf(n->far.host, sizeof(n->far.host), "%s", value);
    } else if (strcmp(plain, "port") == 0) {
        fits = strlen(value) < sizeof(n->far.port);
        snprintf(n->far.port, sizeof(n->far.port), "%s", value);
    } else if (strcmp(plain, "path") == 0) {
        fits = strlen(value) < sizeof(n->far.path);
        snprintf(n->far.path, sizeof(n->far.path), "%s", value);
    } else if (strcmp(plain, "export") == 0) {
        fits = strlen(value) < sizeof(n->far.export);
        snprintf(n->far.export, sizeof(n->far.export), "%s", value);
    } else if (strcmp(plain, "type") != 0) { /* of a server: path or host says it */
        return cli_fail(c, CLI_USAGE, NULL,
                        "--image-opts knows driver, file.driver, file.filename and, of an NBD "
                        "export, file.host, file.port, file.path and file.export, not '%s'",
                        key);
    }
    return fits ? CLI_OK : cli_fail(c, CLI_USAGE, NULL, "the value of '%s' is too long", key);
}

static int use(struct cli *c, struct json_object *own, const struct named *n, const char *arg,
               const char *format)
{
    bool far = n->protocol && strcmp(n->protocol, "nbd") == 0;

    if (n->protocol && !is_protocol(n->protocol)) {
        return cli_fail(c, CLI_USAGE, NULL, "file.driver is file, host_device or nbd, not '%s'",
                        n->protocol);
    }
    if (far ? !n->far.host[0] == !n->far.path[0] : !n->path) {
        return cli_fail(c, CLI_USAGE, NULL, "%s",
                        far ? "an NBD export needs file.host or file.path"
                            : "--image-opts needs file.filename");
    }
    if (far) {
        AUTO_FREE char *uri = nbd_addr_text(&n->far);

        api_json_set_str(own, arg, uri);
    } else {
        api_json_set_str(own, arg, n->path);
    }
    if (n->driver || n->protocol) {
        api_json_set_str(own, format, n->driver ? n->driver : "raw");
    }
    return CLI_OK;
}

int img_image_opts(struct cli *c, struct cli_input *in)
{
    static const char *const args[][2] = { { "FILE", "image-format" },
                                           { "SOURCE", "image-format" },
                                           { "FILE1", "image-format" },
                                           { "FILE2", "second-format" } };
    int status = CLI_OK;

    for (unsigned i = 0; i < ARRAY_LEN(args) && status == CLI_OK; i++) {
        const char *given = in->own ? cli_own(in, args[i][0]) : NULL;
        AUTO_FREE char *text = NULL;
        char *at, *word;
        struct named n = { .far = { .port = "10809" } };

        if (!given || !img_flag(in, "image-opts")) {
            continue;
        }
        if (cli_own(in, args[i][1])) {
            return cli_fail(c, CLI_USAGE, NULL, "--image-opts and --%s do not go together",
                            args[i][1]);
        }
        text = at = xstrdup(given);
        while (status == CLI_OK && (word = img_next_option(&at))) {
            char *equals = strchr(word, '=');

            if (!equals) {
                return cli_fail(c, CLI_USAGE, NULL, "--image-opts takes key=value, not '%s'",
                                word);
            }
            *equals = 0;
            status = take(c, &n, word, equals + 1);
        }
        status = status ? status : use(c, in->own, &n, args[i][0], args[i][1]);
    }
    return status;
}
