/* A program goes with the process that started it, in whatever moment of the start that is killed: each moment is made to last
 * here. */
#include <gtest/gtest.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "steps/command/child.h"
#include "support/chain.h"

namespace {

enum Moment {
    BEFORE_IT_CLOSES, /* in its group, with all that it has of the process that starts it */
    BEFORE_IT_BEGINS, /* the same, with nothing of that any more */
    STARTED,          /* before the process that started it does anything else */
    RUNNING /* nothing is held */
};
struct Hold {
    Moment at = RUNNING;
    int starts = 0; /* the first is the guard's */
    std::string here, go; /* a file that is made there; a FIFO that is waited for then */
} hold;

int hold_there(posix_spawn_file_actions_t *a, Moment at)
{
    if (hold.at != at || hold.starts != 1) return 0;
    const int e = posix_spawn_file_actions_addopen(a, 200, hold.here.c_str(), O_WRONLY | O_CREAT, 0666);
    return e != 0 ? e : posix_spawn_file_actions_addopen(a, 201, hold.go.c_str(), O_RDONLY, 0);
}

} // namespace

extern "C" {
int __real_posix_spawnp(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const *,
                        char *const *);
int __real_posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *, int);

int __wrap_posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *a, int from)
{
    int e = hold_there(a, BEFORE_IT_CLOSES);

    if (e == 0) e = __real_posix_spawn_file_actions_addclosefrom_np(a, from);
    return e != 0 ? e : hold_there(a, BEFORE_IT_BEGINS);
}

int __wrap_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *a, const posix_spawnattr_t *attr,
                        char *const *argv, char *const *envp)
{
    const int e = __real_posix_spawnp(pid, file, a, attr, argv, envp);

    if (hold.at != RUNNING && hold.starts++ == 1 && hold.at == STARTED) raise(SIGKILL);
    return e;
}
}

/* What the killed process leaves becomes this one's: whether all of it has ended within 20 s. */
static bool all_end()
{
    for (int i = 0; i < 4000; i++) {
        pid_t pid;
        while ((pid = waitpid(-1, nullptr, WNOHANG)) > 0) {
        }
        if (pid < 0) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
}

/* For a test that fails: nothing stays. */
static void end_the_rest(const std::string &children)
{
    FILE *f = fopen(children.c_str(), "r");
    int pid;

    while (f != nullptr && fscanf(f, "%d", &pid) == 1) kill(pid, SIGKILL);
    if (f != nullptr) fclose(f);
    (void)all_end();
}

TEST(Guard, NoProgramSurvivesWhoeverStartedIt)
{
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    for (Moment at : {BEFORE_IT_CLOSES, BEFORE_IT_BEGINS, STARTED, RUNNING}) {
        SCOPED_TRACE(at);
        mt::Folder f;
        hold = {at, 0, f.path + "/here", f.path + "/go"};
        ASSERT_EQ(mkfifo(hold.go.c_str(), 0600), 0);
        const pid_t starter = fork();
        if (starter == 0) {
            const char *argv[] = {"sleep", "1000", nullptr};
            stm_child_opts o = {};
            o.argv = const_cast<char *const *>(argv);
            stm_child *c = nullptr;
            if (stm_child_create(&o, &c, nullptr) != MILL_OK || stm_child_start(c, nullptr) != MILL_OK) _exit(1);
            close(open(hold.here.c_str(), O_WRONLY | O_CREAT, 0666));
            for (;;) pause();
        }
        for (int i = 0; at != STARTED && i < 20000 && access(hold.here.c_str(), F_OK) != 0; i++) usleep(1000);
        if (at != STARTED) kill(starter, SIGKILL); /* else it does so itself */
        int status = 0;
        ASSERT_EQ(waitpid(starter, &status, 0), starter);
        EXPECT_TRUE(WIFSIGNALED(status)) << "the start failed: " << status;
        const int go = open(hold.go.c_str(), O_RDWR); /* whoever still waits there goes on */
        EXPECT_TRUE(all_end()) << "the program is still there";
        end_the_rest("/proc/self/task/" + std::to_string(getpid()) + "/children");
        close(go);
    }
    hold = {};
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}
