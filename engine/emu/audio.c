/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sound of the machine: what it plays goes to a WAV file, what it records comes from one. Owns struct emu_audio and its files. Main
 * thread; sound comes and goes on any, and is written on the main one.
 *
 * Places are counted since the machine was new and are part of its state: one that goes back to a saved moment goes back in its
 * recording, too, and one that goes on elsewhere leaves a gap for what it played before.
 */
#include "devices/audio/audio.h"

#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/emu/emu.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_CHUNKS 64
#define MAX_HEARD (64u << 20)
#define MAX_PENDING (64u << 20)    /* some minutes, by which the main loop may be behind */
#define MAX_DATA (UINT32_MAX - 64) /* sizes of a WAV file have 32 bits */

enum { TAG_PCM = 1, TAG_FLOAT = 3, TAG_EXTENSIBLE = 0xfffe };

struct wav_format { /* little-endian */
    uint16_t tag, channels;
    uint32_t rate, byte_rate;
    uint16_t block, bits;
};
struct wav_head {
    char riff[4];
    uint32_t size;
    char wave[4], fmt[4];
    uint32_t fmt_size;
    struct wav_format format;
    char data[4];
    uint32_t data_size;
};
_Static_assert(sizeof(struct wav_head) == 44, "head of a WAV file");

struct emu_audio {
    struct audio_host host;
    struct emu *m;
    const char *path; /* of what is played; NULL: it vanishes */
    int out;          /* or -1 */
    struct buf heard; /* all that there is to hear */

    pthread_mutex_t lock; /* of the next three */
    struct buf pending;   /* played and not written yet */
    uint64_t pending_at;  /* where it belongs, bytes behind the head */
    bool posted;

    bool begun, failed;
};

static const uint32_t rates[] = AUDIO_RATES;

static unsigned frame_bytes(const struct audio_shape *s)
{
    return s->channels * audio_sample_bytes(s->sample);
}

/* --- what is played ------------------------------------------------------------------------------------------ */

static void complain(struct emu_audio *a, int error)
{
    if (!a->failed) {
        log_warn("audio", "sound is lost: '%s': %s", a->path,
                 error ? strerror(error) : "it has 4 GiB, the most that a WAV file can have");
    }
    a->failed = true;
}

static void write_at(struct emu_audio *a, uint64_t at, const void *p, size_t n)
{
    for (size_t done = 0; done < n && !a->failed;) {
        struct iovec v = { (char *)p + done, n - done };
        ssize_t w = pwritev(a->out, &v, 1, (off_t)(at + done));

        if (w > 0) {
            done += (size_t)w;
        } else if (w == 0 || errno != EINTR) {
            complain(a, w == 0 ? ENOSPC : errno);
        }
    }
}

static void write_head(struct emu_audio *a, uint32_t bytes)
{
    const struct audio_shape *s = &a->host.shape[AUDIO_PLAYBACK];
    struct wav_head h = {
        .size = htole32(bytes + (uint32_t)sizeof(h) - 8),
        .fmt_size = htole32(sizeof(h.format)),
        .format = { htole16(s->sample == AUDIO_F32 ? TAG_FLOAT : TAG_PCM), htole16(s->channels),
                    htole32(s->rate), htole32(s->rate * frame_bytes(s)),
                    htole16(frame_bytes(s)), htole16(8 * audio_sample_bytes(s->sample)) },
        .data_size = htole32(bytes)
    };

    memcpy(h.riff, "RIFF", 4);
    memcpy(h.wave, "WAVE", 4);
    memcpy(h.fmt, "fmt ", 4);
    memcpy(h.data, "data", 4);
    write_at(a, 0, &h, sizeof(h));
}

/* Main thread: to the file, whose head tells its size at every moment. */
static void flush(void *arg)
{
    struct emu_audio *a = arg;
    struct buf b;
    uint64_t at;

    pthread_mutex_lock(&a->lock);
    b = a->pending;
    at = a->pending_at;
    a->pending = (struct buf)BUF_INIT;
    a->posted = false;
    pthread_mutex_unlock(&a->lock);
    if (b.len == 0 || a->failed) {
        buf_done(&b);
        return;
    }
    /* What a run before has left behind this place goes; later there is nothing behind it. */
    if (!a->begun && ftruncate(a->out, (off_t)(sizeof(struct wav_head) + at)) < 0) {
        complain(a, errno);
    }
    a->begun = true;
    write_at(a, sizeof(struct wav_head) + at, b.data, b.len);
    write_head(a, (uint32_t)(at + b.len));
    buf_done(&b);
}

