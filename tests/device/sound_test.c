/* SPDX-License-Identifier: Apache-2.0 */
/* The sound card by its rings: what it offers, the life of a stream, the pace of messages, what is heard, its state. */
#include "devices/audio/audio.h"
#include "tests/device/vio.h"

#include <errno.h>

enum { CONTROL, EVENT, PLAY, RECORD };
enum {
    PCM_INFO = 0x100,
    SET_PARAMS,
    PREPARE,
    RELEASE,
    START,
    STOP,
    CHMAP_INFO = 0x200,
    OK = 0x8000,
    BAD_MSG,
    NOT_SUPP,
    IO_ERR
};
enum { S16 = 5, RATE_48000 = 7 };
#define REQ BUF
#define ANS (BUF + 0x100)
#define SOUND(i) (BUF + 0x1000 + 0x400u * (i))
#define STATUS(i) (BUF + 0x800 + 8u * (i))
#define MS UINT64_C(1000000)

/* Under a clock that the test drives. */
struct card {
    struct vio v;
    struct audio_host host;
    uint8_t heard[4096];
    size_t n_heard;
    bool deaf;
};

static bool on_play(void *arg, uint64_t place, const uint8_t *p, size_t n)
{
    struct card *c = arg;

    ck_assert_uint_eq(place, c->n_heard / 4);
    ck_assert_uint_le(c->n_heard + n, sizeof(c->heard));
    memcpy(c->heard + c->n_heard, p, n);
    c->n_heard += n;
    return !c->deaf;
}

/* Each byte is the number of its frame. */
static void on_hear(void *arg, uint64_t place, uint8_t *p, size_t n)
{
    (void)arg;
    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(place + i / 4);
    }
}

static void nothing(void *arg)
{
    (void)arg;
}

static void card_new(struct card *c)
{
    *c = (struct card){ .v = { .r = rig_new(1) } };
    clock_drive(c->v.r->vm->clock, nothing, NULL);
    c->host = (struct audio_host){
        .shape = { { AUDIO_S16, 2, 48000 } }, .play = on_play, .hear = on_hear, .arg = c
    };
    c->v.dev = rig_device(c->v.r, &virtio_snd_class);
    ck_assert_int_eq(dev_set_ptr(c->v.dev, "host", &c->host, NULL), 0);
    vio_place(&c->v);
    bring_up(&c->v, 0, 4);
}

static void pass(struct card *c, uint64_t ns)
{
    clock_advance(c->v.r->vm->clock, ns);
    clock_run_due(c->v.r->vm->clock);
}

/* Asks with what lies at REQ; the status. */
static uint32_t ask(struct card *c, uint32_t bytes, uint32_t room)
{
    put(&c->v, DESC(CONTROL), 0, (struct desc){ REQ, bytes, NEXT, 1 });
    put(&c->v, DESC(CONTROL), 1, (struct desc){ ANS, room, WRITE, 0 });
    offer(&c->v, CONTROL, 0);
    rig_until(c->v.r, all_used, &c->v);
    return *(uint32_t *)rig_ram(c->v.r, ANS);
}

static uint32_t ask_words(struct card *c, const uint32_t *word, unsigned n, uint32_t room)
{
    memcpy(rig_ram(c->v.r, REQ), word, 4 * n);
    return ask(c, 4 * n, room);
}

static uint32_t command(struct card *c, uint32_t code, uint32_t stream)
{
    return ask_words(c, (uint32_t[]){ code, stream }, 2, 4);
}

static uint32_t set_params(struct card *c, uint32_t stream, uint8_t format, uint8_t rate)
{
    return ask_words(
        c, (uint32_t[]){ SET_PARAMS, stream, 4096, 1024, 0, 2u | format << 8 | rate << 16 }, 6,
        4);
}

