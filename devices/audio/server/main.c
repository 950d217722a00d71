/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-sound: plays what a guest plays on a sound server of the host, and records for it. Started by vmd-spawn with the rings
 * that it shares with one emulator and a socket to it, whose end is its own. It has no privileges (jail_enter_sound), and
 * reads nothing of the emulator but samples and counters.
 */
#include "devices/audio/server/server.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct sound_backend *const backends[] = {
#ifdef HAVE_PIPEWIRE
    &sound_pipewire,
#endif
#ifdef HAVE_ALSA
    &sound_alsa,
#endif
    NULL
};

struct options {
    int socket, ring, status;
    const char *backend;
};

static int parse_number(const char *text, uint64_t most, const char *what, int *to,
                        struct err *e)
{
    uint64_t n = 0;
    int rc = str_to_u64(text, 0, most, what, &n, e);

    *to = (int)n;
    return rc;
}

static int parse_shape(struct sound *s, int opt, const char *text, struct err *e)
{
    int n = 0, rc = parse_number(text, 384000, "a number of its sound", &n, e);

    if (opt == 'r') {
        s->shape.rate = (unsigned)n;
    } else if (opt == 'c') {
        s->shape.channels = (unsigned)n;
    } else {
        s->shape.sample = (enum audio_sample)(n < AUDIO_N_SAMPLES ? n : 0);
    }
    return rc;
}

static int parse(struct options *o, struct sound *s, int argc, char **argv, struct err *e)
{
    static const struct option list[] = {
        { "socket-fd", 1, NULL, 's' }, { "ring-fd", 1, NULL, 'i' },
        { "status-fd", 1, NULL, 't' }, { "backend", 1, NULL, 'b' },
        { "server", 1, NULL, 'S' },    { "device", 1, NULL, 'd' },
        { "name", 1, NULL, 'n' },      { "rate", 1, NULL, 'r' },
        { "channels", 1, NULL, 'c' },  { "sample", 1, NULL, 'f' },
        { NULL, 0, NULL, 0 },
    };
    int opt, rc = 0;

    *o = (struct options){ .socket = -1, .ring = -1, .status = -1 };
    while (rc == 0 && (opt = getopt_long(argc, argv, "", list, NULL)) != -1) {
        const char **text = opt == 'b'   ? &o->backend
                            : opt == 'S' ? &s->server
                            : opt == 'd' ? &s->device
                            : opt == 'n' ? &s->name
                                         : NULL;
        int *fd = opt == 's'   ? &o->socket
                  : opt == 'i' ? &o->ring
                  : opt == 't' ? &o->status
                               : NULL;
        if (text) {
            *text = optarg;
        } else if (fd) {
            rc = parse_number(optarg, 1 << 20, "a descriptor", fd, e);
        } else if (opt == 'r' || opt == 'c' || opt == 'f') {
            rc = parse_shape(s, opt, optarg, e);
        } else {
            return err_set(e, -EINVAL, "vmd-sound: unknown option; vmd-spawn starts it");
        }
    }
    if (rc == 0 && (o->socket < 0 || o->ring < 0 || !o->backend || s->shape.rate == 0 ||
                    s->shape.channels == 0 || s->shape.channels > AUDIO_MAX_CHANNELS)) {
        return err_set(e, -EINVAL, "vmd-sound is started by vmd-spawn");
    }
    return rc;
}

static int map_rings(struct sound *s, int fd, struct err *e)
{
    struct stat st;
    void *p;

    if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(*s->rings)) {
        return err_set(e, -EINVAL, "vmd-sound: the rings are too small");
    }
    p = mmap(NULL, sizeof(*s->rings), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        return err_errno(e, errno, "vmd-sound: cannot map the rings");
    }
    s->rings = p;
    s->frame = s->shape.channels * audio_sample_bytes(s->shape.sample);
    atomic_store(&s->rings->play.asleep, true);
    atomic_store(&s->rings->record.asleep, true);
    return 0;
}

int main(int argc, char **argv)
{
    struct sound s = { .sock = -1, .name = "vmd" };
    const struct sound_backend *back = NULL;
    struct options o;
    struct err e = ERR_INIT;
    int rc = parse(&o, &s, argc, argv, &e);

    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    for (unsigned i = 0; rc == 0 && backends[i]; i++) {
        back = strcmp(backends[i]->name, o.backend) == 0 ? backends[i] : back;
    }
    if (rc == 0 && !back) {
        rc = err_set(
            &e, -ENOTSUP,
            "audio: this vmd was built without %s; use another back end, or build it with "
            "its library",
            o.backend);
    }
    rc = rc == 0 ? map_rings(&s, o.ring, &e) : rc;
    if (rc != 0) {
        dprintf(o.status >= 0 ? o.status : STDERR_FILENO, "%s", e.msg);
        return 1;
    }
    s.sock = o.socket;
    if (o.status >= 0) {
        (void)!write(o.status, "+", 1);
        fd_autoclose(&o.status);
    }
    rc = back->run(&s, &e);
    if (rc != 0) {
        fprintf(stderr, "vmd-sound: %s\n", e.msg);
    }
    return rc == 0 ? 0 : 1;
}
