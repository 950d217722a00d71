/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmctl edit: the definition in an editor, checked, and only the difference sent. One thread.
 */
#include "cli/cli.h"

#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct edit {
    struct cli *c;
    const char *vm;
    bool xml;
    struct json_object *before; /* the definition, with every default */
    char *path;                 /* file in the editor */
};

/* With every default filled in; NULL after the failure was printed. */
static struct json_object *whole(struct edit *k, struct json_object *o)
{
    struct api_vm_config config;
    struct api_error x = API_ERROR_INIT;
    struct json_object *full;

    if (api_decode(&api_type_vm_config, o, API_STRICT, "", &config, &x) < 0) {
        cli_error(k->c, &x);
        return NULL;
    }
    full = api_encode(&api_type_vm_config, &config);
    api_release(&api_type_vm_config, &config);
    return full;
}

/* What turns `from` into `to`, as RFC 7396 has it. */
static struct json_object *difference(struct json_object *from, struct json_object *to)
{
    struct json_object *patch = json_object_new_object();

    json_object_object_foreach(to, key, v)
    {
        struct json_object *was = api_json_get(from, key);
        if (json_object_equal(v, was)) {
            continue;
        }
        api_json_set(patch, key,
                     json_object_is_type(v, json_type_object) &&
                             json_object_is_type(was, json_type_object)
                         ? difference(was, v)
                         : json_object_get(v));
    }
    json_object_object_foreach(from, gone, ignored)
    {
        (void)ignored;
        if (!json_object_object_get_ex(to, gone, NULL)) {
            api_json_set(patch, gone, NULL);
        }
    }
    return patch;
}

/* ---- the file ---- */

static int fetch(struct edit *k, char **text)
{
    struct json_object *params = json_object_new_object();
    AUTO_JSON result = NULL;
    struct json_object *config;
    int rc;

    api_json_set_str(params, "vm", k->vm);
    rc = cli_call(k->c, "vm.get", params, &result);
    if (rc != CLI_OK) {
        return rc;
    }
    config = api_json_get(result, "config");
    k->before = whole(k, config);
    if (!k->before) {
        return CLI_FAILED;
    }
    if (!k->xml) {
        *text = xasprintf(
            "%s\n", json_object_to_json_string_ext(config, JSON_C_TO_STRING_PRETTY |
                                                               JSON_C_TO_STRING_SPACED |
                                                               JSON_C_TO_STRING_NOSLASHESCAPE));
        return CLI_OK;
    }
    AUTO_JSON xml = NULL;
    params = json_object_new_object();
    api_json_set_str(params, "vm", k->vm);
    rc = cli_call(k->c, "xml.get", params, &xml);
    if (rc == CLI_OK) {
        *text = xstrdup(api_json_get_str(xml, "xml") ?: "");
    }
    return rc;
}

static int write_file(struct edit *k, const char *text)
{
    const char *tmp = getenv("TMPDIR"), *suffix = k->xml ? ".xml" : ".json";
    size_t len = strlen(text);
    AUTO_FD fd = -1;

    k->path = xasprintf("%s/vmctl-edit-XXXXXX%s", tmp && tmp[0] == '/' ? tmp : "/tmp", suffix);
    fd = mkstemps(k->path, (int)strlen(suffix));
    if (fd < 0 || write(fd, text, len) != (ssize_t)len) {
        int was = errno;
        if (fd < 0) {
            free(take_ptr(k->path));
        }
        return cli_fail(k->c, CLI_FAILED, NULL, "cannot write a file in %s: %s",
                        tmp ? tmp : "/tmp", strerror(was));
    }
    return CLI_OK;
}

/* The editor's variable may hold arguments: the shell splits it. */
static int run_editor(struct edit *k)
{
    const char *editor = getenv("VISUAL");
    int status;
    pid_t pid;

    editor = editor && *editor ? editor : getenv("EDITOR");
    editor = editor && *editor ? editor : "vi";
    AUTO_FREE char *command = xasprintf("%s \"$1\"", editor);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, editor, k->path, (char *)NULL);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return cli_fail(k->c, CLI_FAILED, "set $EDITOR to an editor", "the editor '%s' failed",
                        editor);
    }
    return CLI_OK;
}

