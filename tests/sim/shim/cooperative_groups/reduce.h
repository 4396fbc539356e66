// reduce() is in cooperative_groups.h of the simulator.
#pragma once
#include "../cooperative_groups.h"