/* Message i: `frames` of sound, to play of the byte `fill`. */
static void message(struct card *c, unsigned q, unsigned i, unsigned frames, uint8_t fill)
{
    unsigned d = 3 * (i % 2);
    uint32_t stream = q == PLAY ? 0 : 1;

    memcpy(rig_ram(c->v.r, STATUS(i)), &(uint32_t){ 0 }, 4);
    memcpy(rig_ram(c->v.r, REQ + 0x40 + 4 * i), &stream, 4);
    memset(rig_ram(c->v.r, SOUND(i)), q == PLAY ? fill : 0xee, 4 * frames);
    put(&c->v, DESC(q), d, (struct desc){ REQ + 0x40 + 4 * i, 4, NEXT, (uint16_t)(d + 1) });
    put(&c->v, DESC(q), d + 1,
        (struct desc){ SOUND(i), 4 * frames, q == PLAY ? NEXT : NEXT | WRITE,
                       (uint16_t)(d + 2) });
    put(&c->v, DESC(q), d + 2, (struct desc){ STATUS(i), 8, WRITE, 0 });
    offer(&c->v, q, (uint16_t)d);
    rig_turn(c->v.r);
}

static uint32_t status(struct card *c, unsigned i)
{
    return *(uint32_t *)rig_ram(c->v.r, STATUS(i));
}

START_TEST(sound_card_says_what_it_takes)
{
    struct card c;
    uint8_t *a;

    card_new(&c);
    a = rig_ram(c.v.r, ANS);
    ck_assert_uint_eq(rd32(c.v.r, AT + R_ID), 25);
    ck_assert_uint_eq(rd32(c.v.r, AT + R_CONFIG), 0);
    ck_assert_uint_eq(rd32(c.v.r, AT + R_CONFIG + 4), 2);
    ck_assert_uint_eq(ask_words(&c, (uint32_t[]){ PCM_INFO, 0, 2, 32 }, 4, 68), OK);
    ck_assert_uint_eq(*(uint64_t *)(a + 4 + 8), 1u << S16);
    ck_assert_uint_eq(*(uint64_t *)(a + 4 + 16), 1u << RATE_48000);
    ck_assert(a[4 + 24] == 0 && a[4 + 25] == 2 && a[4 + 26] == 2);
    ck_assert_uint_eq(*(uint64_t *)(a + 36 + 8), 1u << 4 | 1u << 5 | 1u << 17 | 1u << 19);
    ck_assert_uint_eq(*(uint64_t *)(a + 36 + 16), 0x3fff);
    ck_assert(a[36 + 24] == 1 && a[36 + 25] == 1 && a[36 + 26] == 2);
    ck_assert_uint_eq(ask_words(&c, (uint32_t[]){ CHMAP_INFO, 3, 1, 24 }, 4, 28), OK);
    ck_assert(a[8] == 1 && a[9] == 2 && a[10] == 3 && a[11] == 4);
    ck_assert_uint_eq(ask_words(&c, (uint32_t[]){ PCM_INFO, 1, 2, 32 }, 4, 100), BAD_MSG);
    ck_assert_uint_eq(ask_words(&c, (uint32_t[]){ PCM_INFO, UINT32_MAX, 1, 32 }, 4, 68),
                      BAD_MSG);
    ck_assert_uint_eq(ask_words(&c, (uint32_t[]){ PCM_INFO, 0, 2, 31 }, 4, 68), BAD_MSG);
    ck_assert_uint_eq(ask_words(&c, (uint32_t[]){ PCM_INFO, 0, 2, 32 }, 4, 67), BAD_MSG);
    ck_assert_uint_eq(ask_words(&c, (uint32_t[]){ 1, 0, 1, 24 }, 4, 68), NOT_SUPP);
    ck_assert_uint_eq(ask_words(&c, (uint32_t[]){ PCM_INFO }, 0, 4), BAD_MSG);
    rig_free(c.v.r);
}
END_TEST

