/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An interpreter's loop: a stack machine that dispatches by computed goto runs a sieve and a
 * recursive Fibonacci. Arguments: sieve size, Fibonacci number.
 */
#include "tests/bench/guest/bench.h"

enum op {
    PUSH,
    LOAD,
    STORE,
    GET,
    PUT,
    ADD,
    SUB,
    LESS,
    JUMP,
    JUMPZ,
    CALL,
    RET,
    ARG,
    DROP,
    HALT
};

static int64_t stack[4096];
static int64_t globals[8];
static uint8_t *flags;

/* clang-format off */
/* i = 2; while (i < n) { if (!flags[i]) { count++; for (j = i + i; j < n; j += i) flags[j] = 1; } i++; } */
static int32_t sieve[] = {
    PUSH, 2, STORE, 0,
    LOAD, 0, LOAD, 1, LESS, JUMPZ, 55,                          /* 4 */
    LOAD, 0, GET, PUSH, 1, LESS, JUMPZ, 46,                     /* 11 */
    LOAD, 2, PUSH, 1, ADD, STORE, 2,                            /* 19 */
    LOAD, 0, LOAD, 0, ADD, STORE, 3,                            /* 26 */
    LOAD, 3, LOAD, 1, LESS, JUMPZ, 46,                          /* 33 */
    LOAD, 3, PUT, JUMP, 56,                                     /* 40 */
    HALT,                                                       /* 45 */
    LOAD, 0, PUSH, 1, ADD, STORE, 0, JUMP, 4,                   /* 46 */
    HALT,                                                       /* 55 */
    LOAD, 3, LOAD, 0, ADD, STORE, 3, JUMP, 33,                  /* 56 */
};
/* fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2) */
static int32_t fib[] = {
    LOAD, 1, CALL, 5, HALT,
    ARG, PUSH, 2, LESS, JUMPZ, 13, ARG, RET,                    /* 5 */
    ARG, PUSH, 1, SUB, CALL, 5,                                 /* 13 */
    ARG, PUSH, 2, SUB, CALL, 5, ADD, RET,                       /* 19: the frame's argument again */
};
/* clang-format on */

static int64_t run(const int32_t *code)
{
    static void *const labels[] = { &&push, &&load, &&store, &&get,  &&put,
                                    &&add,  &&sub,  &&less,  &&jump, &&jumpz,
                                    &&call, &&ret,  &&arg,   &&drop, &&halt };
    static struct {
        const int32_t *pc;
        int64_t argument;
    } frames[512];
    const int32_t *pc = code;
    int64_t *sp = stack;
    int depth = 0;

#define NEXT goto *labels[*pc++]
    NEXT;
push:
    *sp++ = *pc++;
    NEXT;
load:
    *sp++ = globals[*pc++];
    NEXT;
store:
    globals[*pc++] = *--sp;
    NEXT;
get:
    sp[-1] = flags[sp[-1]];
    NEXT;
put:
    flags[*--sp] = 1;
    NEXT;
add:
    sp--;
    sp[-1] += sp[0];
    NEXT;
sub:
    sp--;
    sp[-1] -= sp[0];
    NEXT;
less:
    sp--;
    sp[-1] = sp[-1] < sp[0];
    NEXT;
jump:
    pc = code + *pc;
    NEXT;
jumpz:
    pc = *--sp ? pc + 1 : code + *pc;
    NEXT;
call:
    frames[++depth].argument = *--sp;
    frames[depth].pc = pc + 1;
    pc = code + *pc;
    NEXT;
ret:
    pc = frames[depth--].pc;
    NEXT;
arg:
    *sp++ = frames[depth].argument;
    NEXT;
drop:
    sp--;
    NEXT;
halt:
    return sp > stack ? sp[-1] : 0;
#undef NEXT
}

int main(int argc, char **argv)
{
    long size = bench_argument(argc, argv, 1, 1000);
    long number = bench_argument(argc, argv, 2, 10);
    uint64_t hash = BENCH_FNV_SEED;

    flags = bench_alloc((size_t)size);
    bench_begin();
    globals[1] = size;
    run(sieve);
    hash = bench_mix(hash, (uint64_t)globals[2]);
    globals[1] = number;
    hash = bench_mix(hash, (uint64_t)run(fib));
    bench_end(hash);
    return 0;
}
