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
    DO(21, CONNECT_LIST_DEFINED_DOMAINS, list_defined_domains, "maxnames:i", "names:[s]")      \
    DO(22, DOMAIN_LOOKUP_BY_ID, domain_by_id, "id:i", "dom:D")                                 \
    DO(23, DOMAIN_LOOKUP_BY_NAME, domain_by_name, "name:s", "dom:D")                           \
    DO(24, DOMAIN_LOOKUP_BY_UUID, domain_by_uuid, "uuid:U", "dom:D")                           \
    DO(25, CONNECT_NUM_OF_DEFINED_DOMAINS, num_of_defined_domains, "", "num:i")                \
    DO(27, DOMAIN_REBOOT, domain_reboot, "dom:D flags:u", "")                                  \
    PLAIN(28, DOMAIN_RESUME, "vm.resume", "dom:D")                                             \
    DO(29, DOMAIN_SET_AUTOSTART, domain_set_autostart, "dom:D autostart:i", "")                \
    DO(31, DOMAIN_SET_MEMORY, domain_set_memory, "dom:D memory:H", "")                         \
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
    DO(59, CONNECT_GET_HOSTNAME, connect_hostname, "", "hostname:s")                           \
    DO(60, CONNECT_SUPPORTS_FEATURE, connect_feature, "feature:i", "supported:i")              \
    DO(66, AUTH_LIST, auth_list, "", "types:[i]")                                              \
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
    DO(102, NODE_GET_FREE_MEMORY, node_free_memory, "", "free_mem:H")                          \
    DO(105, CONNECT_DOMAIN_EVENT_REGISTER, event_register_old, "", "cb_registered:i")          \
    DO(106, CONNECT_DOMAIN_EVENT_DEREGISTER, event_deregister_old, "", "cb_registered:i")      \
    DO(110, CONNECT_GET_URI, connect_uri, "", "uri:s")                                         \
    DO(149, CONNECT_IS_SECURE, connect_is_secure, "", "secure:i")                              \
    DO(150, DOMAIN_IS_ACTIVE, domain_is_active, "dom:D", "active:i")                           \
    DO(151, DOMAIN_IS_PERSISTENT, domain_is_persistent, "dom:D", "persistent:i")               \
    DO(152, NETWORK_IS_ACTIVE, network_is_active, "net:N", "active:i")                         \
    DO(153, NETWORK_IS_PERSISTENT, yes_persistent, "net:N", "persistent:i")                    \
    DO(154, STORAGE_POOL_IS_ACTIVE, pool_is_active, "pool:P", "active:i")                      \
    DO(155, STORAGE_POOL_IS_PERSISTENT, yes_persistent, "pool:P", "persistent:i")              \
    DO(157, CONNECT_GET_LIB_VERSION, connect_lib_version, "", "lib_ver:H")                     \
    DO(160, DOMAIN_ATTACH_DEVICE_FLAGS, domain_attach, "dom:D xml:s flags:u", "")              \
    DO(161, DOMAIN_DETACH_DEVICE_FLAGS, domain_detach, "dom:D xml:s flags:u", "")              \
    DO(165, STORAGE_VOL_WIPE, volume_wipe, "vol:V flags:u", "")                                \
    DO(167, CONNECT_DOMAIN_EVENT_REGISTER_ANY, event_register_any_old, "event_id:i", "")       \
    DO(168, CONNECT_DOMAIN_EVENT_DEREGISTER_ANY, event_deregister_any_old, "event_id:i", "")   \
    DO(182, DOMAIN_MANAGED_SAVE, domain_managed_save, "dom:D flags:u", "")                     \
    DO(183, DOMAIN_HAS_MANAGED_SAVE_IMAGE, domain_has_managed_save, "dom:D flags:u",           \
       "result:i")                                                                             \
    DO(185, DOMAIN_SNAPSHOT_CREATE_XML, snapshot_create, "dom:D xml_desc:s flags:u", "snap:K") \
    DO(186, DOMAIN_SNAPSHOT_GET_XML_DESC, snapshot_xml, "snap:K flags:u", "xml:s")             \
    DO(187, DOMAIN_SNAPSHOT_NUM, snapshot_num, "dom:D flags:u", "num:i")                       \
    DO(189, DOMAIN_SNAPSHOT_LOOKUP_BY_NAME, snapshot_by_name, "dom:D name:s flags:u",          \
       "snap:K")                                                                               \
    DO(190, DOMAIN_HAS_CURRENT_SNAPSHOT, snapshot_has_current, "dom:D flags:u", "result:i")    \
    DO(191, DOMAIN_SNAPSHOT_CURRENT, snapshot_current, "dom:D flags:u", "snap:K")              \
    DO(192, DOMAIN_REVERT_TO_SNAPSHOT, snapshot_revert, "snap:K flags:u", "")                  \
    DO(193, DOMAIN_SNAPSHOT_DELETE, snapshot_delete, "snap:K flags:u", "")                     \
    DO(196, DOMAIN_CREATE_WITH_FLAGS, domain_create_flags, "dom:D flags:u", "dom:D")           \
    DO(200, DOMAIN_GET_VCPUS_FLAGS, domain_max_vcpus, "dom:D flags:u", "num:i")                \
    DO(201, DOMAIN_OPEN_CONSOLE, domain_open_console, "dom:D dev_name:S flags:u", "")          \
    DO(202, DOMAIN_IS_UPDATED, domain_is_updated, "dom:D", "updated:i")                        \
    DO(204, DOMAIN_SET_MEMORY_FLAGS, domain_set_memory, "dom:D memory:H flags:u", "")          \
    DO(208, STORAGE_VOL_UPLOAD, volume_upload, "vol:V offset:H length:H flags:u", "")          \
    DO(209, STORAGE_VOL_DOWNLOAD, volume_download, "vol:V offset:H length:H flags:u", "")      \
    DO(211, DOMAIN_SCREENSHOT, domain_screenshot, "dom:D screen:u flags:u", "mime:S")          \
    DO(212, DOMAIN_GET_STATE, domain_state, "dom:D flags:u", "state:i reason:i")               \
    DO(229, DOMAIN_GET_CONTROL_INFO, domain_control, "dom:D flags:u",                          \
       "state:u details:u state_time:H")                                                       \
    DO(231, DOMAIN_UNDEFINE_FLAGS, domain_undefine, "dom:D flags:u", "")                       \
    DO(234, DOMAIN_DESTROY_FLAGS, domain_destroy, "dom:D flags:u", "")                         \
    DO(244, DOMAIN_SNAPSHOT_GET_PARENT, snapshot_parent, "snap:K flags:u", "snap:K")           \
    DO(245, DOMAIN_RESET, domain_reset, "dom:D flags:u", "")                                   \
    DO(251, DOMAIN_BLOCK_RESIZE, domain_block_resize, "dom:D disk:s size:H flags:u", "")       \
    DO(258, DOMAIN_SHUTDOWN_FLAGS, domain_shutdown, "dom:D flags:u", "")                       \
    DO(260, STORAGE_VOL_RESIZE, volume_resize, "vol:V capacity:H flags:u", "")                 \
    DO(271, DOMAIN_SNAPSHOT_IS_CURRENT, snapshot_is_current, "snap:K flags:u", "current:i")    \
    DO(272, DOMAIN_SNAPSHOT_HAS_METADATA, snapshot_metadata, "snap:K flags:u", "metadata:i")   \
    DO(273, CONNECT_LIST_ALL_DOMAINS, list_domains, "need_results:i flags:u",                  \
       "domains:[D] ret:u")                                                                    \
    DO(274, DOMAIN_LIST_ALL_SNAPSHOTS, snapshot_list, "dom:D need_results:i flags:u",          \
       "snapshots:[K] ret:i")                                                                  \
    DO(281, CONNECT_LIST_ALL_STORAGE_POOLS, list_pools, "need_results:i flags:u",              \
       "pools:[P] ret:u")                                                                      \
    DO(282, STORAGE_POOL_LIST_ALL_VOLUMES, pool_volumes, "pool:P need_results:i flags:u",      \
       "vols:[V] ret:u")                                                                       \
    DO(283, CONNECT_LIST_ALL_NETWORKS, list_networks, "need_results:i flags:u",                \
       "nets:[N] ret:u")                                                                       \
    DO(293, NODE_GET_CPU_MAP, node_cpu_map, "need_map:i need_online:i flags:u",                \
       "cpumap:o online:u ret:i")                                                              \
    DO(296, DOMAIN_OPEN_CHANNEL, domain_open_channel, "dom:D name:S flags:u", "")              \
    DO(313, CONNECT_NETWORK_EVENT_REGISTER_ANY, network_event_register,                        \
       "event_id:i object:[N]", "callback_id:i")                                               \
    DO(314, CONNECT_NETWORK_EVENT_DEREGISTER_ANY, event_deregister, "callback_id:i", "")       \
    DO(316, CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, domain_event_register,                 \
       "event_id:i object:[D]", "callback_id:i")                                               \
    DO(317, CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, event_deregister, "callback_id:i",   \
       "")                                                                                     \
    DO(341, NETWORK_GET_DHCP_LEASES, network_leases, "net:N mac:S need_results:i flags:u",     \
       "leases:[{iface:s expirytime:h type:i mac:S iaid:S ipaddr:s prefix:u hostname:S "       \
       "clientid:S}] ret:u")                                                                   \
    DO(342, CONNECT_GET_DOMAIN_CAPABILITIES, domain_capabilities,                              \
       "emulatorbin:S arch:S machine:S virttype:S flags:u", "capabilities:s")                  \
    DO(344, CONNECT_GET_ALL_DOMAIN_STATS, domain_stats, "doms:[D] stats:u flags:u",            \
       "ret_stats:[{dom:D params:[T]}]")                                                       \
    DO(350, DOMAIN_DEFINE_XML_FLAGS, domain_define, "xml:s flags:u", "dom:D")                  \
    DO(353, DOMAIN_INTERFACE_ADDRESSES, domain_addresses, "dom:D source:u flags:u",            \
       "ifaces:[{name:s hwaddr:S addrs:[{type:i addr:s prefix:u}]}]")                          \
    DO(358, DOMAIN_RENAME, domain_rename, "dom:D new_name:S flags:u", "retcode:i")             \
    DO(360, CONNECT_REGISTER_CLOSE_CALLBACK, nothing, "", "")                                  \
    DO(361, CONNECT_UNREGISTER_CLOSE_CALLBACK, nothing, "", "")                                \
    DO(368, CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY, pool_event_register,                      \
       "event_id:i object:[P]", "callback_id:i")                                               \
    DO(369, CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY, event_deregister, "callback_id:i", "")  \
    DO(374, CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY, device_event_register,                     \
       "event_id:i object:[n]", "callback_id:i")                                               \
    DO(375, CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY, event_deregister, "callback_id:i", "")   \
    DO(380, CONNECT_SECRET_EVENT_REGISTER_ANY, secret_event_register, "event_id:i object:[X]", \
       "callback_id:i")                                                                        \
    DO(381, CONNECT_SECRET_EVENT_DEREGISTER_ANY, event_deregister, "callback_id:i", "")        \
    DO(378, STORAGE_VOL_GET_INFO_FLAGS, volume_info, "vol:V flags:u",                          \
       "type:u capacity:H allocation:H")                                                       \
    DO(419, CONNECT_SET_IDENTITY, nothing, "params:[T] flags:u", "")

/* Of the program of QEMU's own: its number 1. */
#define LV_QEMU_PROCEDURES(DO)                                                                 \
    DO(1, QEMU_DOMAIN_MONITOR_COMMAND, monitor_command, "dom:D cmd:s flags:u", "result:s")
