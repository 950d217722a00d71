/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The procedures of libvirt's remote protocol that vmd answers, a line each: number, name, arguments and result (forms of
 * xdr.h), and the function lv_do_NAME, or the method that it is (PLAIN). Numbers and forms are those of libvirt 9.0.
 */
#define LV_PROCEDURES(DO, PLAIN)                                                               \
    DO(1, CONNECT_OPEN, connect_open, "name:S flags:u", "")                                    \
    DO(2, CONNECT_CLOSE, nothing, "", "")                                                      \
    DO(3, CONNECT_GET_TYPE, connect_type, "", "type:s")                                        \
    DO(4, CONNECT_GET_VERSION, connect_version, "", "hv_ver:H")                                \
    DO(5, CONNECT_GET_MAX_VCPUS, connect_max_vcpus, "type:S", "max_vcpus:i")                   \
    DO(6, NODE_GET_INFO, node_info, "",                                                        \
       "model:M memory:H cpus:i mhz:i nodes:i sockets:i cores:i threads:i")                    \
    DO(7, CONNECT_GET_CAPABILITIES, capabilities, "", "capabilities:s")                        \
    DO(8, DOMAIN_ATTACH_DEVICE, domain_attach, "dom:D xml:s", "")                              \
    DO(9, DOMAIN_CREATE, domain_create, "dom:D", "")                                           \
    DO(10, DOMAIN_CREATE_XML, domain_create_xml, "xml_desc:s flags:u", "dom:D")                \
    DO(11, DOMAIN_DEFINE_XML, domain_define, "xml:s", "dom:D")                                 \
    DO(12, DOMAIN_DESTROY, domain_destroy, "dom:D", "")                                        \
    DO(13, DOMAIN_DETACH_DEVICE, domain_detach, "dom:D xml:s", "")                             \
    DO(14, DOMAIN_GET_XML_DESC, domain_xml, "dom:D flags:u", "xml:s")                          \
    DO(15, DOMAIN_GET_AUTOSTART, domain_autostart, "dom:D", "autostart:i")                     \
    DO(16, DOMAIN_GET_INFO, domain_info, "dom:D",                                              \
       "state:u max_mem:H memory:H nr_virt_cpu:u cpu_time:H")                                  \
    DO(17, DOMAIN_GET_MAX_MEMORY, domain_max_memory, "dom:D", "memory:H")                      \
    DO(18, DOMAIN_GET_MAX_VCPUS, domain_max_vcpus, "dom:D", "num:i")                           \
    DO(19, DOMAIN_GET_OS_TYPE, domain_os_type, "dom:D", "type:s")                              \
    DO(20, DOMAIN_GET_VCPUS, domain_vcpus, "dom:D maxinfo:i maplen:i",                         \
       "info:[{number:u state:i cpu_time:H cpu:i}] cpumaps:o")                                 \
    DO(21, CONNECT_LIST_DEFINED_DOMAINS, list_defined_domains, "maxnames:i", "names:[s]")      \
    DO(22, DOMAIN_LOOKUP_BY_ID, domain_by_id, "id:i", "dom:D")                                 \
    DO(23, DOMAIN_LOOKUP_BY_NAME, domain_by_name, "name:s", "dom:D")                           \
    DO(24, DOMAIN_LOOKUP_BY_UUID, domain_by_uuid, "uuid:U", "dom:D")                           \
    DO(25, CONNECT_NUM_OF_DEFINED_DOMAINS, num_of_defined_domains, "", "num:i")                \
    DO(27, DOMAIN_REBOOT, domain_reboot, "dom:D flags:u", "")                                  \
    PLAIN(28, DOMAIN_RESUME, "vm.resume", "dom:D")                                             \
    DO(29, DOMAIN_SET_AUTOSTART, domain_set_autostart, "dom:D autostart:i", "")                \
    DO(30, DOMAIN_SET_MAX_MEMORY, domain_set_max_memory, "dom:D memory:H", "")                 \
    DO(31, DOMAIN_SET_MEMORY, domain_set_memory, "dom:D memory:H", "")                         \
    DO(32, DOMAIN_SET_VCPUS, domain_set_vcpus, "dom:D nvcpus:u", "")                           \
    PLAIN(33, DOMAIN_SHUTDOWN, "vm.shutdown", "dom:D")                                         \
    PLAIN(34, DOMAIN_SUSPEND, "vm.pause", "dom:D")                                             \
    DO(35, DOMAIN_UNDEFINE, domain_undefine, "dom:D", "")                                      \
    DO(37, CONNECT_LIST_DOMAINS, list_domain_ids, "maxids:i", "ids:[i]")                       \
    PLAIN(39, NETWORK_CREATE, "network.start", "net:N")                                        \
    DO(40, NETWORK_CREATE_XML, network_create_xml, "xml:s", "net:N")                           \
    DO(41, NETWORK_DEFINE_XML, network_define, "xml:s", "net:N")                               \
    PLAIN(42, NETWORK_DESTROY, "network.stop", "net:N")                                        \
    DO(43, NETWORK_GET_XML_DESC, network_xml, "net:N flags:u", "xml:s")                        \
    DO(44, NETWORK_GET_AUTOSTART, network_autostart, "net:N", "autostart:i")                   \
    DO(45, NETWORK_GET_BRIDGE_NAME, network_bridge, "net:N", "name:s")                         \
    DO(46, NETWORK_LOOKUP_BY_NAME, network_by_name, "name:s", "net:N")                         \
    DO(47, NETWORK_LOOKUP_BY_UUID, network_by_uuid, "uuid:U", "net:N")                         \
    DO(48, NETWORK_SET_AUTOSTART, network_set_autostart, "net:N autostart:i", "")              \
    PLAIN(49, NETWORK_UNDEFINE, "network.undefine", "net:N")                                   \
    DO(51, CONNECT_NUM_OF_DOMAINS, num_of_domains, "", "num:i")                                \
    DO(53, DOMAIN_CORE_DUMP, domain_dump, "dom:D to:s flags:u", "")                            \
    DO(54, DOMAIN_RESTORE, domain_restore, "from:s", "")                                       \
    DO(55, DOMAIN_SAVE, domain_save, "dom:D to:s", "")                                         \
    DO(56, DOMAIN_GET_SCHEDULER_TYPE, domain_scheduler_type, "dom:D", "type:s nparams:i")      \
    DO(57, DOMAIN_GET_SCHEDULER_PARAMETERS, domain_scheduler, "dom:D nparams:i", "params:[T]") \
    DO(58, DOMAIN_SET_SCHEDULER_PARAMETERS, domain_set_scheduler, "dom:D params:[T]", "")      \
    DO(59, CONNECT_GET_HOSTNAME, connect_hostname, "", "hostname:s")                           \
    DO(60, CONNECT_SUPPORTS_FEATURE, connect_feature, "feature:i", "supported:i")              \
    DO(64, DOMAIN_BLOCK_STATS, domain_block_stats, "dom:D path:s",                             \
       "rd_req:h rd_bytes:h wr_req:h wr_bytes:h errs:h")                                       \
    DO(65, DOMAIN_INTERFACE_STATS, domain_interface_stats, "dom:D device:s",                   \
       "rx_bytes:h rx_packets:h rx_errs:h rx_drop:h tx_bytes:h "                               \
       "tx_packets:h tx_errs:h tx_drop:h")                                                     \
    DO(66, AUTH_LIST, auth_list, "", "types:[i]")                                              \
    DO(76, STORAGE_POOL_CREATE_XML, pool_create_xml, "xml:s flags:u", "pool:P")                \
    DO(77, STORAGE_POOL_DEFINE_XML, pool_define, "xml:s flags:u", "pool:P")                    \
    DO(78, STORAGE_POOL_CREATE, pool_start, "pool:P flags:u", "")                              \
    DO(79, STORAGE_POOL_BUILD, pool_build, "pool:P flags:u", "")                               \
    PLAIN(80, STORAGE_POOL_DESTROY, "pool.stop", "pool:P")                                     \
    PLAIN(82, STORAGE_POOL_UNDEFINE, "pool.undefine", "pool:P")                                \
    DO(83, STORAGE_POOL_REFRESH, pool_refresh, "pool:P flags:u", "")                           \
    DO(84, STORAGE_POOL_LOOKUP_BY_NAME, pool_by_name, "name:s", "pool:P")                      \
    DO(85, STORAGE_POOL_LOOKUP_BY_UUID, pool_by_uuid, "uuid:U", "pool:P")                      \
    DO(86, STORAGE_POOL_LOOKUP_BY_VOLUME, pool_by_volume, "vol:V", "pool:P")                   \
    DO(87, STORAGE_POOL_GET_INFO, pool_info, "pool:P",                                         \
       "state:u capacity:H allocation:H available:H")                                          \
    DO(88, STORAGE_POOL_GET_XML_DESC, pool_xml, "pool:P flags:u", "xml:s")                     \
    DO(89, STORAGE_POOL_GET_AUTOSTART, pool_autostart, "pool:P", "autostart:i")                \
    DO(90, STORAGE_POOL_SET_AUTOSTART, pool_set_autostart, "pool:P autostart:i", "")           \
    DO(91, STORAGE_POOL_NUM_OF_VOLUMES, pool_num_of_volumes, "pool:P", "num:i")                \
    DO(92, STORAGE_POOL_LIST_VOLUMES, pool_volume_names, "pool:P maxnames:i", "names:[s]")     \
    DO(93, STORAGE_VOL_CREATE_XML, volume_create, "pool:P xml:s flags:u", "vol:V")             \
    DO(94, STORAGE_VOL_DELETE, volume_delete, "vol:V flags:u", "")                             \
    DO(95, STORAGE_VOL_LOOKUP_BY_NAME, volume_by_name, "pool:P name:s", "vol:V")               \
    DO(96, STORAGE_VOL_LOOKUP_BY_KEY, volume_by_key, "key:s", "vol:V")                         \
    DO(97, STORAGE_VOL_LOOKUP_BY_PATH, volume_by_key, "key:s", "vol:V")                        \
    DO(98, STORAGE_VOL_GET_INFO, volume_info, "vol:V", "type:u capacity:H allocation:H")       \
    DO(99, STORAGE_VOL_GET_XML_DESC, volume_xml, "vol:V flags:u", "xml:s")                     \
    DO(100, STORAGE_VOL_GET_PATH, volume_path, "vol:V", "name:s")                              \
    DO(101, NODE_GET_CELLS_FREE_MEMORY, node_cells, "start_cell:i maxcells:i", "cells:[H]")    \
    DO(102, NODE_GET_FREE_MEMORY, node_free_memory, "", "free_mem:H")                          \
    DO(105, CONNECT_DOMAIN_EVENT_REGISTER, event_register_old, "", "cb_registered:i")          \
    DO(106, CONNECT_DOMAIN_EVENT_DEREGISTER, event_deregister_old, "", "cb_registered:i")      \
    DO(110, CONNECT_GET_URI, connect_uri, "", "uri:s")                                         \
    DO(113, NODE_DEVICE_LOOKUP_BY_NAME, device_by_name, "name:s", "dev:n")                     \
    DO(114, NODE_DEVICE_GET_XML_DESC, device_xml, "name:s flags:u", "xml:s")                   \
    DO(115, NODE_DEVICE_GET_PARENT, device_parent, "name:s", "parent_name:S")                  \
    DO(116, NODE_DEVICE_NUM_OF_CAPS, device_caps, "name:s", "num:i")                           \
    DO(117, NODE_DEVICE_LIST_CAPS, device_caps, "name:s maxnames:i", "names:[s]")              \
    DO(125, STORAGE_VOL_CREATE_XML_FROM, volume_create_from, "pool:P xml:s clone:V flags:u",   \
       "vol:V")                                                                                \
    DO(128, INTERFACE_LOOKUP_BY_NAME, interface_lookup, "name:s", "iface:I")                   \
    DO(129, INTERFACE_LOOKUP_BY_MAC_STRING, interface_lookup, "mac:s", "iface:I")              \
    DO(130, INTERFACE_GET_XML_DESC, interface_xml, "iface:I flags:u", "xml:s")                 \
    DO(149, CONNECT_IS_SECURE, connect_is_secure, "", "secure:i")                              \
    DO(150, DOMAIN_IS_ACTIVE, domain_is_active, "dom:D", "active:i")                           \
    DO(151, DOMAIN_IS_PERSISTENT, domain_is_persistent, "dom:D", "persistent:i")               \
    DO(152, NETWORK_IS_ACTIVE, network_is_active, "net:N", "active:i")                         \
    DO(153, NETWORK_IS_PERSISTENT, yes_persistent, "net:N", "persistent:i")                    \
    DO(154, STORAGE_POOL_IS_ACTIVE, pool_is_active, "pool:P", "active:i")                      \
    DO(155, STORAGE_POOL_IS_PERSISTENT, yes_persistent, "pool:P", "persistent:i")              \
    DO(156, INTERFACE_IS_ACTIVE, interface_is_active, "iface:I", "active:i")                   \
    DO(157, CONNECT_GET_LIB_VERSION, connect_lib_version, "", "lib_ver:H")                     \
    DO(159, DOMAIN_MEMORY_STATS, domain_memory_stats, "dom:D max_stats:u flags:u",             \
       "stats:[{tag:i val:H}]")                                                                \
    DO(160, DOMAIN_ATTACH_DEVICE_FLAGS, domain_attach, "dom:D xml:s flags:u", "")              \
    DO(161, DOMAIN_DETACH_DEVICE_FLAGS, domain_detach, "dom:D xml:s flags:u", "")              \
    DO(163, DOMAIN_GET_JOB_INFO, domain_job_info, "dom:D",                                     \
       "type:i time_elapsed:H time_remaining:H data_total:H "                                  \
       "data_processed:H data_remaining:H mem_total:H mem_processed:H "                        \
       "mem_remaining:H file_total:H file_processed:H file_remaining:H")                       \
    DO(164, DOMAIN_ABORT_JOB, domain_abort_job, "dom:D", "")                                   \
    DO(165, STORAGE_VOL_WIPE, volume_wipe, "vol:V flags:u", "")                                \
    DO(166, DOMAIN_MIGRATE_SET_MAX_DOWNTIME, migrate_set_downtime, "dom:D downtime:H flags:u", \
       "")                                                                                     \
    DO(167, CONNECT_DOMAIN_EVENT_REGISTER_ANY, event_register_any_old, "event_id:i", "")       \
    DO(168, CONNECT_DOMAIN_EVENT_DEREGISTER_ANY, event_deregister_any_old, "event_id:i", "")   \
    DO(174, DOMAIN_UPDATE_DEVICE_FLAGS, domain_update, "dom:D xml:s flags:u", "")              \
    DO(182, DOMAIN_MANAGED_SAVE, domain_managed_save, "dom:D flags:u", "")                     \
    DO(183, DOMAIN_HAS_MANAGED_SAVE_IMAGE, domain_has_managed_save, "dom:D flags:u",           \
       "result:i")                                                                             \
    DO(184, DOMAIN_MANAGED_SAVE_REMOVE, domain_managed_save_remove, "dom:D flags:u", "")       \
    DO(185, DOMAIN_SNAPSHOT_CREATE_XML, snapshot_create, "dom:D xml_desc:s flags:u", "snap:K") \
    DO(186, DOMAIN_SNAPSHOT_GET_XML_DESC, snapshot_xml, "snap:K flags:u", "xml:s")             \
    DO(187, DOMAIN_SNAPSHOT_NUM, snapshot_num, "dom:D flags:u", "num:i")                       \
    DO(189, DOMAIN_SNAPSHOT_LOOKUP_BY_NAME, snapshot_by_name, "dom:D name:s flags:u",          \
       "snap:K")                                                                               \
    DO(190, DOMAIN_HAS_CURRENT_SNAPSHOT, snapshot_has_current, "dom:D flags:u", "result:i")    \
    DO(191, DOMAIN_SNAPSHOT_CURRENT, snapshot_current, "dom:D flags:u", "snap:K")              \
    DO(192, DOMAIN_REVERT_TO_SNAPSHOT, snapshot_revert, "snap:K flags:u", "")                  \
    DO(193, DOMAIN_SNAPSHOT_DELETE, snapshot_delete, "snap:K flags:u", "")                     \
    DO(194, DOMAIN_GET_BLOCK_INFO, domain_block_info, "dom:D path:s flags:u",                  \
       "allocation:H capacity:H physical:H")                                                   \
    DO(196, DOMAIN_CREATE_WITH_FLAGS, domain_create_flags, "dom:D flags:u", "dom:D")           \
    DO(197, DOMAIN_SET_MEMORY_PARAMETERS, domain_set_memory_parameters,                        \
       "dom:D params:[T] flags:u", "")                                                         \
    DO(198, DOMAIN_GET_MEMORY_PARAMETERS, domain_memory_parameters, "dom:D nparams:i flags:u", \
       "params:[T] nparams:i")                                                                 \
    DO(199, DOMAIN_SET_VCPUS_FLAGS, domain_set_vcpus, "dom:D nvcpus:u flags:u", "")            \
    DO(200, DOMAIN_GET_VCPUS_FLAGS, domain_vcpu_count, "dom:D flags:u", "num:i")               \
    DO(201, DOMAIN_OPEN_CONSOLE, domain_open_console, "dom:D dev_name:S flags:u", "")          \
    DO(202, DOMAIN_IS_UPDATED, domain_is_updated, "dom:D", "updated:i")                        \
    DO(203, CONNECT_GET_SYSINFO, sysinfo, "flags:u", "sysinfo:s")                              \
    DO(204, DOMAIN_SET_MEMORY_FLAGS, domain_set_memory, "dom:D memory:H flags:u", "")          \
    DO(205, DOMAIN_SET_BLKIO_PARAMETERS, domain_set_blkio, "dom:D params:[T] flags:u", "")     \
    DO(206, DOMAIN_GET_BLKIO_PARAMETERS, domain_blkio, "dom:D nparams:i flags:u",              \
       "params:[T] nparams:i")                                                                 \
    DO(207, DOMAIN_MIGRATE_SET_MAX_SPEED, migrate_set_speed, "dom:D bandwidth:H flags:u", "")  \
    DO(208, STORAGE_VOL_UPLOAD, volume_upload, "vol:V offset:H length:H flags:u", "")          \
    DO(209, STORAGE_VOL_DOWNLOAD, volume_download, "vol:V offset:H length:H flags:u", "")      \
    DO(210, DOMAIN_INJECT_NMI, domain_nmi, "dom:D flags:u", "")                                \
    DO(211, DOMAIN_SCREENSHOT, domain_screenshot, "dom:D screen:u flags:u", "mime:S")          \
    DO(212, DOMAIN_GET_STATE, domain_state, "dom:D flags:u", "state:i reason:i")               \
    DO(213, DOMAIN_MIGRATE_BEGIN3, migrate_begin, "dom:D xmlin:S flags:H dname:S resource:H",  \
       "cookie_out:o xml:s")                                                                   \
    DO(214, DOMAIN_MIGRATE_PREPARE3, migrate_prepare,                                          \
       "cookie_in:o uri_in:S flags:H dname:S resource:H dom_xml:s", "cookie_out:o uri_out:S")  \
    DO(216, DOMAIN_MIGRATE_PERFORM3, migrate_perform,                                          \
       "dom:D xmlin:S cookie_in:o dconnuri:S uri:S flags:H dname:S resource:H",                \
       "cookie_out:o")                                                                         \
    DO(217, DOMAIN_MIGRATE_FINISH3, migrate_finish,                                            \
       "dname:s cookie_in:o dconnuri:S uri:S flags:H cancelled:i", "dom:D cookie_out:o")       \
    DO(218, DOMAIN_MIGRATE_CONFIRM3, migrate_confirm, "dom:D cookie_in:o flags:H cancelled:i", \
       "")                                                                                     \
    DO(219, DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS, domain_set_scheduler,                       \
       "dom:D params:[T] flags:u", "")                                                         \
    DO(223, DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS, domain_scheduler,                           \
       "dom:D nparams:i flags:u", "params:[T]")                                                \
    DO(226, DOMAIN_SEND_KEY, domain_send_key,                                                  \
       "dom:D codeset:u holdtime:u keycodes:[u] flags:u", "")                                  \
    DO(227, NODE_GET_CPU_STATS, node_cpu_stats, "cpunum:i nparams:i flags:u",                  \
       "params:[{field:s value:H}] nparams:i")                                                 \
    DO(228, NODE_GET_MEMORY_STATS, node_memory_stats, "nparams:i cell_num:i flags:u",          \
       "params:[{field:s value:H}] nparams:i")                                                 \
    DO(229, DOMAIN_GET_CONTROL_INFO, domain_control, "dom:D flags:u",                          \
       "state:u details:u state_time:H")                                                       \
    DO(230, DOMAIN_GET_VCPU_PIN_INFO, domain_vcpu_pins, "dom:D ncpumaps:i maplen:i flags:u",   \
       "cpumaps:o num:i")                                                                      \
    DO(231, DOMAIN_UNDEFINE_FLAGS, domain_undefine, "dom:D flags:u", "")                       \
    DO(232, DOMAIN_SAVE_FLAGS, domain_save, "dom:D to:s dxml:S flags:u", "")                   \
    DO(233, DOMAIN_RESTORE_FLAGS, domain_restore, "from:s dxml:S flags:u", "")                 \
    DO(234, DOMAIN_DESTROY_FLAGS, domain_destroy, "dom:D flags:u", "")                         \
    DO(235, DOMAIN_SAVE_IMAGE_GET_XML_DESC, save_image_xml, "file:s flags:u", "xml:s")         \
    DO(236, DOMAIN_SAVE_IMAGE_DEFINE_XML, save_image_define, "file:s dxml:s flags:u", "")      \
    DO(237, DOMAIN_BLOCK_JOB_ABORT, domain_block_job_abort, "dom:D path:s flags:u", "")        \
    DO(238, DOMAIN_GET_BLOCK_JOB_INFO, domain_block_job, "dom:D path:s flags:u",               \
       "found:i type:i bandwidth:H cur:H end:H")                                               \
    DO(239, DOMAIN_BLOCK_JOB_SET_SPEED, domain_block_job_speed,                                \
       "dom:D path:s bandwidth:H flags:u", "")                                                 \
    DO(240, DOMAIN_BLOCK_PULL, domain_block_pull, "dom:D path:s bandwidth:H flags:u", "")      \
    DO(242, DOMAIN_MIGRATE_GET_MAX_SPEED, migrate_speed, "dom:D flags:u", "bandwidth:H")       \
    DO(243, DOMAIN_BLOCK_STATS_FLAGS, domain_block_stats_flags,                                \
       "dom:D path:s nparams:i flags:u", "params:[T] nparams:i")                               \
    DO(244, DOMAIN_SNAPSHOT_GET_PARENT, snapshot_parent, "snap:K flags:u", "snap:K")           \
    DO(245, DOMAIN_RESET, domain_reset, "dom:D flags:u", "")                                   \
    DO(246, DOMAIN_SNAPSHOT_NUM_CHILDREN, snapshot_children, "snap:K flags:u", "num:i")        \
    DO(251, DOMAIN_BLOCK_RESIZE, domain_block_resize, "dom:D disk:s size:H flags:u", "")       \
    DO(252, DOMAIN_SET_BLOCK_IO_TUNE, domain_set_iotune, "dom:D disk:s params:[T] flags:u",    \
       "")                                                                                     \
    DO(253, DOMAIN_GET_BLOCK_IO_TUNE, domain_iotune, "dom:D disk:S nparams:i flags:u",         \
       "params:[T] nparams:i")                                                                 \
    DO(256, DOMAIN_SET_INTERFACE_PARAMETERS, domain_set_interface_parameters,                  \
       "dom:D device:s params:[T] flags:u", "")                                                \
    DO(257, DOMAIN_GET_INTERFACE_PARAMETERS, domain_interface_parameters,                      \
       "dom:D device:s nparams:i flags:u", "params:[T] nparams:i")                             \
    DO(258, DOMAIN_SHUTDOWN_FLAGS, domain_shutdown, "dom:D flags:u", "")                       \
    DO(259, STORAGE_VOL_WIPE_PATTERN, volume_wipe, "vol:V algorithm:u flags:u", "")            \
    DO(260, STORAGE_VOL_RESIZE, volume_resize, "vol:V capacity:H flags:u", "")                 \
    DO(262, DOMAIN_GET_CPU_STATS, domain_cpu_stats,                                            \
       "dom:D nparams:u start_cpu:i ncpus:u flags:u", "params:[T] nparams:i")                  \
    DO(263, DOMAIN_GET_DISK_ERRORS, domain_disk_errors, "dom:D maxerrors:u flags:u",           \
       "errors:[{disk:s remote_error:i}] nerrors:i")                                           \
    DO(264, DOMAIN_SET_METADATA, domain_set_metadata,                                          \
       "dom:D type:i metadata:S key:S uri:S flags:u", "")                                      \
    DO(265, DOMAIN_GET_METADATA, domain_metadata, "dom:D type:i uri:S flags:u", "metadata:s")  \
    DO(266, DOMAIN_BLOCK_REBASE, domain_block_rebase,                                          \
       "dom:D path:s base:S bandwidth:H flags:u", "")                                          \
    DO(271, DOMAIN_SNAPSHOT_IS_CURRENT, snapshot_is_current, "snap:K flags:u", "current:i")    \
    DO(272, DOMAIN_SNAPSHOT_HAS_METADATA, snapshot_metadata, "snap:K flags:u", "metadata:i")   \
    DO(273, CONNECT_LIST_ALL_DOMAINS, list_domains, "need_results:i flags:u",                  \
       "domains:[D] ret:u")                                                                    \
    DO(274, DOMAIN_LIST_ALL_SNAPSHOTS, snapshot_list, "dom:D need_results:i flags:u",          \
       "snapshots:[K] ret:i")                                                                  \
    DO(275, DOMAIN_SNAPSHOT_LIST_ALL_CHILDREN, snapshot_children,                              \
       "snap:K need_results:i flags:u", "snapshots:[K] ret:i")                                 \
    DO(277, DOMAIN_GET_HOSTNAME, domain_hostname, "dom:D flags:u", "hostname:s")               \
    DO(280, DOMAIN_GET_EMULATOR_PIN_INFO, domain_vcpu_pins, "dom:D maplen:i flags:u",          \
       "cpumaps:o ret:i")                                                                      \
    DO(281, CONNECT_LIST_ALL_STORAGE_POOLS, list_pools, "need_results:i flags:u",              \
       "pools:[P] ret:u")                                                                      \
    DO(282, STORAGE_POOL_LIST_ALL_VOLUMES, pool_volumes, "pool:P need_results:i flags:u",      \
       "vols:[V] ret:u")                                                                       \
    DO(283, CONNECT_LIST_ALL_NETWORKS, list_networks, "need_results:i flags:u",                \
       "nets:[N] ret:u")                                                                       \
    DO(284, CONNECT_LIST_ALL_INTERFACES, list_interfaces, "need_results:i flags:u",            \
       "ifaces:[I] ret:u")                                                                     \
    DO(285, CONNECT_LIST_ALL_NODE_DEVICES, list_devices, "need_results:i flags:u",             \
       "devices:[n] ret:u")                                                                    \
    DO(290, DOMAIN_BLOCK_COMMIT, domain_block_commit,                                          \
       "dom:D disk:s base:S top:S bandwidth:H flags:u", "")                                    \
    DO(291, NETWORK_UPDATE, network_update,                                                    \
       "net:N command:u section:u parent_index:i xml:s flags:u", "")                           \
    DO(293, NODE_GET_CPU_MAP, node_cpu_map, "need_map:i need_online:i flags:u",                \
       "cpumap:o online:u ret:i")                                                              \
    DO(294, DOMAIN_FSTRIM, domain_fstrim, "dom:D mount_point:S minimum:H flags:u", "")         \
    DO(296, DOMAIN_OPEN_CHANNEL, domain_open_channel, "dom:D name:S flags:u", "")              \
    DO(298, DOMAIN_GET_JOB_STATS, domain_job_stats, "dom:D flags:u", "type:i params:[T]")      \
    DO(302, DOMAIN_MIGRATE_BEGIN3_PARAMS, migrate_begin, "dom:D params:[T] flags:u",           \
       "cookie_out:o xml:s")                                                                   \
    DO(303, DOMAIN_MIGRATE_PREPARE3_PARAMS, migrate_prepare, "params:[T] cookie_in:o flags:u", \
       "cookie_out:o uri_out:S")                                                               \
    DO(305, DOMAIN_MIGRATE_PERFORM3_PARAMS, migrate_perform,                                   \
       "dom:D dconnuri:S params:[T] cookie_in:o flags:u", "cookie_out:o")                      \
    DO(306, DOMAIN_MIGRATE_FINISH3_PARAMS, migrate_finish,                                     \
       "params:[T] cookie_in:o flags:u cancelled:i", "dom:D cookie_out:o")                     \
    DO(307, DOMAIN_MIGRATE_CONFIRM3_PARAMS, migrate_confirm,                                   \
       "dom:D params:[T] cookie_in:o flags:u cancelled:i", "")                                 \
    DO(308, DOMAIN_SET_MEMORY_STATS_PERIOD, domain_set_stats_period, "dom:D period:i flags:u", \
       "")                                                                                     \
    DO(312, CONNECT_GET_CPU_MODEL_NAMES, cpu_models, "arch:s need_results:i flags:u",          \
       "models:[s] ret:i")                                                                     \
    DO(313, CONNECT_NETWORK_EVENT_REGISTER_ANY, network_event_register,                        \
       "event_id:i object:[N]", "callback_id:i")                                               \
    DO(314, CONNECT_NETWORK_EVENT_DEREGISTER_ANY, event_deregister, "callback_id:i", "")       \
    DO(316, CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, domain_event_register,                 \
       "event_id:i object:[D]", "callback_id:i")                                               \
    DO(317, CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, event_deregister, "callback_id:i",   \
       "")                                                                                     \
    DO(334, DOMAIN_CORE_DUMP_WITH_FORMAT, domain_dump, "dom:D to:s dumpformat:u flags:u", "")  \
    DO(335, DOMAIN_FSFREEZE, domain_freeze, "dom:D mountpoints:[s] flags:u", "filesystems:i")  \
    DO(336, DOMAIN_FSTHAW, domain_thaw, "dom:D mountpoints:[s] flags:u", "filesystems:i")      \
    DO(337, DOMAIN_GET_TIME, domain_time, "dom:D flags:u", "seconds:h nseconds:u")             \
    DO(338, DOMAIN_SET_TIME, domain_set_time, "dom:D seconds:h nseconds:u flags:u", "")        \
    DO(340, NODE_GET_FREE_PAGES, node_free_pages,                                              \
       "pages:[u] start_cell:i cell_count:u flags:u", "counts:[H]")                            \
    DO(341, NETWORK_GET_DHCP_LEASES, network_leases, "net:N mac:S need_results:i flags:u",     \
       "leases:[{iface:s expirytime:h type:i mac:S iaid:S ipaddr:s "                           \
       "prefix:u hostname:S clientid:S}] ret:u")                                               \
    DO(342, CONNECT_GET_DOMAIN_CAPABILITIES, domain_capabilities,                              \
       "emulatorbin:S arch:S machine:S virttype:S flags:u", "capabilities:s")                  \
    DO(343, DOMAIN_OPEN_GRAPHICS_FD, domain_open_graphics, "dom:D idx:u flags:u", "")          \
    DO(344, CONNECT_GET_ALL_DOMAIN_STATS, domain_stats, "doms:[D] stats:u flags:u",            \
       "ret_stats:[{dom:D params:[T]}]")                                                       \
    DO(345, DOMAIN_BLOCK_COPY, domain_block_copy, "dom:D path:s destxml:s params:[T] flags:u", \
       "")                                                                                     \
    DO(349, DOMAIN_GET_FSINFO, domain_fsinfo, "dom:D flags:u",                                 \
       "info:[{mountpoint:s name:s fstype:s dev_aliases:[s]}] ret:u")                          \
    DO(350, DOMAIN_DEFINE_XML_FLAGS, domain_define, "xml:s flags:u", "dom:D")                  \
    DO(351, DOMAIN_GET_IOTHREAD_INFO, domain_iothreads, "dom:D flags:u",                       \
       "info:[{iothread_id:u cpumap:o}] ret:u")                                                \
    DO(353, DOMAIN_INTERFACE_ADDRESSES, domain_addresses, "dom:D source:u flags:u",            \
       "ifaces:[{name:s hwaddr:S addrs:[{type:i addr:s prefix:u}]}]")                          \
    DO(357, DOMAIN_SET_USER_PASSWORD, domain_set_password, "dom:D user:S password:S flags:u",  \
       "")                                                                                     \
    DO(358, DOMAIN_RENAME, domain_rename, "dom:D new_name:S flags:u", "retcode:i")             \
    DO(360, CONNECT_REGISTER_CLOSE_CALLBACK, nothing, "", "")                                  \
    DO(361, CONNECT_UNREGISTER_CLOSE_CALLBACK, nothing, "", "")                                \
    DO(368, CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY, pool_event_register,                      \
       "event_id:i object:[P]", "callback_id:i")                                               \
    DO(369, CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY, event_deregister, "callback_id:i", "")  \
    DO(371, DOMAIN_GET_GUEST_VCPUS, domain_guest_vcpus, "dom:D flags:u", "params:[T]")         \
    DO(372, DOMAIN_SET_GUEST_VCPUS, domain_set_guest_vcpus, "dom:D cpumap:s state:i flags:u",  \
       "")                                                                                     \
    DO(374, CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY, device_event_register,                     \
       "event_id:i object:[n]", "callback_id:i")                                               \
    DO(375, CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY, event_deregister, "callback_id:i", "")   \
    DO(378, STORAGE_VOL_GET_INFO_FLAGS, volume_info, "vol:V flags:u",                          \
       "type:u capacity:H allocation:H")                                                       \
    DO(380, CONNECT_SECRET_EVENT_REGISTER_ANY, secret_event_register, "event_id:i object:[X]", \
       "callback_id:i")                                                                        \
    DO(381, CONNECT_SECRET_EVENT_DEREGISTER_ANY, event_deregister, "callback_id:i", "")        \
    DO(387, DOMAIN_MIGRATE_GET_MAX_DOWNTIME, migrate_downtime, "dom:D flags:u", "downtime:H")  \
    DO(388, DOMAIN_MANAGED_SAVE_GET_XML_DESC, domain_managed_save_xml, "dom:D flags:u",        \
       "xml:s")                                                                                \
    DO(389, DOMAIN_MANAGED_SAVE_DEFINE_XML, domain_managed_save_define,                        \
       "dom:D dxml:S flags:u", "")                                                             \
    DO(390, DOMAIN_SET_LIFECYCLE_ACTION, domain_set_lifecycle,                                 \
       "dom:D type:u action:u flags:u", "")                                                    \
    DO(391, STORAGE_POOL_LOOKUP_BY_TARGET_PATH, pool_by_target, "path:s", "pool:P")            \
    DO(392, DOMAIN_DETACH_DEVICE_ALIAS, domain_detach_alias, "dom:D alias:s flags:u", "")      \
    DO(393, CONNECT_COMPARE_HYPERVISOR_CPU, compare_cpu,                                       \
       "emulator:S arch:S machine:S virttype:S xml_cpu:s flags:u", "result:i")                 \
    DO(403, CONNECT_GET_STORAGE_POOL_CAPABILITIES, pool_capabilities, "flags:u",               \
       "capabilities:s")                                                                       \
    DO(404, NETWORK_LIST_ALL_PORTS, network_ports, "net:N need_results:i flags:u",             \
       "ports:[O] ret:u")                                                                      \
    DO(405, NETWORK_PORT_LOOKUP_BY_UUID, network_port_by_uuid, "net:N uuid:U", "port:O")       \
    DO(409, NETWORK_PORT_GET_XML_DESC, network_port_xml, "port:O flags:u", "xml:s")            \
    DO(411, DOMAIN_CHECKPOINT_CREATE_XML, checkpoint_create, "dom:D xml_desc:s flags:u",       \
       "snap:C")                                                                               \
    DO(412, DOMAIN_CHECKPOINT_GET_XML_DESC, checkpoint_xml, "snap:C flags:u", "xml:s")         \
    DO(413, DOMAIN_LIST_ALL_CHECKPOINTS, checkpoint_list, "dom:D need_results:i flags:u",      \
       "checkpoints:[C] ret:i")                                                                \
    DO(414, DOMAIN_CHECKPOINT_LIST_ALL_CHILDREN, checkpoint_children,                          \
       "snap:C need_results:i flags:u", "checkpoints:[C] ret:i")                               \
    DO(415, DOMAIN_CHECKPOINT_LOOKUP_BY_NAME, checkpoint_by_name, "dom:D name:s flags:u",      \
       "snap:C")                                                                               \
    DO(416, DOMAIN_CHECKPOINT_GET_PARENT, checkpoint_parent, "snap:C flags:u", "snap:C")       \
    DO(417, DOMAIN_CHECKPOINT_DELETE, checkpoint_delete, "snap:C flags:u", "")                 \
    DO(418, DOMAIN_GET_GUEST_INFO, domain_guest_info, "dom:D types:u flags:u", "params:[T]")   \
    DO(419, CONNECT_SET_IDENTITY, nothing, "params:[T] flags:u", "")                           \
    DO(421, DOMAIN_BACKUP_BEGIN, backup_begin, "dom:D backup_xml:s checkpoint_xml:S flags:u",  \
       "")                                                                                     \
    DO(422, DOMAIN_BACKUP_GET_XML_DESC, backup_xml, "dom:D flags:u", "xml:s")                  \
    DO(424, DOMAIN_AUTHORIZED_SSH_KEYS_GET, domain_ssh_keys, "dom:D user:s flags:u",           \
       "keys:[s]")                                                                             \
    DO(425, DOMAIN_AUTHORIZED_SSH_KEYS_SET, domain_set_ssh_keys,                               \
       "dom:D user:s keys:[s] flags:u", "")

/* Of the program of QEMU's own. */
#define LV_QEMU_PROCEDURES(DO)                                                                 \
    DO(1, QEMU_DOMAIN_MONITOR_COMMAND, monitor_command, "dom:D cmd:s flags:u", "result:s")     \
    DO(3, QEMU_DOMAIN_AGENT_COMMAND, agent_command, "dom:D cmd:s timeout:i flags:u", "result:S")
