/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the guest: three processes that keep different vector registers, vtype, vl and vcsr over a busy loop, in
 * which the kernel takes the CPU from them. Prints VECTOR-SWITCH ok and how often it did, or what went wrong.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 3
#define ROUNDS 60
#define SPIN 3000000
#define SIZE (32 * 128)

struct config {
    unsigned long vtype, avl, vcsr;
};

static unsigned long register_bytes(void)
{
    unsigned long n;

    __asm__ volatile(".option push\n.option arch, +v\n csrr %0, vlenb\n.option pop" : "=r"(n));
    return n;
}

/* Sets everything, waits, reads it back: in one piece, for any system call may lose vector registers. */
static void hold(const uint8_t *in, uint8_t *out, const struct config *c, struct config *seen,
                 unsigned long step)
{
    unsigned long spin = SPIN, t0, t1;

    __asm__ volatile(".option push\n"
                     ".option arch, +v\n"
                     "   mv %[t0], %[in]\n"
                     "   vl8re8.v v0, (%[t0])\n   add %[t0], %[t0], %[step]\n"
                     "   vl8re8.v v8, (%[t0])\n   add %[t0], %[t0], %[step]\n"
                     "   vl8re8.v v16, (%[t0])\n   add %[t0], %[t0], %[step]\n"
                     "   vl8re8.v v24, (%[t0])\n"
                     "   vsetvl %[t0], %[avl], %[vtype]\n"
                     "   csrw vcsr, %[vcsr]\n"
                     "1: addi %[spin], %[spin], -1\n"
                     "   bnez %[spin], 1b\n"
                     "   csrr %[t0], vl\n   csrr %[t1], vtype\n   csrr %[spin], vcsr\n"
                     "   sd %[t0], 8(%[seen])\n   sd %[t1], 0(%[seen])\n   sd %[spin], 16(%[seen])\n"
                     "   mv %[t0], %[out]\n"
                     "   vs8r.v v0, (%[t0])\n   add %[t0], %[t0], %[step]\n"
                     "   vs8r.v v8, (%[t0])\n   add %[t0], %[t0], %[step]\n"
                     "   vs8r.v v16, (%[t0])\n   add %[t0], %[t0], %[step]\n"
                     "   vs8r.v v24, (%[t0])\n"
                     ".option pop\n"
                     : [t0] "=&r"(t0), [t1] "=&r"(t1), [spin] "+&r"(spin)
                     : [in] "r"(in), [out] "r"(out), [avl] "r"(c->avl), [vtype] "r"(c->vtype),
                       [vcsr] "r"(c->vcsr), [seen] "r"(seen), [step] "r"(step)
                     : "memory");
}

static int process(unsigned n)
{
    static const struct config configs[PROCESSES] = { { 0xc0, 5, 1 }, { 0x12, 7, 4 }, { 0xd9, 3, 7 } };
    static uint8_t in[SIZE], out[SIZE];
    unsigned long bytes = register_bytes();
    struct rusage use;

    srandom(n + 1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct config seen = { 0 };

        for (unsigned i = 0; i < SIZE; i++) {
            in[i] = (uint8_t)random();
        }
        hold(in, out, &configs[n], &seen, 8 * bytes);
        if (memcmp(in, out, 32 * bytes) != 0 || memcmp(&seen, &configs[n], sizeof(seen)) != 0) {
            printf("VECTOR-SWITCH process %u round %u: vl %lu vtype %lx vcsr %lx\n", n, round, seen.avl,
                   seen.vtype, seen.vcsr);
            return 1;
        }
    }
    getrusage(RUSAGE_SELF, &use);
    return use.ru_nivcsw < 3 ? 2 : 0;
}

int main(void)
{
    int status, bad = 0;

    if (!(getauxval(AT_HWCAP) >> ('v' - 'a') & 1)) {
        puts("VECTOR-SWITCH no vectors");
        return 1;
    }
    for (unsigned n = 0; n < PROCESSES; n++) {
        if (fork() == 0) {
            exit(process(n));
        }
    }
    while (wait(&status) > 0) {
        bad |= WIFEXITED(status) ? WEXITSTATUS(status) : 4;
    }
    printf("VECTOR-SWITCH %s %d\n", bad ? "bad" : "ok", bad);
    return bad;
}