START_TEST(stream_lives_as_the_specification_says)
{
    struct card c;

    card_new(&c);
    ck_assert_uint_eq(command(&c, PREPARE, 0), BAD_MSG);
    ck_assert_uint_eq(command(&c, START, 0), BAD_MSG);
    ck_assert_uint_eq(command(&c, PREPARE, 2), BAD_MSG);
    ck_assert_uint_eq(set_params(&c, 0, S16 + 1, RATE_48000), NOT_SUPP);
    ck_assert_uint_eq(set_params(&c, 0, S16, 6), NOT_SUPP); /* of the other rate */
    ck_assert_uint_eq(set_params(&c, 1, S16, 14), NOT_SUPP);
    ck_assert_uint_eq(
        ask_words(&c, (uint32_t[]){ SET_PARAMS, 0, 4096, 4097, 0, 2 | S16 << 8 | 7 << 16 }, 6,
                  4),
        BAD_MSG);
    ck_assert_uint_eq(
        ask_words(&c, (uint32_t[]){ SET_PARAMS, 0, 4096, 0, 0, 2 | S16 << 8 | 7 << 16 }, 6, 4),
        BAD_MSG);
    ck_assert_uint_eq(set_params(&c, 0, S16, RATE_48000), OK);
    message(&c, PLAY, 0, 48, 1);
    ck_assert_uint_eq(status(&c, 0), BAD_MSG); /* not before it is prepared */
    ck_assert_uint_eq(command(&c, PREPARE, 0), OK);
    ck_assert_uint_eq(command(&c, STOP, 0), BAD_MSG);
    ck_assert_uint_eq(command(&c, START, 0), OK);
    ck_assert_uint_eq(command(&c, RELEASE, 0), BAD_MSG);
    ck_assert_uint_eq(set_params(&c, 0, S16, RATE_48000), BAD_MSG);
    ck_assert_uint_eq(command(&c, STOP, 0), OK);
    message(&c, PLAY, 1, 48, 1);
    pass(&c, 100 * MS);
    ck_assert_uint_eq(status(&c, 1), 0);
    ck_assert_uint_eq(command(&c, RELEASE, 0), OK);
    ck_assert_uint_eq(status(&c, 1), OK); /* what was queued came back before the answer */
    ck_assert_uint_eq(c.n_heard, 0);
    ck_assert_uint_eq(command(&c, PREPARE, 0), OK);
    rig_free(c.v.r);
}
END_TEST

START_TEST(messages_take_their_time_and_not_more)
{
    struct card c;

    card_new(&c);
    set_params(&c, 0, S16, RATE_48000);
    command(&c, PREPARE, 0);
    message(&c, PLAY, 0, 48, 1);
    message(&c, PLAY, 1, 96, 2);
    pass(&c, 10 * MS);
    ck_assert_uint_eq(status(&c, 0), 0);
    ck_assert_uint_eq(command(&c, START, 0), OK);
    pass(&c, MS - 1);
    ck_assert_uint_eq(status(&c, 0), 0);
    pass(&c, 1);
    ck_assert_uint_eq(status(&c, 0), OK);
    ck_assert_uint_eq(c.n_heard, 4 * 48);
    pass(&c, 2 * MS - 1);
    ck_assert_uint_eq(status(&c, 1), 0);
    pass(&c, 1);
    ck_assert_uint_eq(status(&c, 1), OK);
    ck_assert(c.n_heard == 4 * 144 && c.heard[4 * 48 - 1] == 1 && c.heard[4 * 48] == 2);
    message(&c, PLAY, 2, 48, 3); /* at once: no gap */
    pass(&c, MS);
    ck_assert_uint_eq(status(&c, 2), OK);
    pass(&c, 5 * MS); /* the guest does not keep up: time begins anew */
    message(&c, PLAY, 3, 48, 4);
    ck_assert_uint_eq(status(&c, 3), 0);
    pass(&c, MS);
    ck_assert_uint_eq(status(&c, 3), OK);
    c.deaf = true;
    message(&c, PLAY, 4, 48, 5);
    pass(&c, MS);
    ck_assert_uint_eq(status(&c, 4), IO_ERR);
    command(&c, STOP, 0);
    message(&c, PLAY, 5, 48, 6);
    pass(&c, 5 * MS);
    ck_assert_uint_eq(status(&c, 5), 0);
    command(&c, START, 0);
    pass(&c, MS);
    ck_assert_uint_eq(status(&c, 5), IO_ERR);
    ck_assert_uint_eq(c.n_heard, 4 * 48 * 7);
    rig_free(c.v.r);
}
END_TEST

START_TEST(recording_hears_frames_in_their_order)
{
    struct card c;
    uint8_t *a;

    card_new(&c);
    set_params(&c, 1, S16, RATE_48000);
    command(&c, PREPARE, 1);
    message(&c, RECORD, 0, 48, 0);
    message(&c, RECORD, 1, 48, 0);
    command(&c, START, 1);
    a = rig_ram(c.v.r, SOUND(0));
    pass(&c, MS - 1);
    ck_assert(a[0] == 0xee && a[4] == 0xee); /* the guest may still look at what is there */
    pass(&c, 1 + MS);
    ck_assert(status(&c, 0) == OK && status(&c, 1) == OK);
    ck_assert(a[0] == 0 && a[4] == 1 && a[4 * 47] == 47);
    a = rig_ram(c.v.r, SOUND(1));
    ck_assert(a[0] == 48 && a[4 * 47] == 95);
    ck_assert_uint_eq(used_len(&c.v, RECORD, 0), 4 * 48 + 8);
    rig_free(c.v.r);
}
END_TEST