/* ---- what came of it ---- */

static int send_change(struct edit *k, struct json_object *after)
{
    static const char *const fixed[] = { "uuid", "arch", "machine", "project" };
    AUTO_JSON patch = difference(k->before, after);
    const char *name = api_json_get_str(patch, "name");
    AUTO_FREE char *renamed = name ? xstrdup(name) : NULL;
    struct json_object *params;
    int rc = CLI_OK;

    if (json_object_object_length(patch) == 0) {
        printf("%s: not changed\n", k->vm);
        return CLI_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++) {
        if (json_object_object_get_ex(patch, fixed[i], NULL)) {
            return cli_fail(k->c, CLI_USAGE, "define another VM",
                            "'%s' of a VM cannot be changed", fixed[i]);
        }
    }
    json_object_object_del(patch, "name");
    if (json_object_object_length(patch)) {
        AUTO_JSON result = NULL;
        params = json_object_new_object();
        api_json_set_str(params, "vm", k->vm);
        api_json_set(params, "set", json_object_get(patch));
        rc = cli_call(k->c, "vm.set", params, &result);
        if (rc == CLI_OK && !k->c->quiet) {
            printf("%s: changed%s\n", k->vm,
                   api_json_get_bool(result, "restart_needed", false)
                       ? ", from its next start on"
                       : "");
        }
    }
    if (rc == CLI_OK && renamed) {
        params = json_object_new_object();
        api_json_set_str(params, "vm", k->vm);
        api_json_set_str(params, "name", renamed);
        rc = cli_call(k->c, "vm.rename", params, NULL);
        if (rc == CLI_OK && !k->c->quiet) {
            printf("%s: renamed to %s\n", k->vm, renamed);
        }
    }
    return rc;
}

static int apply(struct edit *k)
{
    AUTO_FREE char *text = NULL;
    AUTO_JSON o = NULL;
    AUTO_JSON after = NULL;
    struct err e = ERR_INIT;
    int rc = cli_read_text(k->c, k->path, &text);

    if (rc != CLI_OK) {
        return rc;
    }
    if (cli_is_xml(text)) {
        rc = cli_xml_config(k->c, "domain", k->path, text, &o);
    } else if (api_json_parse(text, strlen(text), &o, &e) < 0) {
        rc = cli_fail(k->c, CLI_USAGE, NULL, "%s: %s", k->path, e.msg);
    }
    if (rc != CLI_OK) {
        return rc;
    }
    after = whole(k, o);
    return after ? send_change(k, after) : CLI_USAGE;
}

/* Asks a person; nobody is there to ask without a terminal. */
static bool edit_again(void)
{
    char line[64];

    if (!isatty(0) || !isatty(2)) {
        return false;
    }
    fprintf(stderr, "Edit it again? [Y/n] ");
    return fgets(line, sizeof(line), stdin) && line[0] != 'n' && line[0] != 'N';
}

int cli_verb_edit(struct cli *c, struct cli_input *in)
{
    struct edit k = { .c = c, .vm = cli_own(in, "VM"), .xml = cli_own(in, "xml") != NULL };
    AUTO_FREE char *text = NULL;
    int rc = fetch(&k, &text);

    rc = rc == CLI_OK ? write_file(&k, text) : rc;
    if (rc == CLI_OK) {
        do {
            rc = run_editor(&k);
            rc = rc == CLI_OK ? apply(&k) : rc;
        } while (rc != CLI_OK && rc != CLI_NO_DAEMON && edit_again());
    }
    if (k.path) {
        if (rc == CLI_OK) {
            unlink(k.path);
        } else {
            fprintf(stderr, "vmctl: your text is kept in %s\n", k.path);
        }
    }
    json_object_put(k.before);
    free(k.path);
    return rc;
}
