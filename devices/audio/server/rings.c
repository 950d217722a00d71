/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between rings and streams: latency is held between two marks, and streams that nobody needs are stopped (server.h).
 */
#include "devices/audio/server/server.h"

#include <errno.h>
#include <sys/socket.h>

#define MS_AHEAD 40   /* played: collected before it begins */
#define MS_MOST 250   /* played, recorded: more than that is too old */
#define DRY_TIMES 100 /* at some 10 to 20 ms each */
#define RECORD_TURNS_S 2

static size_t bytes_of(const struct sound *s, unsigned ms)
{
    size_t n = (size_t)s->shape.rate * ms / 1000 * s->frame;

    return n < SOUND_RING_BYTES / 2 ? n : SOUND_RING_BYTES / 2 / s->frame * s->frame;
}

static void silence(const struct sound *s, uint8_t *p, size_t n)
{
    memset(p, s->shape.sample == AUDIO_U8 ? 0x80 : 0, n);
}

bool sound_take(struct sound *s, uint8_t *p, size_t n)
{
    struct sound_ring *r = &s->rings->play;
    size_t have = sound_ring_filled(r), got = 0, ahead = bytes_of(s, MS_AHEAD),
           most = bytes_of(s, MS_MOST);

    if (have > most + n) { /* our clock is behind the guest's, or it came in a burst */
        (void)sound_ring_get(r, NULL, (have - ahead - n) / s->frame * s->frame);
        have = sound_ring_filled(r);
    }
    /* What is left of a sound that has ended is played, too: it grows no more. */
    s->dry = have ? 0 : s->dry + 1;
    if (s->begun || have >= ahead + n || (have > 0 && have == s->waited)) {
        got = sound_ring_get(r, p, n);
        s->begun = got == n;
    }
    s->waited = sound_ring_filled(r);
    silence(s, p + got, n - got);
    if (s->dry < DRY_TIMES) {
        return true;
    }
    atomic_store(&r->asleep, true);
    if (sound_ring_filled(r) > 0) { /* it came meanwhile, and nobody tells */
        atomic_store(&r->asleep, false);
        s->dry = 0;
        return true;
    }
    return false;
}

bool sound_give(struct sound *s, const uint8_t *p, size_t n)
{
    struct sound_ring *r = &s->rings->record;
    uint64_t turns = atomic_load(&r->turns);

    s->unheard = turns == s->turns ? s->unheard + n : 0;
    s->turns = turns;
    if (sound_ring_filled(r) + n <= bytes_of(s, MS_MOST)) {
        (void)sound_ring_put(r, p, n);
    }
    if (s->unheard < (size_t)RECORD_TURNS_S * s->shape.rate * s->frame) {
        return true;
    }
    s->unheard = 0;
    atomic_store(&r->asleep, true);
    if (atomic_load(&r->turns) != turns) {
        atomic_store(&r->asleep, false);
        return true;
    }
    return false;
}

bool sound_kicked(struct sound *s)
{
    char bytes[64];

    for (;;) {
        ssize_t n = recv(s->sock, bytes, sizeof(bytes), MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
            return false;
        }
        if (n < 0 && errno == EAGAIN) {
            return true;
        }
    }
}
