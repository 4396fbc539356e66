# stm_sources(file...): files of this folder that belong to the core library.
function(stm_sources)
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  target_sources(stepmill_objects PRIVATE ${ARGN})
endfunction()

# stm_googletest(target optimised): a program of GoogleTest. Assertions cost more to compile than to run, and headers most of all:
# tests are compiled without optimisation, with the headers of GoogleTest and of the standard library compiled once for all of them
# (-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON shows which test leaves an #include out). Optimised are those that calculate much
# themselves. The undefined-behaviour sanitizer looks at what is tested, not at assertions, whose every reference it would check.
function(stm_googletest target optimised)
  target_link_libraries(${target} PRIVATE stepmill_flags GTest::gtest)
  if(STEPMILL_SANITIZE STREQUAL "address")
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=undefined>)
  endif()
  if(NOT optimised)
    # the last is for ccache
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O0> $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>)
    target_precompile_headers(${target} REUSE_FROM stepmill_test_headers)
    get_target_property(c_sources ${target} SOURCES)
    list(FILTER c_sources INCLUDE REGEX "\\.c$")
    set_source_files_properties(${c_sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
  endif()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    target_link_libraries(${target} PRIVATE GTest::gtest_main)
    # Plugins opened by the test find mill_* in it. No macro says so: compiled headers serve only those who define the same.
    set_target_properties(${target} PROPERTIES ENABLE_EXPORTS ON DEFINE_SYMBOL "")
  endif()
endfunction()

# stm_test(name LABELS unit SOURCES a.cc [LIBS ...] [TIMEOUT s] [COST s] [ARGS ...] [OPTIMISED]): one GoogleTest program over the
# engine's objects. One ctest entry per program keeps the suite's start-up cost low. COST is about how long a test takes where that
# is more than some 10 s, here as for every other test: ctest begins with the longest, so that none is left over at the end with a
# processor idle beside it.
function(stm_test name)
  cmake_parse_arguments(T "OPTIMISED" "TIMEOUT;COST" "LABELS;SOURCES;LIBS;ARGS" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE stepmill_objects stepmill_test_support ${T_LIBS})
  stm_googletest(${name} ${T_OPTIMISED})
  add_test(NAME ${name} COMMAND ${name} ${T_ARGS})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 300) # against hangs, not a measure: a loaded machine must not fail a test
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT} SKIP_REGULAR_EXPRESSION "ALL TESTS SKIPPED")
  if(T_COST)
    set_tests_properties(${name} PROPERTIES COST ${T_COST})
  endif()
  if("gpu" IN_LIST T_LABELS)
    set_property(GLOBAL APPEND PROPERTY STEPMILL_GPU_TESTS ${name})
  endif()
endfunction()

# stm_all_cases(where test...): these leave cases out under a sanitizer (address, thread, any), or in every build (every); there
# each has a second entry, test.all, which does all of them (mt::leaves_out, mt::does_every_case; label slow). To be called before
# the environment of an entry says what it leaves out.
function(stm_all_cases where)
  if(NOT where STREQUAL "every" AND (NOT STEPMILL_SANITIZE OR NOT where MATCHES "^(any|${STEPMILL_SANITIZE})$"))
    return()
  endif()
  foreach(test ${ARGN})
    if(NOT TEST ${test}) # not every mode is run there
      continue()
    endif()
    string(REGEX REPLACE "\\..*" "" program ${test})
    get_test_property(${test} ENVIRONMENT env)
    get_test_property(${test} LABELS labels)
    if(NOT env)
      set(env)
    endif()
    add_test(NAME ${test}.all COMMAND ${program})
    set_tests_properties(${test}.all PROPERTIES LABELS "${labels};slow" TIMEOUT 7200 SKIP_REGULAR_EXPRESSION "ALL TESTS SKIPPED"
                                                ENVIRONMENT "STM_TEST_ALL=1;${env}")
  endforeach()
endfunction()

# stm_suite(name SOURCES ... [OPTIMISED]): a suite that several programs run, each for another backend, compiled once: they list
# $<TARGET_OBJECTS:name> among their SOURCES, and say by stm_suite_for(program backend) what mt::suite_for() returns.
function(stm_suite name)
  cmake_parse_arguments(S "OPTIMISED" "" "SOURCES" ${ARGN})
  add_library(${name} OBJECT ${S_SOURCES})
  target_link_libraries(${name} PRIVATE stepmill_objects stepmill_test_support)
  stm_as_program(${name})
  stm_googletest(${name} ${S_OPTIMISED})
endfunction()
function(stm_suite_for program backend)
  stm_once(stepmill_suite_for_${backend} ${CMAKE_SOURCE_DIR}/tests/support/suite_for.cc)
  target_compile_definitions(stepmill_suite_for_${backend} PRIVATE STM_SUITE_FOR="${backend}")
  target_sources(${program} PRIVATE $<TARGET_OBJECTS:stepmill_suite_for_${backend}>)
