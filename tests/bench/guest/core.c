/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Embedded-style integer work: a linked list sorted and searched, 16-bit matrices, a state machine
 * that classifies number text, and a bitwise CRC of everything. Argument: iterations.
 */
#include "tests/bench/guest/bench.h"

#define NODES 200
#define SIDE 24

struct node {
    struct node *next;
    int16_t key;
    int16_t data;
};

static struct node nodes[NODES];
static int16_t left[SIDE][SIDE];
static int16_t right[SIDE][SIDE];
static int32_t product[SIDE][SIDE];

static uint16_t crc16(uint16_t crc, uint32_t value)
{
    for (int bit = 0; bit < 32; bit++) {
        unsigned carry = (crc ^ value) & 1;

        crc >>= 1;
        value >>= 1;
        if (carry) {
            crc ^= 0xa001;
        }
    }
    return crc;
}

static struct node *merge(struct node *a, struct node *b, int by_data)
{
    struct node head = { 0 };
    struct node *tail = &head;

    while (a && b) {
        int first = by_data ? a->data <= b->data : a->key <= b->key;
        struct node **from = first ? &a : &b;

        tail->next = *from;
        tail = *from;
        *from = tail->next;
    }
    tail->next = a ? a : b;
    return head.next;
}

static struct node *sort(struct node *list, int by_data)
{
    struct node *slow = list;
    struct node *half;

    if (!list || !list->next) {
        return list;
    }
    for (struct node *fast = list->next; fast && fast->next; fast = fast->next->next) {
        slow = slow->next;
    }
    half = slow->next;
    slow->next = NULL;
    return merge(sort(list, by_data), sort(half, by_data), by_data);
}

static struct node *reverse(struct node *list)
{
    struct node *done = NULL;

    while (list) {
        struct node *next = list->next;

        list->next = done;
        done = list;
        list = next;
    }
    return done;
}

static uint16_t list_work(uint16_t crc, unsigned round)
{
    struct node *list = nodes;

    for (int i = 0; i < NODES; i++) {
        nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
        nodes[i].data = (int16_t)(nodes[i].data * 31 + (int)round + i);
    }
    list = reverse(sort(list, 1));
    for (int i = 0; i < 16; i++) {
        int16_t wanted = (int16_t)((round * 7 + (unsigned)i * 13) % NODES);
        struct node *found = list;

        while (found && found->key != wanted) {
            found = found->next;
        }
        crc = crc16(crc, found ? (uint32_t)found->data : 0);
    }
    list = sort(list, 0);
    return crc16(crc, (uint32_t)list->next->data);
}

static uint16_t matrix_work(uint16_t crc, unsigned round)
{
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            int32_t sum = 0;

            for (int k = 0; k < SIDE; k++) {
                sum += left[i][k] * right[k][j];
            }
            product[i][j] = sum;
        }
    }
    for (int i = 0; i < SIDE; i++) {
        left[i][round % SIDE] = (int16_t)(product[i][i] >> 6);
        crc = crc16(crc, (uint32_t)product[i][SIDE - 1 - i]);
    }
    return crc;
}

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, POWER, INVALID, STATES };

static enum state step(enum state state, char c)
{
    int digit = c >= '0' && c <= '9';

    switch (state) {
    case START:
        return digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : INVALID;
    case SIGN:
        return digit ? INTEGER : c == '.' ? POINT : INVALID;
    case INTEGER:
        return digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID;
    case POINT:
        return digit ? FRACTION : INVALID;
    case FRACTION:
        return digit ? FRACTION : c == 'e' ? EXPONENT : INVALID;
    case EXPONENT:
        return digit || c == '-' ? POWER : INVALID;
    case POWER:
        return digit ? POWER : INVALID;
    default:
        return INVALID;
    }
}

static uint16_t state_work(uint16_t crc, unsigned round)
{
    static const char text[] =
        "5012,-874,+122,1.2e4,.7,+.004,35.54400,.1234500,-110.700,5.5e+3,"
        "-.123e-2,T0.3e-1F,-T.T++Tq,1T3.4e4z,34.0e-T^,0x12,-3.e9,87e6,";
    uint32_t counts[STATES] = { 0 };
    enum state state = START;

    for (const char *at = text; *at; at++) {
        char c = *at == '8' ? (char)('0' + round % 10) : *at;

        if (c == ',') {
            counts[state]++;
            state = START;
        } else {
            state = step(state, c);
        }
    }
    for (int i = 0; i < STATES; i++) {
        crc = crc16(crc, counts[i]);
    }
    return crc;
}

int main(int argc, char **argv)
{
    long rounds = bench_argument(argc, argv, 1, 100);
    uint64_t seed = 42;
    uint16_t crc = 0xffff;

    for (int i = 0; i < NODES; i++) {
        nodes[i].key = (int16_t)i;
        nodes[i].data = (int16_t)bench_random(&seed);
    }
    for (int i = 0; i < SIDE * SIDE; i++) {
        left[i / SIDE][i % SIDE] = (int16_t)(bench_random(&seed) & 255);
        right[i / SIDE][i % SIDE] = (int16_t)(bench_random(&seed) & 255);
    }
    bench_begin();
    for (long i = 0; i < rounds; i++) {
        crc = list_work(crc, (unsigned)i);
        crc = matrix_work(crc, (unsigned)i);
        crc = state_work(crc, (unsigned)i);
    }
    bench_end(crc);
    return 0;
}
