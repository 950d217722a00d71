/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-snd: a sound card with a stream to play and one to record (virtio 1.2 §5.14). Main loop and, with an instruction clock,
 * the thread whose time it is; transport's lock.
 *
 * Virtual time is the pace: a message of a stream completes when the frames in it have had their time, whatever the host's
 * clock says; its sound comes or goes then. With an instruction clock nothing here waits for the host, so that runs are the
 * same. A machine that is saved has its messages in the rings again, as if they had not been looked at; the place in the sound
 * and the moment it began are its state.
 */
#include "devices/audio/audio.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define QUEUE_SIZE 64
#define MAX_BUFFER (16u << 20) /* bytes of a stream's buffer, and of a message */
#define SECOND_NS UINT64_C(1000000000)

enum { CONTROL, EVENT, PLAY, RECORD, N_QUEUES };
enum {
    R_PCM_INFO = 0x100,
    R_SET_PARAMS,
    R_PREPARE,
    R_RELEASE,
    R_START,
    R_STOP,
    R_CHMAP_INFO = 0x200
};
enum { S_OK = 0x8000, S_BAD_MSG, S_NOT_SUPP, S_IO_ERR };
enum { CHMAP_MONO = 2, CHMAP_FL, CHMAP_FR };

/* Life of a stream (§5.14.6.6.1). */
enum phase { NEW, SET, PREPARED, RUNNING, STOPPED, RELEASED };

static const uint32_t rates[] = AUDIO_RATES;
/* Number of a format on the wire, by enum audio_sample. */
static const uint8_t wire_format[AUDIO_N_SAMPLES] = { 4, 5, 17, 19 };

struct stream {
    struct list messages; /* struct virtio_elem.node, of its queue, in order */
    struct vtimer *timer;

    uint64_t origin; /* virtual time when it began, or went on after a gap */
    uint64_t since;  /* frames that are through since then */
    uint64_t place;  /* frames that are through since the machine was new */
    uint32_t buffer_bytes, period_bytes, rate;
    uint8_t phase, channels, sample;
    bool dry; /* no message was there when the last one was through */
};

struct vsnd {
    struct virtio v;
    struct audio_host *host; /* may be NULL: nobody hears it, silence */
    struct stream stream[AUDIO_N_STREAMS];
};

/* On the wire, little-endian. */
struct query {
    uint32_t code, first, count, size;
};
struct pcm_params {
    uint32_t code, stream, buffer_bytes, period_bytes, features;
    uint8_t channels, format, rate, padding;
};
struct pcm_info {
    uint32_t hda, features;
    uint64_t formats, rates;
    uint8_t direction, channels_min, channels_max, padding[5];
};
struct chmap_info {
    uint32_t hda;
    uint8_t direction, channels, position[18];
};
struct pcm_status {
    uint32_t status, latency;
};

static struct audio_shape shape_of(const struct vsnd *s, unsigned i)
{
    return s->host ? s->host->shape[i] : (struct audio_shape){ .rate = 0 };
}

/* --- messages ------------------------------------------------------------------------------------------------ */

static unsigned queue_of(const struct vsnd *s, const struct stream *t)
{
    return t == &s->stream[AUDIO_PLAYBACK] ? PLAY : RECORD;
}

static unsigned frame_bytes(const struct stream *t)
{
    return t->channels * audio_sample_bytes(t->sample);
}

/* Bytes of sound in a message. */
static uint64_t sound_bytes(unsigned q, const struct virtio_elem *el)
{
    return q == PLAY ? el->out_len - 4 : el->in_len - sizeof(struct pcm_status);
}

static uint64_t frames_in(const struct stream *t, unsigned q, const struct virtio_elem *el)
{
    return sound_bytes(q, el) / frame_bytes(t);
}

static uint64_t frames_to_ns(const struct stream *t, uint64_t frames)
{
    return frames / t->rate * SECOND_NS + frames % t->rate * SECOND_NS / t->rate;
}

