/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to the arguments of image verbs before the verb sees them. --image-opts: names of images that are options become
 * a path (or a URI of NBD) and a format. Options that scripts written for qemu-img give and that change nothing here: the
 * user is told. One thread.
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

/* `given` is what the user wrote for the argument `arg`; the verb finds the path there, and the format where it looks for that. */
static int translate(struct cli *c, struct cli_input *in, const char *given, const char *arg,
                     const char *format)
{
    AUTO_FREE char *text = xstrdup(given);
    struct named n = { .far = { .port = "10809" } };
    char *at = text, *word;
    int status = CLI_OK;

    if (cli_own(in, format)) {
        return cli_fail(c, CLI_USAGE, NULL, "--image-opts and --%s do not go together", format);
    }
    while (status == CLI_OK && (word = img_next_option(&at))) {
        char *equals = strchr(word, '=');

        if (!equals) {
            return cli_fail(c, CLI_USAGE, NULL, "--image-opts takes key=value, not '%s'", word);
        }
        *equals = 0;
        status = take(c, &n, word, equals + 1);
    }
    return status ? status : use(c, in->own, &n, arg, format);
}

static void say_what_is_ignored(const struct cli *c, const struct cli_input *in)
{
    static const struct {
        const char *verb, *option, *why;
    } ignored[] = {
        { "image convert", "copy-range", "data is read and written; holes are not copied" },
        { "image convert", "out-of-order", "pieces are always written as they come" },
        { "image amend", "progress", "nothing takes long enough" },
        { "image amend", "force", "nothing that can be amended needs it" },
        { "image rebase", "source-cache", "backing files are read through the host's cache" },
        { "image rebase", "force-share", "the image is written, so nobody else may have it" },
        { "image bench", "no-drain", "a flush never waits for other requests" },
        { "image bench", "aio", "the kind of I/O is found out by probing" },
        { "image bench", "native", "the kind of I/O is found out by probing" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(ignored) && !c->quiet; i++) {
        if (strcmp(in->verb->name, ignored[i].verb) == 0 &&
            (img_flag(in, ignored[i].option) || cli_own(in, ignored[i].option))) {
            fprintf(stderr, "vmctl: %s: --%s has no effect: %s\n", ignored[i].verb,
                    ignored[i].option, ignored[i].why);
        }
    }
}

int img_arguments(struct cli *c, struct cli_input *in)
{
    static const char *const args[][2] = { { "FILE", "image-format" },
                                           { "SOURCE", "image-format" },
                                           { "FILE1", "image-format" },
                                           { "FILE2", "second-format" } };
    const char *input;
    int status = CLI_OK;

    if (!in->own) {
        return CLI_OK;
    }
    say_what_is_ignored(c, in);
    if (!img_flag(in, "image-opts")) {
        return CLI_OK;
    }
    for (unsigned i = 0; i < ARRAY_LEN(args) && status == CLI_OK; i++) {
        const char *given = cli_own(in, args[i][0]);

        status = given ? translate(c, in, given, args[i][0], args[i][1]) : CLI_OK;
    }
    input = strcmp(in->verb->name, "image dd") == 0 ? img_dd_word(in, "if") : NULL;
    return status == CLI_OK && input ? translate(c, in, input, "IF", "image-format") : status;
}
