/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging. One process-wide sink (the sole mutable global of the program besides signal
 * flags; see docs/ARCHITECTURE.md), set once in main() before threads start, then read-only.
 * Any thread may log; one write(2) a line, so lines never interleave.
 */
#ifndef VMD_BASE_LOG_H
#define VMD_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Program name put before each line, level up to which lines are written, descriptor they
 * go to (2 by default). When systemd's journal is the reader (JOURNAL_STREAM set), lines carry <N> priorities
 * and no time. */
void log_init(const char *ident, enum log_level level, int fd);

/* Trace letters (as `vmd-emu -d LETTERS`): each room documents its own. */
void log_set_trace(const char *letters);
bool log_traces(char letter);

void log_write(enum log_level level, const char *room, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* `room` is the short name of the folder: "core", "tcg", "daemon". */
#define log_error(room, ...) log_write(LOG_ERROR, room, __VA_ARGS__)
#define log_warn(room, ...) log_write(LOG_WARN, room, __VA_ARGS__)
#define log_info(room, ...) log_write(LOG_INFO, room, __VA_ARGS__)
#define log_debug(room, ...) log_write(LOG_DEBUG, room, __VA_ARGS__)
/* Writes "letter: text" when that letter is traced. The arguments are not evaluated otherwise. */
#define log_trace(letter, ...)                                                                  \
    do {                                                                                        \
        if (log_traces(letter)) {                                                               \
            log_write(LOG_DEBUG, (const char[]){ letter, 0 }, __VA_ARGS__);                     \
        }                                                                                       \
    } while (0)

#endif