static struct virtio_elem *first(const struct stream *t)
{
    return list_empty(&t->messages) ? NULL
                                    : list_entry(t->messages.next, struct virtio_elem, node);
}

static void answer(struct vsnd *s, unsigned q, struct virtio_elem *el, uint32_t status)
{
    struct pcm_status st = { htole32(status), 0 };
    uint64_t at = el->in_len > sizeof(st) ? el->in_len - sizeof(st) : 0;

    virtio_put(el, at, &st, sizeof(st));
    virtq_push(&s->v, q, el, el->in_len);
}

/* True: the host has it all. */
static bool play(struct vsnd *s, const struct stream *t, const struct virtio_elem *el)
{
    uint64_t bytes = frames_in(t, PLAY, el) * frame_bytes(t);
    uint8_t part[4096];
    size_t most = sizeof(part) / frame_bytes(t) * frame_bytes(t);
    bool ok = true;

    for (uint64_t at = 0; s->host && at < bytes;) {
        size_t n = bytes - at < most ? (size_t)(bytes - at) : most;

        virtio_get(el, 4 + at, part, n);
        ok = s->host->play(s->host->arg, t->place + at / frame_bytes(t), part, n) && ok;
        at += n;
    }
    return ok;
}

static void record(struct vsnd *s, const struct stream *t, struct virtio_elem *el)
{
    uint64_t bytes = frames_in(t, RECORD, el) * frame_bytes(t), place = t->place;
    uint8_t part[4096];
    size_t most = sizeof(part) / frame_bytes(t) * frame_bytes(t);

    for (uint64_t at = 0; at < bytes;) {
        size_t n = bytes - at < most ? (size_t)(bytes - at) : most;

        memset(part, t->sample == AUDIO_U8 ? 0x80 : 0, n);
        if (s->host) {
            s->host->hear(s->host->arg, place + at / frame_bytes(t), part, n);
        }
        virtio_put(el, at, part, n);
        at += n;
    }
}

/* Sound of a message comes or goes when its time is over: until then the guest may still read what was there before. */
static bool pass(struct vsnd *s, const struct stream *t, unsigned q, struct virtio_elem *el)
{
    if (q == PLAY) {
        return play(s, t, el);
    }
    record(s, t, el);
    return true;
}

/* Completes what has had its time, and asks to be called when the next has. */
static void go_on(struct vsnd *s, struct stream *t)
{
    unsigned q = queue_of(s, t);
    uint64_t now = clock_now(s->v.dev.vm->clock);
    struct virtio_elem *el;
    bool any = false;

    while (t->phase == RUNNING && (el = first(t)) && virtio_working(&s->v)) {
        uint64_t n = frames_in(t, q, el), due = t->origin + frames_to_ns(t, t->since + n);

        if (due > now) {
            vtimer_arm(t->timer, due);
            break;
        }
        list_remove(&el->node);
        answer(s, q, el, pass(s, t, q, el) ? S_OK : S_IO_ERR);
        t->since += n;
        t->place += n;
        any = true;
    }
    if (any) {
        t->dry = list_empty(&t->messages);
        virtq_signal(&s->v, q);
    }
}

static void expired(struct vsnd *s, unsigned i)
{
    bus_lock(s->v.lock);
    go_on(s, &s->stream[i]);
    bus_unlock(s->v.lock);
}

static void playback_timer(void *arg)
{
    expired(arg, AUDIO_PLAYBACK);
}

static void capture_timer(void *arg)
{
    expired(arg, AUDIO_CAPTURE);
}

/* A message after none: time counts from now on, unless it came at once. */
static void resume_time(struct vsnd *s, struct stream *t)
{
    uint64_t now = clock_now(s->v.dev.vm->clock);

    t->dry = false;
    if (now > t->origin + frames_to_ns(t, t->since)) {
        t->origin = now;
        t->since = 0;
    }
}

