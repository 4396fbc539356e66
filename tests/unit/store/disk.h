/*
 * A disk made of memory, behind the store's table of file operations: every change is recorded, any operation can be made
 * to fail, space can run out at any byte, and the power can be cut after any operation: what was not synced is then dropped,
 * kept, or torn.
 */
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

extern "C" {
#include "store/files.h"
}

namespace mt {

enum class Cut { Dropped, Kept, Torn };

class Disk {
public:
    struct Op {
        enum Kind { Write, Shorten, Sync, Create, Rename, Remove, SyncNames } kind;
        int inode = -1;
        int64_t at = 0;       /* Shorten: to so many bytes */
        /* bytes; names (Create: to = "/" makes a folder); of SyncNames the folder, "" = that of names without one */
        std::string data, to;
    };
    std::vector<Op> log;
    int64_t ops = 0;          /* calls that could fail, so far */
    int64_t fail_at = -1;     /* that one fails, */
    bool fail_on = false;     /* and all behind it */
    int fail_with = EIO;
    int64_t room = INT64_MAX; /* bytes that may still be written */

    stm_files files()
    {
        stm_files f = {};
        f.user = this;
        f.open = [](void *u, const char *name, stm_open_how how) { return self(u).open(name, how); };
        f.close = [](void *, int) {};
        f.pread = [](void *u, int fd, void *to, size_t n, int64_t at) { return self(u).pread(fd, to, n, at); };
        f.pwrite = [](void *u, int fd, const void *from, size_t n, int64_t at) { return self(u).pwrite(fd, from, n, at); };
        f.sync = [](void *u, int fd) { return self(u).note({Op::Sync, fd, 0, "", ""}); };
        f.size = [](void *u, int fd) { return static_cast<int64_t>(self(u).inodes_[static_cast<size_t>(fd)].size()); };
        f.rename = [](void *u, const char *from, const char *to) { return self(u).rename(from, to); };
        f.remove = [](void *u, const char *name) { return self(u).remove(name); };
        f.exists = [](void *u, const char *name) { return static_cast<int>(self(u).names.count(name)); };
        f.list = [](void *u, void (*each)(const char *, void *), void *ctx) {
            if (self(u).fails()) return -self(u).fail_with;
            for (const auto &n : self(u).names) each(n.first.c_str(), ctx);
            return 0;
        };
        f.sync_names = [](void *u) { return self(u).note({Op::SyncNames, -1, 0, "", ""}); };
        return f;
    }

    std::map<std::string, int> names;
    std::set<int> folders; /* inodes made with to == "/" */
    bool is_folder(int inode) const { return folders.count(inode) != 0; }
    std::string &contents(const std::string &name) { return inodes_[static_cast<size_t>(names.at(name))]; }
    int64_t used() const
    {
        int64_t n = 0;
        for (const auto &i : inodes_) n += static_cast<int64_t>(i.size());
        return n;
    }

    /** The disk as it is found when the power went after the first @p n recorded changes. */
    static std::unique_ptr<Disk> cut(const std::vector<Op> &log, size_t n, Cut how, uint32_t seed)
    {
        auto d = std::make_unique<Disk>();
        std::mt19937 rng(seed);
        std::map<int, std::vector<const Op *>> pending; /* writes not synced, by file */
        std::vector<const Op *> pending_names;
        auto coin = [&] { return (rng() & 1) != 0; };
        auto apply = [&](const Op &op, size_t from, size_t upto) {
            std::string &c = d->inode(op.inode);
            if (op.kind == Op::Shorten) return c.resize(static_cast<size_t>(op.at));
            if (c.size() < static_cast<size_t>(op.at) + upto) c.resize(static_cast<size_t>(op.at) + upto);
            memcpy(c.data() + op.at + from, op.data.data() + from, upto - from);
        };
        auto name = [&](const Op &op) {
            if (op.kind == Op::Create) d->names[op.data] = op.inode, d->inode(op.inode);
            if (op.kind == Op::Create && op.to == "/") d->folders.insert(op.inode);
            if (op.kind == Op::Rename && d->names.count(op.data)) d->names[op.to] = d->names[op.data], d->names.erase(op.data);
            if (op.kind == Op::Remove) d->names.erase(op.data);
        };
        for (size_t i = 0; i < n; i++) {
            const Op &op = log[i];
            switch (op.kind) {
            case Op::Write:
            case Op::Shorten: pending[op.inode].push_back(&op); break;
            case Op::Sync:
                for (const Op *w : pending[op.inode]) apply(*w, 0, w->data.size());
                pending.erase(op.inode);
                break;
            case Op::SyncNames: {
                std::vector<const Op *> others;
                for (const Op *o : pending_names)
                    if (folder_of(o->data) == op.data)
                        name(*o);
                    else
                        others.push_back(o);
                pending_names.swap(others);
                break;
            }
            default: pending_names.push_back(&op);
            }
        }
        for (const Op *o : pending_names)
            if (how == Cut::Kept || (how == Cut::Torn && coin())) name(*o);
        for (auto &file : pending)
            for (const Op *w : file.second) {
                const size_t size = w->data.size();
                if (how == Cut::Kept) apply(*w, 0, size);
                if (how != Cut::Torn) continue;
                /* all, nothing, a beginning, an end with a hole before it, sectors of 512 bytes here and there */
                switch (rng() % 5) {
                case 0: apply(*w, 0, size); break;
                case 1: break;
                case 2: apply(*w, 0, rng() % (size + 1)); break;
                case 3: apply(*w, rng() % (size + 1), size); break;
                default:
                    for (size_t at = 0; at < size; at += 512)
                        if (coin()) apply(*w, at, std::min(size, at + 512));
                }
            }
        return d;
    }

