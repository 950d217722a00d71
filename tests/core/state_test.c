/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the state codec: round trips, versions, optional fields, and streams that are
 * cut, flipped or made up.
 */
#include "engine/core/state.h"
#include "engine/base/loop.h"
#include "engine/core/clock.h"
#include "tests/lib/testing.h"

#include <zlib.h>

struct inner {
    uint16_t a;
    bool b;
};

struct thing {
    uint8_t u8;
    uint16_t u16;
    uint32_t u32[3];
    uint64_t u64;
    bool flag;
    uint8_t bytes[5];
    struct buf text;
    struct inner in[2];
    struct vtimer *timer;
    uint32_t opt;
    uint64_t later;
    /* Derived */
    uint64_t sum;
    unsigned loads;
};

static const struct st_field inner_fields[] = {
    ST_FIELD(struct inner, a, ST_U16, 1, "a"),
    ST_FIELD(struct inner, b, ST_BOOL, 1, "b"),
    ST_END,
};
static const struct st_table inner_table = { .name = "inner",
                                             .version = 1,
                                             .fields = inner_fields };

static int thing_loaded(void *obj, struct err *e)
{
    struct thing *t = obj;
    t->loads++;
    t->sum = t->u64 + t->u8;
    return t->u64 == 666 ? err_set(e, -EINVAL, "u64 cannot be 666") : 0;
}

#define COMMON                                                                                 \
    ST_FIELD(struct thing, u8, ST_U8, 1, "u8"), ST_FIELD(struct thing, u16, ST_U16, 1, "u16"), \
        ST_ARRAY(struct thing, u32, ST_U32, 3, 1, "u32"),                                      \
        ST_FIELD(struct thing, u64, ST_U64, 1, "u64"),                                         \
        ST_FIELD(struct thing, flag, ST_BOOL, 1, "flag"),                                      \
        ST_ARRAY(struct thing, bytes, ST_BYTES, 5, 1, "bytes"),                                \
        ST_ARRAY(struct thing, text, ST_BUF, 100, 1, "text"),                                  \
    {                                                                                          \
        .name = "in", .kind = ST_STRUCT, .offset = offsetof(struct thing, in), .count = 2,     \
        .stride = sizeof(struct inner), .since = 1, .table = &inner_table                      \
    }
#define OPT                                                                                    \
    {                                                                                          \
        .name = "opt", .kind = ST_U32, .offset = offsetof(struct thing, opt), .count = 1,      \
        .since = 1, .flags = ST_OPTIONAL, .reset = 9                                           \
    }

static const struct st_field v1_fields[] = { COMMON,
                                             ST_FIELD(struct thing, timer, ST_TIMER, 1, "t"),
                                             ST_END };
static const struct st_table v1 = {
    .name = "thing", .version = 1, .fields = v1_fields, .loaded = thing_loaded
};
static const struct st_field v2_fields[] = {
    COMMON, ST_FIELD(struct thing, timer, ST_TIMER, 1, "t"), OPT,
    ST_FIELD(struct thing, later, ST_U64, 2, "later"), ST_END
};
static const struct st_table v2 = {
    .name = "thing", .version = 2, .fields = v2_fields, .loaded = thing_loaded
};
static const struct st_field v3_fields[] = { COMMON,
                                             ST_FIELD(struct thing, timer, ST_TIMER, 1, "t"),
                                             OPT, ST_END };
static const struct st_table v3 = {
    .name = "thing", .version = 3, .fields = v3_fields, .loaded = thing_loaded
};

static void on_timer(void *arg)
{
    (void)arg;
}

struct fixture {
    struct loop *loop;
    struct clock *c;
    struct thing a, b;
    struct buf s;
};

static void fill(struct thing *t, uint64_t seed)
{
    t->u8 = (uint8_t)seed;
    t->u16 = (uint16_t)(seed * 3);
    t->u64 = seed * 0x0123456789abcdef;
    t->flag = seed & 1;
    for (unsigned i = 0; i < 3; i++) {
        t->u32[i] = (uint32_t)(seed * (i + 7));
    }
    memset(t->bytes, (int)seed, sizeof(t->bytes));
    buf_consume(&t->text, t->text.len);
    for (unsigned i = 0; i < seed % 100; i++) {
        buf_add_char(&t->text, (char)('a' + i % 26));
    }
    t->in[1].a = (uint16_t)(seed + 5);
    t->in[0].b = true;
    t->opt = 9;
    vtimer_arm(t->timer, seed * 1000);
}

