/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the guest: processes that keep different vector registers, vtype, vl and vcsr over a busy loop, in which
 * the kernel takes the CPU from them. Each goes on until it has happened to all. Prints VECTOR-SWITCH ok, or what
 * went wrong.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 6
#define SWITCHES 3 /* of each process, not by its own wish */
#define ROUNDS_MAX 20000
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

/* Whether every process was switched from often enough; tells the others that this one was. */
static int switched(atomic_uint *done, int *told)
{
    struct rusage use;

    getrusage(RUSAGE_SELF, &use);
    if (!*told && use.ru_nivcsw >= SWITCHES) {
        *told = 1;
        atomic_fetch_add(done, 1);
    }
    return atomic_load(done) == PROCESSES;
}

static int process(unsigned n, atomic_uint *done)
{
    static const struct config configs[3] = { { 0xc0, 5, 1 }, { 0x12, 7, 4 }, { 0xd9, 3, 7 } };
    static uint8_t in[SIZE], out[SIZE];
    const struct config *want = &configs[n % 3];
    unsigned long bytes = register_bytes();
    int told = 0;

    srandom(n + 1);
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        struct config seen = { 0 };

        for (unsigned i = 0; i < SIZE; i++) {
            in[i] = (uint8_t)random();
        }
        hold(in, out, want, &seen, 8 * bytes);
        if (memcmp(in, out, 32 * bytes) != 0 || memcmp(&seen, want, sizeof(seen)) != 0) {
            printf("VECTOR-SWITCH process %u round %u: vl %lu vtype %lx vcsr %lx\n", n, round, seen.avl,
                   seen.vtype, seen.vcsr);
            return 1;
        }
        if (switched(done, &told)) {
            return 0;
        }
    }
    return 2;
}

int main(void)
{
    atomic_uint *done = mmap(NULL, sizeof(*done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status, bad = 0;

    if (done == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    if (!(getauxval(AT_HWCAP) >> ('v' - 'a') & 1)) {
        puts("VECTOR-SWITCH no vectors");
        return 1;
    }
    for (unsigned n = 0; n < PROCESSES; n++) {
        if (fork() == 0) {
            exit(process(n, done));
        }
    }
    while (wait(&status) > 0) {
        bad |= WIFEXITED(status) ? WEXITSTATUS(status) : 4;
    }
    printf("VECTOR-SWITCH %s %d\n", bad ? "bad" : "ok", bad);
    return bad;
}
