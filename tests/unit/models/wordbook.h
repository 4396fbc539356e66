/*
 * Vocabularies with tokens of every kind, and texts whose ids are known by how the texts were put together: nothing here looks for
 * tokens in a text.
 *
 * A token is a letter that says its kind and the number of its line, so that none begins like another and goes on like a third: w5
 * a word, x6 a piece (##x6), 一 an ideograph, é8 a word and ü9 a piece with an accent (kept where the vocabulary is cased, e8 and u9
 * where it is not), W10 a word of its own in a cased vocabulary, and punctuation. [PAD], [UNK], [CLS], [SEP] and [MASK] stand on
 * lines drawn by chance.
 */
#pragma once
#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace mt {

inline std::string utf8_of(uint32_t c) /* below 0x10000 */
{
    if (c < 0x80) return std::string(1, char(c));
    if (c < 0x800) return {char(0xc0 | c >> 6), char(0x80 | (c & 63))};
    return {char(0xe0 | c >> 12), char(0x80 | (c >> 6 & 63)), char(0x80 | (c & 63))};
}

class Wordbook {
public:
    std::vector<std::string> tokens; /* [size]; line n is id n */

    Wordbook(int size, bool cased, unsigned seed) : tokens(size_t(size)), cased_(cased)
    {
        std::mt19937 gen(seed);
        std::vector<int> lines(tokens.size());
        for (int i = 0; i < size; i++) lines[size_t(i)] = i;
        std::shuffle(lines.begin(), lines.end(), gen);
        size_t at = 0;
        for (const char *name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) {
            specials_.push_back({name, {lines[at]}});
            tokens[size_t(lines[at++])] = name;
        }
        for (int kind = 0; at < lines.size(); at++, kind++) {
            const int id = lines[at];
            const std::string number = std::to_string(id);
            std::string token;
            switch (kind % 7) {
            case 0:
            default: token = "w" + number, words_.push_back(id); break;
            case 1: token = "##x" + number, pieces_.push_back(id); break;
            case 2: token = utf8_of(uint32_t(0x4e00 + 37 * (id % 500))), signs_.push_back({token, {id}}); break;
            case 3: token = (cased ? "\xc3\xa9" : "e") + number, words_.push_back(id); break;
            case 4: token = std::string("##") + (cased ? "\xc3\xbc" : "u") + number, pieces_.push_back(id); break;
            case 5: token = (cased ? "W" : "v") + number, words_.push_back(id); break;
            case 6: /* as many as there are marks */
                if (kind / 7 < 6)
                    token = std::string(1, "!-?(/~"[kind / 7]), signs_.push_back({token, {id}});
                else
                    token = "w" + number, words_.push_back(id);
            }
            tokens[size_t(id)] = token;
        }
    }

    int id(const std::string &token) const { return int(std::find(tokens.begin(), tokens.end(), token) - tokens.begin()); }

    struct Text {
        std::string bytes;
        std::vector<int> ids;
    };
    /** A text of @p n ids, without those that the model puts around it. */
    Text text(int n, unsigned seed) const
    {
        std::mt19937 gen(seed);
        Text out;
        bool apart = true; /* what comes next needs a blank in front of it */
        while (int(out.ids.size()) < n) {
            const bool alone = gen() % 3 == 0; /* a token that ends the word before it, and is one */
            Text part = alone ? sign(gen) : word(gen);
            if (part.ids.size() > size_t(n) - out.ids.size()) part = {"q", {unknown()}};
            const bool splits = alone && part.ids.size() == 1 && part.bytes != "q";
            static const char *const blanks[] = {" ", "  ", "\t", "\n", "\xc2\xa0", "\xe3\x80\x80"};
            if (apart && !splits)
                out.bytes += blanks[gen() % 6];
            else if (gen() % 2 == 0)
                out.bytes += blanks[gen() % 6];
            out.bytes += part.bytes;
            out.ids.insert(out.ids.end(), part.ids.begin(), part.ids.end());
            apart = !splits;
        }
        return out;
    }

private:
    int unknown() const { return id("[UNK]"); }

    /* A token's text in one of the ways in which it may be written. */
    std::string written(int id, std::mt19937 &gen) const
    {
        std::string t = tokens[size_t(id)];
        if (t.compare(0, 2, "##") == 0) t.erase(0, 2);
        const std::string number = t.substr(t.find_first_of("0123456789"));
        const char kind = t[0];
        if (!cased_) {
            static const std::map<char, std::vector<const char *>> ways = {
                {'w', {"w", "W"}},
                {'v', {"v", "V"}},
                {'x', {"x", "X"}},
                {'e', {"e", "E", "\xc3\xa9", "\xc3\x89", "e\xcc\x81", "\xc3\xaa"}},
                {'u', {"u", "\xc3\xbc", "\xc3\x9c", "U\xcc\x88"}}};
            const auto &all = ways.at(kind);
            t = all[gen() % all.size()] + number;
        }
        if (gen() % 8 == 0) t.insert(t.size() - number.size(), gen() % 2 ? "\xe2\x80\x8b" : "\x01"); /* which cleaning takes away */
        return t;
    }

    Text word(std::mt19937 &gen) const
    {
        if (words_.empty() || gen() % 8 == 0) { /* unknown: from its first letter, in what goes on, by its case, or by its length */
            static const char *const strange[] = {"q7", "Q", "zebra", "\xc3\xb8"};
            if (words_.empty() || gen() % 2 == 0) return {strange[gen() % 4], {unknown()}};
            const int of = words_[gen() % words_.size()];
            if (cased_ && tokens[size_t(of)][0] == 'w' && gen() % 2 == 0) return {"W" + tokens[size_t(of)].substr(1), {unknown()}};
            const std::string begin = written(of, gen);
            return {begin + (gen() % 2 == 0 ? "q" : std::string(101, 'y')), {unknown()}};
        }
        const int first = words_[gen() % words_.size()];
        Text out = {written(first, gen), {first}};
        for (unsigned k = gen() % 4; k > 0 && !pieces_.empty(); k--) {
            const int piece = pieces_[gen() % pieces_.size()];
            out.bytes += written(piece, gen);
            out.ids.push_back(piece);
        }
        return out;
    }

    Text sign(std::mt19937 &gen) const
    {
        if (gen() % 4 == 0) return specials_[gen() % specials_.size()];
        if (signs_.empty() || gen() % 4 == 0)
            return {gen() % 2 ? "\xe3\x90\x80" : "&", {unknown()}}; /* an ideograph and a mark that are not there */
        return signs_[gen() % signs_.size()];
    }

    bool cased_;
    std::vector<int> words_, pieces_;
    std::vector<Text> specials_, signs_;
};

} // namespace mt
