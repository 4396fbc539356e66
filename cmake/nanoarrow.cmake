# nanoarrow (Arrow C data interface helpers and IPC) and its flatcc runtime, from the sources that scripts/deps.sh puts
# in STEPMILL_DEPS: one static library, hidden symbols under a prefix of ours.
set(NANOARROW_VERSION 0.9.0)
set(nanoarrow_root ${STEPMILL_DEPS}/nanoarrow-${NANOARROW_VERSION}/subprojects)
if(NOT EXISTS ${nanoarrow_root} AND EXISTS "$ENV{STEPMILL_DEPS}/nanoarrow-${NANOARROW_VERSION}") # set after the first configure
  set(nanoarrow_root $ENV{STEPMILL_DEPS}/nanoarrow-${NANOARROW_VERSION}/subprojects)
endif()
set(nanoarrow_src ${nanoarrow_root}/arrow-nanoarrow/src)
file(GLOB nanoarrow_flatcc ${nanoarrow_root}/flatcc-*)
if(NOT EXISTS ${nanoarrow_src}/nanoarrow/nanoarrow_ipc.h OR NOT nanoarrow_flatcc)
  message(FATAL_ERROR "nanoarrow ${NANOARROW_VERSION} is not in ${STEPMILL_DEPS}: run scripts/deps.sh, or set STEPMILL_DEPS to where it put the sources")
endif()

set(NANOARROW_VERSION_MAJOR 0)
set(NANOARROW_VERSION_MINOR 9)
set(NANOARROW_VERSION_PATCH 0)
set(NANOARROW_NAMESPACE_DEFINE "#define NANOARROW_NAMESPACE StmNano")
configure_file(${nanoarrow_src}/nanoarrow/nanoarrow_config.h.in ${CMAKE_BINARY_DIR}/nanoarrow/nanoarrow/nanoarrow_config.h @ONLY)

# flatcc's builder calls it a success when there is no memory for a copy of a vtable, and falls over the next one: an error, as
# everywhere else in it.
set(flatcc_builder ${CMAKE_BINARY_DIR}/nanoarrow/flatcc_builder.c)
file(READ ${nanoarrow_flatcc}/src/runtime/builder.c flatcc_text)
string(REGEX REPLACE "(alloc_vb, B->vb_end, vt_size, 0\\)\\)\\) {[ \n]*return )-1;" "\\10;" flatcc_mended "${flatcc_text}")
if(flatcc_mended STREQUAL flatcc_text)
  message(FATAL_ERROR "${nanoarrow_flatcc}/src/runtime/builder.c is not what cmake/nanoarrow.cmake mends: look whether that is still needed")
endif()
file(GENERATE OUTPUT ${flatcc_builder} CONTENT "${flatcc_mended}")

add_library(stepmill_nanoarrow STATIC
  ${nanoarrow_src}/nanoarrow/common/array.c ${nanoarrow_src}/nanoarrow/common/schema.c
  ${nanoarrow_src}/nanoarrow/common/array_stream.c ${nanoarrow_src}/nanoarrow/common/utils.c
  ${nanoarrow_src}/nanoarrow/ipc/codecs.c ${nanoarrow_src}/nanoarrow/ipc/decoder.c ${nanoarrow_src}/nanoarrow/ipc/encoder.c
  ${flatcc_builder} ${nanoarrow_flatcc}/src/runtime/emitter.c
  ${nanoarrow_flatcc}/src/runtime/refmap.c ${nanoarrow_flatcc}/src/runtime/verifier.c)
# Running out of memory is an error there, not the end of the process.
set_source_files_properties(${flatcc_builder} PROPERTIES COMPILE_DEFINITIONS FLATCC_BUILDER_ASSERT_ON_ERROR=0)
set_source_files_properties(${nanoarrow_src}/nanoarrow/ipc/codecs.c PROPERTIES COMPILE_DEFINITIONS NANOARROW_IPC_WITH_ZSTD)
target_include_directories(stepmill_nanoarrow SYSTEM PUBLIC ${nanoarrow_src} ${CMAKE_BINARY_DIR}/nanoarrow
                           ${CMAKE_BINARY_DIR}/nanoarrow/nanoarrow
                                                              ${nanoarrow_flatcc}/include)
target_compile_options(stepmill_nanoarrow PRIVATE -w)
target_link_libraries(stepmill_nanoarrow PRIVATE stepmill_flags PkgConfig::ZSTD)