/* False: it was refused. */
static bool take_message(struct vsnd *s, unsigned q, struct virtio_elem *el)
{
    struct stream *t = &s->stream[q == PLAY ? AUDIO_PLAYBACK : AUDIO_CAPTURE];
    uint32_t id = UINT32_MAX;

    virtio_get(el, 0, &id, sizeof(id));
    if (el->out_len < 4 || el->in_len < sizeof(struct pcm_status) ||
        le32toh(id) != (q == PLAY ? AUDIO_PLAYBACK : AUDIO_CAPTURE) ||
        (t->phase != PREPARED && t->phase != RUNNING && t->phase != STOPPED) ||
        sound_bytes(q, el) > MAX_BUFFER) {
        log_trace('v', "%s: a message of stream %u in phase %u that is not valid", s->v.dev.id,
                  le32toh(id), t->phase);
        answer(s, q, el, S_BAD_MSG);
        return false;
    }
    if (t->dry && t->phase == RUNNING) {
        resume_time(s, t);
    }
    list_append(&t->messages, &el->node);
    return true;
}

static void serve_sound(struct vsnd *s, unsigned q)
{
    struct stream *t = &s->stream[q == PLAY ? AUDIO_PLAYBACK : AUDIO_CAPTURE];
    bool more = true, refused = false;

    for (unsigned n = 0; n < QUEUE_SIZE && more; n++) {
        struct virtio_elem *el = virtq_pop(&s->v, q);

        if (el) {
            refused = !take_message(s, q, el) || refused;
        } else {
            more = virtq_rearm(&s->v, q);
        }
    }
    if (refused) {
        virtq_signal(&s->v, q);
    }
    go_on(s, t);
    if (more) {
        virtio_ring(&s->v, q);
    }
}

/* --- control ------------------------------------------------------------------------------------------------- */

static void describe_pcm(const struct vsnd *s, unsigned i, void *out)
{
    struct audio_shape is = shape_of(s, i);
    struct pcm_info info = { .direction = (uint8_t)i,
                             .channels_min = (uint8_t)(is.rate ? is.channels : 1),
                             .channels_max = (uint8_t)(is.rate ? is.channels
                                                               : AUDIO_MAX_CHANNELS) };

    for (unsigned k = 0; k < AUDIO_N_SAMPLES; k++) {
        info.formats |= is.rate == 0 || is.sample == k ? UINT64_C(1) << wire_format[k] : 0;
    }
    for (unsigned k = 0; k < ARRAY_LEN(rates); k++) {
        info.rates |= is.rate == 0 || is.rate == rates[k] ? UINT64_C(1) << k : 0;
    }
    info.formats = htole64(info.formats);
    info.rates = htole64(info.rates);
    memcpy(out, &info, sizeof(info));
}

/* Of each stream one for one channel and one for two. */
static void describe_map(const struct vsnd *s, unsigned i, void *out)
{
    bool stereo = i & 1;
    struct chmap_info info = { .direction = (uint8_t)(i / 2),
                               .channels = stereo ? 2 : 1,
                               .position = { CHMAP_MONO } };

    (void)s;
    if (stereo) {
        info.position[0] = CHMAP_FL;
        info.position[1] = CHMAP_FR;
    }
    memcpy(out, &info, sizeof(info));
}

static uint32_t tell(struct vsnd *s, struct virtio_elem *el, unsigned n, size_t size,
                     void (*describe)(const struct vsnd *s, unsigned i, void *out))
{
    struct query q = { 0 };
    uint8_t item[64];

    if (virtio_get(el, 0, &q, sizeof(q)) < sizeof(q) || le32toh(q.first) > n ||
        le32toh(q.count) > n - le32toh(q.first) || le32toh(q.size) < size ||
        el->in_len < 4 + (uint64_t)le32toh(q.count) * le32toh(q.size)) {
        return S_BAD_MSG;
    }
    for (uint32_t i = 0; i < le32toh(q.count); i++) {
        describe(s, le32toh(q.first) + i, item);
        virtio_put(el, 4 + (uint64_t)i * le32toh(q.size), item, size);
    }
    return S_OK;
}

