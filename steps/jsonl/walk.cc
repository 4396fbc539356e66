#include "steps/jsonl/walk.h"

#include "steps/jsonl/scan.h"

namespace stm_jsonl_scan {

namespace {

constexpr size_t kDepth = 1024; /* simdjson's own limit */

enum Want { VALUE, ITEM_OR_END, KEY, KEY_OR_END, COLON, COMMA_OR_END };

class Walker {
public:
    Walker(const char *line, size_t bytes, const char *stop) : at_(line), end_(line + bytes), stop_(stop) {}

    Walk go()
    {
        space();
        if (at_ == end_ || *at_ != '{') return fail(at_, "expected an object of JSON");
        open('{');
        while (out_.fault == nullptr) {
            space();
            if (at_ > stop_ || (depth_ == 0 && at_ == end_)) break;
            if (depth_ == 0) return fail(at_, "there is more behind the object");
            if (at_ == end_) return fail(at_, inside('{') ? "an object is not closed" : "a list is not closed");
            step();
        }
        return out_;
    }

private:
    void step()
    {
        const char c = *at_;

        switch (want_) {
        case KEY_OR_END:
            if (c == '}') return close();
            [[fallthrough]];
        case KEY:
            if (c != '"') return (void)fail(at_, "expected a key in double quotes");
            if (depth_ == 1) out_.key = at_;
            want_ = COLON;
            return string();
        case COLON:
            if (c != ':') return (void)fail(at_, "expected a colon");
            want_ = VALUE;
            at_++;
            return;
        case COMMA_OR_END:
            if (c == (inside('{') ? '}' : ']')) return close();
            if (c != ',') return (void)fail(at_, inside('{') ? "expected a comma or }" : "expected a comma or ]");
            want_ = inside('{') ? KEY : VALUE;
            at_++;
            return;
        case ITEM_OR_END:
            if (c == ']') return close();
            [[fallthrough]];
        case VALUE: return value(c);
        }
    }

    void value(char c)
    {
        if (depth_ == 1) out_.value = at_;
        if (c == '{' || c == '[') return open(c);
        want_ = COMMA_OR_END;
        if (c == '"') return string();
        if (c == '-' || (c >= '0' && c <= '9')) return number();
        for (const char *word : {"true", "false", "null"})
            if (c == *word)
                return scalar(strncmp(at_, word, strlen(word)) == 0 ? at_ + strlen(word) : nullptr,
                              "a word that is not true, false or null");
        const bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        fail(at_, letter ? "a word that is not true, false or null" : "expected a value");
    }

    void number()
    {
        bool whole;
        scalar(number_end(at_, &whole), "a number is malformed or out of range");
    }

    /* Up to @p behind, where something has to end it. */
    void scalar(const char *behind, const char *cause)
    {
        if (behind == nullptr || behind > end_ || (behind < end_ && strchr(" \t\r\n,:]}[{\"", *behind) == nullptr) ||
            (behind < end_ && *behind == 0))
            return (void)fail(at_, cause);
        at_ = behind;
    }

    void string()
    {
        const char *const quote = at_++;
        char scratch[8];

        while (at_ < end_ && *at_ != '"') {
            if (static_cast<unsigned char>(*at_) < 0x20) return (void)fail(at_, "a string holds a control character");
            const char *const before = at_;
            char *to = scratch;
            if (*at_ != '\\')
                at_++;
            else if (!escape(at_, to) || at_ > end_)
                return (void)fail(before + 1 < end_ ? before : quote,
                                  before + 1 < end_ ? "a string holds a malformed escape" : "a string has no closing quote");
        }
        if (at_ == end_) return (void)fail(quote, "a string has no closing quote");
        at_++;
    }

    void open(char c)
    {
        if (depth_ == kDepth) return (void)fail(at_, "values are nested too deeply");
        stack_[depth_++] = c;
        want_ = c == '{' ? KEY_OR_END : ITEM_OR_END;
        at_++;
    }
    void close()
    {
        depth_--;
        want_ = COMMA_OR_END;
        at_++;
    }
    bool inside(char c) const { return stack_[depth_ - 1] == c; }
    void space()
    {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r' || *at_ == '\n')) at_++;
    }
    Walk fail(const char *where, const char *cause)
    {
        out_.fault = where, out_.cause = cause;
        return out_;
    }

    const char *at_, *const end_, *const stop_;
    Want want_ = KEY_OR_END;
    Walk out_;
    size_t depth_ = 0;
    char stack_[kDepth];
};

} // namespace

Walk walk(const char *line, size_t bytes, const char *stop) { return Walker(line, bytes, stop).go(); }

} // namespace stm_jsonl_scan
