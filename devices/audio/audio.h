/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sound: the joint between a sound card (front) and who hears it, and what it hears (host; the emulator's files, a buffer in
 * tests). Samples are little-endian, channels interleaved.
 */
#ifndef VMD_DEVICES_AUDIO_AUDIO_H
#define VMD_DEVICES_AUDIO_AUDIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum audio_sample { AUDIO_U8, AUDIO_S16, AUDIO_S32, AUDIO_F32, AUDIO_N_SAMPLES };
enum audio_stream { AUDIO_PLAYBACK, AUDIO_CAPTURE, AUDIO_N_STREAMS };
#define AUDIO_MAX_CHANNELS 2

struct audio_shape {
    enum audio_sample sample;
    unsigned channels, rate; /* of AUDIO_MAX_CHANNELS; frames a second */
};

/* The host's side. Places are in frames since the machine was new. Any thread, with the device's lock held; none of them blocks. */
struct audio_host {
    struct audio_shape shape[AUDIO_N_STREAMS]; /* what it takes and gives; rate 0: anything */
    /* What a guest has played, which is at that place; false: it is lost. */
    bool (*play)(void *arg, uint64_t place, const uint8_t *p, size_t n);
    /* What there is to hear at that place; p has silence, which stays where there is nothing. */
    void (*hear)(void *arg, uint64_t place, uint8_t *p, size_t n);
    void *arg;
};

static inline unsigned audio_sample_bytes(enum audio_sample s)
{
    return s == AUDIO_U8 ? 1 : s == AUDIO_S16 ? 2 : 4;
}

/* Rates of the virtio sound device (virtio 1.2 §5.14.6.6.2), in its order. */
#define AUDIO_RATES                                                                            \
    {                                                                                          \
        5512, 8000, 11025, 16000, 22050, 32000, 44100, 48000, 64000, 88200, 96000, 176400,     \
            192000, 384000                                                                     \
    }

#endif
