/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the guest of tests/e2e/guest_extras.py: streams of AF_VSOCK.
 *
 *   vsock listen PORT        takes one caller, reads to the end, answers "BYTES CRC" and ends
 *   vsock send PORT MIB      calls the host, sends that much, and prints "BYTES CRC" when the host has said "ok"
 *   vsock refused PORT       succeeds when nobody there listens
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static uint32_t table[256];
static unsigned char bytes[65536];

static void crc_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) {
            c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        }
        table[i] = c;
    }
}

static uint32_t crc(uint32_t c, const unsigned char *p, size_t n)
{
    c = ~c;
    while (n--) {
        c = table[(c ^ *p++) & 255] ^ c >> 8;
    }
    return ~c;
}

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static int take(unsigned port)
{
    struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port };
    int s = socket(AF_VSOCK, SOCK_STREAM, 0), c;
    unsigned long long total = 0;
    uint32_t sum = 0;
    char text[64];
    ssize_t n;

    if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 4) < 0) {
        return fail("listen");
    }
    puts("LISTENING");
    fflush(stdout);
    c = accept(s, NULL, NULL);
    if (c < 0) {
        return fail("accept");
    }
    while ((n = read(c, bytes, sizeof(bytes))) > 0) {
        sum = crc(sum, bytes, (size_t)n);
        total += (unsigned long long)n;
    }
    if (n < 0) {
        return fail("read");
    }
    n = snprintf(text, sizeof(text), "%llu %08x\n", total, (unsigned)sum);
    return write(c, text, (size_t)n) == n ? 0 : fail("write");
}

static int call(unsigned port)
{
    struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port };
    int s = socket(AF_VSOCK, SOCK_STREAM, 0);

    return s >= 0 && connect(s, (struct sockaddr *)&a, sizeof(a)) == 0 ? s : -1;
}

static int give(unsigned port, unsigned mib)
{
    unsigned long long left = (unsigned long long)mib << 20, total = 0;
    uint64_t x = 88172645463325252ull;
    uint32_t sum = 0;
    int s = call(port);
    char answer[8] = "";

    if (s < 0) {
        return fail("connect");
    }
    while (left > 0) {
        size_t n = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
        for (size_t i = 0; i + 8 <= n; i += 8) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            memcpy(bytes + i, &x, 8);
        }
        for (size_t done = 0; done < n;) {
            ssize_t w = write(s, bytes + done, n - done);
            if (w <= 0) {
                return fail("write");
            }
            done += (size_t)w;
        }
        sum = crc(sum, bytes, n);
        total += n;
        left -= n;
    }
    shutdown(s, SHUT_WR);
    if (read(s, answer, 3) != 3 || strncmp(answer, "ok\n", 3) != 0) {
        return fail("answer");
    }
    printf("SENT %llu %08x\n", total, (unsigned)sum);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned port = argc > 2 ? (unsigned)atoi(argv[2]) : 0;

    crc_init();
    if (argc == 3 && strcmp(argv[1], "listen") == 0) {
        return take(port);
    }
    if (argc == 4 && strcmp(argv[1], "send") == 0) {
        return give(port, (unsigned)atoi(argv[3]));
    }
    if (argc == 3 && strcmp(argv[1], "refused") == 0) {
        return call(port) < 0 && errno == ECONNRESET ? 0 : fail("not refused");
    }
    return 2;
}
