/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves data between the guest and a program on the host (tests/bench/network.py), over the card whose address ends in CARD.
 *
 *   net CARD OWN PEER PORT receive|send|udp|rtt COUNT
 *
 * receive, send: COUNT bytes by TCP; udp: COUNT datagrams of 64 bytes that the peer sends back, 32 of them on their way; rtt: COUNT bytes by
 * TCP, each answered before the next. The checksum is of what was received; datagrams that are lost fail the row when they are
 * more than one in a hundred.
 */
#include "tests/bench/guest/bench.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 1 << 18, WINDOW = 32, DATAGRAM = 64 };

static struct sockaddr_in address(const char *ip, int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

    inet_pton(AF_INET, ip, &a.sin_addr);
    return a;
}

/* Finds the card, gives it its address and plugs it in. */
static void card_up(int card, const char *own)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0);

    for (int i = 0; i < 4; i++) {
        struct ifreq r = { 0 };
        struct sockaddr_in a = address(own, 0), mask = address("255.255.255.0", 0);

        snprintf(r.ifr_name, sizeof r.ifr_name, "eth%d", i);
        if (ioctl(s, SIOCGIFHWADDR, &r) != 0 ||
            (unsigned char)r.ifr_hwaddr.sa_data[5] != card) {
            continue;
        }
        memcpy(&r.ifr_addr, &a, sizeof a);
        ioctl(s, SIOCSIFADDR, &r);
        memcpy(&r.ifr_netmask, &mask, sizeof mask);
        ioctl(s, SIOCSIFNETMASK, &r);
        r.ifr_flags = IFF_UP | IFF_RUNNING;
        if (ioctl(s, SIOCSIFFLAGS, &r) == 0) {
            close(s);
            return;
        }
    }
    bench_fail("card");
}

/* The card may need a moment until it carries. */
static int dial(const char *peer, int port, const char *what, uint64_t count)
{
    struct sockaddr_in a = address(peer, port);
    int one = 1, s = -1;
    char line[64];

    for (int i = 0; i < 100; i++) {
        s = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(s, (struct sockaddr *)&a, sizeof a) == 0) {
            break;
        }
        close(s);
        s = -1;
        usleep(100000);
    }
    if (s < 0) {
        bench_fail("connect");
    }
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    snprintf(line, sizeof line, "%s %llu\n", what, (unsigned long long)count);
    if (write(s, line, strlen(line)) < 0) {
        bench_fail("write");
    }
    return s;
}

static uint64_t words(const unsigned char *p, size_t n, uint64_t sum)
{
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t word;

        memcpy(&word, p + i, 8);
        sum += word;
    }
    return sum;
}

static uint64_t receive(int s, uint64_t count)
{
    unsigned char *p = malloc(PIECE);
    uint64_t sum = 0, got = 0;

    while (got < count) {
        size_t have = 0, want = count - got < PIECE ? count - got : PIECE;

        while (have < want) {
            ssize_t n = read(s, p + have, want - have);

            if (n <= 0) {
                bench_fail("read");
            }
            have += (size_t)n;
        }
        sum = words(p, have, sum);
        got += have;
    }
    return sum;
}

static uint64_t transmit(int s, uint64_t count)
{
    unsigned char *p = malloc(PIECE), answer[8];
    size_t have = 0;

    memset(p, 0x5a, PIECE);
    while (count > 0) {
        ssize_t n = write(s, p, count < PIECE ? count : PIECE);

        if (n <= 0) {
            bench_fail("write");
        }
        count -= (uint64_t)n;
    }
    while (have < sizeof answer) { /* the peer has it all, and says what it was */
        ssize_t n = read(s, answer + have, sizeof answer - have);

        if (n <= 0) {
            bench_fail("answer");
        }
        have += (size_t)n;
    }
    return words(answer, sizeof answer, 0);
}

static uint64_t round_trips(int s, uint64_t count)
{
    char c = 1;

    for (uint64_t i = 0; i < count; i++) {
        if (write(s, &c, 1) != 1 || read(s, &c, 1) != 1) {
            bench_fail("rtt");
        }
    }
    return count;
}

static uint64_t datagrams(const char *peer, int port, uint64_t count)
{
    struct sockaddr_in a = address(peer, port);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    unsigned char bytes[DATAGRAM] = { 0 };
    uint64_t sent = 0, got = 0, lost = 0;

    if (connect(s, (struct sockaddr *)&a, sizeof a) != 0) {
        bench_fail("connect");
    }
    while (got + lost < count) {
        struct pollfd p = { .fd = s, .events = POLLIN };

        while (sent < count && sent - got - lost < WINDOW) {
            sent += send(s, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes;
        }
        if (recv(s, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
            got++;
        } else if (poll(&p, 1, 1000) == 0) {
            lost += sent - got - lost;
        }
    }
    if (lost * 100 > count) {
        bench_fail("lost");
    }
    return count;
}

int main(int argc, char **argv)
{
    uint64_t count, result;
    int port, s;

    if (argc != 7) {
        bench_fail("usage");
    }
    port = atoi(argv[4]);
    count = strtoull(argv[6], NULL, 10);
    card_up(atoi(argv[1]), argv[2]);
    s = dial(argv[3], port, argv[5], count);
    bench_begin();
    result = strcmp(argv[5], "receive") == 0 ? receive(s, count)
             : strcmp(argv[5], "send") == 0  ? transmit(s, count)
             : strcmp(argv[5], "rtt") == 0   ? round_trips(s, count)
                                             : datagrams(argv[3], port, count);
    bench_end(result);
    return 0;
}