static uint32_t set_params(struct vsnd *s, struct stream *t, const struct virtio_elem *el)
{
    struct audio_shape is = shape_of(s, (unsigned)(t - s->stream));
    struct pcm_params p = { 0 };
    unsigned k = 0;

    if (virtio_get(el, 0, &p, sizeof(p)) < sizeof(p)) {
        return S_BAD_MSG;
    }
    for (; k < AUDIO_N_SAMPLES && wire_format[k] != p.format; k++) {
    }
    if (p.features || k == AUDIO_N_SAMPLES || p.rate >= ARRAY_LEN(rates) || p.channels == 0 ||
        p.channels > AUDIO_MAX_CHANNELS ||
        (is.rate &&
         (is.rate != rates[p.rate] || is.sample != k || is.channels != p.channels))) {
        return S_NOT_SUPP;
    }
    if (p.period_bytes == 0 || le32toh(p.buffer_bytes) > MAX_BUFFER ||
        le32toh(p.period_bytes) > le32toh(p.buffer_bytes)) {
        return S_BAD_MSG;
    }
    t->buffer_bytes = le32toh(p.buffer_bytes);
    t->period_bytes = le32toh(p.period_bytes);
    t->channels = p.channels;
    t->sample = (uint8_t)k;
    t->rate = rates[p.rate];
    return S_OK;
}

/* What a guest had queued comes back to it before the stream is released. */
static void give_back(struct vsnd *s, struct stream *t)
{
    struct virtio_elem *el;

    while ((el = first(t))) {
        list_remove(&el->node);
        answer(s, queue_of(s, t), el, S_OK);
    }
    virtq_signal(&s->v, queue_of(s, t));
}

static void begin(struct vsnd *s, struct stream *t)
{
    t->origin = clock_now(s->v.dev.vm->clock);
    t->since = 0;
    t->dry = list_empty(&t->messages);
}

/* Phases from which each request may come, as bits; the phase it leads to. */
static const struct {
    uint8_t from, to;
} moves[] = {
    [R_SET_PARAMS - R_PCM_INFO] = { 1 << NEW | 1 << SET | 1 << PREPARED | 1 << RELEASED, SET },
    [R_PREPARE - R_PCM_INFO] = { 1 << SET | 1 << PREPARED | 1 << RELEASED, PREPARED },
    [R_RELEASE - R_PCM_INFO] = { 1 << PREPARED | 1 << STOPPED, RELEASED },
    [R_START - R_PCM_INFO] = { 1 << PREPARED | 1 << STOPPED, RUNNING },
    [R_STOP - R_PCM_INFO] = { 1 << RUNNING, STOPPED },
};

static uint32_t stream_request(struct vsnd *s, uint32_t code, const struct virtio_elem *el)
{
    uint32_t id = UINT32_MAX, status = S_OK;
    struct stream *t;

    if (virtio_get(el, 4, &id, sizeof(id)) < sizeof(id) || le32toh(id) >= AUDIO_N_STREAMS) {
        return S_BAD_MSG;
    }
    t = &s->stream[le32toh(id)];
    if (!(moves[code - R_PCM_INFO].from >> t->phase & 1)) {
        log_trace('v', "%s: stream %u: request 0x%x in phase %u", s->v.dev.id, le32toh(id),
                  code, t->phase);
        return S_BAD_MSG;
    }
    if (code == R_SET_PARAMS) {
        status = set_params(s, t, el);
    } else if (code == R_START) {
        begin(s, t);
    } else if (code == R_STOP) {
        vtimer_disarm(t->timer);
    } else if (code == R_RELEASE) {
        give_back(s, t);
    }
    if (status == S_OK) {
        if (code == R_SET_PARAMS || code == R_PREPARE) { /* messages of another shape */
            give_back(s, t);
        }
        t->phase = moves[code - R_PCM_INFO].to;
        go_on(s, t);
    }
    return status;
}