    static std::string folder_of(const std::string &name)
    {
        return name.find('/') == std::string::npos ? "" : name.substr(0, name.find_last_of('/'));
    }

private:
    std::vector<std::string> inodes_;
    static Disk &self(void *u) { return *static_cast<Disk *>(u); }
    std::string &inode(int i)
    {
        if (inodes_.size() <= static_cast<size_t>(i)) inodes_.resize(static_cast<size_t>(i) + 1);
        return inodes_[static_cast<size_t>(i)];
    }
    bool fails()
    {
        const int64_t i = ops++;
        return fail_at >= 0 && (i == fail_at || (fail_on && i > fail_at));
    }
    int note(Op op)
    {
        if (fails()) return -fail_with;
        log.push_back(std::move(op));
        return 0;
    }
    int open(const char *name, stm_open_how how)
    {
        if (fails()) return -fail_with;
        const auto there = names.find(name);
        if (there != names.end()) return how == STM_OPEN_NEW ? -EEXIST : there->second;
        if (how == STM_OPEN_READ) return -ENOENT;
        const int i = static_cast<int>(inodes_.size());
        inode(i);
        names[name] = i;
        log.push_back({Op::Create, i, 0, name, ""});
        return i;
    }
    int64_t pread(int fd, void *to, size_t n, int64_t at)
    {
        if (fails()) return -fail_with;
        const std::string &c = inodes_[static_cast<size_t>(fd)];
        if (at >= static_cast<int64_t>(c.size())) return 0;
        n = std::min(n, c.size() - static_cast<size_t>(at));
        memcpy(to, c.data() + at, n);
        return static_cast<int64_t>(n);
    }
    int64_t pwrite(int fd, const void *from, size_t n, int64_t at)
    {
        if (fails()) return -fail_with;
        std::string &c = inodes_[static_cast<size_t>(fd)];
        const int64_t grows = std::max<int64_t>(0, at + static_cast<int64_t>(n) - static_cast<int64_t>(c.size()));
        if (grows > room) n -= static_cast<size_t>(std::min<int64_t>(grows - room, static_cast<int64_t>(n)));
        if (n == 0) return -ENOSPC;
        room -= std::min(grows, room);
        if (c.size() < static_cast<size_t>(at) + n) c.resize(static_cast<size_t>(at) + n);
        memcpy(c.data() + at, from, n);
        log.push_back({Op::Write, fd, at, std::string(static_cast<const char *>(from), n), ""});
        return static_cast<int64_t>(n);
    }
    int rename(const char *from, const char *to)
    {
        if (names.count(from) == 0) return -ENOENT;
        const int e = note({Op::Rename, -1, 0, from, to});
        if (e == 0) names[to] = names[from], names.erase(from);
        return e;
    }
    int remove(const char *name)
    {
        if (names.count(name) == 0) return -ENOENT;
        const int e = note({Op::Remove, -1, 0, name, ""});
        if (e == 0) names.erase(name);
        return e;
    }
};

} // namespace mt
