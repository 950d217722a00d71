/* SPDX-License-Identifier: Apache-2.0 */
/* Matrices over integers modulo a prime: product, determinant, inverse, powers. */
#include "project.h"

#define N 24
#define MODULUS 1000003

struct matrix {
    int64_t at[N][N];
};

static int64_t inverse_of(int64_t v)
{
    int64_t result = 1;
    for (int64_t e = MODULUS - 2; e; e >>= 1) {
        if (e & 1) {
            result = result * v % MODULUS;
        }
        v = v * v % MODULUS;
    }
    return result;
}

static void multiply(struct matrix *out, const struct matrix *a, const struct matrix *b)
{
    struct matrix r;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            int64_t sum = 0;
            for (int k = 0; k < N; k++) {
                sum += a->at[i][k] * b->at[k][j];
            }
            r.at[i][j] = sum % MODULUS;
        }
    }
    *out = r;
}

static void identity(struct matrix *m)
{
    memset(m, 0, sizeof(*m));
    for (int i = 0; i < N; i++) {
        m->at[i][i] = 1;
    }
}

static void swap_rows(struct matrix *m, int a, int b)
{
    for (int k = 0; k < N; k++) {
        int64_t t = m->at[a][k];
        m->at[a][k] = m->at[b][k];
        m->at[b][k] = t;
    }
}

/* Gauss and Jordan; returns the determinant and leaves the inverse in out. */
static int64_t invert(struct matrix *out, const struct matrix *in)
{
    struct matrix m = *in;
    int64_t determinant = 1;
    identity(out);
    for (int c = 0; c < N; c++) {
        int p = c;
        while (p < N && m.at[p][c] == 0) {
            p++;
        }
        if (p == N) {
            return 0;
        }
        if (p != c) {
            swap_rows(&m, p, c);
            swap_rows(out, p, c);
            determinant = MODULUS - determinant;
        }
        int64_t pivot = m.at[c][c], scale = inverse_of(pivot);
        determinant = determinant * pivot % MODULUS;
        for (int k = 0; k < N; k++) {
            m.at[c][k] = m.at[c][k] * scale % MODULUS;
            out->at[c][k] = out->at[c][k] * scale % MODULUS;
        }
        for (int r = 0; r < N; r++) {
            int64_t f = m.at[r][c];
            if (r == c || f == 0) {
                continue;
            }
            for (int k = 0; k < N; k++) {
                m.at[r][k] = (m.at[r][k] + (MODULUS - f) * m.at[c][k]) % MODULUS;
                out->at[r][k] = (out->at[r][k] + (MODULUS - f) * out->at[c][k]) % MODULUS;
            }
        }
    }
    return determinant;
}

void report_matrix(void)
{
    struct matrix a, inverse, product, power;
    uint64_t seed = 99;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            a.at[i][j] = (int64_t)(next_random(&seed) % MODULUS);
        }
    }
    int64_t determinant = invert(&inverse, &a);
    multiply(&product, &a, &inverse);
    int wrong = 0;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            wrong += product.at[i][j] != (i == j);
        }
    }
    identity(&power);
    for (int i = 0; i < 20; i++) {
        multiply(&power, &power, &a);
    }
    printf("determinant %" PRId64 " wrong %d corner %" PRId64 "\n", determinant, wrong,
           power.at[N - 1][0]);
}
