# What `cmake --install` puts where: the command, the library, modules in LIBDIR/stepmill/, public headers, a CMake package
# (find_package(stepmill): stepmill::stepmill to link, stepmill::plugin for plugins, which need the headers only) and a
# pkg-config file.
include(CMakePackageConfigHelpers)

add_library(stepmill_plugin INTERFACE)
target_include_directories(stepmill_plugin INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>
                                                     $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(stepmill_plugin PROPERTIES EXPORT_NAME plugin)

install(TARGETS stepmill stepmill_plugin EXPORT stepmill LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET stepmill_cli)
  install(TARGETS stepmill_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
get_property(modules GLOBAL PROPERTY STEPMILL_MODULES)
if(modules)
  install(TARGETS ${modules} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/stepmill)
endif()
install(DIRECTORY include/stepmill DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs examples DESTINATION ${CMAKE_INSTALL_DOCDIR}) # README and pages name each other by these paths

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/stepmill)
install(EXPORT stepmill NAMESPACE stepmill:: FILE stepmill-targets.cmake DESTINATION ${package})
configure_package_config_file(cmake/stepmill-config.cmake.in ${CMAKE_BINARY_DIR}/generated/stepmill-config.cmake
                              INSTALL_DESTINATION ${package})
# Until 1.0 a minor version may change the interface.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/stepmill-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/generated/stepmill-config.cmake ${CMAKE_BINARY_DIR}/generated/stepmill-config-version.cmake
        DESTINATION ${package})
# The prefix is worked out from where the file lies, so that an installed tree can be moved.
file(RELATIVE_PATH STEPMILL_PREFIX_FROM_PC ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/stepmill.pc.in ${CMAKE_BINARY_DIR}/generated/stepmill.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/generated/stepmill.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
