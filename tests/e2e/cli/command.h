/* Runs the command as a user would: a child process, its exit code, what it printed. */
#pragma once
#include <sys/types.h>

#include <string>
#include <vector>

#include "support/temp_dir.h"

namespace mt {

/** A folder that goes with the object, and its files. */
class Folder {
public:
    const std::string &path() const { return dir_.path(); }
    std::string write(const std::string &name, const std::string &text) const;
    std::string read(const std::string &name) const; /* "" when it is not there */
    bool has(const std::string &name) const;
    /** Names of everything in it, folders opened, in order. */
    std::vector<std::string> list() const;

private:
    TempDir dir_;
};

/** The command with @p args, started in @p folder. */
class Command {
public:
    Command(const Folder &folder, const std::vector<std::string> &args);
    ~Command(); /* kills what still runs */
    Command(const Command &) = delete;
    Command &operator=(const Command &) = delete;
    void signal(int sig) const;
    /** The process that it supervises, -1 = none is there. */
    pid_t worker() const;
    pid_t pid() const { return pid_; }
    /** Waits for the end; the exit code, or 1000 + the signal that ended it; 2000 when @p timeout_s passed (then it is killed). */
    int wait(double timeout_s = 60);
    /** Whether it ended within @p timeout_s. */
    bool ended(double timeout_s);
    const std::string &out() const { return out_; } /* after wait */
    const std::string &err() const { return err_; }
    double seconds() const { return seconds_; }
    long switches() const { return switches_; } /* voluntary, of the whole process */
    double cpu_seconds() const { return cpu_; }

private:
    pid_t pid_ = -1;
    int status_ = 0;
    bool done_ = false;
    double start_ = 0, seconds_ = 0, cpu_ = 0;
    long switches_ = 0;
    std::string out_path_, err_path_, out_, err_;
};

/** One call that runs to its end. */
struct Result {
    int code;
    std::string out, err;
    double seconds;
};
Result run(const Folder &folder, const std::vector<std::string> &args);

} // namespace mt
