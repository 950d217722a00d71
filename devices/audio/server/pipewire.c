/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PipeWire: a stream to play and one to record, both stopped while the guest needs none. All in the thread of PipeWire's main loop.
 * A server that is not there, or goes, is looked for again every few seconds, as it is a user's, who may log in later.
 */
#include "devices/audio/server/server.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <pipewire/pipewire.h>
#include <spa/param/audio/format-utils.h>
#include <stdio.h>

#define AGAIN_S 3

struct pipe;

struct side {
    struct pipe *of;
    struct pw_stream *stream;
    struct spa_hook events;
    bool active;
};

struct pipe {
    struct sound *s;
    struct pw_main_loop *loop;
    struct pw_context *context;
    struct pw_core *core;
    struct spa_hook events;
    struct spa_source *again;
    struct side play, record;
    bool told; /* that there is no server */
};

static void set_active(struct side *d, bool on)
{
    if (d->stream && d->active != on) {
        d->active = on;
        pw_stream_set_active(d->stream, on);
    }
}

/* ---- samples ---- */

static void on_play(void *arg)
{
    struct side *d = arg;
    struct sound *s = d->of->s;
    struct pw_buffer *b = pw_stream_dequeue_buffer(d->stream);
    struct spa_data *to = b ? &b->buffer->datas[0] : NULL;
    bool more = true;

    if (to && to->data) {
        size_t frames = to->maxsize / s->frame;

        frames = b->requested && b->requested < frames ? b->requested : frames;
        more = sound_take(s, to->data, frames * s->frame);
        to->chunk->offset = 0;
        to->chunk->stride = (int32_t)s->frame;
        to->chunk->size = (uint32_t)(frames * s->frame);
    }
    if (b) {
        pw_stream_queue_buffer(d->stream, b);
    }
    if (!more) {
        set_active(d, false);
    }
}

static void on_record(void *arg)
{
    struct side *d = arg;
    struct sound *s = d->of->s;
    struct pw_buffer *b = pw_stream_dequeue_buffer(d->stream);
    struct spa_data *from = b ? &b->buffer->datas[0] : NULL;
    bool more = true;

    if (from && from->data && from->chunk->offset <= from->maxsize) {
        size_t most = from->maxsize - from->chunk->offset, n = from->chunk->size;

        n = (n < most ? n : most) / s->frame * s->frame;
        more = sound_give(s, (const uint8_t *)from->data + from->chunk->offset, n);
    }
    if (b) {
        pw_stream_queue_buffer(d->stream, b);
    }
    if (!more) {
        set_active(d, false);
    }
}

/* ---- connecting ---- */

static const struct pw_stream_events play_events = { .version = PW_VERSION_STREAM_EVENTS,
                                                     .process = on_play };
static const struct pw_stream_events record_events = { .version = PW_VERSION_STREAM_EVENTS,
                                                       .process = on_record };

static int open_side(struct side *d, bool play)
{
    static const enum spa_audio_format formats[AUDIO_N_SAMPLES] = {
        [AUDIO_U8] = SPA_AUDIO_FORMAT_U8,
        [AUDIO_S16] = SPA_AUDIO_FORMAT_S16_LE,
        [AUDIO_S32] = SPA_AUDIO_FORMAT_S32_LE,
        [AUDIO_F32] = SPA_AUDIO_FORMAT_F32_LE
    };
    const struct sound *s = d->of->s;
    uint8_t room[1024];
    struct spa_pod_builder b = SPA_POD_BUILDER_INIT(room, sizeof(room));
    struct spa_audio_info_raw shape = { .format = formats[s->shape.sample],
                                        .rate = s->shape.rate,
                                        .channels = s->shape.channels };
    struct pw_properties *props = pw_properties_new(
        PW_KEY_MEDIA_TYPE, "Audio", PW_KEY_MEDIA_CATEGORY, play ? "Playback" : "Capture",
        PW_KEY_MEDIA_ROLE, "Game", PW_KEY_APP_NAME, "vmd", NULL);
    const struct spa_pod *params[1];

    shape.position[0] = shape.channels == 1 ? SPA_AUDIO_CHANNEL_MONO : SPA_AUDIO_CHANNEL_FL;
    shape.position[1] = SPA_AUDIO_CHANNEL_FR;
    pw_properties_setf(props, PW_KEY_NODE_NAME, "vmd.%s.%s", s->name, play ? "play" : "record");
    pw_properties_setf(props, PW_KEY_NODE_DESCRIPTION, "%s (vmd)", s->name);
    pw_properties_setf(props, PW_KEY_NODE_LATENCY, "%u/%u", s->shape.rate / 50, s->shape.rate);
    if (s->device) {
        pw_properties_set(props, PW_KEY_TARGET_OBJECT, s->device);
    }
    d->stream = pw_stream_new(d->of->core, s->name, props);
    if (!d->stream) {
        return -errno;
    }
    d->active = false;
    pw_stream_add_listener(d->stream, &d->events, play ? &play_events : &record_events, d);
    params[0] = spa_format_audio_raw_build(&b, SPA_PARAM_EnumFormat, &shape);
    return pw_stream_connect(
        d->stream, play ? PW_DIRECTION_OUTPUT : PW_DIRECTION_INPUT, PW_ID_ANY,
        PW_STREAM_FLAG_AUTOCONNECT | PW_STREAM_FLAG_MAP_BUFFERS | PW_STREAM_FLAG_INACTIVE,
        params, 1);
}

