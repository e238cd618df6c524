#include "text_stream.h"

#include <random>

#include "test.h"

namespace inferno {
namespace {

constexpr const char * kReplacement = "\xEF\xBF\xBD";

std::string joined(TextStream stream, const std::vector<std::string> & pieces) {
    std::string out;
    for (const std::string & piece : pieces) {
        out += stream.push(piece);
        if (stream.stopped()) {
            return out;
        }
    }
    return out + stream.finish();
}

std::vector<std::string> cut(const std::string & text, std::mt19937 & random) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
        const size_t length = 1 + random() % 4;
        pieces.push_back(text.substr(at, length));
        at += length;
    }
    return pieces;
}

TEST(a_split_character_waits_for_its_rest) {
    TextStream stream({});
    CHECK_EQ(stream.push("a\xE2\x82"), "a");
    CHECK_EQ(stream.held_bytes(), size_t{2});
    CHECK_EQ(stream.push("\xAC!"), "\xE2\x82\xAC!");
}

TEST(a_character_that_never_ends_becomes_one_replacement) {
    TextStream stream({});
    stream.push("\xF0\x9F\x92");
    CHECK_EQ(stream.finish(), kReplacement);
}

TEST(broken_bytes_are_replaced_by_maximal_parts) {
    // The example of the Unicode standard, table 3-8.
    const std::string bytes = "\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64";
    const std::string r     = kReplacement;
    CHECK_EQ(joined(TextStream({}), {bytes}), "a" + r + r + r + "b" + r + "c" + r + r + "d");
}

TEST(surrogates_and_overlong_forms_are_broken) {
    const std::string r = kReplacement;
    CHECK_EQ(joined(TextStream({}), {"\xED\xA0\x80"}), r + r + r);
    CHECK_EQ(joined(TextStream({}), {"\xC0\xAF"}), r + r);
}

TEST(a_stop_text_is_found_across_pieces) {
    TextStream stream({"STOP"});
    CHECK_EQ(stream.push("go S"), "go ");
    CHECK_EQ(stream.push("TO"), "");
    CHECK_EQ(stream.push("P more"), "");
    CHECK(stream.stopped());
    CHECK_EQ(stream.stop_match(), "STOP");
}

TEST(what_only_looked_like_a_stop_text_is_released) {
    TextStream stream({"STOP"});
    CHECK_EQ(stream.push("STO"), "");
    CHECK_EQ(stream.push("NE"), "STONE");
}

TEST(held_text_is_released_at_the_end) {
    TextStream stream({"###"});
    CHECK_EQ(stream.push("a##"), "a");
    CHECK_EQ(stream.finish(), "##");
}

TEST(the_earliest_match_wins) {
    TextStream stream({"late", "b"});
    CHECK_EQ(stream.push("ab late"), "a");
    CHECK_EQ(stream.stop_match(), "b");
}

TEST(a_stop_text_of_many_byte_characters_is_found) {
    TextStream stream({"\xE2\x82\xAC\xE2\x82\xAC"});
    CHECK_EQ(stream.push("x\xE2\x82\xAC\xE2"), "x");
    CHECK_EQ(stream.push("\x82\xAC"), "");
    CHECK(stream.stopped());
}

TEST(cutting_bytes_differently_changes_nothing) {
    std::mt19937 random(7);
    for (int round = 0; round < 500; ++round) {
        std::string bytes;
        for (int i = 0; i < 40; ++i) {
            bytes.push_back(static_cast<char>(random() % 3 == 0 ? 'a' + random() % 3 : random() % 256));
        }
        const std::vector<std::string> stops{"ab", "bca"};
        CHECK_EQ(joined(TextStream(stops), cut(bytes, random)), joined(TextStream(stops), {bytes}));
    }
}

TEST(no_released_text_contains_a_stop_text) {
    std::mt19937 random(9);
    for (int round = 0; round < 500; ++round) {
        std::string text;
        for (int i = 0; i < 60; ++i) {
            text.push_back(static_cast<char>('a' + random() % 3));
        }
        const std::string out = joined(TextStream({"abc", "cc"}), cut(text, random));
        CHECK(out.find("abc") == std::string::npos);
        CHECK(out.find("cc") == std::string::npos);
        CHECK_EQ(text.compare(0, out.size(), out), 0);
    }
}

}  // namespace
}  // namespace inferno
