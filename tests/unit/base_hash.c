/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of hash: against a plain array, and the hash function against another implementation.
 */
#include "engine/base/hash.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"
#include "tests/unit/base_suites.h"

/* CPython's hash(bytes) under PYTHONHASHSEED=0 is SipHash-1-3 with an all-zero key. */
static const struct {
    const char *text;
    uint64_t hash;
} vectors[] = {
    { "a", UINT64_C(0x407448d2b89b1813) },
    { "abcdefg", UINT64_C(0x6db12aae9070f506) },
    { "abcdefgh", UINT64_C(0x3f7b849c0b8e35ea) },
    { "the quick brown fox jumps over", UINT64_C(0xad7dbf39b6f5e689) },
};

START_TEST(hash_bytes_is_siphash_1_3)
{
    const char *t = vectors[_i].text;
    ck_assert_uint_eq(hash_bytes(t, strlen(t), 0), vectors[_i].hash);
    ck_assert_uint_ne(hash_bytes(t, strlen(t), 1), vectors[_i].hash);
}
END_TEST

enum { KEYS = 512, STEPS = 20000 };

/* Random puts, deletes and gets, checked against an array after every step. */
START_TEST(hash_u64_agrees_with_an_array)
{
    uint64_t rng = test_seed();
    struct hash *h = hash_new_u64();
    int values[KEYS];
    void *model[KEYS] = { NULL };
    size_t count = 0;
    for (int i = 0; i < STEPS; i++) {
        uint64_t r = test_random(&rng);
        size_t k = r % KEYS;
        uint64_t key = k << 40; /* low bits all equal: the mixing has to help */
        void *value = &values[(r >> 32) % KEYS];
        ck_assert_ptr_eq(hash_get_u64(h, key), model[k]);
        if (r >> 62) {
            ck_assert_ptr_eq(hash_put_u64(h, key, value), model[k]);
            count += !model[k];
            model[k] = value;
        } else {
            ck_assert_ptr_eq(hash_del_u64(h, key), model[k]);
            count -= !!model[k];
            model[k] = NULL;
        }
        ck_assert_uint_eq(hash_count(h), count);
    }
    for (size_t k = 0; k < KEYS; k++) {
        ck_assert_ptr_eq(hash_get_u64(h, k << 40), model[k]);
    }
    hash_free(h);
}
END_TEST

static bool sum_entry(const char *skey, uint64_t ukey, void *value, void *arg)
{
    ck_assert_uint_eq(ukey, 0);
    ck_assert_int_eq(atoi(skey), *(int *)value);
    *(int *)arg += *(int *)value;
    return true;
}

static bool stop_at_once(const char *skey, uint64_t ukey, void *value, void *arg)
{
    (void)skey;
    (void)ukey;
    (void)value;
    ++*(int *)arg;
    return false;
}

START_TEST(hash_str_copies_keys_and_visits_each_once)
{
    struct hash *h = hash_new_str();
    int values[1000], sum = 0, expect = 0, calls = 0;
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "%d", i);
        values[i] = i;
        ck_assert_ptr_null(hash_put_str(h, key, &values[i]));
        expect += i;
    }
    hash_each(h, sum_entry, &sum);
    ck_assert_int_eq(sum, expect);
    hash_each(h, stop_at_once, &calls);
    ck_assert_int_eq(calls, 1);
    ck_assert_ptr_eq(hash_put_str(h, "7", &values[7]), &values[7]);
    ck_assert_ptr_eq(hash_del_str(h, "7"), &values[7]);
    ck_assert_ptr_null(hash_get_str(h, "7"));
    ck_assert_ptr_null(hash_del_str(h, "7"));
    ck_assert_ptr_eq(hash_get_str(h, "8"), &values[8]);
    ck_assert_uint_eq(hash_count(h), 999);
    hash_free(h);
    hash_free(NULL);
}
END_TEST

Suite *suite_hash(void)
{
    Suite *s = suite_create("hash");
    TCase *tc = tcase_create("hash");
    tcase_add_loop_test(tc, hash_bytes_is_siphash_1_3, 0, ARRAY_LEN(vectors));
    tcase_add_test(tc, hash_u64_agrees_with_an_array);
    tcase_add_test(tc, hash_str_copies_keys_and_visits_each_once);
    suite_add_tcase(s, tc);
    return s;
}
