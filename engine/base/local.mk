# SPDX-License-Identifier: Apache-2.0
# engine/base: the slab. Errors, log, memory, lists, event loop, buffers, descriptors, strings.

noinst_LIBRARIES += libbase.a
libbase_a_SOURCES = \
	engine/base/base64.c \
	engine/base/base64.h \
	engine/base/buf.c \
	engine/base/buf.h \
	engine/base/entropy.c \
	engine/base/entropy.h \
	engine/base/err.c \
	engine/base/err.h \
	engine/base/fd.c \
	engine/base/fd.h \
	engine/base/hash.c \
	engine/base/hash.h \
	engine/base/limits.c \
	engine/base/limits.h \
	engine/base/list.h \
	engine/base/log.c \
	engine/base/log.h \
	engine/base/loop.c \
	engine/base/loop.h \
	engine/base/mem.c \
	engine/base/mem.h \
	engine/base/str.c \
	engine/base/vsockcall.h \
	engine/base/soundring.h \
	engine/base/statspage.h \
	engine/base/str.h \
	engine/base/timers.c \
	engine/base/timers.h \
	engine/base/zone.c \
	engine/base/zone.h
