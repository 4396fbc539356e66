/* The allocations of one module's own code, which has no fault points of the engine: in a module of its objects that is linked to alloc_points.cc the
 * n-th fails when a test says so. What libraries allocate that the module calls is not among them. */
#pragma once
#include <cstdint>

extern "C" {
/** Let the @p nth allocation from now on fail (from 0), once, counted over all threads. Found by dlsym in the module. */
void mt_alloc_arm(int64_t nth);
/** No further one fails; returns whether one did. */
bool mt_alloc_disarm(void);
/** Blocks of malloc and its kin that are not freed. (Those of operator new are not counted: code of the standard library that deletes them may be another program's copy.) */
int64_t mt_alloc_live(void);
}
