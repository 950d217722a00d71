/* SPDX-License-Identifier: Apache-2.0 */
/*
 * N-body: five bodies under gravity by the leapfrog method; the checksum is the energy. Compiled with
 * REAL double or float. Argument: thousands of steps.
 */
#include <math.h>

#include "tests/bench/guest/bench.h"

#ifndef REAL
#define REAL double
#endif
#define BODIES 5

struct body {
    REAL x[3];
    REAL v[3];
    REAL mass;
};

static struct body bodies[BODIES];

static void place(void)
{
    for (int i = 0; i < BODIES; i++) {
        REAL radius = (REAL)(i * i + 2 * i);
        REAL angle = (REAL)i * (REAL)1.3;
        REAL speed = i ? (REAL)sqrt(40.0 / (double)radius) : 0;

        bodies[i].x[0] = radius * (REAL)cos((double)angle);
        bodies[i].x[1] = radius * (REAL)sin((double)angle);
        bodies[i].x[2] = (REAL)0.01 * (REAL)i;
        bodies[i].v[0] = -speed * (REAL)sin((double)angle);
        bodies[i].v[1] = speed * (REAL)cos((double)angle);
        bodies[i].mass = i ? (REAL)0.02 / (REAL)i : (REAL)40;
    }
}

static void advance(REAL dt)
{
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            REAL d[3];
            REAL square = 0;
            REAL magnitude;

            for (int k = 0; k < 3; k++) {
                d[k] = bodies[i].x[k] - bodies[j].x[k];
                square += d[k] * d[k];
            }
            magnitude = dt / (square * (sizeof(REAL) == 4 ? (REAL)sqrtf((float)square)
                                                          : (REAL)sqrt((double)square)));
            for (int k = 0; k < 3; k++) {
                bodies[i].v[k] -= d[k] * bodies[j].mass * magnitude;
                bodies[j].v[k] += d[k] * bodies[i].mass * magnitude;
            }
        }
    }
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) {
            bodies[i].x[k] += dt * bodies[i].v[k];
        }
    }
}

static double energy(void)
{
    double sum = 0;

    for (int i = 0; i < BODIES; i++) {
        const struct body *a = &bodies[i];

        sum += 0.5 * (double)a->mass *
               (double)(a->v[0] * a->v[0] + a->v[1] * a->v[1] + a->v[2] * a->v[2]);
        for (int j = i + 1; j < BODIES; j++) {
            double square = 0;

            for (int k = 0; k < 3; k++) {
                double d = (double)(a->x[k] - bodies[j].x[k]);

                square += d * d;
            }
            sum -= (double)(a->mass * bodies[j].mass) / sqrt(square);
        }
    }
    return sum;
}

int main(int argc, char **argv)
{
    long steps = bench_argument(argc, argv, 1, 1) * 1000;

    place();
    bench_begin();
    for (long i = 0; i < steps; i++) {
        advance((REAL)0.001);
    }
    bench_end(bench_mix_real(BENCH_FNV_SEED, energy(), sizeof(REAL) == 4 ? 2 : 6));
    return 0;
}
