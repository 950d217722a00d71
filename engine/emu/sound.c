/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sound of the machine by a sound server of the host: rings that the process vmd-sound has the other end of (soundring.h). Owns struct
 * emu_sound. Main thread; sound comes and goes on any, and nothing there waits: what has no room is lost, what is not there is silence.
 */
#include "devices/audio/audio.h"

#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/soundring.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define RECORDED_MS 150 /* more than that is too old to be heard */

struct emu_sound {
    struct audio_host host;
    struct emu *m;
    struct sound_rings *rings;
    int fd;
    struct loop_fd *watch;
    _Atomic bool posted;
};

/* Main thread: vmd-sound has something to do again. */
static void kick(void *arg)
{
    struct emu_sound *s = arg;

    atomic_store(&s->posted, false);
    if (s->fd >= 0) {
        (void)!send(s->fd, "k", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static void wake(struct emu_sound *s, struct sound_ring *r)
{
    if (atomic_load(&r->asleep) && atomic_exchange(&r->asleep, false) &&
        !atomic_exchange(&s->posted, true)) {
        loop_post(s->m->loop, kick, s);
    }
}

static bool sound_play(void *arg, uint64_t place, const uint8_t *p, size_t n)
{
    struct emu_sound *s = arg;

    (void)place;
    for (size_t at = 0;
         at < n;) { /* a message may be larger than the ring: its end is what counts */
        size_t part = n - at < SOUND_RING_BYTES / 4 ? n - at : SOUND_RING_BYTES / 4;

        (void)sound_ring_put(&s->rings->play, p + at, part);
        at += part;
    }
    wake(s, &s->rings->play);
    return true;
}

static void sound_hear(void *arg, uint64_t place, uint8_t *p, size_t n)
{
    struct emu_sound *s = arg;
    struct sound_ring *r = &s->rings->record;
    const struct audio_shape *shape = &s->host.shape[AUDIO_CAPTURE];
    size_t frame = shape->channels * audio_sample_bytes(shape->sample);
    size_t most = shape->rate * frame / 1000 * RECORDED_MS, have = sound_ring_filled(r);

    (void)place;
    atomic_fetch_add(&r->turns, 1);
    wake(s, r);
    if (have > most + n) {
        (void)sound_ring_get(r, NULL, (have - n) / frame * frame);
    }
    (void)sound_ring_get(r, p, n);
}

static void on_socket(void *arg, int fd, unsigned events)
{
    struct emu_sound *s = arg;
    char bytes[16];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    (void)events;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        log_warn("audio", "vmd-sound has ended: sound is lost until the VM starts again");
        loop_fd_free(s->watch);
        s->watch = NULL;
        fd_autoclose(&s->fd);
        s->fd = -1;
    }
}

int sound_new(struct emu *m, const struct audio_shape *shape, struct audio_host **out,
              struct err *e)
{
    AUTO_FD ring = take_fd(&m->opt.sound_ring_fd);
    struct emu_sound *s = m->sound = xnew(struct emu_sound);
    struct stat st;
    void *p;

    *s = (struct emu_sound){ .m = m, .fd = take_fd(&m->opt.sound_fd), .rings = NULL };
    s->host = (struct audio_host){
        .shape = { *shape, *shape }, .play = sound_play, .hear = sound_hear, .arg = s
    };
    if (ring < 0 || s->fd < 0) {
        return err_set(e, -ENOENT,
                       m->opt.config_fd < 0
                           ? "audio: only the daemon starts vmd-sound; name an output file"
                           : "audio: no sound was passed with --sound-fd and --sound-ring-fd");
    }
    if (fstat(ring, &st) < 0 || st.st_size < (off_t)sizeof(*s->rings)) {
        return err_set(e, -EINVAL, "audio: the rings of --sound-ring-fd are too small");
    }
    p = mmap(NULL, sizeof(*s->rings), PROT_READ | PROT_WRITE, MAP_SHARED, ring, 0);
    if (p == MAP_FAILED) {
        return err_errno(e, errno, "audio: cannot map the rings");
    }
    s->rings = p;
    s->watch = loop_fd_new(m->loop, s->fd, LOOP_READ, on_socket, s);
    *out = &s->host;
    return 0;
}

void sound_free(struct emu *m)
{
    struct emu_sound *s = m->sound;

    if (!s) {
        return;
    }
    loop_fd_free(s->watch);
    fd_autoclose(&s->fd);
    if (s->rings) {
        munmap(s->rings, sizeof(*s->rings));
    }
    free(s);
    m->sound = NULL;
}