endfunction()
# stm_once(name source): the object of a source that many programs have, compiled once.
function(stm_once name source)
  if(NOT TARGET ${name})
    add_library(${name} OBJECT ${source})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_link_libraries(${name} PRIVATE stepmill_flags)
    stm_as_program(${name})
  endif()
endfunction()
# Objects compiled as those of programs are, which differ from a library's.
function(stm_as_program target)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE -fPIE)
endfunction()

# stm_plugin(name SOURCES ...): a plugin for tests, examples or benches, built as a user would: public headers only.
function(stm_plugin name)
  cmake_parse_arguments(P "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} MODULE ${P_SOURCES})
  set_target_properties(${name} PROPERTIES PREFIX "")
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/include)
  target_link_libraries(${name} PRIVATE stepmill_flags ${P_LIBS})
endfunction()

# stm_fuzz(name SOURCES a.cc [LIBS ...] [MAX_BYTES n]): a program around LLVMFuzzerTestOneInput, with its corpus in
# tests/fuzz/corpus/<name>/ (one file an input, kept; what a find teaches goes there as a file named after the fault).
# Under STEPMILL_FUZZ libFuzzer drives it for STEPMILL_FUZZ_SECONDS (label fuzz), beginning with the corpus; in every other build it
# runs the corpus once (label unit).
function(stm_fuzz name)
  cmake_parse_arguments(F "" "MAX_BYTES" "SOURCES;LIBS" ${ARGN})
  set(corpus ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
  if(NOT F_MAX_BYTES)
    set(F_MAX_BYTES 65536)
  endif()
  add_executable(${name} ${F_SOURCES})
  target_link_libraries(${name} PRIVATE stepmill_objects ${F_LIBS})
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON)
  if(STEPMILL_FUZZ)
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer-no-link)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    set(found ${CMAKE_BINARY_DIR}/fuzz/${name})
    file(MAKE_DIRECTORY ${found})
    math(EXPR limit "${STEPMILL_FUZZ_SECONDS} + 120")
    add_test(NAME ${name} COMMAND ${name} -max_total_time=${STEPMILL_FUZZ_SECONDS} -timeout=10 -rss_limit_mb=2048
                                  -max_len=${F_MAX_BYTES} -print_final_stats=1 -artifact_prefix=${found}- ${found} ${corpus})
    set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT ${limit})
  else()
    stm_once(stepmill_replay_corpus ${CMAKE_SOURCE_DIR}/tests/support/replay_corpus.cc)
    target_sources(${name} PRIVATE $<TARGET_OBJECTS:stepmill_replay_corpus>)
    add_test(NAME ${name} COMMAND ${name} ${corpus})
    set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT 300)
  endif()
endfunction()

# stm_module(name SOURCES ... LIBS ...): libstepmill-<name>.so, a part with heavy dependencies that the library loads when it
# is asked for. Lies in stepmill/ beside libstepmill.so, in the build tree as in the installed one, so that the library
# finds it from its own place.
function(stm_module name)
  cmake_parse_arguments(M "" "" "SOURCES;LIBS" ${ARGN})
  add_library(stepmill-${name} MODULE ${M_SOURCES})
  target_include_directories(stepmill-${name} PRIVATE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/engine ${CMAKE_SOURCE_DIR})
  target_link_libraries(stepmill-${name} PRIVATE stepmill_flags ${M_LIBS})
  set_target_properties(stepmill-${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/stepmill)
  set_property(GLOBAL APPEND PROPERTY STEPMILL_MODULES stepmill-${name})
endfunction()

# stm_alloc_points(target): what the target's own objects allocate goes through tests/support/alloc_points.cc, which lets the n-th
# allocation fail.
function(stm_alloc_points target)
  target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/alloc_points.cc)
  foreach(call malloc calloc realloc free strdup strndup realpath _Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t)
    target_link_options(${target} PRIVATE LINKER:--wrap=${call})
  endforeach()
endfunction()

# stm_count_malloc(): the library count_malloc, preloaded by tests and benches, which counts the calls of the allocator in a whole
# process.
function(stm_count_malloc)
  if(TARGET count_malloc)
    return()
  endif()
  add_library(count_malloc MODULE ${CMAKE_SOURCE_DIR}/tests/support/count_malloc.c)
  set_target_properties(count_malloc PROPERTIES PREFIX "" C_VISIBILITY_PRESET default)
  target_compile_options(count_malloc PRIVATE -fno-builtin)
  target_link_libraries(count_malloc PRIVATE stepmill_flags ${CMAKE_DL_LIBS})
endfunction()
