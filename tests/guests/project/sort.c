/* SPDX-License-Identifier: Apache-2.0 */
/* Five ways to sort must agree. */
#include "project.h"

#define COUNT 5000

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void with_library(uint32_t *v, size_t n)
{
    qsort(v, n, sizeof(v[0]), compare);
}

static void by_heap(uint32_t *v, size_t n)
{
    for (size_t build = n / 2, end = n; end > 1;) {
        uint32_t value;
        if (build) {
            value = v[--build];
        } else {
            value = v[--end];
            v[end] = v[0];
        }
        size_t hole = build;
        for (size_t child; (child = 2 * hole + 1) < end; hole = child) {
            child += child + 1 < end && v[child + 1] > v[child];
            if (v[child] <= value) {
                break;
            }
            v[hole] = v[child];
        }
        v[hole] = value;
    }
}

static void by_merging(uint32_t *v, size_t n)
{
    static uint32_t other[COUNT];
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t at = 0; at < n; at += 2 * run) {
            size_t middle = at + run < n ? at + run : n,
                   end = at + 2 * run < n ? at + 2 * run : n;
            for (size_t i = at, j = middle, k = at; k < end; k++) {
                other[k] = i < middle && (j >= end || v[i] <= v[j]) ? v[i++] : v[j++];
            }
        }
        memcpy(v, other, n * sizeof(v[0]));
    }
}

static void by_radix(uint32_t *v, size_t n)
{
    static uint32_t other[COUNT];
    for (unsigned shift = 0; shift < 32; shift += 8) {
        size_t count[257] = { 0 };
        for (size_t i = 0; i < n; i++) {
            count[(v[i] >> shift & 255) + 1]++;
        }
        for (unsigned i = 0; i < 256; i++) {
            count[i + 1] += count[i];
        }
        for (size_t i = 0; i < n; i++) {
            other[count[v[i] >> shift & 255]++] = v[i];
        }
        memcpy(v, other, n * sizeof(v[0]));
    }
}

static void by_gaps(uint32_t *v, size_t n)
{
    for (size_t gap = n / 2; gap; gap = gap == 2 ? 1 : gap * 5 / 11) {
        for (size_t i = gap; i < n; i++) {
            uint32_t value = v[i];
            size_t j = i;
            for (; j >= gap && v[j - gap] > value; j -= gap) {
                v[j] = v[j - gap];
            }
            v[j] = value;
        }
    }
}

void report_sort(void)
{
    static void (*const ways[])(uint32_t *, size_t) = { with_library, by_heap, by_merging,
                                                        by_radix, by_gaps };
    static uint32_t v[5][COUNT];
    uint64_t seed = 2024;
    for (size_t i = 0; i < COUNT; i++) {
        v[0][i] = (uint32_t)next_random(&seed);
    }
    for (unsigned w = 1; w < 5; w++) {
        memcpy(v[w], v[0], sizeof(v[0]));
    }
    for (unsigned w = 0; w < 5; w++) {
        ways[w](v[w], COUNT);
        printf("way %u %s\n", w, memcmp(v[w], v[0], sizeof(v[0])) == 0 ? "agrees" : "DIFFERS");
    }
    printf("median %" PRIu32 "\n", v[0][COUNT / 2]);
}