static void make(struct fixture *x)
{
    memset(x, 0, sizeof(*x));
    x->loop = loop_new(NULL);
    x->c = clock_new(x->loop, NULL);
    x->a.timer = vtimer_new(x->c, on_timer, NULL);
    x->b.timer = vtimer_new(x->c, on_timer, NULL);
    fill(&x->a, 41);
    fill(&x->b, 7);
}

static void drop(struct fixture *x)
{
    buf_done(&x->s);
    buf_done(&x->a.text);
    buf_done(&x->b.text);
    vtimer_free(x->a.timer);
    vtimer_free(x->b.timer);
    clock_free(x->c);
    loop_free(x->loop);
}

/* Equal as far as version 1 goes? By the text of the state itself. */
static bool same(const struct thing *a, const struct thing *b)
{
    AUTO_BUF x = BUF_INIT;
    AUTO_BUF y = BUF_INIT;
    st_print(&v2, a, &x);
    st_print(&v2, b, &y);
    return strcmp(x.data, y.data) == 0;
}

START_TEST(what_is_saved_comes_back)
{
    struct fixture x;
    make(&x);
    struct err e = ERR_INIT;
    size_t used = 0;
    buf_add_str(&x.s, "before");
    st_save(&v2, &x.a, &x.s);
    size_t n = x.s.len - 6;
    buf_add_str(&x.s, "behind");
    ck_assert(!same(&x.a, &x.b));
    ck_assert_msg(st_load(&v2, &x.b, sizeof(x.b), x.s.data + 6, x.s.len - 6, &used, &e) == 0,
                  "%s", e.msg);
    ck_assert_uint_eq(used, n);
    ck_assert(same(&x.a, &x.b));
    ck_assert_uint_eq(x.b.sum, x.b.u64 + x.b.u8);
    ck_assert_uint_eq(vtimer_deadline(x.b.timer), 41000);
    drop(&x);
}
END_TEST

START_TEST(encoding_is_little_endian_and_does_not_move)
{
    static const struct st_field f[] = { ST_FIELD(struct inner, a, ST_U16, 1, "a"), ST_END };
    static const struct st_table t = { .name = "t", .version = 258, .fields = f };
    static const uint8_t want[] = {
        17, 0,   0, 0,             /* length of the object */
        1,  't', 2, 1, 1, 0, 0, 0, /* name, version 258, one field */
        1,  'a', 2, 1, 0, 0, 0, 0x34, 0x12
    };
    struct inner in = { .a = 0x1234 };
    AUTO_BUF b = BUF_INIT;
    st_save(&t, &in, &b);
    ck_assert_uint_eq(b.len, sizeof(want) + 4);
    ck_assert_mem_eq(b.data, want, sizeof(want));
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq((uint8_t)b.data[sizeof(want) + i],
                          crc32(0, want, sizeof(want)) >> (i * 8) & 0xff);
    }
}
END_TEST

START_TEST(field_newer_than_the_sender_keeps_its_reset_value)
{
    struct fixture x;
    make(&x);
    struct err e = ERR_INIT;
    size_t used;
    st_save(&v1, &x.a, &x.s);
    x.b.later = 99;
    x.b.opt = 9;
    ck_assert_msg(st_load(&v2, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e) == 0, "%s",
                  e.msg);
    ck_assert_uint_eq(x.b.later, 99);
    ck_assert_uint_eq(x.b.u64, x.a.u64);
    drop(&x);
}
END_TEST

