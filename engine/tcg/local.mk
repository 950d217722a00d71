# SPDX-License-Identifier: Apache-2.0
# engine/tcg: the dynamic binary translator.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libtcg.a
libtcg_a_SOURCES = \
	engine/tcg/alias.c \
	engine/tcg/cache.c \
	engine/tcg/evict.c \
	engine/tcg/pages.c \
	engine/tcg/codebuf.c \
	engine/tcg/guest.h \
	engine/tcg/guests.c \
	engine/tcg/coverage.c \
	engine/tcg/icount.c \
	engine/tcg/hostops.h \
	engine/tcg/instrument.c \
	engine/tcg/instrument.h \
	engine/tcg/observe.h \
	engine/tcg/perfmap.c \
	engine/tcg/plugin.c \
	engine/tcg/plugin.h \
	engine/tcg/trace.c \
	engine/tcg/internal.h \
	engine/tcg/ir.c \
	engine/tcg/ir.def \
	engine/tcg/ir.h \
	engine/tcg/ir_check.c \
	engine/tcg/ir_fuse.c \
	engine/tcg/ir_interp.c \
	engine/tcg/ir_narrow.c \
	engine/tcg/ir_opt.c \
	engine/tcg/ir_pass.h \
	engine/tcg/ir_vec.def \
	engine/tcg/space.c \
	engine/tcg/stats.c \
	engine/tcg/tcg.c \
	engine/tcg/tcg.h \
	engine/tcg/tier2.c \
	engine/tcg/tier2.h \
	engine/tcg/tier2_region.c \
	engine/tcg/tier2_region.h \
	engine/tcg/tlb.c \
	engine/tcg/translate.c \
	engine/tcg/host_x86_64/alu.c \
	engine/tcg/host_x86_64/emit.h \
	engine/tcg/host_x86_64/exits.c \
	engine/tcg/host_x86_64/fp.c \
	engine/tcg/host_x86_64/atomic.c \
	engine/tcg/host_x86_64/hostops.c \
	engine/tcg/host_x86_64/lean.c \
	engine/tcg/host_x86_64/memory.c \
	engine/tcg/host_x86_64/region.c \
	engine/tcg/host_x86_64/region_mem.c \
	engine/tcg/host_x86_64/regs.c \
	engine/tcg/host_x86_64/target.c \
	engine/tcg/host_x86_64/target.h \
	engine/tcg/host_x86_64/thunks.c \
	engine/tcg/host_x86_64/vec.c \
	engine/tcg/host_x86_64/vec.h \
	engine/tcg/host_x86_64/vec_fp.c \
	engine/tcg/host_x86_64/vec_int.c \
	engine/tcg/host_x86_64/vec_perm.c \
	engine/tcg/host_x86_64/vec_wide.c \
	engine/tcg/host_x86_64/vex.h
nodist_libtcg_a_SOURCES =

include engine/tcg/softfp/local.mk
include engine/tcg/guest_riscv/local.mk

# The plugin interface: its header as others see it (<vmd/plugin.h>), and two example plugins.
vmdincludedir = $(includedir)/vmd
vmdinclude_HEADERS = engine/tcg/plugin.h
plugin_sources = engine/tcg/plugins/mix.c engine/tcg/plugins/cache.c
plugin_objects = engine/tcg/plugins/mix.so engine/tcg/plugins/cache.so
EXTRA_DIST += $(plugin_sources)
CLEANFILES += $(plugin_objects) engine/tcg/plugins/include/vmd/plugin.h
plugindir = $(pkglibdir)/plugins
plugin_DATA = $(plugin_objects)
engine/tcg/plugins/include/vmd/plugin.h: engine/tcg/plugin.h
	$(AM_V_GEN)$(MKDIR_P) engine/tcg/plugins/include/vmd && cp $(srcdir)/engine/tcg/plugin.h $@
engine/tcg/plugins/mix.so: engine/tcg/plugins/mix.c engine/tcg/plugins/include/vmd/plugin.h
	$(AM_V_CC)$(CC) -Iengine/tcg/plugins/include $(AM_CFLAGS) $(CFLAGS) -fPIC -shared -fvisibility=hidden \
		$(LDFLAGS) -o $@ $(srcdir)/engine/tcg/plugins/mix.c
engine/tcg/plugins/cache.so: engine/tcg/plugins/cache.c engine/tcg/plugins/include/vmd/plugin.h
	$(AM_V_CC)$(CC) -Iengine/tcg/plugins/include $(AM_CFLAGS) $(CFLAGS) -fPIC -shared -fvisibility=hidden \
		$(LDFLAGS) -o $@ $(srcdir)/engine/tcg/plugins/cache.c
