/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target without libFuzzer: files, then random inputs.
 *
 *   fuzz_X [--corpus FOLDER] [--seed N] [--from N] [--count N] [--seconds N] [--save FILE] [FILE...]
 *
 * Number I of a seed and a corpus is always the same input: random bytes, or a file of the corpus with some changes. Without --count
 * it goes on for --seconds (default 3; 0: none). A finding prints the input's number and leaves the
 * input in FILE (default fuzz_X.crash). The main thread does everything; an alarm ends an input that hangs.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* gcc's libubsan does not know libasan's callback: it is made to abort, which a handler sees. */
const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
    return "abort_on_error=1:print_stacktrace=1";
}

struct file {
    uint8_t *data;
    size_t size;
    char *name;
};

/* Read by the signal handler, hence here. */
static struct {
    struct file *files;
    size_t n_files;
    uint64_t seed, from, count, seconds;
    bool counted;
    const char *save;
    const uint8_t *data; /* the running input */
    size_t size;
    char what[256];
} run;

static void put(int fd, const void *p, size_t n)
{
    ssize_t done = write(fd, p, n);
    (void)done;
}

/* Async-signal-safe. */
static void save_input(void)
{
    int fd;

    if (!run.data) {
        return;
    }
    fd = open(run.save, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    put(2, run.what, strlen(run.what));
    if (fd >= 0) {
        put(fd, run.data, run.size);
        close(fd);
        put(2, "; saved in ", 11);
        put(2, run.save, strlen(run.save));
    }
    put(2, "\n", 1);
    run.data = NULL;
}

static void on_signal(int signo)
{
    if (signo == SIGALRM) {
        put(2, "input takes too long\n", 21);
    }
    save_input();
    signal(signo, SIG_DFL);
    raise(signo == SIGALRM ? SIGABRT : signo);
}

static void catch_signals(void)
{
    static const int signals[] = { SIGABRT, SIGALRM, SIGSEGV, SIGBUS, SIGILL, SIGFPE };
    bool sanitized = __sanitizer_set_death_callback != NULL;
    size_t i;

    if (sanitized) {
        __sanitizer_set_death_callback(save_input); /* these report the others themselves */
    }
    for (i = 0; i < (sanitized ? 2 : sizeof(signals) / sizeof(signals[0])); i++) {
        signal(signals[i], on_signal);
    }
}

static void one(const uint8_t *data, size_t size)
{
    run.data = data;
    run.size = size;
    alarm(FUZZ_INPUT_SECONDS);
    fuzz_one(data, size);
    alarm(0);
    run.data = NULL;
}

static bool read_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t buf[FUZZ_INPUT_MAX];
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));
    struct file *f;

    if (fd >= 0) {
        close(fd);
    }
    if (n < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    run.files = realloc(run.files, (run.n_files + 1) * sizeof(*run.files));
    if (!run.files) {
        abort();
    }
    f = &run.files[run.n_files++];
    f->data = malloc((size_t)n + 1);
    f->name = strdup(path);
    if (!f->data || !f->name) {
        abort();
    }
    f->size = (size_t)n;
    memcpy(f->data, buf, (size_t)n);
    return true;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool read_corpus(const char *folder)
{
    struct dirent **list = NULL;
    int n = scandir(folder, &list, NULL, by_name), i;
    bool ok = n >= 0;

    if (!ok) {
        fprintf(stderr, "%s: %s\n", folder, strerror(errno));
    }
    for (i = 0; i < n; i++) {
        char path[4096];

        snprintf(path, sizeof(path), "%s/%s", folder, list[i]->d_name);
        ok = ok && (list[i]->d_name[0] == '.' || read_file(path));
        free(list[i]);
    }
    free(list);
    return ok;
}

/* Input number n of the seed. */
static size_t draw(uint64_t n, uint8_t *out)
{
    uint64_t state = run.seed * UINT64_C(0x100000001b3) ^ n * UINT64_C(0x9e3779b97f4a7c15);
    size_t size, i, changes;
    const struct file *f;

    fuzz_mix(&state);
    if (run.n_files == 0 || fuzz_mix(&state) % 4 == 0) {
        size = (size_t)(fuzz_mix(&state) % (1u << (2 + fuzz_mix(&state) % 10)));
        for (i = 0; i < size; i++) {
            out[i] = (uint8_t)fuzz_mix(&state);
        }
        return size;
    }
    f = &run.files[fuzz_mix(&state) % run.n_files];
    size = f->size;
    memcpy(out, f->data, size);
    changes = (size_t)1 << fuzz_mix(&state) % 6;
    for (i = 0; i < changes; i++) {
        uint64_t r = fuzz_mix(&state);
        size_t at = size ? (size_t)(r >> 32) % size : 0, len = (size_t)(r >> 16 & 15) + 1;

        switch (r % 6) {
        case 0: /* a bit */
            out[at] = size ? (uint8_t)(out[at] ^ 1u << (r >> 8 & 7)) : 0;
            break;
        case 1: /* a byte */
            out[at] = (uint8_t)(r >> 8);
            break;
        case 2: /* an odd number */
            out[at] = (uint8_t) "\x00\xff\x7f\x80\x01\xfe\x40\x20"[r >> 8 & 7];
            break;
        case 3: /* something goes */
            len = len < size - at ? len : size - at;
            memmove(out + at, out + at + len, size - at - len);
            size -= len;
            break;
        case 4: /* something comes twice */
            len = len < size - at ? len : size - at;
            if (size + len <= FUZZ_INPUT_MAX) {
                memmove(out + at + len, out + at, size - at);
                size += len;
            }
            break;
        default: /* the end of another file */
            f = &run.files[(r >> 8) % run.n_files];
            if (at < f->size) {
                memcpy(out + at, f->data + at, f->size - at);
                size = f->size;
            }
            break;
        }
    }
    return size;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void random_inputs(void)
{
    static uint8_t buf[FUZZ_INPUT_MAX + 16];
    double end = now() + (double)run.seconds;
    uint64_t n;

    for (n = run.from; run.counted ? n < run.from + run.count : now() < end; n++) {
        size_t size = draw(n, buf);

        snprintf(run.what, sizeof(run.what),
                 "%s: input %" PRIu64 " of seed %" PRIu64 " (--seed %" PRIu64 " --from %" PRIu64
                 " --count 1)",
                 fuzz_name, n, run.seed, run.seed, n);
        one(buf, size);
    }
    printf("# %s: %zu files, inputs %" PRIu64 " to %" PRIu64 " of seed %" PRIu64
           ", no finding\n",
           fuzz_name, run.n_files, run.from, n, run.seed);
}

static bool parse(int argc, char **argv)
{
    const char *corpus = NULL;
    bool ok = true;
    int i;

    run.seconds = 3;
    run.seed = 1;
    for (i = 1; ok && i < argc; i++) {
        uint64_t *to = strcmp(argv[i], "--seed") == 0      ? &run.seed
                       : strcmp(argv[i], "--from") == 0    ? &run.from
                       : strcmp(argv[i], "--count") == 0   ? &run.count
                       : strcmp(argv[i], "--seconds") == 0 ? &run.seconds
                                                           : NULL;
        if (to && i + 1 < argc) {
            run.counted |= to == &run.count;
            *to = strtoull(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "--corpus") == 0 && i + 1 < argc) {
            corpus = argv[++i];
        } else if (strcmp(argv[i], "--save") == 0 && i + 1 < argc) {
            run.save = argv[++i];
        } else if (argv[i][0] == '-') {
            fprintf(stderr,
                    "usage: %s [--corpus FOLDER] [--seed N] [--from N] [--count N] "
                    "[--seconds N] [--save FILE] [FILE...]\n",
                    argv[0]);
            ok = false;
        } else {
            ok = read_file(argv[i]);
            run.seconds = 0; /* files alone, unless asked */
        }
    }
    return ok && (!corpus || read_corpus(corpus));
}

int main(int argc, char **argv)
{
    char save[128];
    size_t i;

    snprintf(save, sizeof(save), "%s.crash", fuzz_name);
    run.save = save;
    if (!parse(argc, argv)) {
        return 2;
    }
    catch_signals();
    fuzz_setup();
    for (i = 0; i < run.n_files; i++) {
        snprintf(run.what, sizeof(run.what), "%s: file %s", fuzz_name, run.files[i].name);
        one(run.files[i].data, run.files[i].size);
    }
    random_inputs();
    fuzz_finish();
    for (i = 0; i < run.n_files; i++) {
        free(run.files[i].data);
        free(run.files[i].name);
    }
    free(run.files);
    return 0;
}
