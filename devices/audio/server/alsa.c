/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ALSA: a thread that plays and one that records, each with its device open only while the guest needs it; the main one waits for
 * bytes from the emulator.
 */
#include "devices/audio/server/server.h"

#include "engine/base/mem.h"

#include <alsa/asoundlib.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define PIECES 100 /* a second */
#define LATENCY_US 60000
#define AHEAD_NS                                                                               \
    200000000 /* of the clock: a device that takes all at once is none that is heard */
#define AGAIN_S 3

struct direction {
    struct sound *s;
    struct sound_ring *ring;
    bool play, told;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static int64_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void complain(struct direction *d, const char *what, int rc)
{
    if (!d->told) {
        fprintf(stderr,
                "vmd-sound: ALSA's '%s', to %s: %s: %s; tried again while there is sound\n",
                d->s->device ? d->s->device : "default", d->play ? "play" : "record", what,
                snd_strerror(rc));
    }
    d->told = true;
}

static snd_pcm_t *open_pcm(struct direction *d)
{
    static const snd_pcm_format_t formats[AUDIO_N_SAMPLES] = {
        [AUDIO_U8] = SND_PCM_FORMAT_U8,
        [AUDIO_S16] = SND_PCM_FORMAT_S16_LE,
        [AUDIO_S32] = SND_PCM_FORMAT_S32_LE,
        [AUDIO_F32] = SND_PCM_FORMAT_FLOAT_LE
    };
    const struct audio_shape *shape = &d->s->shape;
    snd_pcm_t *pcm = NULL;
    int rc = snd_pcm_open(&pcm, d->s->device ? d->s->device : "default",
                          d->play ? SND_PCM_STREAM_PLAYBACK : SND_PCM_STREAM_CAPTURE, 0);

    if (rc < 0) {
        complain(d, "it cannot be opened", rc);
        return NULL;
    }
    rc = snd_pcm_set_params(pcm, formats[shape->sample], SND_PCM_ACCESS_RW_INTERLEAVED,
                            shape->channels, shape->rate, 1, LATENCY_US);
    if (rc < 0) {
        complain(d, "it has no such sound", rc);
        snd_pcm_close(pcm);
        return NULL;
    }
    d->told = false;
    return pcm;
}

/* One piece; false: nobody needs more, or the device has failed. */
static bool move(struct direction *d, snd_pcm_t *pcm, uint8_t *p, size_t frames)
{
    bool more = true;
    snd_pcm_sframes_t n;

    if (d->play) {
        more = sound_take(d->s, p, frames * d->s->frame);
        n = snd_pcm_writei(pcm, p, frames);
    } else {
        n = snd_pcm_readi(pcm, p, frames);
        if (n > 0) {
            more = sound_give(d->s, p, (size_t)n * d->s->frame);
        }
    }
    if (n < 0) {
        int rc = snd_pcm_recover(pcm, (int)n, 1);

        if (rc < 0) {
            complain(d, "it has failed", rc);
            return false;
        }
    }
    return more;
}

static void serve(struct direction *d, uint8_t *p, size_t frames)
{
    snd_pcm_t *pcm = open_pcm(d);
    int64_t begin = now(), moved = 0;

    if (!pcm) {
        sleep(AGAIN_S);
        return;
    }
    while (move(d, pcm, p, frames)) {
        moved += (int64_t)frames * 1000000000 / d->s->shape.rate;
        if (begin + moved - now() > AHEAD_NS) {
            usleep(1000000 / PIECES);
        }
    }
    snd_pcm_close(pcm);
}

static void *direction_main(void *arg)
{
    struct direction *d = arg;
    size_t frames = d->s->shape.rate / PIECES;
    uint8_t *p = xalloc(frames * d->s->frame);

    for (;;) {
        pthread_mutex_lock(&d->lock);
        while (atomic_load(&d->ring->asleep)) {
            pthread_cond_wait(&d->wake, &d->lock);
        }
        pthread_mutex_unlock(&d->lock);
        serve(d, p, frames);
    }
    return NULL;
}

static int start(struct direction *d, struct sound *s, bool play, struct err *e)
{
    int rc;

    *d = (struct direction){ .s = s,
                             .play = play,
                             .ring = play ? &s->rings->play : &s->rings->record };
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->wake, NULL);
    rc = pthread_create(&d->thread, NULL, direction_main, d);
    return rc ? err_errno(e, rc, "cannot start a thread") : 0;
}

static int run(struct sound *s, struct err *e)
{
    struct direction *play = xnew(
                         struct direction), /* threads have them until the process ends */
        *record = xnew(struct direction);
    struct pollfd p = { .fd = s->sock, .events = POLLIN };
    int rc = start(play, s, true, e);

    rc = rc == 0 ? start(record, s, false, e) : rc;
    while (rc == 0) {
        (void)poll(&p, 1, -1);
        if (!sound_kicked(s)) {
            _exit(0); /* a device may hold a thread */
        }
        pthread_mutex_lock(&play->lock);
        pthread_cond_signal(&play->wake);
        pthread_mutex_unlock(&play->lock);
        pthread_mutex_lock(&record->lock);
        pthread_cond_signal(&record->wake);
        pthread_mutex_unlock(&record->lock);
    }
    return rc;
}

const struct sound_backend sound_alsa = { "alsa", run };