START_TEST(messages_of_others_and_of_no_sense_are_refused)
{
    struct card c;

    card_new(&c);
    set_params(&c, 0, S16, RATE_48000);
    command(&c, PREPARE, 0);
    command(&c, START, 0);
    memcpy(rig_ram(c.v.r, REQ), &(uint32_t){ 1 }, 4); /* the other stream */
    put(&c.v, DESC(PLAY), 0, (struct desc){ REQ, 4, NEXT, 1 });
    put(&c.v, DESC(PLAY), 1, (struct desc){ STATUS(0), 8, WRITE, 0 });
    offer(&c.v, PLAY, 0);
    rig_turn(c.v.r);
    ck_assert_uint_eq(status(&c, 0), BAD_MSG);
    memcpy(rig_ram(c.v.r, REQ), &(uint32_t){ 0 }, 4); /* no sound in it */
    offer(&c.v, PLAY, 0);
    rig_turn(c.v.r);
    ck_assert_uint_eq(status(&c, 0), OK);
    put(&c.v, DESC(PLAY), 0, (struct desc){ REQ, 3, NEXT, 1 }); /* not even a stream */
    offer(&c.v, PLAY, 0);
    rig_turn(c.v.r);
    ck_assert_uint_eq(status(&c, 0), BAD_MSG);
    put(&c.v, DESC(PLAY), 0, (struct desc){ REQ, 4, 0, 0 }); /* no room for a status */
    offer(&c.v, PLAY, 0);
    rig_turn(c.v.r);
    ck_assert_uint_eq(used_idx(&c.v, PLAY), 4);
    rig_free(c.v.r);
}
END_TEST

/* A machine that is saved in the middle of a message goes on in the middle of it. */
START_TEST(state_has_the_place_in_the_sound)
{
    struct card c;

    card_new(&c);
    set_params(&c, 0, S16, RATE_48000);
    command(&c, PREPARE, 0);
    command(&c, START, 0);
    pass(&c, 3 * MS);
    message(&c, PLAY, 0, 48, 1);
    message(&c, PLAY, 1, 48, 2);
    pass(&c, MS + MS / 2);
    ck_assert(status(&c, 0) == OK && status(&c, 1) == 0);
    vm_pause(c.v.r->vm);
    ck_assert(c.v.dev->cls->quiesce(c.v.dev));
    ck_assert_uint_eq(((struct virtio *)c.v.dev)->queue[PLAY].last_avail, 1);
    rig_state_round_trip(c.v.dev);
    vm_resume(c.v.r->vm);
    rig_turn(c.v.r);
    pass(&c, MS / 2 - 1);
    ck_assert_uint_eq(status(&c, 1), 0);
    pass(&c, 1);
    ck_assert_uint_eq(status(&c, 1), OK);
    ck_assert(c.n_heard == 8 * 48 && c.heard[4 * 48 - 1] == 1 && c.heard[4 * 48] == 2);
    wr32(c.v.r, AT + R_STATUS, 0); /* a reset gives up what is queued */
    pass(&c, 10 * MS);
    ck_assert_uint_eq(c.n_heard, 8 * 48);
    rig_free(c.v.r);
}
END_TEST

static Suite *suite_sound(void)
{
    Suite *s = suite_create("sound");
    TCase *t = tcase_create("virtio-snd");

    tcase_add_test(t, sound_card_says_what_it_takes);
    tcase_add_test(t, stream_lives_as_the_specification_says);
    tcase_add_test(t, messages_take_their_time_and_not_more);
    tcase_add_test(t, recording_hears_frames_in_their_order);
    tcase_add_test(t, messages_of_others_and_of_no_sense_are_refused);
    tcase_add_test(t, state_has_the_place_in_the_sound);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_sound, NULL);
}
