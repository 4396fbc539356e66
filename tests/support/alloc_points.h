/* Allocations of code that has no fault points of the engine: of a program's or module's own objects (stm_alloc_points in its
 * CMakeLists.txt), the n-th fails when a test says so. What libraries allocate that these call is not among them. */
#pragma once
#include <cstdint>

extern "C" {
/** Let the @p nth allocation from now on fail (from 0), once, counted over all threads. Found by dlsym in a module. */
void mt_alloc_arm(int64_t nth);
/** No further one fails; returns whether one did. */
bool mt_alloc_disarm(void);
/** Blocks of malloc and its kin that are not freed. (Those of operator new are not counted: code of the standard library that
 *  deletes them may be another program's copy.) */
int64_t mt_alloc_live(void);
}
