/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-sound: between an emulator's rings (engine/base/soundring.h) and a sound server of the host. A back end is a file here and a
 * line in main.c. One thread, but for what a back end's library has.
 */
#ifndef VMD_DEVICES_AUDIO_SERVER_H
#define VMD_DEVICES_AUDIO_SERVER_H

#include "devices/audio/audio.h"
#include "engine/base/soundring.h"
#include "engine/base/err.h"

struct sound {
    struct sound_rings *rings;
    struct audio_shape shape; /* of both directions */
    unsigned frame;           /* bytes of one */
    const char *server, *device, *name;
    int sock; /* of the emulator: bytes that wake us; its end is ours */
    /* played: frames are held back until there are some, so that a late guest is not heard as crackle */
    bool begun;
    size_t waited; /* bytes that were there the last time */
    unsigned dry;  /* times in a row that nothing was there */
    /* recorded: what the guest has not come for, and its turns by then */
    size_t unheard;
    uint64_t turns;
};

struct sound_backend {
    const char *name;
    /* Serves until the emulator has gone (0), or for ever tries again. A negative code: it never will. */
    int (*run)(struct sound *s, struct err *e);
};

extern const struct sound_backend sound_pipewire, sound_alsa;

/* n bytes (whole frames) of what the guest plays, silence where there is none. False: it has been silent for so long that
 * the stream may stop; the ring says so, and a byte comes when there is more. */
bool sound_take(struct sound *s, uint8_t *p, size_t n);
/* What was recorded; the oldest stays where the guest does not come for it. False: the guest records no more. */
bool sound_give(struct sound *s, const uint8_t *p, size_t n);
/* Reads what is on the socket; false: the emulator has gone. */
bool sound_kicked(struct sound *s);

#endif