static uint32_t request(struct vsnd *s, struct virtio_elem *el)
{
    uint32_t code = 0;

    if (virtio_get(el, 0, &code, sizeof(code)) < sizeof(code)) {
        return S_BAD_MSG;
    }
    code = le32toh(code);
    switch (code) {
    case R_PCM_INFO:
        return tell(s, el, AUDIO_N_STREAMS, sizeof(struct pcm_info), describe_pcm);
    case R_CHMAP_INFO:
        return tell(s, el, 2 * AUDIO_N_STREAMS, sizeof(struct chmap_info), describe_map);
    case R_SET_PARAMS:
    case R_PREPARE:
    case R_RELEASE:
    case R_START:
    case R_STOP:
        return stream_request(s, code, el);
    default:
        log_trace('v', "%s: request 0x%x", s->v.dev.id, code);
        return S_NOT_SUPP;
    }
}

static void serve_control(struct vsnd *s)
{
    for (unsigned n = 0; n < QUEUE_SIZE; n++) {
        struct virtio_elem *el = virtq_pop(&s->v, CONTROL);

        if (el) {
            uint32_t status = request(s, el), le = htole32(status);

            virtio_put(el, 0, &le, sizeof(le));
            virtq_push(&s->v, CONTROL, el, status == S_OK || el->in_len < 4 ? el->in_len : 4);
        } else if (!virtq_rearm(&s->v, CONTROL)) {
            virtq_signal(&s->v, CONTROL);
            return;
        }
    }
    virtq_signal(&s->v, CONTROL);
    virtio_ring(&s->v, CONTROL);
}

static void vsnd_serve(struct virtio *v, unsigned q)
{
    struct vsnd *s = (struct vsnd *)v;

    if (q == CONTROL) {
        serve_control(s);
    } else if (q != EVENT) { /* there is nothing to tell: no jacks, no gaps */
        serve_sound(s, q);
    }
}

static void vsnd_config(struct virtio *v, uint8_t *out)
{
    uint32_t le[3] = { 0, htole32(AUDIO_N_STREAMS), htole32(2 * AUDIO_N_STREAMS) };

    (void)v;
    memcpy(out, le, sizeof(le));
}

/* --- the class ----------------------------------------------------------------------------------------------- */

static void drop(struct stream *t)
{
    struct virtio_elem *el;

    while ((el = first(t))) {
        list_remove(&el->node);
        virtio_elem_free(el);
    }
}

/* The place in the sound stays: what was played before belongs to the same recording. Any thread. */
static void vsnd_reset(struct virtio *v)
{
    struct vsnd *s = (struct vsnd *)v;

    for (unsigned i = 0; i < AUDIO_N_STREAMS; i++) {
        struct stream *t = &s->stream[i];

        vtimer_disarm(t->timer);
        drop(t);
        t->phase = NEW;
        t->dry = false;
        t->origin = t->since = 0;
        t->buffer_bytes = t->period_bytes = t->rate = 0;
        t->channels = t->sample = 0;
    }
}

static const struct virtio_ops vsnd_ops = {
    .id = 25,
    .n_queues = N_QUEUES,
    .prompt = true,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE },
    .config_size = 12,
    .serve = vsnd_serve,
    .config = vsnd_config,
    .reset = vsnd_reset,
};

static int vsnd_realize(struct device *d, struct err *e)
{
    struct vsnd *s = (struct vsnd *)d;

    (void)e;
    virtio_setup(&s->v, &vsnd_ops, 0, 0);
    for (unsigned i = 0; i < AUDIO_N_STREAMS; i++) {
        list_init(&s->stream[i].messages);
        s->stream[i].timer = vtimer_new(
            d->vm->clock, i == AUDIO_PLAYBACK ? playback_timer : capture_timer, s);
    }
    return 0;
}

/* Messages go back into their rings, the last one first. */
static bool vsnd_quiesce(struct device *d)
{
    struct vsnd *s = (struct vsnd *)d;

    bus_lock(s->v.lock);
    for (unsigned i = 0; i < AUDIO_N_STREAMS; i++) {
        struct stream *t = &s->stream[i];

        vtimer_disarm(t->timer);
        while (!list_empty(&t->messages)) {
            struct virtio_elem *el = list_entry(t->messages.prev, struct virtio_elem, node);

            list_remove(&el->node);
            virtq_unpop(&s->v, queue_of(s, t), el);
        }
    }
    bus_unlock(s->v.lock);
    return true;
}

