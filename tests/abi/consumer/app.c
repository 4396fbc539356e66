/* A program that uses the installed library: prints the version it was compiled for. */
#include <stdio.h>
#include <string.h>

#include <stepmill/error.h>
#include <stepmill/step.h>

int main(void)
{
    mill_error err = {0};
    char line[1024];

    if (mill_fail(&err, MILL_ERR_NOT_FOUND, "no %s", "such thing") != MILL_ERR_NOT_FOUND) return 1;
    mill_error_format(&err, line, sizeof line);
    if (strstr(line, "no such thing") == NULL) return 1;
    puts(MILL_VERSION);
    return 0;
}
