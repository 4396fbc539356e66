#include "topologies.h"

#include <cstdlib>

extern "C" {
#include "placement/visible.h"
}

namespace {

/* Four GPUs whose bus order is 2, 0, 3, 1; 1 and 2 begin alike; and one that is split, with a whole one beside it. */
const char kFour[] = "stepmill-topology 1\nnode 0 cpus 0-3\n"
                     "gpu 0 uuid GPU-8932f937-d72c-4106-c12f-20bd9faed9f6 pci 0000:20:00.0 memory 1GiB\n"
                     "gpu 1 uuid GPU-11112222-0000-0000-0000-000000000001 pci 0000:40:00.0 memory 1GiB\n"
                     "gpu 2 uuid GPU-11113333-0000-0000-0000-000000000002 pci 0000:10:00.0 memory 1GiB\n"
                     "gpu 3 uuid GPU-ffffffff-0000-0000-0000-000000000003 pci 0000:30:00.0 memory 1GiB\n";
const char kSplit[] = "stepmill-topology 1\nnode 0 cpus 0-3\n"
                      "gpu 0 uuid GPU-aaaa0000-1 pci 0000:10:00.0 memory 4GiB\n"
                      "mig 1 of 0 uuid MIG-bbbb0000-1 memory 1GiB instance 2/0\n"
                      "mig 2 of 0 uuid MIG-bbbb1111-1 memory 1GiB instance 3/0\n"
                      "gpu 3 uuid GPU-cccc0000-1 pci 0000:20:00.0 memory 4GiB\n"
                      "gpu 4 uuid GPU-dddd0000-1 pci 0000:30:00.0 memory 4GiB\n";

struct VisibleCase {
    const char *name;
    const char *machine;
    const char *value, *order; /* nullptr = not set */
    std::vector<int32_t> want;
    const char *note; /* part of it; "" = none */
};
const VisibleCase kCases[] = {
    {"unset", kFour, nullptr, nullptr, {0, 1, 2, 3}, ""},
    {"unset_by_bus", kFour, nullptr, "PCI_BUS_ID", {2, 0, 3, 1}, ""},
    {"fastest_first_is_the_default", kFour, nullptr, "FASTEST_FIRST", {0, 1, 2, 3}, ""},
    {"empty", kFour, "", nullptr, {}, "empty"},
    {"one", kFour, "2", nullptr, {2}, ""},
    {"any_order", kFour, "3,0,2,1", nullptr, {3, 0, 2, 1}, ""},
    {"any_order_by_bus", kFour, "3,0", "PCI_BUS_ID", {1, 2}, ""},
    {"minus_one", kFour, "-1", nullptr, {}, "\"-1\""},
    {"minus_one_ends_it", kFour, "0,2,-1,1", nullptr, {0, 2}, "\"-1\""},
    {"invalid_ends_it", kFour, "1,4,0", nullptr, {1}, "no such GPU"},
    {"invalid_first", kFour, "4,0", nullptr, {}, "no such GPU"},
    {"huge", kFour, "0,99999999999999999999", nullptr, {0}, "no such GPU"},
    {"word", kFour, "none", nullptr, {}, "no number"},
    {"no_dev_files", kFour, "NoDevFiles", nullptr, {}, "no number"},
    {"duplicate", kFour, "0,1,0", nullptr, {}, "twice"},
    {"duplicate_after_the_end", kFour, "0,9,0", nullptr, {0}, "no such GPU"},
    {"spaces", kFour, " 1, 2", nullptr, {1, 2}, ""},
    {"empty_entry", kFour, "1,,2", nullptr, {1}, "ignored"},
    {"comma_at_the_end", kFour, "1,", nullptr, {1}, "ignored"},
    {"junk_behind_digits", kFour, "1gpu,2x", nullptr, {1, 2}, ""},
    {"plus", kFour, "+1", nullptr, {1}, ""},
    {"leading_zero", kFour, "03", nullptr, {3}, ""},
    {"uuid", kFour, "GPU-ffffffff-0000-0000-0000-000000000003", nullptr, {3}, ""},
    {"uuid_short", kFour, "GPU-8932f937", nullptr, {0}, ""},
    {"uuid_any_order", kFour, "GPU-f,GPU-8", nullptr, {3, 0}, ""},
    {"uuid_not_unique", kFour, "GPU-ffff,GPU-1111,GPU-8", nullptr, {3}, "several GPUs begin so"},
    {"uuid_unique_enough", kFour, "GPU-11113,GPU-11112", nullptr, {2, 1}, ""},
    {"uuid_unknown", kFour, "GPU-8,GPU-0,GPU-f", nullptr, {0}, "no such GPU"},
    {"uuid_nothing_behind", kFour, "GPU-", nullptr, {}, "no such GPU"},
    {"uuid_other_case", kFour, "gpu-8932f937", nullptr, {}, "no number"},
    {"uuid_without_prefix", kFour, "8932f937", nullptr, {}, "no such GPU"},
    {"uuid_twice", kFour, "GPU-8,GPU-8932", nullptr, {}, "twice"},
    {"uuid_then_number", kFour, "GPU-8,1", nullptr, {0}, "not named like the first"},
    {"number_then_uuid", kFour, "1,GPU-8", nullptr, {1}, "no number"},
    {"too_long", kFour, "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6-and-more", nullptr, {}, "no such GPU"},
    {"mig", kSplit, "MIG-bbbb1111-1", nullptr, {2}, ""},
    {"mig_short", kSplit, "MIG-bbbb0", nullptr, {1}, ""},
    {"mig_not_unique", kSplit, "MIG-bbbb", nullptr, {}, "several"},
    {"mig_older_name", kSplit, "MIG-GPU-aaaa0000-1/3/0", nullptr, {2}, ""},
    {"mig_older_name_unknown", kSplit, "MIG-GPU-aaaa0000-1/9/0", nullptr, {}, "no such GPU"},
    {"only_the_first_mig", kSplit, "MIG-bbbb1,MIG-bbbb0", nullptr, {2}, "one MIG instance"},
    {"mig_unset", kSplit, nullptr, nullptr, {1}, "one MIG instance"},
    {"split_gpu_is_its_first_instance", kSplit, "0", nullptr, {1}, ""},
    {"numbers_count_whole_gpus", kSplit, "2,1", nullptr, {4, 3}, ""},
    {"whole_beside_split", kSplit, "1,0", nullptr, {1}, "one MIG instance"},
    {"whole_by_uuid", kSplit, "GPU-cccc", nullptr, {3}, ""},
};

TEST(Visible, AsCudaReadsIt)
{
    for (const VisibleCase &c : kCases) {
        SCOPED_TRACE(c.name);
        const mt::Topology t = mt::parse_topology(c.machine);
        stm_visible v;

        stm_visible_read(t.get(), c.value, c.order, &v);
        EXPECT_EQ(std::vector<int32_t>(v.gpus, v.gpus + v.n), c.want);
        if (c.note[0] == '\0')
            EXPECT_STREQ(v.note, "");
        else
            EXPECT_NE(strstr(v.note, c.note), nullptr) << v.note;
    }
}

TEST(Visible, NoGpusAtAll)
{
    const mt::Topology t = mt::read_topology("no-gpu.topo");
    stm_visible v;

    for (const char *value : {(const char *)nullptr, "", "0", "GPU-1", "-1"}) {
        stm_visible_read(t.get(), value, nullptr, &v);
        EXPECT_EQ(v.n, 0);
    }
}

/* Positions of the variable become positions of the topology: never sorted, never set. */
TEST(Visible, EnvironmentIsReadAndNotChanged)
{
    const mt::Topology all = mt::read_topology("nvswitch-8gpu.topo");
    const char list[] = "6,1,GPU-";
    stm_topology *t = nullptr;
    char note[160];

    setenv("CUDA_VISIBLE_DEVICES", list, 1);
    ASSERT_EQ(stm_visible_topology(all.get(), &t, note, nullptr), MILL_OK);
    EXPECT_STREQ(getenv("CUDA_VISIBLE_DEVICES"), list);
    unsetenv("CUDA_VISIBLE_DEVICES");
    ASSERT_EQ(t->n_gpus, 2);
    EXPECT_STREQ(t->gpus[0].uuid, all->gpus[6].uuid);
    EXPECT_STREQ(t->gpus[1].uuid, all->gpus[1].uuid);
    EXPECT_NE(note[0], '\0');
    stm_topology_destroy(&t);
}

} // namespace