static int vsnd_loaded(void *obj, struct err *e)
{
    struct vsnd *s = obj;

    for (unsigned i = 0; i < AUDIO_N_STREAMS; i++) {
        const struct stream *t = &s->stream[i];
        bool shaped = t->channels > 0 && t->channels <= AUDIO_MAX_CHANNELS &&
                      t->sample < AUDIO_N_SAMPLES && t->rate > 0 && t->rate <= 384000;

        if (t->phase > RELEASED || (t->phase != NEW && !shaped) ||
            t->since > UINT64_MAX / SECOND_NS || t->origin > UINT64_MAX / 4 ||
            t->place > UINT64_MAX / 64) {
            return err_set(e, -EINVAL, "%s: stream %u is in no state of a sound card",
                           s->v.dev.id, i);
        }
    }
    return 0;
}

static void vsnd_destroy(struct device *d)
{
    struct vsnd *s = (struct vsnd *)d;

    for (unsigned i = 0; i < AUDIO_N_STREAMS; i++) {
        if (s->stream[i].timer) { /* realized */
            drop(&s->stream[i]);
            vtimer_free(s->stream[i].timer);
        }
    }
    virtio_done(&s->v);
}

static const struct st_field stream_fields[] = {
    ST_FIELD(struct stream, phase, ST_U8, 1,
             "0 new, 1 parameters set, 2 prepared, 3 running, 4 stopped, 5 released"),
    ST_FIELD(struct stream, origin, ST_U64, 1,
             "virtual time when it began, or went on after a gap"),
    ST_FIELD(struct stream, since, ST_U64, 1, "frames that are through since then"),
    ST_FIELD(struct stream, place, ST_U64, 1, "frames that are through in all"),
    ST_FIELD(struct stream, buffer_bytes, ST_U32, 1, "of the guest's buffer"),
    ST_FIELD(struct stream, period_bytes, ST_U32, 1, "of a period"),
    ST_FIELD(struct stream, rate, ST_U32, 1, "frames a second"),
    ST_FIELD(struct stream, channels, ST_U8, 1, "samples in a frame"),
    ST_FIELD(struct stream, sample, ST_U8, 1, "0 u8, 1 s16, 2 s32, 3 float"),
    ST_FIELD(struct stream, dry, ST_BOOL, 1, "the guest has not kept up"),
    ST_END,
};
static const struct st_table stream_state = {
    .name = "virtio-snd-stream",
    .version = 1,
    .fields = stream_fields,
};
static const struct st_field vsnd_fields[] = {
    VIRTIO_ST_FIELD,
    { .name = "stream",
      .kind = ST_STRUCT,
      .offset = offsetof(struct vsnd, stream),
      .count = AUDIO_N_STREAMS,
      .stride = sizeof(struct stream),
      .since = 1,
      .table = &stream_state,
      .doc = "playback, capture" },
    ST_END,
};
static const struct st_table vsnd_state = {
    .name = "virtio-snd",
    .version = 1,
    .fields = vsnd_fields,
    .loaded = vsnd_loaded,
};

static const struct dev_prop vsnd_props[] = {
    { .name = "host",
      .kind = PROP_PTR,
      .offset = offsetof(struct vsnd, host),
      .doc = "who hears it, and what it hears" },
    { .name = NULL },
};

const struct device_class virtio_snd_class = {
    .name = "virtio-snd",
    .doc = "sound card with a stream to play and one to record (virtio 1.2 §5.14)",
    .size = sizeof(struct vsnd),
    .props = vsnd_props,
    .state = &vsnd_state,
    .realize = vsnd_realize,
    .quiesce = vsnd_quiesce,
    .resumed = virtio_resumed,
    .destroy = vsnd_destroy,
};
