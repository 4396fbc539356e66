set(STEPMILL_SANITIZE "" CACHE STRING "address (with undefined), thread, or empty")
option(STEPMILL_TESTS "build the tests" ON)
option(STEPMILL_SLOW_TESTS "programs of tests that take long under the thread sanitizer are built there, too (label slow)" OFF)
option(STEPMILL_BENCH "build the benches" OFF)
option(STEPMILL_FUZZ "the fuzz targets are driven by libFuzzer (clang)" OFF)
set(STEPMILL_FUZZ_SECONDS 10 CACHE STRING "how long a fuzz target runs as a test")
option(STEPMILL_JEMALLOC "link jemalloc into the command" ON)
option(STEPMILL_WERROR "warnings are errors" ON)
set(STEPMILL_DEPS "$ENV{STEPMILL_DEPS}" CACHE PATH "sources fetched by scripts/deps.sh")
if(NOT STEPMILL_DEPS)
  set(STEPMILL_DEPS "${CMAKE_SOURCE_DIR}/.deps" CACHE PATH "sources fetched by scripts/deps.sh" FORCE)
endif()

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # __attribute__, statement-free; the public headers are plain C17
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
# The installed command finds its library beside it, wherever the tree was put; so do modules.
set(CMAKE_INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};$ORIGIN;$ORIGIN/..")
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(stepmill_flags INTERFACE)
target_compile_definitions(stepmill_flags INTERFACE _GNU_SOURCE)
target_compile_options(stepmill_flags INTERFACE -Wall -Wextra -Wshadow -Wpointer-arith -Wundef
  # for profilers and sanitizers; what users run does without a twentieth of a hop
  $<$<NOT:$<CONFIG:Release>>:-fno-omit-frame-pointer>
  $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes> $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
  $<$<COMPILE_LANGUAGE:C>:-Wvla> $<$<BOOL:${STEPMILL_WERROR}>:-Werror>)
if(STEPMILL_SANITIZE STREQUAL "address")
  target_compile_options(stepmill_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all)
  target_link_options(stepmill_flags INTERFACE -fsanitize=address,undefined)
  # gcc's name for it, which the sources ask for
  target_compile_definitions(stepmill_flags INTERFACE
                             $<$<OR:$<COMPILE_LANG_AND_ID:C,Clang>,$<COMPILE_LANG_AND_ID:CXX,Clang>>:__SANITIZE_ADDRESS__=1>)
elseif(STEPMILL_SANITIZE STREQUAL "thread")
  target_compile_options(stepmill_flags INTERFACE -fsanitize=thread)
  target_link_options(stepmill_flags INTERFACE -fsanitize=thread)
endif()
find_program(STEPMILL_LLD ld.lld)
if(STEPMILL_SANITIZE AND STEPMILL_LLD) # a hundred programs of 7 MB each: a quarter of the time of GNU ld
  target_link_options(stepmill_flags INTERFACE -fuse-ld=lld)
endif()
# Calls of our own public functions stay inside the library: nobody is meant to replace them, and each would cost a jump and its
# inlining.
target_compile_options(stepmill_flags INTERFACE -fno-semantic-interposition)
# gcc's generic tuning clears and copies small blocks with `rep stos` and `rep movs`, which take 30 cycles to start, and makes calls
# of memset out of loops over two entries.
include(CheckCCompilerFlag)
check_c_compiler_flag(-mmemset-strategy=unrolled_loop:256:noalign,libcall:-1:noalign STEPMILL_HAVE_STRATEGY)
if(STEPMILL_HAVE_STRATEGY)
  target_compile_options(stepmill_flags INTERFACE -mmemset-strategy=unrolled_loop:256:noalign,libcall:-1:noalign
    -mmemcpy-strategy=unrolled_loop:256:noalign,libcall:-1:noalign -fno-tree-loop-distribute-patterns)
endif()
find_package(Threads REQUIRED)
