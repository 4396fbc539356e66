#include "command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace mt {

static double now()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static std::string read_file(const std::string &path)
{
    std::string s;
    char buf[4096];
    FILE *f = fopen(path.c_str(), "re");
    if (f == nullptr) return s;
    for (size_t n; (n = fread(buf, 1, sizeof buf, f)) > 0;) s.append(buf, n);
    fclose(f);
    return s;
}

std::string Folder::write(const std::string &name, const std::string &text) const
{
    const std::string path = dir_.path() + "/" + name;
    FILE *f = fopen(path.c_str(), "we");
    if (f == nullptr || fwrite(text.data(), 1, text.size(), f) != text.size() || fclose(f) != 0) abort();
    return path;
}

std::string Folder::read(const std::string &name) const { return read_file(dir_.path() + "/" + name); }
bool Folder::has(const std::string &name) const { return access((dir_.path() + "/" + name).c_str(), F_OK) == 0; }

std::vector<std::string> Folder::list() const
{
    std::vector<std::string> names;
    for (const auto &e : std::filesystem::recursive_directory_iterator(dir_.path()))
        names.push_back(e.path().lexically_relative(dir_.path()));
    std::sort(names.begin(), names.end());
    return names;
}

/* ThreadSanitizer counts threads that are not joined when a process ends. A command that leaves at a deadline, because a step
 * does not return, cannot join them; every other report still counts. */
static bool allow_unjoined_threads()
{
    const char *was = getenv("TSAN_OPTIONS");
    const std::string now = std::string(was != nullptr ? was : "") + ":report_thread_leaks=0";
    return setenv("TSAN_OPTIONS", now.c_str(), 1) == 0;
}

Command::Command(const Folder &folder, const std::vector<std::string> &args) : start_(now())
{
    char out[] = "/tmp/stepmill-out-XXXXXX", err[] = "/tmp/stepmill-err-XXXXXX";
    const int out_fd = mkostemp(out, O_CLOEXEC), err_fd = mkostemp(err, O_CLOEXEC);
    static const bool allowed = allow_unjoined_threads(); /* this process read its own options when it began */
    if (!allowed) abort();
    std::vector<char *> argv = {(char *)STEPMILL_COMMAND};
    for (const std::string &a : args) argv.push_back((char *)a.c_str());
    argv.push_back(nullptr);
    out_path_ = out;
    err_path_ = err;
    pid_ = fork();
    if (pid_ == 0) {
        const int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(out_fd, 1);
        dup2(err_fd, 2);
        if (chdir(folder.path().c_str()) == 0) execv(STEPMILL_COMMAND, argv.data());
        _exit(126);
    }
    close(out_fd);
    close(err_fd);
}

bool Command::ended(double timeout_s)
{
    const double until = now() + timeout_s;
    rusage u;
    while (!done_) {
        if (wait4(pid_, &status_, WNOHANG, &u) == pid_) {
            done_ = true;
            seconds_ = now() - start_;
            switches_ = u.ru_nvcsw;
            cpu_ = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
        } else if (now() >= until) {
            return false;
        } else {
            usleep(1000);
        }
    }
    return true;
}

int Command::wait(double timeout_s)
{
    const bool in_time = ended(timeout_s);
    if (!in_time) {
        kill(pid_, SIGKILL);
        ended(10);
    }
    out_ = read_file(out_path_);
    err_ = read_file(err_path_);
    if (!in_time) return 2000;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 1000 + WTERMSIG(status_);
}

Command::~Command()
{
    if (!done_) {
        kill(pid_, SIGKILL);
        ended(10);
    }
    unlink(out_path_.c_str());
    unlink(err_path_.c_str());
}

pid_t Command::worker() const
{
    const std::string pid = std::to_string(pid_), path = "/proc/" + pid + "/task/" + pid + "/children";
    const std::string text = read_file(path);
    return text.empty() ? -1 : (pid_t)atoi(text.c_str());
}

void Command::signal(int sig) const { kill(pid_, sig); }

Result run(const Folder &folder, const std::vector<std::string> &args)
{
    Command c(folder, args);
    const int code = c.wait();
    return {code, c.out(), c.err(), c.seconds()};
}

} // namespace mt
