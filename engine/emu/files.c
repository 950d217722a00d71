/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are passed to an emulator that runs, kept beside those of its start until a disk, a job or a dump takes
 * them. Part of struct emu. Main thread.
 */
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/emu/emu.h"

#include <string.h>
#include <unistd.h>

#define FILES_MAX 512

static void forget(struct emu_options *o, unsigned at)
{
    struct emu_file *f = &o->files[at];

    fd_autoclose(&f->fd);
    free(f->path);
    free(f->format);
    memmove(f, f + 1, (o->n_files - at - 1) * sizeof(*f));
    o->n_files--;
}

/* Those in use were taken with all that stands below them. */
static void drop_used(struct emu_options *o)
{
    for (unsigned i = o->n_files; i > 0; i--) {
        if (o->files[i - 1].fd < 0) {
            forget(o, i - 1);
        }
    }
}

void api_handle_emu_file_add(struct api_call *call, struct api_emu_file_add_in *in)
{
    static const enum emu_role roles[] = { [API_EMU_FILE_ROLE_FILE] = EMU_FILE,
                                           [API_EMU_FILE_ROLE_BACKING] = EMU_BACKING,
                                           [API_EMU_FILE_ROLE_DATA] = EMU_DATA };
    struct emu *m = control_emu(call);
    struct emu_options *o = &m->opt;
    AUTO_FD fd = control_passed_fd(call);
    enum emu_role role = roles[in->role];

    drop_used(o);
    if (fd < 0 || (role == EMU_BACKING) != (in->format != NULL) ||
        (role != EMU_FILE && o->n_files == 0)) {
        api_fail(call, API_E_INVALID_PARAMS, in->path, NULL, "%s",
                 fd < 0           ? "no descriptor came with the call"
                 : o->n_files > 0 ? "a backing file has a format, other files have none"
                                  : "there is no file that it could stand below");
        return;
    }
    if (role == EMU_FILE && given_file(m, in->path)) {
        api_fail(call, API_E_EXISTS, in->path, "use it, or drop it first",
                 "a file '%s' waits already", in->path);
        return;
    }
    if (o->n_files >= FILES_MAX) {
        api_fail(call, API_E_HOST_LIMIT, in->path, NULL, "%d files wait already", FILES_MAX);
        return;
    }
    o->files = xrealloc_n(o->files, o->n_files + 1, sizeof(*o->files));
    o->files[o->n_files++] = (struct emu_file){ .path = xstrdup(in->path),
                                                .fd = take_fd(&fd),
                                                .role = role,
                                                .format = in->format ? xstrdup(in->format)
                                                                     : NULL };
    api_reply_emu_file_add(call);
}

void api_handle_emu_file_drop(struct api_call *call, struct api_emu_file_drop_in *in)
{
    struct emu *m = control_emu(call);
    struct emu_options *o = &m->opt;
    struct emu_file *f;

    drop_used(o);
    f = given_file(m, in->path);
    if (!f) {
        api_fail(call, API_E_NOT_FOUND, in->path, NULL, "no file '%s' waits", in->path);
        return;
    }
    unsigned at = (unsigned)(f - o->files);
    do {
        forget(o, at);
    } while (at < o->n_files && o->files[at].role != EMU_FILE);
    api_reply_emu_file_drop(call);
}