static void close_side(struct side *d)
{
    if (d->stream) {
        pw_stream_destroy(d->stream);
        d->stream = NULL;
    }
}

static void disconnect(struct pipe *p)
{
    close_side(&p->play);
    close_side(&p->record);
    if (p->core) {
        spa_hook_remove(&p->events);
        pw_core_disconnect(p->core);
        p->core = NULL;
    }
    atomic_store(&p->s->rings->play.asleep, true);
    atomic_store(&p->s->rings->record.asleep, true);
}

static void try_again(struct pipe *p)
{
    struct timespec after = { .tv_sec = AGAIN_S };

    pw_loop_update_timer(pw_main_loop_get_loop(p->loop), p->again, &after, NULL, false);
}

/* Not from within a call of the core's: the timer does the rest. */
static void on_error(void *arg, uint32_t id, int seq, int res, const char *message)
{
    struct pipe *p = arg;

    (void)seq;
    if (id == PW_ID_CORE && res == -EPIPE) {
        fprintf(stderr, "vmd-sound: PipeWire has gone (%s); it is looked for again\n", message);
        try_again(p);
    }
}

static const struct pw_core_events core_events = { .version = PW_VERSION_CORE_EVENTS,
                                                   .error = on_error };

static void wake(struct pipe *p)
{
    set_active(&p->play, !atomic_load(&p->s->rings->play.asleep));
    set_active(&p->record, !atomic_load(&p->s->rings->record.asleep));
}

static void connect_now(struct pipe *p)
{
    struct pw_properties *props = pw_properties_new(NULL, NULL);
    int rc;

    disconnect(p);
    if (p->s->server) {
        pw_properties_set(props, PW_KEY_REMOTE_NAME, p->s->server);
    }
    p->core = pw_context_connect(p->context, props, 0);
    rc = p->core ? 0 : -errno;
    if (rc == 0) {
        pw_core_add_listener(p->core, &p->events, &core_events, p);
        rc = open_side(&p->play, true);
    }
    rc = rc < 0 ? rc : open_side(&p->record, false);
    if (rc < 0) {
        if (!p->told) {
            fprintf(stderr, "vmd-sound: no PipeWire at %s: %s; it is looked for again\n",
                    p->s->server ? p->s->server : "its usual place", strerror(-rc));
        }
        p->told = true;
        disconnect(p);
        try_again(p);
        return;
    }
    p->told = false;
    wake(p);
}

static void on_again(void *arg, uint64_t expirations)
{
    (void)expirations;
    connect_now(arg);
}

static void on_kick(void *arg, int fd, uint32_t mask)
{
    struct pipe *p = arg;

    (void)fd;
    (void)mask;
    if (sound_kicked(p->s)) {
        wake(p);
    } else {
        pw_main_loop_quit(p->loop);
    }
}

static int run(struct sound *s, struct err *e)
{
    struct pipe p = { .s = s };
    struct pw_loop *loop;

    p.play.of = p.record.of = &p;
    pw_init(NULL, NULL);
    p.loop = pw_main_loop_new(NULL);
    p.context = p.loop ? pw_context_new(pw_main_loop_get_loop(p.loop), NULL, 0) : NULL;
    if (!p.context) {
        return err_errno(e, errno, "PipeWire's library does not begin");
    }
    loop = pw_main_loop_get_loop(p.loop);
    p.again = pw_loop_add_timer(loop, on_again, &p);
    pw_loop_add_io(loop, s->sock, SPA_IO_IN | SPA_IO_HUP | SPA_IO_ERR, false, on_kick, &p);
    connect_now(&p);
    pw_main_loop_run(p.loop);
    disconnect(&p);
    return 0;
}

const struct sound_backend sound_pipewire = { "pipewire", run };
