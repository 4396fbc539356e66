/* Symbol visibility, linkage and version of the public interface. */
#ifndef STEPMILL_EXPORT_H
#define STEPMILL_EXPORT_H

#define MILL_VERSION_MAJOR 0
#define MILL_VERSION_MINOR 1
#define MILL_VERSION_PATCH 0
#define MILL_VERSION "0.1.0"

#if defined(__GNUC__)
#define MILL_API __attribute__((visibility("default")))
#define MILL_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define MILL_API
#define MILL_PRINTF(fmt, first)
#endif

#ifdef __cplusplus
#define MILL_BEGIN_DECLS extern "C" {
#define MILL_END_DECLS }
#else
#define MILL_BEGIN_DECLS
#define MILL_END_DECLS
#endif

#endif
