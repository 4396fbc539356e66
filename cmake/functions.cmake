# stm_sources(file...): files of this folder that belong to the core library.
function(stm_sources)
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  target_sources(stepmill_objects PRIVATE ${ARGN})
endfunction()

# stm_test(name LABELS unit SOURCES a.cc [LIBS ...] [TIMEOUT s] [ARGS ...]): one GoogleTest program over the engine's objects.
# One ctest entry per program keeps the suite's start-up cost low.
function(stm_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "LABELS;SOURCES;LIBS;ARGS" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE stepmill_objects stepmill_test_support ${T_LIBS} GTest::gtest GTest::gtest_main)
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON) # plugins opened by the test find mill_* in it
  add_test(NAME ${name} COMMAND ${name} ${T_ARGS})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT} SKIP_REGULAR_EXPRESSION "ALL TESTS SKIPPED")
endfunction()

# stm_plugin(name SOURCES ...): a plugin for tests, examples or benches, built as a user would: public headers only.
function(stm_plugin name)
  cmake_parse_arguments(P "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} MODULE ${P_SOURCES})
  set_target_properties(${name} PROPERTIES PREFIX "")
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/include)
  target_link_libraries(${name} PRIVATE stepmill_flags ${P_LIBS})
endfunction()
