# Tests on the simulated CUDA devices of tests/sim. The functions exist in every build,
# and do nothing where the simulator is not built (tests/sim/CMakeLists.txt says why at configuration).

# stm_sim_kernels(target SOURCES a.cu b.cu): .cu files compiled as C++17 for the simulator.
function(stm_sim_kernels target)
  if(NOT TARGET sim_cudart)
    return()
  endif()
  cmake_parse_arguments(K "" "" "SOURCES" ${ARGN})
  add_library(${target} OBJECT ${K_SOURCES})
  set_source_files_properties(${K_SOURCES} PROPERTIES LANGUAGE CXX)
  target_link_libraries(${target} PRIVATE sim_device)
endfunction()

# stm_sim_test(name SOURCES a.cc [KERNELS target...] [LIBS ...] [MATRIX full|orders|once] [LABELS ...] [TIMEOUT s] [COST s] [ENV A=B
# ...] [OPTIMISED]): one GoogleTest program, entered into ctest once per mode: name.<order>[.lazy].
#   full    fwd, rev and two random orders, each eager and lazy          (default)
#   orders  the four orders, eager
#   once    fwd, eager: for tests that set modes themselves
# Under a sanitizer fwd and one random order (lazy in a full matrix): what it looks for depends on orders less than what the test
# does. The other orders are of the slow tier; under TSan, where they take an hour, they are not run.
function(stm_sim_test name)
  if(NOT TARGET sim_cudart)
    return()
  endif()
  cmake_parse_arguments(T "OPTIMISED" "MATRIX;TIMEOUT;COST" "SOURCES;KERNELS;LIBS;LABELS;ENV" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_KERNELS} ${T_LIBS} stepmill_flags sim_cudart)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests ${CMAKE_SOURCE_DIR}/tests/sim ${CMAKE_SOURCE_DIR}/include
                                             ${CMAKE_SOURCE_DIR}/engine ${CMAKE_SOURCE_DIR})
  stm_googletest(${name} ${T_OPTIMISED})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  set(modes fwd)
  set(others)
  if(T_MATRIX STREQUAL "orders")
    set(modes fwd rand:1)
    set(others rev rand:2)
  elseif(NOT T_MATRIX STREQUAL "once")
    set(modes fwd rand:1.lazy)
    set(others rev rand:1 rand:2 fwd.lazy rev.lazy rand:2.lazy)
  endif()
  if(STEPMILL_SANITIZE STREQUAL "thread")
    set(others)
  endif()
  foreach(mode ${modes} ${others})
    set(labels sim ${T_LABELS})
    if(STEPMILL_SANITIZE AND mode IN_LIST others)
      list(APPEND labels slow)
    endif()
    set(lazy 0)
    if(mode MATCHES "\\.lazy$")
      set(lazy 1)
    endif()
    string(REPLACE ".lazy" "" order ${mode})
    string(REPLACE ":" "" tag ${mode})
    add_test(NAME ${name}.${tag} COMMAND ${name})
    set_tests_properties(${name}.${tag} PROPERTIES LABELS "${labels}" TIMEOUT ${T_TIMEOUT}
                         SKIP_REGULAR_EXPRESSION "ALL TESTS SKIPPED"
                                                   ENVIRONMENT "STM_SIM_ORDER=${order};STM_SIM_LAZY=${lazy};${T_ENV}")
    if(T_COST)
      set_tests_properties(${name}.${tag} PROPERTIES COST ${T_COST})
    endif()
  endforeach()
endfunction()

# stm_tsan_cases(filter test...): under TSan, where a simulated GPU thread costs 300 times as much, these run the cases of the
# filter only: one at least of each kind of launch, stream and collective. All cases run in every other build, and there in the slow
# tier.
function(stm_tsan_cases filter)
  stm_all_cases(thread ${ARGN})
  foreach(test ${ARGN})
    if(STEPMILL_SANITIZE STREQUAL "thread" AND TEST ${test}) # not every mode is run there
      set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT "GTEST_FILTER=${filter}")
      set_property(TEST ${test} PROPERTY FAIL_REGULAR_EXPRESSION "Running 0 tests") # a filter that fits nothing
    endif()
  endforeach()
endfunction()