static bool audio_play(void *arg, uint64_t place, const uint8_t *p, size_t n)
{
    struct emu_audio *a = arg;
    uint64_t at = place * frame_bytes(&a->host.shape[AUDIO_PLAYBACK]);
    bool ok, first;

    if (a->out < 0) {
        return true;
    }
    pthread_mutex_lock(&a->lock);
    if (a->pending.len == 0) {
        a->pending_at = at;
    }
    ok = at + n <= MAX_DATA && at == a->pending_at + a->pending.len &&
         n <= MAX_PENDING - a->pending.len;
    if (ok) {
        buf_add(&a->pending, p, n);
    }
    first = ok && !a->posted;
    a->posted = a->posted || first;
    pthread_mutex_unlock(&a->lock);
    if (first) {
        loop_post(a->m->loop, flush, a);
    }
    return ok;
}

/* --- what is heard ------------------------------------------------------------------------------------------- */

/* As many bytes as there are. */
static size_t read_at(int fd, uint64_t at, void *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        struct iovec v = { (char *)p + done, n - done };
        ssize_t r = preadv(fd, &v, 1, (off_t)(at + done));

        if (r > 0) {
            done += (size_t)r;
        } else if (r == 0 || errno != EINTR) {
            break;
        }
    }
    return done;
}

static void audio_hear(void *arg, uint64_t place, uint8_t *p, size_t n)
{
    struct emu_audio *a = arg;
    uint64_t at = place * frame_bytes(&a->host.shape[AUDIO_CAPTURE]);

    if (at < a->heard.len) {
        memcpy(p, a->heard.data + at, n < a->heard.len - at ? n : a->heard.len - at);
    }
}

static int bad_input(const char *path, const char *why, struct err *e)
{
    return err_set(e, -EINVAL, "audio input '%s' %s", path, why);
}

static bool known_rate(uint32_t rate)
{
    for (unsigned i = 0; i < ARRAY_LEN(rates); i++) {
        if (rates[i] == rate) {
            return true;
        }
    }
    return false;
}

static int shape_of(const char *path, const struct wav_format *f, uint16_t tag,
                    struct audio_shape *out, struct err *e)
{
    unsigned bits = le16toh(f->bits);

    *out = (struct audio_shape){ .channels = le16toh(f->channels), .rate = le32toh(f->rate) };
    if (tag == TAG_PCM && (bits == 8 || bits == 16 || bits == 32)) {
        out->sample = bits == 8 ? AUDIO_U8 : bits == 16 ? AUDIO_S16 : AUDIO_S32;
    } else if (tag == TAG_FLOAT && bits == 32) {
        out->sample = AUDIO_F32;
    } else {
        return bad_input(path, "has samples that are not known: 8, 16 or 32 bits, or float", e);
    }
    if (out->channels == 0 || out->channels > AUDIO_MAX_CHANNELS || !known_rate(out->rate)) {
        return bad_input(path, "must have 1 or 2 channels and a usual rate: 44100, 48000", e);
    }
    return 0;
}

/* Finds format and sound of a WAV file. */
static int find_sound(struct emu_audio *a, int fd, const char *path, uint64_t *sound_at,
                      uint32_t *bytes, struct err *e)
{
    struct {
        char id[4];
        uint32_t size;
    } chunk;
    struct {
        struct wav_format format;
        uint16_t extra, valid;
        uint16_t mask[2], tag;
    } f = { .extra = 0 };
    char head[12];
    bool shaped = false;
    uint64_t at = sizeof(head);

    if (read_at(fd, 0, head, sizeof(head)) != sizeof(head) || memcmp(head, "RIFF", 4) != 0 ||
        memcmp(head + 8, "WAVE", 4) != 0) {
        return bad_input(path, "is no WAV file", e);
    }
    for (unsigned i = 0; i < MAX_CHUNKS; i++) {
        if (read_at(fd, at, &chunk, sizeof(chunk)) != sizeof(chunk)) {
            break;
        }
        at += sizeof(chunk);
        if (memcmp(chunk.id, "fmt ", 4) == 0 && le32toh(chunk.size) >= sizeof(f.format)) {
            size_t n = le32toh(chunk.size) < sizeof(f) ? le32toh(chunk.size) : sizeof(f);
            uint16_t tag;

            shaped = read_at(fd, at, &f, n) == n;
            tag = le16toh(f.format.tag);
            tag = tag == TAG_EXTENSIBLE ? le16toh(f.tag) : tag;
            if (shaped &&
                shape_of(path, &f.format, tag, &a->host.shape[AUDIO_CAPTURE], e) < 0) {
                return -EINVAL;
            }
        } else if (memcmp(chunk.id, "data", 4) == 0 && shaped) {
            *sound_at = at;
            *bytes = le32toh(chunk.size);
            return 0;
        }
        at += (uint64_t)le32toh(chunk.size) + (le32toh(chunk.size) & 1);
    }
    return bad_input(path, "has no sound in it", e);
}

