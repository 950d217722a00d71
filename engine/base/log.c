/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging: one line, one write(2). Owns the process-wide sink, which main() sets before threads
 * start and which is read-only from then on; any thread may log.
 */
#include "engine/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct {
    char ident[32];
    enum log_level level;
    int fd;
    pid_t pid;       /* asked once: the sandbox has no call for it; 0 before log_init() */
    bool journal;    /* fd goes to systemd's journal: it adds the time, we the priority */
    uint64_t traced; /* one bit a letter, see trace_bit() */
} sink = { .ident = "vmd", .level = LOG_INFO, .fd = STDERR_FILENO };

/* systemd.exec(5): JOURNAL_STREAM is "device:inode" of the stream given to the service. */
static bool goes_to_journal(int fd)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;
    return text && sscanf(text, "%llu:%llu", &dev, &ino) == 2 && fstat(fd, &st) == 0 &&
           st.st_dev == dev && st.st_ino == ino;
}

void log_init(const char *ident, enum log_level level, int fd)
{
    snprintf(sink.ident, sizeof(sink.ident), "%s", ident);
    sink.level = level;
    sink.fd = fd;
    sink.pid = getpid();
    sink.journal = goes_to_journal(fd);
    tzset(); /* reads /etc/localtime now: later the sandbox may allow no file to be opened */
}

/* a-z: bits 0-25, A-Z: bits 26-51, 0-9: bits 52-61; -1 for anything else. */
static int trace_bit(char letter)
{
    if (letter >= 'a' && letter <= 'z') {
        return letter - 'a';
    }
    if (letter >= 'A' && letter <= 'Z') {
        return 26 + letter - 'A';
    }
    if (letter >= '0' && letter <= '9') {
        return 52 + letter - '0';
    }
    return -1;
}

void log_set_trace(const char *letters)
{
    sink.traced = 0;
    for (; letters && *letters; letters++) {
        int bit = trace_bit(*letters);
        if (bit >= 0) {
            sink.traced |= UINT64_C(1) << bit;
        }
    }
}

bool log_traces(char letter)
{
    int bit = trace_bit(letter);
    return bit >= 0 && (sink.traced >> bit & 1);
}

/* Text may carry what a guest or client sent: no control character reaches a terminal. */
static void blank_controls(char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            s[i] = '?';
        }
    }
}

static size_t put_head(char *line, size_t size, enum log_level level, const char *room)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };
    static const int priorities[] = { 3, 4, 6, 7 }; /* sd-daemon(3) */
    int n, pid = sink.pid ? (int)sink.pid : (int)getpid();
    if (sink.journal) {
        n = snprintf(line, size, "<%d>%.32s: ", priorities[level], room);
    } else {
        struct timespec ts;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &ts);
        localtime_r(&ts.tv_sec, &tm);
        n = snprintf(line, size, "%02d:%02d:%02d.%03ld %s[%d] %s %.32s: ", tm.tm_hour,
                     tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000, sink.ident, pid, names[level],
                     room);
    }
    return n > 0 ? (size_t)n : 0;
}

static void write_line(const char *line, size_t n)
{
    while (n > 0) {
        ssize_t done = write(sink.fd, line, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return; /* the log is gone; the program goes on */
        }
        line += done;
        n -= (size_t)done;
    }
}

void log_write(enum log_level level, const char *room, const char *fmt, ...)
{
    /* A trace line is asked for by its letter, whatever the level. */
    bool traced = level == LOG_DEBUG && room[0] && !room[1] && log_traces(room[0]);
    if (level > sink.level && !traced) {
        return;
    }
    int saved = errno; /* so that logging can stand between a call and the look at its errno */
    char line[2048];
    size_t head = put_head(line, sizeof(line), level, room);
    va_list ap;
    va_start(ap, fmt);
    errno = saved; /* for %m */
    int n = vsnprintf(line + head, sizeof(line) - head - 1, fmt, ap);
    va_end(ap);
    size_t room_left = sizeof(line) - head - 2;
    size_t len = n < 0 ? 0 : (size_t)n < room_left ? (size_t)n : room_left;
    if (len > 0 && line[head + len - 1] == '\n') {
        len--;
    }
    blank_controls(line + head, len);
    line[head + len] = '\n';
    write_line(line, head + len + 1);
    errno = saved;
}
