/* SPDX-License-Identifier: Apache-2.0 */
/* Words of a text: counting, wrapping, edit distance, Roman numerals, Caesar and Vigenere. */
#include "project.h"

#include <ctype.h>

static const char sample[] = "A machine that runs another machine must do what the other would "
                             "have done, and in the order in which it "
                             "would have done it. What it may not do is tell. The guest "
                             "counts, the host pays, and the translator sits "
                             "between them and remembers what it has already said.";

static void wrap(const char *text, size_t width)
{
    size_t column = 0;
    while (*text) {
        size_t length = strcspn(text, " ");
        if (column && column + 1 + length > width) {
            putchar('\n');
            column = 0;
        }
        column += (size_t)printf("%s%.*s", column ? " " : "", (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
    putchar('\n');
}

static unsigned distance(const char *a, const char *b)
{
    unsigned row[64];
    size_t n = strlen(b);
    for (unsigned j = 0; j <= n; j++) {
        row[j] = j;
    }
    for (unsigned i = 1; *a; a++, i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= n; j++) {
            unsigned above = row[j];
            unsigned best = diagonal + (*a != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[n];
}

static void roman(unsigned v)
{
    static const struct {
        unsigned value;
        const char *text;
    } parts[] = { { 1000, "M" }, { 900, "CM" }, { 500, "D" }, { 400, "CD" }, { 100, "C" },
                  { 90, "XC" },  { 50, "L" },   { 40, "XL" }, { 10, "X" },   { 9, "IX" },
                  { 5, "V" },    { 4, "IV" },   { 1, "I" } };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        for (; v >= parts[i].value; v -= parts[i].value) {
            fputs(parts[i].text, stdout);
        }
    }
    putchar(' ');
}

static void vigenere(const char *text, const char *key, int sign)
{
    for (size_t i = 0, k = 0; text[i]; i++) {
        int c = (unsigned char)text[i];
        if (isalpha(c)) {
            int base = isupper(c) ? 'A' : 'a';
            c = base + (c - base + sign * (key[k++ % strlen(key)] - 'a') + 26) % 26;
        }
        putchar(c);
    }
    putchar('\n');
}

void report_text(void)
{
    unsigned letters[26] = { 0 }, words = 0;
    for (const char *p = sample; *p; p++) {
        if (isalpha((unsigned char)*p)) {
            letters[tolower((unsigned char)*p) - 'a']++;
            words += !isalpha((unsigned char)p[1]);
        }
    }
    printf("%u words;", words);
    for (int i = 0; i < 26; i++) {
        if (letters[i]) {
            printf(" %c%u", 'a' + i, letters[i]);
        }
    }
    putchar('\n');
    wrap(sample, 40);
    printf("%u %u %u\n", distance("kitten", "sitting"), distance("", "abc"),
           distance("translator", "transistor"));
    for (unsigned v = 1; v < 4000; v = v * 3 + 1) {
        roman(v);
    }
    putchar('\n');
    vigenere("Attack at dawn", "lemon", 1);
    vigenere("Lxfopv ef rnhr", "lemon", -1);
}
