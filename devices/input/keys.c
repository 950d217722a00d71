/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of keys. Constant data; any thread.
 */
#include "devices/input/keys.h"

#include "engine/base/mem.h"

#include <string.h>

/* clang-format off */
static const struct key keys[] = {
    { 1, 1, "esc", 0xff1b, 0x0 },
    { 2, 2, "1", 0x31, 0x21 },
    { 3, 3, "2", 0x32, 0x40 },
    { 4, 4, "3", 0x33, 0x23 },
    { 5, 5, "4", 0x34, 0x24 },
    { 6, 6, "5", 0x35, 0x25 },
    { 7, 7, "6", 0x36, 0x5e },
    { 8, 8, "7", 0x37, 0x26 },
    { 9, 9, "8", 0x38, 0x2a },
    { 10, 10, "9", 0x39, 0x28 },
    { 11, 11, "0", 0x30, 0x29 },
    { 12, 12, "minus", 0x2d, 0x5f },
    { 13, 13, "equal", 0x3d, 0x2b },
    { 14, 14, "backspace", 0xff08, 0x0 },
    { 15, 15, "tab", 0xff09, 0xfe20 },
    { 16, 16, "q", 0x71, 0x51 },
    { 17, 17, "w", 0x77, 0x57 },
    { 18, 18, "e", 0x65, 0x45 },
    { 19, 19, "r", 0x72, 0x52 },
    { 20, 20, "t", 0x74, 0x54 },
    { 21, 21, "y", 0x79, 0x59 },
    { 22, 22, "u", 0x75, 0x55 },
    { 23, 23, "i", 0x69, 0x49 },
    { 24, 24, "o", 0x6f, 0x4f },
    { 25, 25, "p", 0x70, 0x50 },
    { 26, 26, "bracket_left", 0x5b, 0x7b },
    { 27, 27, "bracket_right", 0x5d, 0x7d },
    { 28, 28, "ret", 0xff0d, 0x0 },
    { 29, 29, "ctrl", 0xffe3, 0x0 },
    { 30, 30, "a", 0x61, 0x41 },
    { 31, 31, "s", 0x73, 0x53 },
    { 32, 32, "d", 0x64, 0x44 },
    { 33, 33, "f", 0x66, 0x46 },
    { 34, 34, "g", 0x67, 0x47 },
    { 35, 35, "h", 0x68, 0x48 },
    { 36, 36, "j", 0x6a, 0x4a },
    { 37, 37, "k", 0x6b, 0x4b },
    { 38, 38, "l", 0x6c, 0x4c },
    { 39, 39, "semicolon", 0x3b, 0x3a },
    { 40, 40, "apostrophe", 0x27, 0x22 },
    { 41, 41, "grave_accent", 0x60, 0x7e },
    { 42, 42, "shift", 0xffe1, 0x0 },
    { 43, 43, "backslash", 0x5c, 0x7c },
    { 44, 44, "z", 0x7a, 0x5a },
    { 45, 45, "x", 0x78, 0x58 },
    { 46, 46, "c", 0x63, 0x43 },
    { 47, 47, "v", 0x76, 0x56 },
    { 48, 48, "b", 0x62, 0x42 },
    { 49, 49, "n", 0x6e, 0x4e },
    { 50, 50, "m", 0x6d, 0x4d },
    { 51, 51, "comma", 0x2c, 0x3c },
    { 52, 52, "dot", 0x2e, 0x3e },
    { 53, 53, "slash", 0x2f, 0x3f },
    { 54, 54, "shift_r", 0xffe2, 0x0 },
    { 55, 55, "kp_multiply", 0xffaa, 0x0 },
    { 56, 56, "alt", 0xffe9, 0x0 },
    { 57, 57, "spc", 0x20, 0x0 },
    { 58, 58, "caps_lock", 0xffe5, 0x0 },
    { 59, 59, "f1", 0xffbe, 0x0 },
    { 60, 60, "f2", 0xffbf, 0x0 },
    { 61, 61, "f3", 0xffc0, 0x0 },
    { 62, 62, "f4", 0xffc1, 0x0 },
    { 63, 63, "f5", 0xffc2, 0x0 },
    { 64, 64, "f6", 0xffc3, 0x0 },
    { 65, 65, "f7", 0xffc4, 0x0 },
    { 66, 66, "f8", 0xffc5, 0x0 },
    { 67, 67, "f9", 0xffc6, 0x0 },
    { 68, 68, "f10", 0xffc7, 0x0 },
    { 69, 69, "num_lock", 0xff7f, 0x0 },
    { 70, 70, "scroll_lock", 0xff14, 0x0 },
    { 71, 71, "kp_7", 0xffb7, 0xff95 },
    { 72, 72, "kp_8", 0xffb8, 0xff97 },
    { 73, 73, "kp_9", 0xffb9, 0xff9a },
    { 74, 74, "kp_subtract", 0xffad, 0x0 },
    { 75, 75, "kp_4", 0xffb4, 0xff96 },
    { 76, 76, "kp_5", 0xffb5, 0xff9d },
    { 77, 77, "kp_6", 0xffb6, 0xff98 },
    { 78, 78, "kp_add", 0xffab, 0x0 },
    { 79, 79, "kp_1", 0xffb1, 0xff9c },
    { 80, 80, "kp_2", 0xffb2, 0xff99 },
    { 81, 81, "kp_3", 0xffb3, 0xff9b },
    { 82, 82, "kp_0", 0xffb0, 0xff9e },
    { 83, 83, "kp_decimal", 0xffae, 0xff9f },
    { 86, 86, "less", 0x0, 0x0 },
    { 87, 87, "f11", 0xffc8, 0x0 },
    { 88, 88, "f12", 0xffc9, 0x0 },
    { 96, 156, "kp_enter", 0xff8d, 0x0 },
    { 97, 157, "ctrl_r", 0xffe4, 0x0 },
    { 98, 181, "kp_divide", 0xffaf, 0x0 },
    { 99, 183, "sysrq", 0xff15, 0xff61 },
    { 100, 184, "alt_r", 0xffea, 0xfe03 },
    { 102, 199, "home", 0xff50, 0x0 },
    { 103, 200, "up", 0xff52, 0x0 },
    { 104, 201, "pgup", 0xff55, 0x0 },
    { 105, 203, "left", 0xff51, 0x0 },
    { 106, 205, "right", 0xff53, 0x0 },
    { 107, 207, "end", 0xff57, 0x0 },
    { 108, 208, "down", 0xff54, 0x0 },
    { 109, 209, "pgdn", 0xff56, 0x0 },
    { 110, 210, "insert", 0xff63, 0x0 },
    { 111, 211, "delete", 0xffff, 0x0 },
    { 113, 160, "audiomute", 0x0, 0x0 },
    { 114, 174, "volumedown", 0x0, 0x0 },
    { 115, 176, "volumeup", 0x0, 0x0 },
    { 116, 222, "power", 0x0, 0x0 },
    { 119, 198, "pause", 0xff13, 0x0 },
    { 125, 219, "meta_l", 0xffeb, 0x0 },
    { 126, 220, "meta_r", 0xffec, 0x0 },
    { 127, 221, "compose", 0xff67, 0x0 },
};
/* clang-format on */