START_TEST(unknown_field_is_an_error_that_names_it)
{
    struct fixture x;
    make(&x);
    struct err e = ERR_INIT;
    size_t used;
    st_save(&v2, &x.a, &x.s);
    ck_assert_int_eq(st_load(&v1, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(e.msg, "'later'"));
    ck_assert_uint_eq(x.b.u8, 7);
    drop(&x);
}
END_TEST

START_TEST(missing_field_is_an_error_unless_it_is_newer)
{
    struct fixture x;
    make(&x);
    struct err e = ERR_INIT;
    size_t used;
    st_save(&v3, &x.a, &x.s); /* says version 3, and has no `later` */
    ck_assert_int_eq(st_load(&v2, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(e.msg, "lacks the field 'later'"));
    drop(&x);
}
END_TEST

START_TEST(optional_field_is_left_out_at_its_reset_value)
{
    struct fixture x;
    make(&x);
    struct err e = ERR_INIT;
    size_t used;
    st_save(&v3, &x.a, &x.s); /* a newer sender, the feature unused: version 1 takes it */
    ck_assert_int_eq(st_load(&v1, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), 0);
    x.a.opt = 10;
    buf_consume(&x.s, x.s.len);
    st_save(&v3, &x.a, &x.s);
    ck_assert_int_eq(st_load(&v1, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(e.msg, "'opt'"));
    ck_assert_int_eq(st_load(&v3, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), 0);
    ck_assert_uint_eq(x.b.opt, 10);
    drop(&x);
}
END_TEST

START_TEST(refused_values_are_undone)
{
    struct fixture x;
    make(&x);
    struct err e = ERR_INIT;
    size_t used;
    AUTO_BUF before = BUF_INIT;
    AUTO_BUF after = BUF_INIT;
    x.a.u64 = 666;
    st_save(&v2, &x.a, &x.s);
    x.b.opt = 5; /* not its reset value: it too has to come back */
    st_print(&v2, &x.b, &before);
    ck_assert_int_eq(st_load(&v2, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), -EINVAL);
    st_print(&v2, &x.b, &after);
    ck_assert_str_eq(before.data, after.data);
    ck_assert_uint_eq(x.b.sum, x.b.u64 + x.b.u8);
    drop(&x);
}
END_TEST

START_TEST(stream_cut_at_any_byte_is_refused_and_changes_nothing)
{
    struct fixture x;
    make(&x);
    AUTO_BUF before = BUF_INIT;
    st_print(&v2, &x.b, &before);
    st_save(&v2, &x.a, &x.s);
    for (size_t n = 0; n < x.s.len; n++) {
        struct err e = ERR_INIT;
        size_t used = 12345;
        char *cut = n ? malloc(n) : NULL; /* exact size: a checker sees reads beyond */
        if (n) {
            memcpy(cut, x.s.data, n);
        }
        ck_assert_int_lt(st_load(&v2, &x.b, sizeof(x.b), cut, n, &used, &e), 0);
        ck_assert_uint_eq(used, 12345);
        free(cut);
    }
    AUTO_BUF after = BUF_INIT;
    st_print(&v2, &x.b, &after);
    ck_assert_str_eq(before.data, after.data);
    drop(&x);
}
END_TEST

START_TEST(every_flipped_bit_is_noticed)
{
    struct fixture x;
    make(&x);
    st_save(&v2, &x.a, &x.s);
    for (size_t bit = 0; bit < x.s.len * 8; bit++) {
        size_t used;
        x.s.data[bit / 8] ^= (char)(1 << (bit % 8));
        ck_assert_int_lt(st_load(&v2, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, NULL), 0);
        x.s.data[bit / 8] ^= (char)(1 << (bit % 8));
    }
    ck_assert_uint_eq(x.b.loads, 0);
    drop(&x);
}
END_TEST

static void put32(char *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        p[i] = (char)(v >> (i * 8));
    }
}

START_TEST(forged_streams_with_a_right_checksum_stay_in_bounds)
{
    struct fixture x;
    make(&x);
    uint64_t rnd = test_seed();
    st_save(&v2, &x.a, &x.s);
    unsigned taken = 0;
    for (unsigned i = 0; i < 30000; i++) {
        AUTO_BUF f = BUF_INIT;
        buf_add(&f, x.s.data, x.s.len);
        for (unsigned k = 1 + test_random(&rnd) % 3; k; k--) {
            f.data[test_random(&rnd) % f.len] = (char)test_random(&rnd);
        }
        size_t n = f.len - (test_random(&rnd) % 4 == 0 ? test_random(&rnd) % 40 : 0), used;
        put32(f.data, (uint32_t)(n - 8));
        put32(f.data + n - 4, (uint32_t)crc32(0, (Bytef *)f.data, (uInt)(n - 4)));
        char *exact = malloc(n);
        memcpy(exact, f.data, n);
        taken += st_load(&v2, &x.b, sizeof(x.b), exact, n, &used, NULL) == 0;
        ck_assert_uint_le(x.b.text.len, 100);
        free(exact);
    }
    ck_assert_uint_gt(taken, 0); /* values may well be changed by it */
    drop(&x);
}
END_TEST

START_TEST(names_counts_and_kinds_have_to_match)
{
    static const struct st_field two[] = { ST_ARRAY(struct thing, u32, ST_U32, 2, 1, "u32"),
                                           ST_END };
    static const struct st_field three[] = { ST_ARRAY(struct thing, u32, ST_U32, 3, 1, "u32"),
                                             ST_END };
    static const struct st_field other[] = { { .name = "u32",
                                               .kind = ST_U64,
                                               .offset = offsetof(struct thing, u64),
                                               .count = 2,
                                               .since = 1 },
                                             ST_END };
    static const struct st_table t2 = { .name = "t", .version = 1, .fields = two };
    static const struct st_table t3 = { .name = "t", .version = 1, .fields = three };
    static const struct st_table t64 = { .name = "t", .version = 1, .fields = other };
    static const struct st_table u2 = { .name = "u", .version = 1, .fields = two };
    struct fixture x;
    make(&x);
    struct err e = ERR_INIT;
    size_t used;
    st_save(&t2, &x.a, &x.s);
    ck_assert_int_lt(st_load(&t3, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), 0);
    ck_assert_ptr_nonnull(strstr(e.msg, "elements"));
    ck_assert_int_lt(st_load(&t64, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), 0);
    ck_assert_ptr_nonnull(strstr(e.msg, "kind"));
    ck_assert_int_lt(st_load(&u2, &x.b, sizeof(x.b), x.s.data, x.s.len, &used, &e), 0);
    ck_assert_ptr_nonnull(strstr(e.msg, "'u' expected"));
    drop(&x);
}
END_TEST

START_TEST(printing_names_fields_elements_and_nested_objects)
{
    struct fixture x;
    make(&x);
    AUTO_BUF b = BUF_INIT;
    vtimer_disarm(x.a.timer);
    st_print(&v2, &x.a, &b);
    ck_assert_ptr_nonnull(strstr(b.data, "u32[2] = 0x"));
    ck_assert_ptr_nonnull(strstr(b.data, "in[1]:\n  a = 0x2e\n  b = false\n"));
    ck_assert_ptr_nonnull(strstr(b.data, "timer = off\n"));
    ck_assert_ptr_nonnull(strstr(b.data, "bytes = 2929292929\n"));
    drop(&x);
}
END_TEST

static Suite *suite_state(void)
{
    Suite *s = suite_create("state");
    TCase *c = tcase_create("state");
    tcase_add_test(c, what_is_saved_comes_back);
    tcase_add_test(c, encoding_is_little_endian_and_does_not_move);
    tcase_add_test(c, field_newer_than_the_sender_keeps_its_reset_value);
    tcase_add_test(c, unknown_field_is_an_error_that_names_it);
    tcase_add_test(c, missing_field_is_an_error_unless_it_is_newer);
    tcase_add_test(c, optional_field_is_left_out_at_its_reset_value);
    tcase_add_test(c, refused_values_are_undone);
    tcase_add_test(c, stream_cut_at_any_byte_is_refused_and_changes_nothing);
    tcase_add_test(c, every_flipped_bit_is_noticed);
    tcase_add_test(c, forged_streams_with_a_right_checksum_stay_in_bounds);
    tcase_add_test(c, names_counts_and_kinds_have_to_match);
    tcase_add_test(c, printing_names_fields_elements_and_nested_objects);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_state, NULL);
}
