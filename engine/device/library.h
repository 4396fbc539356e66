/*
 * Shared libraries of others: libcudart, libcublas, libnccl, and libarrow with libparquet. Modules need them, the core does not;
 * each is looked for when something needs it:
 *
 *   1. the folders of $STEPMILL_CUDA_LIBRARIES, of Arrow those of $STEPMILL_ARROW_DIR (parted by ':')
 *   2. where the loader looks ($LD_LIBRARY_PATH, the system's folders)
 *   3. beside the module that needs it, and where that had it when it was built (its RUNPATH)
 *   4. CUDA toolkits: $CUDA_HOME, $CUDA_PATH, /usr/local/cuda, /opt/cuda
 *   5. the PyPI wheels nvidia-cuda-runtime, nvidia-cublas, nvidia-nccl, pyarrow in a Python environment: $VIRTUAL_ENV, .venv (of
 *   CUDA .venv-cuda, too) of the working directory and of each folder above the program, the site-packages that the program itself
 *   lies in, those of each python3 in $PATH, and of the user
 *
 * A library that was opened stays open, so that a module which names it among its needs finds it under its name.
 */
#ifndef STM_DEVICE_LIBRARY_H
#define STM_DEVICE_LIBRARY_H

#include <stddef.h>

#include "stepmill/error.h"

/** Folder of the library or program that this code is in, without a slash at the end. False when that cannot be known. */
int stm_own_folder(char *out, size_t size);
/** Where module @p file lies: $STEPMILL_MODULES, beside the library or program, stepmill/ there, ../lib and ../lib/stepmill.
 *  MILL_ERR_NOT_FOUND: @p err names the places. */
mill_status stm_module_find(const char *file, char *path, size_t size, mill_error *err);
/** Open @p soname ("libcudart.so.13"); @p beside: folder of who needs it, may be NULL. @p where (may be NULL) gets the path. */
mill_status stm_library_open(const char *soname, const char *beside, void **out, char *where, size_t where_size, mill_error *err);
/** Open the libraries of others that module @p path names among its needs; the module itself is opened then as any plugin.
 *  @retval MILL_ERR_UNSUPPORTED  one is nowhere: @p err says which, and where it was looked for. */
mill_status stm_module_needs(const char *path, mill_error *err);
/**
 * Open module @p path after the libraries of others that it names among its needs.
 * @p libraries (may be NULL) gets "libcudart.so.13 (/usr/local/cuda/lib64/libcudart.so.13)", more parted by ", ".
 * @retval MILL_ERR_UNSUPPORTED  a library is nowhere, or the loader refuses: @p err says which and why.
 */
mill_status stm_module_open(const char *path, void **out, char *libraries, size_t size, mill_error *err);

#endif
