/* SPDX-License-Identifier: Apache-2.0 */
/* Unsigned numbers of any length in base 10^9: factorials, Fibonacci numbers, digit sums. */
#include "project.h"

#define BASE 1000000000u

struct big {
    uint32_t *limb;
    size_t n, cap;
};

static void push(struct big *b, uint32_t limb)
{
    if (b->n == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 8;
        b->limb = realloc(b->limb, b->cap * sizeof(b->limb[0]));
        if (!b->limb) {
            abort();
        }
    }
    b->limb[b->n++] = limb;
}

static void multiply(struct big *b, uint32_t by)
{
    uint64_t carry = 0;
    for (size_t i = 0; i < b->n; i++) {
        carry += (uint64_t)b->limb[i] * by;
        b->limb[i] = (uint32_t)(carry % BASE);
        carry /= BASE;
    }
    while (carry) {
        push(b, (uint32_t)(carry % BASE));
        carry /= BASE;
    }
}

static void add(struct big *b, const struct big *a)
{
    uint64_t carry = 0;
    for (size_t i = 0; i < a->n || carry; i++) {
        if (i == b->n) {
            push(b, 0);
        }
        carry += b->limb[i] + (i < a->n ? a->limb[i] : 0);
        b->limb[i] = (uint32_t)(carry % BASE);
        carry /= BASE;
    }
}

static unsigned digit_sum(const struct big *b)
{
    unsigned sum = 0;
    for (size_t i = 0; i < b->n; i++) {
        for (uint32_t rest = b->limb[i]; rest; rest /= 10) {
            sum += rest % 10;
        }
    }
    return sum;
}

static void print(const struct big *b)
{
    printf("%" PRIu32, b->limb[b->n - 1]);
    for (size_t i = b->n - 1; i-- > 0;) {
        printf("%09" PRIu32, b->limb[i]);
    }
    putchar('\n');
}

void report_bigint(void)
{
    struct big f = { NULL, 0, 0 }, a = { NULL, 0, 0 }, b = { NULL, 0, 0 };
    push(&f, 1);
    push(&a, 0);
    push(&b, 1);
    for (uint32_t i = 2; i <= 500; i++) {
        multiply(&f, i);
        if (i == 30 || i == 60) {
            print(&f);
        }
    }
    for (unsigned i = 0; i < 1000; i++) {
        add(&a, &b);
        struct big swap = a;
        a = b;
        b = swap;
    }
    print(&a);
    printf("digits of 500!: sum %u, limbs %zu\n", digit_sum(&f), f.n);
    free(f.limb);
    free(a.limb);
    free(b.limb);
}