/* All of it is kept in memory: threads of vCPUs, which may open and read nothing, come for it. */
static int read_input(struct emu_audio *a, int fd, const char *path, struct err *e)
{
    uint64_t at = 0;
    uint32_t bytes = 0;
    int rc = find_sound(a, fd, path, &at, &bytes, e);

    if (rc != 0) {
        return rc;
    }
    if (bytes > MAX_HEARD) {
        return bad_input(path, "is too long: it may have 64 MiB of sound", e);
    }
    buf_reserve(&a->heard, bytes);
    a->heard.len = read_at(fd, at, a->heard.data, bytes);
    return 0;
}

/* --- the configuration --------------------------------------------------------------------------------------- */

static int take(struct emu *m, const char *what, const char *path, int flags, int *out,
                struct err *e)
{
    struct emu_file *given = given_file(m, path);

    if (given) {
        *out = take_fd(&given->fd);
        return 0;
    }
    if (m->opt.config_fd >= 0) {
        return err_set(e, -ENOENT, "%s %s was not passed with --file", what, path);
    }
    *out = open(path, flags | O_CLOEXEC | O_NOCTTY, 0640);
    return *out < 0 ? err_errno(e, errno, "cannot open the %s %s", what, path) : 0;
}

/* Nothing but a recording is written over. */
static int check_output(struct emu_audio *a, struct err *e)
{
    char head[12];
    size_t n = read_at(a->out, 0, head, sizeof(head));

    if (n > 0 && (n < sizeof(head) || memcmp(head, "RIFF", 4) != 0 ||
                  memcmp(head + 8, "WAVE", 4) != 0)) {
        return err_set(
            e, -EEXIST,
            "audio output '%s' holds something that is no WAV file: remove it, or name another",
            a->path);
    }
    return 0;
}

int audio_new(struct emu *m, struct board_config *b, struct err *e)
{
    static const enum audio_sample samples[] = { [API_AUDIO_FORMAT_U8] = AUDIO_U8,
                                                 [API_AUDIO_FORMAT_S16] = AUDIO_S16,
                                                 [API_AUDIO_FORMAT_S32] = AUDIO_S32,
                                                 [API_AUDIO_FORMAT_F32] = AUDIO_F32 };
    const struct api_audio *c = m->config.audio;
    struct emu_audio *a;
    int rc = 0;

    if (!c) {
        return 0;
    }
    a = m->audio = xnew(struct emu_audio);
    a->m = m;
    a->out = -1;
    a->path = c->output;
    pthread_mutex_init(&a->lock, NULL);
    a->host = (struct audio_host){ .play = audio_play, .hear = audio_hear, .arg = a };
    b->sound = true;
    b->audio = &a->host;
    if (!known_rate((uint32_t)c->rate)) {
        return err_set(e, -EINVAL, "audio: rate %lld is none of the usual ones: 44100, 48000",
                       (long long)c->rate);
    }
    if (c->backend != API_AUDIO_BACKEND_FILE) {
        const struct audio_shape shape = { samples[c->format], (unsigned)c->channels,
                                           (unsigned)c->rate };

        return sound_new(m, &shape, &b->audio, e);
    }
    if (c->output && c->input && strcmp(c->output, c->input) == 0) {
        return err_set(e, -EINVAL, "audio: output and input are the same file '%s'", c->output);
    }
    if (c->output) {
        a->host.shape[AUDIO_PLAYBACK] = (struct audio_shape){ samples[c->format],
                                                              (unsigned)c->channels,
                                                              (unsigned)c->rate };
        rc = take(m, "audio output", c->output, O_RDWR | O_CREAT, &a->out, e);
        rc = rc == 0 ? check_output(a, e) : rc;
    }
    if (rc == 0 && c->input) {
        AUTO_FD in = -1;

        rc = take(m, "audio input", c->input, O_RDONLY, &in, e);
        rc = rc == 0 ? read_input(a, in, c->input, e) : rc;
    }
    return rc;
}

void audio_free(struct emu *m)
{
    struct emu_audio *a = m->audio;

    sound_free(m);
    if (a) {
        flush(a);
        fd_autoclose(&a->out);
        buf_done(&a->heard);
        pthread_mutex_destroy(&a->lock);
        free(a);
        m->audio = NULL;
    }
}
