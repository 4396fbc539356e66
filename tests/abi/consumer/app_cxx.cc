/* The same from C++17. */
#include <cstring>

#include <stepmill/step.h>

int main()
{
    return std::strcmp(mill_status_text(MILL_OK), mill_status_text(MILL_ERR_NOMEM)) != 0 ? 0 : 1;
}
