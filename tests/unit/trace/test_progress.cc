/* The line and the table: what they say, how they fit. */
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "pictures.h"
extern "C" {
#include "trace/progress.h"
}

using mt::Picture;
using mt::Text;

static std::string line(const stm_picture *p)
{
    Text t;
    stm_progress_line(p, t);
    return t.str();
}

static std::string table(const stm_picture *p, int width = 100, int height = 0, bool colour = false, int *lines = nullptr)
{
    Text t;
    const int n = stm_progress_table(p, width, height, colour, t);
    if (lines != nullptr) *lines = n;
    const std::string text = t.str();
    EXPECT_EQ(n, (int)std::count(text.begin(), text.end(), '\n'));
    return text;
}

static void moving(Picture &x)
{
    x.p->seconds = 2;
    x.step(0).rows_out = 2000;
    x.step(0).rate = 1000;
    x.step(0).done = 0.2;
    x.step(0).eta_s = 8;
    x.step(1).rows_in = x.step(1).rows_out = 1500;
    x.step(1).rows_failed = 3;
    x.step(1).queued_rows = 1234567;
    x.step(1).busy = 0.5;
    x.step(1).starved = 0.25;
    x.step(1).blocked = 0.125;
    x.step(1).crowded = 0.125;
    x.step(1).eta_s = 8;
    x.step(2).rows_in = 1500;
    x.step(2).eta_s = 8;
}

TEST(Progress, LineSaysRowsRateAndWhatIsLeft)
{
    Picture x;
    moving(x);
    EXPECT_EQ(line(x.p), "2 s: 2,000 of 10,000 rows in, 1,500 out, 1,000 rows/s, 3 rows failed, 8 s left\n");
    x.step(2).eta_s = -1; /* say, behind a global */
    EXPECT_EQ(line(x.p), "2 s: 2,000 of 10,000 rows in, 1,500 out, 1,000 rows/s, 3 rows failed, at least 8 s left\n");
    x.p->state = STM_PICTURE_DONE;
    EXPECT_EQ(line(x.p), "2 s: 2,000 of 10,000 rows in, 1,500 out, 1,000 rows/s, 3 rows failed\n");
}

/* The rate of a generator that has ended says nothing of the run. */
TEST(Progress, LineSaysWhereTheWorkIsOnceAllRowsAreMade)
{
    Picture x;
    moving(x);
    x.step(0).rows_out = 10000;
    x.step(0).phase = STM_PHASE_DONE;
    x.step(0).eta_s = x.step(2).eta_s = -1;
    x.step(1).rate = 250;
    x.step(1).eta_s = 34;
    const std::string name = x.step(1).name;
    EXPECT_EQ(line(x.p),
              "2 s: 10,000 of 10,000 rows in, 1,500 out, " + name + " at 1,500, 250 rows/s, 3 rows failed, at least 34 s left\n");
    x.step(1).eta_s = 0; /* before it has a rate: nothing is known */
    EXPECT_EQ(line(x.p), "2 s: 10,000 of 10,000 rows in, 1,500 out, " + name + " at 1,500, 250 rows/s, 3 rows failed\n");
    x.step(1).phase = STM_PHASE_DONE;
    x.step(2).rate = 900;
    EXPECT_EQ(line(x.p), "2 s: 10,000 of 10,000 rows in, 1,500 out, " + std::string(x.step(2).name) +
                             " at 1,500, 900 rows/s, 3 rows failed\n");
}

TEST(Progress, UnknownTotalHasNoEnd)
{
    Picture x;
    x.p->seconds = 2;
    x.step(0).rows_out = 2000;
    x.step(0).rate = 1000;
    x.step(1).phase = STM_PHASE_LOADING;
    EXPECT_EQ(line(x.p), "2 s: loading work, 2,000 rows in, 0 out, 1,000 rows/s\n");
}

TEST(Progress, TableHasAColumnForEachNumber)
{
    Picture x;
    moving(x);
    const std::string t = table(x.p);
    std::istringstream in(t);
    std::string head, columns, source, work;
    std::getline(in, head), std::getline(in, columns), std::getline(in, source), std::getline(in, work);
    EXPECT_EQ(columns, "step             replicas       rows   rows/s     queued   busy  starved  blocked  failed    left");
    EXPECT_EQ(source, "source  running       1/1      2,000    1,000          -      -        -        -       0     8 s");
    EXPECT_EQ(work, "work    running       2/2      1,500        0  1,234,567   50 %     25 %     12 %       3     8 s");
}

TEST(Progress, TableFitsAnyWindow)
{
    Picture x;
    moving(x);
    for (int width = 1; width < 130; width++)
        for (int height : {0, 1, 2, 3, 4, 5, 50}) {
            int lines = 0;
            std::istringstream in(table(x.p, width, height, false, &lines));
            for (std::string l; std::getline(in, l);) EXPECT_LE((int)l.size(), width) << width << "x" << height << ": " << l;
            if (height >= 5) {
                EXPECT_EQ(lines, 5);
            } else if (height == 4) {
                EXPECT_EQ(lines, 4) << "two of three steps do not fit: one and a note";
            }
        }
    EXPECT_EQ(table(x.p, 40).find("left"), std::string::npos) << "what matters least goes first";
    EXPECT_NE(table(x.p, 40).find("rows/s"), std::string::npos);
}

TEST(Progress, StepsAtRestGiveWayFirst)
{
    Picture x;
    x.step(0).phase = STM_PHASE_DONE;
    x.step(1).phase = STM_PHASE_FAILED;
    const std::string t = table(x.p, 100, 4);
    EXPECT_NE(t.find("work"), std::string::npos) << t;
    EXPECT_EQ(t.find("source"), std::string::npos) << t;
    EXPECT_NE(t.find("(2 more steps)"), std::string::npos) << t;
}

TEST(Progress, ColoursAddNothingButColours)
{
    Picture x;
    moving(x);
    std::string with = table(x.p, 100, 0, true), plain;
    for (size_t i = 0; i < with.size(); i++) {
        if (with[i] == '\033')
            while (with[i] != 'm') i++;
        else
            plain += with[i];
    }
    EXPECT_NE(with, plain);
    EXPECT_EQ(plain, table(x.p));
}