/* Other names of the same keys. */
static const struct {
    const char *name, *is;
} aliases[] = {
    { "ctrl_l", "ctrl" },   { "alt_l", "alt" },   { "shift_l", "shift" }, { "super", "meta_l" },
    { "meta", "meta_l" },   { "enter", "ret" },   { "escape", "esc" },    { "space", "spc" },
    { "menu", "compose" },  { "print", "sysrq" }, { "altgr", "alt_r" },   { "pageup", "pgup" },
    { "pagedown", "pgdn" },
};

const struct key *key_by_name(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(aliases); i++) {
        if (strcmp(aliases[i].name, name) == 0) {
            name = aliases[i].is;
            break;
        }
    }
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        if (strcmp(keys[i].name, name) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

const struct key *key_by_code(uint16_t code)
{
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        if (keys[i].code == code) {
            return &keys[i];
        }
    }
    return NULL;
}

const struct key *key_by_scan(uint32_t scan)
{
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        if (keys[i].scan == scan) {
            return &keys[i];
        }
    }
    return NULL;
}

const struct key *key_by_sym(uint32_t sym, bool *shift)
{
    *shift = false;
    for (unsigned i = 0; sym && i < ARRAY_LEN(keys); i++) {
        if (keys[i].sym == sym || keys[i].shifted == sym) {
            *shift = keys[i].sym != sym;
            return &keys[i];
        }
    }
    return NULL;
}
